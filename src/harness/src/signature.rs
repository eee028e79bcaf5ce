use anyhow::{Context as _, Result, bail};

/// Verifies a signature with an implementation that has no code in common with the signing side: ed25519-dalek
/// (`verify_strict`) or libsecp256k1 (BIP340).
pub fn verify_signature(scheme: &str, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<()> {
    match scheme {
        "frost-ed25519" => {
            let key = ed25519_dalek::VerifyingKey::from_bytes(public_key.try_into()?)?;
            let signature = ed25519_dalek::Signature::from_slice(signature)?;
            key.verify_strict(message, &signature).context("ed25519-dalek refuses the signature")
        }
        "frost-secp256k1-tr" => {
            let key = secp256k1::XOnlyPublicKey::from_byte_array(public_key.try_into()?)?;
            let signature = secp256k1::schnorr::Signature::from_byte_array(signature.try_into()?);
            let context = secp256k1::Secp256k1::verification_only();
            context.verify_schnorr(&signature, message, &key).context("libsecp256k1 refuses the signature")
        }
        other => bail!("no independent verifier for the scheme {other}"),
    }
}
