//! `cargo xtask COMMAND`: what a developer or a CI runner does with the workspace.

mod apt;
mod bench;
mod command;
mod image;
mod kernel;
mod on_demand;
mod packages;
mod parent_vm;
mod programs;
mod qemu;
mod space;
mod steps;
mod stories;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask COMMAND

  demo [--seed N] [--accounts N] [--keep]
           Build everything, start it on this machine, unseal through an attested KMS call, sign, verify.
             --seed N      the same account keys each time
             --accounts N  accounts of each scheme (default 3)
             --keep        leave it running and print how to sign with curl
  vm [--seed N] [--accounts N] [--keep]
           The same as the demo, with the enclave's image booted in QEMU; the report goes to target/vm.
  vm --eif IMAGE [--kms-authority DIR]
           The same with an image that was built elsewhere, as by `nix build .#eif`. No production image trusts the KMS
           stand-in, so what boots is made of the inputs/ beside it, with the stand-in's certificate in enclave.toml. An
           image that trusts an authority for the stand-in, in DIR or in kms-authority/ beside it, boots as it is.
  vm --parent [--seed N] [--accounts N]
           The same as the demo, inside a machine in QEMU that plays the parent instance: the enclave's processes and
           the parent meet on vsock (CID 1). The report goes to target/vm-parent.
  vm --stories [NAME…]
           The scenarios of vm-tests, each in a machine in QEMU with systemd, the parent's unit and nothing else.
  vm --nitro-enclave [--qemu PATH]
           QEMU's own emulation of Nitro Enclaves boots the same image: its PCRs have to be ours, and the document that
           it gives, which nobody signed, has to be refused.
             --qemu PATH    a qemu-system-x86_64 that has the machine, instead of one that is built (see `qemu`)
  test [FILTER]
           All checks: format, lints, dependencies, programs, image, tests. FILTER runs only the tests of that name.
  build    The programs for the demo and the tests, with the software NSM, in target/debug.
  release  The programs that run inside the enclave, static, without the software NSM.
  image [--config FILE] [--out DIR]
           The enclave image, its PCRs and what it was made of, in target/image.
             --config FILE  another enclave.toml than nix/enclave.toml
             --out DIR      another directory than target/image
  image --check
           Build the image here and again, from nothing, in another directory; compare the bytes; print the PCRs.
  image --oracle
           Build the image; AWS's own crate reads it, and writes it again from its parts.
  bench image [--runs N] [--accounts N,…] [--memory MIB] [--cold]
           Measure the image's size and its boot in QEMU, as a table and in target/bench/image.json.
             --runs N        boots for each number of accounts (default 5; fewer if they take long)
             --accounts N,…  numbers of accounts (default 1,10000,100000)
             --memory MIB    of the machine (default 512)
             --cold          measure the build from nothing, too: 15 minutes
  qemu     QEMU and the vsock device that `vm` needs, in target/qemu and target/tools: nothing is installed.
  qemu --nitro-enclave
           QEMU with its own emulation of Nitro Enclaves, built in target/qemu-nitro.
  advisories
           Check the dependencies against the RustSec database (needs the network).
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asks_for_help = arguments.iter().any(|word| word == "--help" || word == "-h");
    let Some((command, rest)) =
        arguments.split_first().filter(|(command, _)| !asks_for_help && *command != "help")
    else {
        print!("{HELP}");
        return Ok(());
    };
    match (command.as_str(), rest) {
        ("demo", options) => steps::demo(options),
        ("vm", [option, options @ ..]) if option == "--parent" => parent_vm::run(options),
        ("vm", [option, names @ ..]) if option == "--stories" => stories::run(names),
        ("vm", [option, options @ ..]) if option == "--nitro-enclave" => on_demand::nitro_enclave(options),
        ("vm", options) => steps::vm(options),
        ("test", []) => steps::test(None),
        ("test", [filter]) if !filter.starts_with('-') => steps::test(Some(filter)),
        ("build", []) => steps::build(),
        ("release", []) => steps::release(),
        ("image", [option]) if option == "--oracle" => on_demand::oracle(),
        ("image", options) => image::command(options),
        ("bench", options) => bench::command(options),
        ("qemu", options) => qemu::command(options),
        ("advisories", []) => steps::advisories(),
        _ => bail!("no such command: `cargo xtask {}`\n\n{HELP}", arguments.join(" ")),
    }
}
