//! The certificate authority that clients of this KMS trust.

use std::path::PathBuf;

use crate::aws::authority::{Authority, Kind};

pub(crate) const KIND: Kind = Kind {
    name: "KMS stand-in (not for production)",
    certificate_file: "kms-ca.pem",
    key_file: "kms-ca.key",
};

/// Options of `emulator kms-authority`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory to make; `kms-ca.pem` (to trust) and `kms-ca.key` (to sign with, mode 0600) are written into it.
    #[arg(long)]
    dir: PathBuf,
}

/// `emulator kms-authority`: makes an authority. One that is there is not overwritten.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    Authority::create(KIND, &args.dir).map(drop)
}
