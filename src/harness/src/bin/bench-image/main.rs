//! Measures the enclave's image: what it is made of, and how it boots in QEMU. Nothing here fails because of a time.

mod boots;
mod sizes;
mod table;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;
use harness::{Qemu, SCHEMES, World, Worlds};
use serde::Serialize;

use crate::{boots::Boots, sizes::Sizes};

/// Measure the enclave's image and its boot.
#[derive(Parser)]
#[command(name = "cargo xtask bench image")]
struct Arguments {
    /// The directory with `image/`, `qemu/` and `tools/`; the figures go to `bench/` in it.
    #[arg(long)]
    target: PathBuf,
    /// Boots for each number of accounts; the median counts. Fewer if they take long.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Numbers of accounts. One account is of the first scheme; of more, each scheme has the same number.
    #[arg(long, value_delimiter = ',', default_value = "1,10000,100000")]
    accounts: Vec<u32>,
    /// MiB of memory the machine has.
    #[arg(long, default_value_t = 512)]
    memory: u32,
    /// Seconds that it took to build the image when everything was there.
    #[arg(long)]
    built_warm: Option<f64>,
    /// Seconds that it took to build the image from nothing.
    #[arg(long)]
    built_cold: Option<f64>,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    build_seconds: Builds,
    sizes: Sizes,
    boots: Vec<Boots>,
}

#[derive(Serialize)]
struct Builds {
    warm: Option<f64>,
    cold: Option<f64>,
}

/// What it was measured on.
#[derive(Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    /// Of the last minute, before the first boot: other work makes every time longer.
    load: String,
    memory_mib: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Others start in directories of their own.
    let target = std::path::absolute(&arguments.target)?;
    let mut qemu = Qemu::in_target(&target)?;
    qemu.memory_mib = arguments.memory;
    let machine = machine(arguments.memory)?;
    let sizes = Sizes::measure(&qemu.image)?;
    let mut boots = Vec::new();
    for &accounts in &arguments.accounts {
        eprintln!("==> deal {accounts} accounts, boot {} times", arguments.runs);
        boots.push(Boots::measure(&world(&qemu, accounts)?, arguments.runs)?);
    }
    let build_seconds = Builds { warm: arguments.built_warm, cold: arguments.built_cold };
    let report = Report { machine, build_seconds, sizes, boots };
    table::print(&report);

    let directory = target.join("bench");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join("image.json");
    fs::write(&path, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("\n{}", path.display());
    Ok(())
}

fn world(qemu: &Qemu, accounts: u32) -> Result<World> {
    let one = accounts < 2;
    let schemes = if one { &SCHEMES[..1] } else { &SCHEMES[..] };
    let options = harness::Options {
        accounts_per_scheme: accounts / u32::try_from(schemes.len())?,
        schemes,
        qemu: Some(qemu.clone()),
        ..harness::Options::default()
    };
    Worlds::provision(options, &mut |_, _| {})
}

fn machine(memory_mib: u32) -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let processor = read("/proc/cpuinfo")?
        .lines()
        .find_map(|line| {
            Some(line.strip_prefix("model name")?.trim_start_matches([' ', '\t', ':']).to_owned())
        })
        .unwrap_or_default();
    let load = read("/proc/loadavg")?;
    Ok(Machine {
        processor,
        cores: std::thread::available_parallelism()?.get(),
        load: load.split(' ').next().unwrap_or_default().to_owned(),
        memory_mib,
    })
}
