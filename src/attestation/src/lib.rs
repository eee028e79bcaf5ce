//! Attestation documents of AWS Nitro Enclaves: how an enclave gets one from its security module ([`Nsm`]), how anybody
//! verifies one ([`verify()`], [`Document::check`]), and the arithmetic of what it measures ([`Pcr`], [`Measurements`]).
//!
//! Trust has one input, a [`TrustRoot`]; there is no switch that turns a check off. Documents made by the software
//! security module (feature `software-nsm`) take the same way under another root.
//!
//! Sources: AWS, "Attestation process" (`docs/attestation_process.md` of `aws-nitro-enclaves-nsm-api`; named "the AWS
//! document" below); RFC 9052 (COSE); RFC 5280 (X.509).

mod certificate;
mod document;
mod error;
mod measurements;
mod nsm;
mod pcr;
mod trust;
mod verify;

#[cfg(feature = "software-nsm")]
pub mod software;

pub use certificate::spki_sha256;
pub use document::{Document, Expected, Freshness, MAX_CLOCK_SKEW};
pub use error::{MismatchError, NsmError, TextError, VerifyError};
pub use measurements::Measurements;
pub use nsm::{Description, DeviceNsm, Nsm, open};
pub use pcr::{PCR_CONFIGURATION, PCR_COUNT, Pcr, sha384};
pub use trust::TrustRoot;
pub use verify::{MAX_DOCUMENT_SIZE, verify};

pub use aws_nitro_enclaves_nsm_api::api::{ErrorCode, Request, Response};
