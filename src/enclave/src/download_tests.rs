use std::fs;

use super::*;
use crate::fake_parent::{FakeParent, valid_boot};

const BUNDLE: &[u8] = b"a sealed bundle, which is bytes to whoever only carries it";

/// Fetches everything from `fake`, as the boot does.
async fn fetch(fake: FakeParent) -> Result<(Boot, SealedBundle, Facts), BootError> {
    let fake = fake.serve();
    let mut downloads = Downloads::connect(&fake.peer()).await?;
    let boot = fetch_boot(&mut downloads).await?;
    let work_dir = tempfile::tempdir().unwrap();
    let mut facts = Facts::new();
    let sealed =
        fetch_bundle(downloads, &boot.configuration, boot.bundle_size, work_dir.path(), &mut facts).await?;
    assert_eq!(fs::read_dir(work_dir.path()).unwrap().count(), 0, "the download has a name");
    Ok((boot, sealed, facts))
}

async fn refusal(fake: FakeParent) -> BootError {
    fetch(fake).await.err().expect("it must be refused")
}

#[tokio::test]
async fn a_bundle_in_several_chunks_arrives_whole_with_its_digests() {
    let fake =
        FakeParent { boot: valid_boot(BUNDLE), chunks: BUNDLE.chunks(7).map(<[u8]>::to_vec).collect() };
    let (boot, sealed, facts) = fetch(fake).await.unwrap();
    let mut content = Vec::new();
    sealed.reader().unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, BUNDLE);
    assert_eq!(sealed.size, boot.bundle_size);
    assert_eq!(sealed.sha384, attestation::sha384(BUNDLE));
    assert_eq!(facts["bundle_sha256_ciphertext"], hex::encode(&boot.configuration.bundle_sha256));
}

#[tokio::test]
async fn a_bundle_with_another_digest_is_corrupt_and_both_digests_are_named() {
    let mut altered = BUNDLE.to_vec();
    altered[3] ^= 1;
    let error = refusal(FakeParent { boot: valid_boot(BUNDLE), chunks: vec![altered] }).await;
    assert_eq!(error.reason, FailureReason::BundleCorrupt);
    assert!(error.message.contains(&hex::encode(&valid_configuration().bundle_sha256)), "{}", error.message);
}

fn valid_configuration() -> Configuration {
    Configuration::from_canonical_bytes(&valid_boot(BUNDLE).configuration).unwrap()
}

#[tokio::test]
async fn more_bytes_than_announced_are_refused() {
    let error =
        refusal(FakeParent { boot: valid_boot(BUNDLE), chunks: vec![BUNDLE.to_vec(), b"!".to_vec()] }).await;
    assert_eq!(error.reason, FailureReason::ParentUnreachable);
    assert!(error.message.contains("sent more"), "{}", error.message);
}

#[tokio::test]
async fn fewer_bytes_than_announced_are_refused() {
    let error = refusal(FakeParent { boot: valid_boot(BUNDLE), chunks: vec![BUNDLE[1..].to_vec()] }).await;
    assert_eq!(error.reason, FailureReason::ParentUnreachable);
    assert!(error.message.contains(&format!("sent {}", BUNDLE.len() - 1)), "{}", error.message);
}

#[tokio::test]
async fn a_chunk_far_above_the_limit_is_refused() {
    let huge = vec![0; 128 << 10];
    let error = refusal(FakeParent { boot: valid_boot(&huge), chunks: vec![huge] }).await;
    assert_eq!(error.reason, FailureReason::ParentUnreachable);
}

#[tokio::test]
async fn a_bundle_above_the_cap_is_refused_before_a_byte_of_it_is_fetched() {
    let boot = control::Boot { bundle_size: MAX_BUNDLE_BYTES + 1, ..valid_boot(BUNDLE) };
    let error = refusal(FakeParent { boot, chunks: vec![] }).await;
    assert_eq!(error.reason, FailureReason::BundleCorrupt);
    assert!(error.message.contains(&MAX_BUNDLE_BYTES.to_string()), "{}", error.message);
}

#[tokio::test]
async fn an_empty_bundle_is_refused() {
    let boot = control::Boot { bundle_size: 0, ..valid_boot(BUNDLE) };
    assert_eq!(refusal(FakeParent { boot, chunks: vec![] }).await.reason, FailureReason::BundleCorrupt);
}

#[tokio::test]
async fn a_configuration_with_an_unknown_field_is_invalid() {
    let mut boot = valid_boot(BUNDLE);
    boot.configuration.extend([0xf8, 0x01, 0x01]);
    let error = refusal(FakeParent { boot, chunks: vec![BUNDLE.to_vec()] }).await;
    assert_eq!(error.reason, FailureReason::ConfigurationInvalid);
    assert!(error.message.contains("canonical"), "{}", error.message);
}

#[tokio::test]
async fn an_identity_of_the_wrong_size_is_invalid() {
    for size in [0, MAX_IDENTITY_CIPHERTEXT_BYTES + 1] {
        let boot = control::Boot { identity_ciphertext: vec![1; size], ..valid_boot(BUNDLE) };
        let error = refusal(FakeParent { boot, chunks: vec![BUNDLE.to_vec()] }).await;
        assert_eq!(error.reason, FailureReason::IdentityInvalid);
    }
}

#[tokio::test]
async fn no_credentials_are_the_parents_fault() {
    let boot = control::Boot { credentials: None, ..valid_boot(BUNDLE) };
    let error = refusal(FakeParent { boot, chunks: vec![BUNDLE.to_vec()] }).await;
    assert_eq!(error.reason, FailureReason::ParentUnreachable);
    assert!(error.message.contains("credentials"), "{}", error.message);
}
