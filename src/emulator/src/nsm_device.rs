//! `emulator nsm-device`: the security module as the virtio device of one enclave in QEMU. The program plays the Nitro
//! hypervisor: it measures the image by itself, and offers the module over vhost-user, so that the enclave's kernel and
//! its driver run unchanged.
//!
//! The parts: [`exchange`] answers the bytes of one request, [`ring`] finds requests in the ring that the driver shares
//! with the device, [`backend`] gets that ring from QEMU.

mod backend;
mod exchange;
mod ring;

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use attestation::Measurements;
use attestation::software::{SoftwareNsm, TestAuthority};
use vhost::vhost_user::Listener;

/// Options of `emulator nsm-device`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unix socket on which to wait for QEMU (vhost-user). A socket that is there already is replaced: this program
    /// removes its own as soon as QEMU has connected.
    #[arg(long)]
    socket: PathBuf,
    /// Directory made by `emulator authority`.
    #[arg(long)]
    authority_dir: PathBuf,
    /// The image that QEMU will boot, measured into PCR0, PCR1 and PCR2.
    #[arg(long, value_name = "IMAGE")]
    eif: PathBuf,
    /// Plays an enclave started in debug mode: all PCRs are zero.
    #[arg(long)]
    debug_mode: bool,
}

/// Serves one QEMU, and ends when it does.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let authority = TestAuthority::load(&args.authority_dir)
        .with_context(|| format!("reading the test authority in {}", args.authority_dir.display()))?;
    let measurements = measure(&args.eif)?;
    let (nsm, pcrs) = if args.debug_mode {
        (SoftwareNsm::debug(&authority)?, Measurements::ZERO)
    } else {
        (SoftwareNsm::new(&authority, measurements)?, measurements)
    };
    let listener = listen(&args.socket)?;
    writeln!(std::io::stdout(), "{}", serde_json::json!({ "ready": true, "pcrs": pcrs }))
        .context("telling on stdout that the device is ready")?;
    tokio::task::spawn_blocking(move || backend::serve(nsm, listener)).await?
}

fn measure(image: &Path) -> anyhow::Result<Measurements> {
    let file = File::open(image).with_context(|| format!("opening the image {}", image.display()))?;
    let summary = eif::scan(BufReader::new(file), |_, _, _| Ok(()))
        .with_context(|| format!("measuring the image {}", image.display()))?;
    Ok(summary.measurements)
}

/// Binds the socket. Only a socket makes way: a file of another kind was named by mistake.
fn listen(path: &Path) -> anyhow::Result<Listener> {
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path).with_context(|| format!("removing the old socket {}", path.display()))?;
    }
    Listener::new(path, false).with_context(|| format!("listening on {}", path.display()))
}
