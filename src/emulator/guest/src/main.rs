//! PID 1 of a test's enclave: everything the security module can do, through the kernel's driver and the production code
//! for it, printed as one line of JSON. The test is `src/emulator/tests/nsm_device_in_qemu.rs`.

use std::fs::File;
use std::io::Read as _;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use attestation::{Nsm, NsmError, PCR_CONFIGURATION};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::tcdrain;
use serde_json::{Value, json};

/// How often the module is asked while the kernel asks it too.
const REQUESTS: u32 = 100;

fn main() {
    let report = report().unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
    // On a line of its own, whatever the kernel has printed.
    println!("\n{report}");
    let _ = tcdrain(std::io::stdout());
    // With `-no-reboot` QEMU ends here.
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

fn report() -> Result<Value> {
    mount(Some("dev"), "/dev", Some("devtmpfs"), MsFlags::empty(), None::<&str>).context("mounting /dev")?;
    // The kernel makes environment variables of what it does not know on its command line.
    let nonce = std::env::var("nsm_nonce").context("`nsm_nonce=` on the kernel's command line")?;
    let nonce = hex::decode(nonce).context("nsm_nonce")?;
    let nsm = attestation::open("device")?;

    let description = nsm.describe()?;
    let (pcr0_locked, pcr0) = nsm.describe_pcr(0)?;
    let extended = nsm.extend_pcr(PCR_CONFIGURATION, b"configuration")?;
    nsm.lock_pcr(PCR_CONFIGURATION)?;
    let again = refusal(nsm.extend_pcr(PCR_CONFIGURATION, b"again"))?;
    let no_such_pcr = refusal(nsm.describe_pcr(32))?;
    let too_large = refusal(nsm.attest(Some(&[0; 513]), None, None))?;
    let public_key = [3; 1024];
    let document = nsm.attest(Some(b"user data"), Some(&nonce), Some(&public_key))?;

    Ok(json!({
        "module_id": description.module_id,
        "max_pcrs": description.max_pcrs,
        "locked_pcrs": description.locked_pcrs,
        "pcr0": { "value": pcr0, "locked": pcr0_locked },
        "pcr16": extended,
        "refusals": { "locked": again, "no_such_pcr": no_such_pcr, "too_large": too_large },
        "document": hex::encode(document),
        "random": [hex::encode(nsm.random()?), hex::encode(nsm.random()?)],
        "load": load(nsm.as_ref())?,
    }))
}

/// What the module says to a request that it must not grant.
fn refusal<T>(outcome: Result<T, NsmError>) -> Result<String> {
    match outcome {
        Err(NsmError::Refused { code, .. }) => Ok(format!("{code:?}")),
        Err(other) => Err(other.into()),
        Ok(_) => bail!("the module granted what it has to refuse"),
    }
}

/// Asks the module while the kernel's RNG does the same, which shares the one ring.
fn load(nsm: &dyn Nsm) -> Result<Value> {
    let kernel = thread::spawn(|| -> std::io::Result<[u8; 32]> {
        let mut bytes = [0; 32];
        let mut rng = File::open("/dev/hwrng")?;
        for _ in 0..REQUESTS {
            rng.read_exact(&mut bytes)?;
        }
        Ok(bytes)
    });
    let start = Instant::now();
    for number in 0..REQUESTS {
        nsm.random().with_context(|| format!("request {number}"))?;
    }
    let elapsed = start.elapsed();
    let Ok(kernel) = kernel.join() else { bail!("the thread that reads /dev/hwrng has panicked") };
    Ok(json!({
        "microseconds": u64::try_from((elapsed / REQUESTS).as_micros())?,
        "hwrng": hex::encode(kernel.context("reading /dev/hwrng")?),
    }))
}
