//! The Nitro security module, seen from inside the enclave.

mod device;
#[cfg(feature = "software-nsm")]
mod socket;

use std::collections::BTreeSet;

use aws_nitro_enclaves_nsm_api::api::{Request, Response};

pub use device::DeviceNsm;

use crate::{NsmError, Pcr};

#[cfg(feature = "software-nsm")]
pub(crate) const LOCATIONS: &str = "use \"device\" or \"unix:PATH\"";
#[cfg(not(feature = "software-nsm"))]
pub(crate) const LOCATIONS: &str = "use \"device\" (this build has no other, by design)";

/// Opens the security module at `location`: `device` is `/dev/nsm`. Builds with the feature `software-nsm` also know
/// `unix:PATH`, the socket of a software security module.
pub fn open(location: &str) -> Result<Box<dyn Nsm>, NsmError> {
    if location == "device" {
        return Ok(Box::new(DeviceNsm::open()?));
    }
    #[cfg(feature = "software-nsm")]
    if let Some(path) = location.strip_prefix("unix:") {
        return Ok(Box::new(socket::SocketNsm::open(path)?));
    }
    Err(NsmError::Location(location.to_owned()))
}

/// What the module says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Id of the module, unique to the launch of an enclave.
    pub module_id: String,
    /// How many PCRs there are.
    pub max_pcrs: u16,
    /// Indexes of those that can no longer be extended.
    pub locked_pcrs: BTreeSet<u16>,
}

/// A security module. All calls block until it has answered.
pub trait Nsm: Send + Sync {
    /// Sends one request of AWS's API and receives the answer, which may be an error of the module.
    fn request(&self, request: Request) -> Result<Response, NsmError>;

    /// What the module says of itself.
    fn describe(&self) -> Result<Description, NsmError> {
        match ask(self, "DescribeNSM", Request::DescribeNSM)? {
            Response::DescribeNSM { module_id, max_pcrs, locked_pcrs, .. } => {
                Ok(Description { module_id, max_pcrs, locked_pcrs })
            }
            other => Err(unexpected("DescribeNSM", &other)),
        }
    }

    /// Whether a PCR is locked, and its value.
    fn describe_pcr(&self, index: u16) -> Result<(bool, Pcr), NsmError> {
        match ask(self, "DescribePCR", Request::DescribePCR { index })? {
            Response::DescribePCR { lock, data } => Ok((lock, pcr("DescribePCR", &data)?)),
            other => Err(unexpected("DescribePCR", &other)),
        }
    }

    /// Extends a PCR with `data` as it is (see [`Pcr::extend`]) and gives its new value. Refused for locked ones.
    fn extend_pcr(&self, index: u16, data: &[u8]) -> Result<Pcr, NsmError> {
        match ask(self, "ExtendPCR", Request::ExtendPCR { index, data: data.to_vec() })? {
            Response::ExtendPCR { data } => pcr("ExtendPCR", &data),
            other => Err(unexpected("ExtendPCR", &other)),
        }
    }

    /// Locks a PCR: its value is final, and in all documents from now on. Refused for locked ones.
    fn lock_pcr(&self, index: u16) -> Result<(), NsmError> {
        match ask(self, "LockPCR", Request::LockPCR { index })? {
            Response::LockPCR => Ok(()),
            other => Err(unexpected("LockPCR", &other)),
        }
    }

    /// Locks the PCRs 0 to `range` - 1; those that are locked stay so.
    fn lock_pcrs(&self, range: u16) -> Result<(), NsmError> {
        match ask(self, "LockPCRs", Request::LockPCRs { range })? {
            Response::LockPCRs => Ok(()),
            other => Err(unexpected("LockPCRs", &other)),
        }
    }

    /// Random bytes of the hypervisor: 256 of them, or fewer, never none.
    fn random(&self) -> Result<Vec<u8>, NsmError> {
        match ask(self, "GetRandom", Request::GetRandom)? {
            Response::GetRandom { random } if !random.is_empty() => Ok(random),
            other => Err(unexpected("GetRandom", &other)),
        }
    }

    /// An attestation document (COSE_Sign1) over up to 512 bytes of `user_data`, 512 of `nonce`, 1024 of `public_key`.
    fn attest(
        &self,
        user_data: Option<&[u8]>,
        nonce: Option<&[u8]>,
        public_key: Option<&[u8]>,
    ) -> Result<Vec<u8>, NsmError> {
        let request = Request::Attestation {
            user_data: user_data.map(|bytes| bytes.to_vec().into()),
            nonce: nonce.map(|bytes| bytes.to_vec().into()),
            public_key: public_key.map(|bytes| bytes.to_vec().into()),
        };
        match ask(self, "Attestation", request)? {
            Response::Attestation { document } => Ok(document),
            other => Err(unexpected("Attestation", &other)),
        }
    }
}

fn ask<N: Nsm + ?Sized>(nsm: &N, operation: &'static str, request: Request) -> Result<Response, NsmError> {
    match nsm.request(request)? {
        Response::Error(code) => Err(NsmError::Refused { operation, code }),
        response => Ok(response),
    }
}

/// Names the answer without its contents: random bytes do not belong into logs.
fn unexpected(operation: &'static str, response: &Response) -> NsmError {
    let name = format!("{response:?}");
    let name = name.split([' ', '{', '(']).next().unwrap_or_default();
    NsmError::Answer { operation, reason: format!("it is a {name} or empty") }
}

fn pcr(operation: &'static str, data: &[u8]) -> Result<Pcr, NsmError> {
    <[u8; 48]>::try_from(data).map(Pcr::from_bytes).map_err(|_| NsmError::Answer {
        operation,
        reason: format!("a PCR has 48 bytes, not {}", data.len()),
    })
}
