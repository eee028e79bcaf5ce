//! `emulator kms`: AWS KMS for one account in one region, as far as attested unsealing needs it. It judges signatures,
//! key policies and attestation documents as AWS does, and forgets everything when it ends.

pub(crate) mod authority;
mod blob;
mod envelope;
mod error;
mod fault;
mod keys;
mod operations;
mod policy;
mod recipient;
mod request;
#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use attestation::TrustRoot;

use crate::aws::{
    args::{Identity, ServiceArgs},
    fault::FaultFile,
    region_of,
    server::Server,
};
use keys::KeyStore;
use operations::Service;

/// Options of `emulator kms`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    service: ServiceArgs,
    /// Name that clients call it by; its certificate is for this name.
    #[arg(long, default_value = "kms.us-east-1.amazonaws.com")]
    host: String,
    /// Region that requests have to be signed for [default: the region in --host]
    #[arg(long)]
    region: Option<String>,
    /// Directory to write kms-ca.pem to, the certificate authority to trust.
    #[arg(long)]
    state_dir: PathBuf,
    /// PEM file of the root that attestation documents have to be under.
    #[arg(long)]
    attestation_root: PathBuf,
    /// JSON file that says how to misbehave, read at each Decrypt with a recipient: {"mode": MODE, "delay_ms": N}. Modes:
    /// none, delay, hang, deny, internal-error, plaintext, truncate-cms, alter-cms, alter-cms-content,
    /// alter-cms-plaintext.
    #[arg(long)]
    fault_file: Option<PathBuf>,
    /// File to write attestation documents to that are not believed, each in the place of the one before.
    #[arg(long)]
    refused_document: Option<PathBuf>,
}

/// Serves until the process ends.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let state_dir = args.state_dir.clone();
    start(args).await?.run(&state_dir).await
}

/// Listens from here on; answers once it serves.
async fn start(args: Args) -> anyhow::Result<Server<Service>> {
    let region = args.region.as_deref().or_else(|| region_of("kms", &args.host)).with_context(|| {
        format!("--host {} is not kms.REGION.amazonaws.com; say --region, too", args.host)
    })?;
    let root = fs::read_to_string(&args.attestation_root)
        .with_context(|| format!("cannot read --attestation-root {}", args.attestation_root.display()))?;
    let root = TrustRoot::from_pem(&root)
        .with_context(|| format!("--attestation-root {}", args.attestation_root.display()))?;
    let keys = KeyStore::new(region.to_owned(), args.service.account.clone());
    let service = Service::new(keys, root, FaultFile(args.fault_file), args.refused_document);
    let region = Some(region.to_owned());
    let identity = Identity { name: "kms", region, hosts: &[args.host], authority: authority::KIND };
    args.service.bind(identity, service).await
}
