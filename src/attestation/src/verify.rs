//! From bytes to a document that can be believed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use coset::{
    CborSerializable as _, CoseSign1, Header, HeaderBuilder, TaggedCborSerializable as _, iana::Algorithm,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::aws_lc_rs::ECDSA_P384_SHA384;
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath, anchor_from_trusted_cert,
};

use crate::certificate::Link;
use crate::{Document, TrustRoot, VerifyError};

/// Most bytes a document may have. Real ones have under 6 KiB; the security module's answers end at 12 KiB.
pub const MAX_DOCUMENT_SIZE: usize = 16 * 1024;

/// CBOR tag 18 (COSE_Sign1) in its only one-byte form. The Nitro security module leaves it out; the AWS document
/// allows both.
const TAG: u8 = 0xd2;

/// Verifies an attestation document as it was at the time `at`: form and limits of all fields, certificates up to
/// `root` (validity, CA flags, path lengths, key usage, P-384 keys with SHA-384 only), and the signature.
///
/// What comes back was said by the holder of the root's trust, about some enclave at some time: whether it is the
/// expected enclave, and now, is the question to [`Document::check`].
pub fn verify(cose: &[u8], root: &TrustRoot, at: SystemTime) -> Result<Document, VerifyError> {
    let sign1 = parse(cose)?;
    let payload = sign1.payload.as_deref().ok_or_else(|| VerifyError::Cose("no payload".to_owned()))?;
    let document = Document::parse(payload)?;
    let at = at.duration_since(UNIX_EPOCH).map_err(|_| VerifyError::Clock)?;
    let signer = check_certificates(&document, root, at)?;
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, signer.p384_key()?);
    sign1
        .verify_signature(&[], |signature, signed| key.verify(signed, signature))
        .map_err(|_| VerifyError::Signature)?;
    Ok(document)
}

fn parse(cose: &[u8]) -> Result<CoseSign1, VerifyError> {
    if cose.len() > MAX_DOCUMENT_SIZE {
        return Err(VerifyError::TooLarge { limit: MAX_DOCUMENT_SIZE, actual: cose.len() });
    }
    let sign1 = match cose.first() {
        Some(&TAG) => CoseSign1::from_tagged_slice(cose),
        _ => CoseSign1::from_slice(cose),
    }
    .map_err(|error| VerifyError::Cose(error.to_string()))?;
    let es384 = HeaderBuilder::new().algorithm(Algorithm::ES384).build();
    if sign1.protected.header != es384 || sign1.unprotected != Header::default() {
        return Err(VerifyError::Header);
    }
    Ok(sign1)
}

/// Checks the certificates from the document's own up to the root; gives the document's own.
fn check_certificates(document: &Document, root: &TrustRoot, at: Duration) -> Result<Link, VerifyError> {
    let bundle: Vec<_> = document.cabundle.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let Some((root_der, intermediates)) = bundle.split_first() else {
        return Err(VerifyError::field("cabundle", "it is empty"));
    };
    let actual = TrustRoot::from_der(root_der);
    if actual != *root {
        return Err(VerifyError::RootNotTrusted { expected: *root, actual });
    }
    check_path(&document.certificate, root_der, intermediates, at)?;
    for (index, der) in document.cabundle.iter().enumerate() {
        let issuer = Link::parse(format!("cabundle[{index}]"), der)?;
        issuer.check_validity(at)?;
        issuer.check_signs_certificates()?;
    }
    let signer = Link::parse("document's own", &document.certificate)?;
    signer.check_signs_documents()?;
    Ok(signer)
}

/// Demands that the certificates chain in the order the bundle has them, each signed by the one before it.
fn check_path(
    leaf: &[u8],
    root: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    at: Duration,
) -> Result<(), VerifyError> {
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf).map_err(VerifyError::Chain)?;
    let anchors = [anchor_from_trusted_cert(root).map_err(VerifyError::Chain)?];
    let uses_all_in_order = |path: &VerifiedPath<'_>| {
        let upwards = path.intermediate_certificates().map(webpki::Cert::der);
        if upwards.eq(intermediates.iter().rev().cloned()) {
            Ok(())
        } else {
            Err(webpki::Error::UnknownIssuer)
        }
    };
    leaf.verify_for_usage(
        &[ECDSA_P384_SHA384],
        &anchors,
        intermediates,
        UnixTime::since_unix_epoch(at),
        AnyPurpose,
        None,
        Some(&uses_all_in_order),
    )
    .map(|_| ())
    .map_err(VerifyError::Chain)
}

/// The certificates of the Nitro security module name no extended key usage.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        purposes.into_iter().try_for_each(|purpose| purpose.map(|_| ()))
    }
}
