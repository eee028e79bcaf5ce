use std::{
    fs::File,
    io::{BufReader, Read, Seek as _, Write as _},
    path::Path,
    time::Duration,
};

use api::{
    MAX_BUNDLE_BYTES, MAX_IDENTITY_CIPHERTEXT_BYTES,
    control::{
        self, Configuration, Credentials, FailureReason, GetBootRequest, GetSealedBundleRequest,
        parent_client::ParentClient,
    },
};
use aws_lc_rs::digest::{Context, Digest, SHA256, SHA384};
use tokio::time::timeout;
use tonic::transport::Channel;
use vsock::Peer;

use crate::{
    error::{BootError, Facts, because},
    key_file::nameless_file,
    parent,
};

/// How long the parent may take for its answer, and for each chunk of the bundle.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the parent gives to start with, checked as far as it can be.
pub(crate) struct Boot {
    pub(crate) configuration: Configuration,
    /// The same, as it came: canonical.
    pub(crate) configuration_bytes: Vec<u8>,
    pub(crate) identity_ciphertext: Vec<u8>,
    pub(crate) credentials: Credentials,
    /// Announced size of the sealed bundle, bytes.
    pub(crate) bundle_size: u64,
}

/// The sealed bundle, in memory: a file without a name on tmpfs. Ciphertext.
pub(crate) struct SealedBundle {
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) sha384: [u8; 48],
}

impl SealedBundle {
    pub(crate) fn reader(&self) -> std::io::Result<impl Read> {
        let mut file = &self.file;
        file.rewind()?;
        Ok(BufReader::with_capacity(64 << 10, file))
    }
}

/// A connection for the downloads alone. When it is dropped its buffers are freed, and with that wiped: the credentials
/// came through them, and the buffers of the stream of the enclave's life would keep them for as long.
pub(crate) struct Downloads(ParentClient<Channel>);

impl Downloads {
    pub(crate) async fn connect(parent: &Peer) -> Result<Self, BootError> {
        parent::dial(parent).await.map(Self)
    }
}

/// Fetches the configuration, the encrypted identity and the credentials.
pub(crate) async fn fetch_boot(downloads: &mut Downloads) -> Result<Boot, BootError> {
    let boot = answer("GetBoot", downloads.0.get_boot(GetBootRequest {})).await?.into_inner();
    check_boot(boot)
}

fn check_boot(boot: control::Boot) -> Result<Boot, BootError> {
    let configuration = Configuration::from_canonical_bytes(&boot.configuration)
        .map_err(|error| BootError::new(FailureReason::ConfigurationInvalid, error.to_string()))?;
    let identity_bytes = boot.identity_ciphertext.len();
    if identity_bytes == 0 || identity_bytes > MAX_IDENTITY_CIPHERTEXT_BYTES {
        let problem = format!(
            "the encrypted identity has {identity_bytes} bytes; expected 1 to {MAX_IDENTITY_CIPHERTEXT_BYTES}"
        );
        return Err(BootError::new(FailureReason::IdentityInvalid, problem));
    }
    if boot.bundle_size == 0 || boot.bundle_size > MAX_BUNDLE_BYTES {
        let problem = format!(
            "the sealed bundle is announced with {} bytes; expected 1 to {MAX_BUNDLE_BYTES}",
            boot.bundle_size
        );
        return Err(BootError::new(FailureReason::BundleCorrupt, problem));
    }
    let credentials = boot.credentials.ok_or_else(|| protocol("it sent no AWS credentials"))?;
    Ok(Boot {
        configuration,
        configuration_bytes: boot.configuration,
        identity_ciphertext: boot.identity_ciphertext,
        credentials,
        bundle_size: boot.bundle_size,
    })
}

/// Downloads the sealed bundle, never more than was announced, and checks that it is the configured one.
pub(crate) async fn fetch_bundle(
    downloads: Downloads,
    configuration: &Configuration,
    announced: u64,
    work_dir: &Path,
    facts: &mut Facts,
) -> Result<SealedBundle, BootError> {
    let sealed = download(downloads, announced, work_dir).await?;
    facts.insert("bundle_sha256_ciphertext".to_owned(), hex::encode(sealed.sha256));
    if sealed.sha256[..] != configuration.bundle_sha256[..] {
        let problem = format!(
            "the sealed bundle has SHA-256 {}; the configuration says {}",
            hex::encode(sealed.sha256),
            hex::encode(&configuration.bundle_sha256),
        );
        return Err(BootError::new(FailureReason::BundleCorrupt, problem));
    }
    Ok(sealed)
}

async fn download(
    mut downloads: Downloads,
    announced: u64,
    work_dir: &Path,
) -> Result<SealedBundle, BootError> {
    let kept = || because(FailureReason::Internal, "cannot keep the sealed bundle in the work directory");
    let mut file = nameless_file(work_dir, "service_key_shares.json.age").map_err(kept())?;
    let (mut sha256, mut sha384) = (Context::new(&SHA256), Context::new(&SHA384));
    let mut size = 0_u64;
    let request = downloads.0.get_sealed_bundle(GetSealedBundleRequest {});
    let mut chunks = answer("GetSealedBundle", request).await?.into_inner();
    while let Some(chunk) = answer("GetSealedBundle", chunks.message()).await? {
        size += chunk.data.len() as u64;
        if size > announced {
            return Err(protocol(&format!("it announced a bundle of {announced} bytes and sent more")));
        }
        sha256.update(&chunk.data);
        sha384.update(&chunk.data);
        file.write_all(&chunk.data).map_err(kept())?;
    }
    if size != announced {
        return Err(protocol(&format!("it announced a bundle of {announced} bytes and sent {size}")));
    }
    Ok(SealedBundle { file, size, sha256: array(&sha256.finish())?, sha384: array(&sha384.finish())? })
}

fn array<const N: usize>(digest: &Digest) -> Result<[u8; N], BootError> {
    digest.as_ref().try_into().map_err(because(FailureReason::Internal, "a digest has the wrong length"))
}

async fn answer<T>(
    call: &str,
    pending: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, BootError> {
    timeout(ANSWER_TIMEOUT, pending)
        .await
        .map_err(|_| protocol(&format!("{call} had no answer within {} seconds", ANSWER_TIMEOUT.as_secs())))?
        .map_err(|status| protocol(&format!("{call} failed: {status}")))
}

fn protocol(problem: &str) -> BootError {
    BootError::new(FailureReason::ParentUnreachable, format!("the parent: {problem}"))
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
