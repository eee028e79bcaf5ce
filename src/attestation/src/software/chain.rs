//! The certificates of one module: root, region, zone, instance, leaf, with the names, usages and lifetimes that AWS's
//! have.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, date_time_ymd,
};

use super::{MARKER, SoftwareError, TestAuthority};

const HOUR: Duration = Duration::from_hours(1);
/// AWS's leaf is valid from a few seconds before its first document.
const LEEWAY: Duration = Duration::from_secs(3);
const LEAF_VALID_FOR: Duration = HOUR.saturating_mul(3);

pub(super) fn generate_key() -> Result<KeyPair, SoftwareError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?)
}

pub(super) fn parameters(common_name: &str, from: SystemTime, to: SystemTime) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, MARKER);
    name.push(DnType::CommonName, common_name);
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name;
    // rcgen speaks in dates of a crate that nothing else here needs.
    let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    parameters.not_before = date_time_ymd(1970, 1, 1) + since_1970(from);
    parameters.not_after = date_time_ymd(1970, 1, 1) + since_1970(to);
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

/// A leaf certificate with its key and issuers.
pub(super) struct Chain {
    pub(super) certificate: Vec<u8>,
    pub(super) cabundle: Vec<Vec<u8>>,
    key: EcdsaKeyPair,
    valid_until: SystemTime,
}

impl Chain {
    pub(super) fn issue(
        authority: &TestAuthority,
        instance: &str,
        module_id: &str,
        now: SystemTime,
    ) -> Result<Self, SoftwareError> {
        let ca = |name: &str, path_length, age: Duration, lifetime: Duration| {
            let mut parameters = parameters(name, now - age, now - age + lifetime);
            parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            parameters
        };
        let cas = [
            ca("test-region-1.nitro-sign", 2, HOUR * 3, HOUR * 24 * 20),
            ca("zonal.test-region-1.nitro-sign", 1, HOUR * 2, HOUR * 24 * 6),
            ca(&format!("{instance}.test-region-1.nitro-sign"), 0, HOUR, HOUR * 24),
        ];
        let mut cabundle = vec![authority.root_der().to_vec()];
        let mut issuer = authority.issuer()?;
        for parameters in cas {
            let key = generate_key()?;
            cabundle.push(parameters.signed_by(&key, &issuer)?.der().to_vec());
            issuer = Issuer::new(parameters, key);
        }
        let valid_until = now + LEAF_VALID_FOR;
        let mut leaf =
            parameters(&format!("{module_id}.test-region-1.nitro-sign"), now - LEEWAY, valid_until + LEEWAY);
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment];
        let key = generate_key()?;
        let certificate = leaf.signed_by(&key, &issuer)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.serialized_der())
            .map_err(|_| SoftwareError::Cryptography)?;
        Ok(Self { certificate: certificate.der().to_vec(), cabundle, key, valid_until })
    }

    /// Whether the leaf has half of its life before it.
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        now + LEAF_VALID_FOR / 2 < self.valid_until
    }

    /// Signs with ES384: r ‖ s, 96 bytes.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SoftwareError> {
        let signature =
            self.key.sign(&SystemRandom::new(), message).map_err(|_| SoftwareError::Cryptography)?;
        Ok(signature.as_ref().to_vec())
    }
}
