//! `emulator nsm`: what the Nitro hypervisor does for one enclave. It measures the files the enclave is made of by
//! itself, takes nobody's word for them, and answers as the security module until it is killed.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use attestation::Measurements;
use attestation::software::{self, SoftwareNsm, TestAuthority};

/// Options of `emulator nsm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unix socket to answer on. One that a module has left behind is replaced.
    #[arg(long)]
    socket: PathBuf,
    /// Directory made by `emulator authority`.
    #[arg(long)]
    authority_dir: PathBuf,
    /// The enclave's first program, measured into PCR0 and PCR1.
    #[arg(long)]
    enclave: PathBuf,
    /// The sign service, measured into PCR0 and PCR2.
    #[arg(long)]
    sign_service: PathBuf,
    /// `enclave.toml`, measured into PCR0 and PCR2.
    #[arg(long)]
    config: PathBuf,
    /// Plays an enclave started in debug mode: all PCRs are zero.
    #[arg(long)]
    debug_mode: bool,
}

/// Serves until the process is killed.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let authority = TestAuthority::load(&args.authority_dir)
        .with_context(|| format!("reading the test authority in {}", args.authority_dir.display()))?;
    let measurements = Measurements::of_process_files(&args.enclave, &args.sign_service, &args.config)
        .context("measuring the enclave's files")?;
    let nsm = if args.debug_mode {
        SoftwareNsm::debug(&authority)?
    } else {
        SoftwareNsm::new(&authority, measurements)?
    };
    let listener = listen(&args.socket)?;
    let pcrs = if args.debug_mode { Measurements::ZERO } else { measurements };
    println!("{}", serde_json::json!({ "ready": true, "pcrs": pcrs }));
    tokio::task::spawn_blocking(move || software::serve(listener, Arc::new(nsm))).await??;
    Ok(())
}

/// Binds the socket. A module that is killed cannot remove its own; one that still answers is not pushed aside, since
/// its enclave would talk to registers that are not its.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        anyhow::bail!(
            "{}: another security module answers there; end it or use another path",
            path.display()
        );
    }
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path).with_context(|| format!("removing the old socket {}", path.display()))?;
    }
    UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))
}
