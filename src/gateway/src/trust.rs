//! What a node has to prove before it gets a session, and the check of its proof.
//!
//! The proof is an attestation document fetched over the very connection it vouches for: its `user_data` is the
//! SHA-256 of the connection's server key, so nobody between the gateway and the enclave can have answered.

use std::{collections::BTreeMap, time::SystemTime};

use api::{control::Configuration, sign::GetAttestationResponse};
use attestation::{Expected, Pcr, TrustRoot};

use crate::NodeError;

/// What is trusted.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The root of the attestation documents' certificate chains.
    pub root: TrustRoot,
    /// The enclave images that may sign, by PCR0.
    pub pcr0: Vec<Pcr>,
    /// The sealed bundles they may have opened, by SHA-256.
    pub bundles: Vec<[u8; 32]>,
}

/// What an accepted document says.
#[derive(Debug, Clone)]
pub struct Attested {
    /// All PCRs of the document.
    pub pcrs: BTreeMap<u16, Pcr>,
    /// The boot configuration, which PCR16 names.
    pub configuration: Configuration,
    /// SHA-256 of the server key's SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
}

impl Trust {
    /// Accepts `evidence` if, at the time `at`, it is a document of the trust root over `nonce`, bound to the server
    /// key `spki_sha256`, of a listed image, whose PCR16 names exactly the configuration and sealed bundle beside it,
    /// and that bundle is listed.
    pub fn verify(
        &self,
        evidence: &GetAttestationResponse,
        nonce: &[u8; 32],
        spki_sha256: &[u8; 32],
        at: SystemTime,
    ) -> Result<Attested, NodeError> {
        let sealed_bundle: [u8; 48] = evidence
            .sealed_bundle_sha384
            .as_slice()
            .try_into()
            .map_err(|_| NodeError::BundleDigestLength { actual: evidence.sealed_bundle_sha384.len() })?;
        let document = attestation::verify(&evidence.document, &self.root, at)?;
        // Documents show only registers that are locked, so PCR16 cannot have been changed since.
        document.check(&Expected {
            nonce: Some(nonce),
            user_data: Some(spki_sha256),
            pcr0: &self.pcr0,
            pcr16: Some(Pcr::of_digests(&[attestation::sha384(&evidence.configuration), sealed_bundle])),
            ..Expected::default()
        })?;
        let configuration = Configuration::from_canonical_bytes(&evidence.configuration)?;
        if !self.bundles.iter().any(|listed| listed[..] == configuration.bundle_sha256[..]) {
            return Err(NodeError::Bundle { actual: hex::encode(&configuration.bundle_sha256) });
        }
        Ok(Attested { pcrs: document.pcrs, configuration, spki_sha256: *spki_sha256 })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use attestation::{
        Measurements, MismatchError, Nsm as _, VerifyError,
        software::{SoftwareNsm, TestAuthority},
    };

    use super::*;

    const NONCE: [u8; 32] = [1; 32];
    const SPKI: [u8; 32] = [2; 32];
    const SEALED_BUNDLE: [u8; 48] = [3; 48];
    const BUNDLE: [u8; 32] = [4; 32];

    fn configuration() -> Configuration {
        Configuration {
            region: "eu-central-1".to_owned(),
            kms_key_id: "1234".to_owned(),
            epoch: 1,
            bundle_sha256: BUNDLE.to_vec(),
            max_sessions: 64,
            session_deadline_ms: 30_000,
            kms_timeout_ms: 10_000,
        }
    }

    /// Trust in a new root, and the evidence of an enclave under it that measured `configuration` as it is.
    fn evidence_over(configuration: Vec<u8>) -> (Trust, GetAttestationResponse) {
        let authority = TestAuthority::generate().unwrap();
        let measurements = Measurements::of_parts(&[b"kernel"], &[b"runtime"], &[b"application"]);
        let pcr0 = vec![measurements.pcr0];
        let nsm = SoftwareNsm::new(&authority, measurements).unwrap();
        nsm.extend_pcr(16, &attestation::sha384(&configuration)).unwrap();
        nsm.extend_pcr(16, &SEALED_BUNDLE).unwrap();
        nsm.lock_pcr(16).unwrap();
        let document = nsm.attest(Some(&SPKI), Some(&NONCE), None).unwrap();
        let sealed_bundle_sha384 = SEALED_BUNDLE.to_vec();
        let trust = Trust { root: TrustRoot::from_der(authority.root_der()), pcr0, bundles: vec![BUNDLE] };
        (trust, GetAttestationResponse { document, configuration, sealed_bundle_sha384 })
    }

    fn evidence() -> (Trust, GetAttestationResponse) {
        evidence_over(configuration().canonical_bytes())
    }

    fn verify(trust: &Trust, evidence: &GetAttestationResponse) -> Result<Attested, NodeError> {
        trust.verify(evidence, &NONCE, &SPKI, SystemTime::now())
    }

    #[test]
    fn a_proof_of_everything_is_accepted() {
        let (trust, evidence) = evidence();
        let attested = verify(&trust, &evidence).unwrap();
        assert_eq!(attested.configuration, configuration());
        assert_eq!(attested.spki_sha256, SPKI);
        assert_eq!(attested.pcrs[&0], trust.pcr0[0]);
    }

    #[test]
    fn one_listed_image_and_bundle_among_several_are_enough() {
        let (mut trust, evidence) = evidence();
        trust.pcr0.insert(0, Pcr::from_bytes([9; 48]));
        trust.bundles.insert(0, [9; 32]);
        verify(&trust, &evidence).unwrap();
    }

    #[test]
    fn a_document_over_another_nonce_or_key_is_refused() {
        let (trust, evidence) = evidence();
        let now = SystemTime::now();
        for (nonce, spki, named) in [([9; 32], SPKI, "nonce"), (NONCE, [9; 32], "user_data")] {
            let error = trust.verify(&evidence, &nonce, &spki, now).unwrap_err();
            let NodeError::Mismatch(MismatchError::Field { field, .. }) = error else { panic!("{error}") };
            assert_eq!(field, named);
        }
    }

    #[test]
    fn a_document_is_refused_when_its_certificates_have_expired() {
        let (trust, evidence) = evidence();
        let later = SystemTime::now() + Duration::from_hours(24);
        let error = trust.verify(&evidence, &NONCE, &SPKI, later).unwrap_err();
        assert!(matches!(
            error,
            NodeError::Document(VerifyError::Chain(_) | VerifyError::Certificate { .. })
        ));
    }

    #[test]
    fn configuration_and_bundle_other_than_measured_are_refused() {
        let (trust, honest) = evidence();
        let mut other = configuration();
        other.max_sessions += 1;
        let configuration = other.canonical_bytes();
        for evidence in [
            GetAttestationResponse { configuration, ..honest.clone() },
            GetAttestationResponse { sealed_bundle_sha384: vec![9; 48], ..honest.clone() },
        ] {
            let error = verify(&trust, &evidence).unwrap_err();
            assert!(matches!(error, NodeError::Mismatch(MismatchError::Pcr { index: 16, .. })), "{error}");
        }
    }

    #[test]
    fn a_configuration_that_was_measured_but_is_malformed_is_refused() {
        let mut bytes = configuration().canonical_bytes();
        bytes.extend([0xf8, 0x01, 0x01]); // field 31, varint 1
        let (trust, evidence) = evidence_over(bytes);
        let error = verify(&trust, &evidence).unwrap_err();
        assert!(matches!(error, NodeError::Configuration(api::ConfigurationError::NotCanonical)), "{error}");
    }

    #[test]
    fn a_bundle_digest_of_another_length_is_refused() {
        let (trust, mut evidence) = evidence();
        evidence.sealed_bundle_sha384.pop();
        let error = verify(&trust, &evidence).unwrap_err();
        assert!(matches!(error, NodeError::BundleDigestLength { actual: 47 }), "{error}");
    }
}
