//! Stand-ins for what only AWS has: KMS that judges attestation documents, CloudWatch Logs, the Nitro hypervisor with its security
//! module, and the certificate authority behind it. For development and tests; no part of any image.

mod authority;
mod aws;
mod kms;
mod logs;
mod nsm;
mod nsm_device;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Stand-ins for AWS: KMS with attestation, CloudWatch Logs, the NSM device")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// KMS over TLS: verifies attestation documents and key policies.
    Kms(kms::Args),
    /// CloudWatch Logs over TLS: takes batches of events as AWS documents it.
    Logs(logs::Args),
    /// The hypervisor's part of one enclave: measures its files, answers as its security module.
    Nsm(nsm::Args),
    /// The same for an enclave in QEMU: measures its image, is the virtio device behind its `/dev/nsm`.
    NsmDevice(nsm_device::Args),
    /// Makes the certificate authority under which `nsm` and `nsm-device` sign attestation documents.
    Authority(authority::Args),
    /// Makes a certificate authority for `kms --authority-dir`: one that an image can be built with.
    KmsAuthority(kms::authority::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    telemetry::init("emulator");
    match Cli::parse().command {
        Command::Kms(args) => kms::run(args).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Nsm(args) => nsm::run(args).await,
        Command::NsmDevice(args) => nsm_device::run(args).await,
        Command::Authority(args) => authority::run(&args),
        Command::KmsAuthority(args) => kms::authority::run(&args),
    }
}
