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
mod server;
mod sigv4;
#[cfg(test)]
mod tests;
mod tls;
mod uuid;

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, ensure};
use attestation::TrustRoot;
use serde_json::json;
use tokio::net::TcpListener;

use authority::{Authority, CERTIFICATE_FILE};
use fault::FaultFile;
use keys::KeyStore;
use operations::Service;
use server::{Kms, Server};
use sigv4::{Principal, Verifier};
use tls::Tls;

/// Options of `emulator kms`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Name that clients call it by; its certificate is for this name.
    #[arg(long, default_value = "kms.us-east-1.amazonaws.com")]
    host: String,
    /// Region that requests have to be signed for [default: the region in --host]
    #[arg(long)]
    region: Option<String>,
    /// Account that owns the keys: 12 digits.
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// Directory to write kms-ca.pem to, the certificate authority to trust.
    #[arg(long)]
    state_dir: PathBuf,
    /// Directory with that authority, kms-ca.pem and kms-ca.key; made if it is not there [default: one for this run]
    #[arg(long)]
    authority_dir: Option<PathBuf>,
    /// PEM file of the root that attestation documents have to be under.
    #[arg(long)]
    attestation_root: PathBuf,
    /// A principal and its access key, as ARN:ACCESS_KEY_ID:SECRET_ACCESS_KEY; repeat for more.
    #[arg(long = "principal", required = true)]
    principals: Vec<Principal>,
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
    let server = start(args).await?;
    let ca = state_dir.join(CERTIFICATE_FILE);
    fs::write(&ca, server.ca_pem()).with_context(|| format!("cannot write {}", ca.display()))?;
    println!("{}", json!({"address": server.address()?.to_string(), "ca": ca}));
    server.serve().await.context("cannot accept connections")
}

/// Listens from here on; answers once it serves.
async fn start(args: Args) -> anyhow::Result<Server> {
    let region = args.region.as_deref().or_else(|| region_of(&args.host)).with_context(|| {
        format!("--host {} is not kms.REGION.amazonaws.com; say --region, too", args.host)
    })?;
    ensure!(
        args.account.len() == 12 && args.account.bytes().all(|byte| byte.is_ascii_digit()),
        "--account {:?} is not 12 digits",
        args.account
    );
    let root = fs::read_to_string(&args.attestation_root)
        .with_context(|| format!("cannot read --attestation-root {}", args.attestation_root.display()))?;
    let root = TrustRoot::from_pem(&root)
        .with_context(|| format!("--attestation-root {}", args.attestation_root.display()))?;
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let keys = KeyStore::new(region.to_owned(), args.account);
    let verifier = Verifier { region: region.to_owned(), principals: args.principals };
    let service = Service::new(keys, root, FaultFile(args.fault_file), args.refused_document);
    let authority = match &args.authority_dir {
        Some(directory) => Authority::load_or_create(directory),
        None => Authority::generate(),
    };
    let tls = Tls::generate(&args.host, authority.context("the authority of KMS's TLS")?)?;
    Ok(Server::new(listener, tls, Kms { service, verifier }))
}

fn region_of(host: &str) -> Option<&str> {
    host.strip_prefix("kms.")?.strip_suffix(".amazonaws.com").filter(|region| !region.contains('.'))
}
