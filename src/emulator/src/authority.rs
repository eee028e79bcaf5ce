//! `emulator authority`: a root to trust in tests, in place of AWS's.

use std::path::PathBuf;

use anyhow::Context as _;
use attestation::software::TestAuthority;

/// Options of `emulator authority`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory to make; `root.pem` (to trust) and `root.key` (to sign with, mode 0600) are written into it.
    #[arg(long)]
    dir: PathBuf,
}

/// Makes the authority. Files of an existing one are not overwritten.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let authority = TestAuthority::generate().context("making a test authority")?;
    authority.save(&args.dir).with_context(|| format!("writing the test authority to {}", args.dir.display()))
}
