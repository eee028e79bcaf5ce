//! The demo: starts every program of the system on this machine, unseals the shares through an attested KMS call,
//! signs with every account, verifies each signature independently, and writes down what happened.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use api::ports;
use clap::Parser;
use harness::{
    Account, Gateway, Options, Qemu, Status, VsockSocket, World, Worlds,
    report::{Report, Signature},
    verify_signature,
};

/// Start every program of the system on this machine, unseal, sign, verify.
#[derive(Parser)]
#[command(name = "cargo xtask demo")]
struct Arguments {
    /// The same account keys each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Accounts of each scheme.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    accounts: u32,
    /// Leave everything running and print how to sign with curl.
    #[arg(long)]
    keep: bool,
    /// Boot the enclave's image in QEMU; the argument is the directory with `image/`, `qemu/` and `tools/`.
    #[arg(long, value_name = "TARGET")]
    qemu: Option<PathBuf>,
    /// Boot this image: as it is, if it trusts an authority of the KMS stand-in; else one of its inputs/ that does.
    #[arg(long, value_name = "IMAGE", requires = "qemu")]
    eif: Option<PathBuf>,
    /// Directory with the authority of the KMS stand-in that the image trusts [default: kms-authority beside the image]
    #[arg(long, value_name = "DIR", requires = "eif")]
    kms_authority: Option<PathBuf>,
    /// Let the enclave's processes and the parent meet on vsock, at this machine's own context id (1).
    #[arg(long, conflicts_with = "qemu")]
    vsock: bool,
    /// Where the report goes.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let start = Instant::now();
    let mut timings = BTreeMap::new();
    let mut step = |what: &str, took: Duration| {
        println!("{:>9.3} s  {what}", took.as_secs_f64());
        timings.insert(what.to_owned(), milliseconds(took));
    };

    println!("Provision");
    let qemu = arguments.qemu.as_deref().map(|target| qemu(target, &arguments)).transpose()?;
    let options = Options {
        accounts_per_scheme: arguments.accounts,
        seed: arguments.seed,
        qemu,
        vsock: arguments.vsock,
        ..Options::default()
    };
    let world = Worlds::provision(options, &mut step)?;

    println!("Boot");
    let clock = Instant::now();
    let mut node = world.start_parent()?;
    let status = node.wait_serving(|status| println!("             parent: {}", status.state()))?;
    print_boot(&status);
    step("boot: parent started to ingress open", clock.elapsed());

    println!("Sign");
    let clock = Instant::now();
    let ingress = status.ingress().context("the parent serves without an ingress")?;
    let gateway = world.start_gateway(ingress, status.text("/pcrs/0")?)?;
    gateway.wait_verified()?;
    step("gateway: node's attestation verified", clock.elapsed());
    let mut signatures = Vec::new();
    for account in &world.accounts {
        let clock = Instant::now();
        signatures.push(sign(&gateway, account)?);
        step(&format!("sign with {}, verified independently", account.id), clock.elapsed());
    }

    let status = node.status()?;
    if let Some(qemu) = &world.options.qemu {
        qemu.check_pcrs(&status.0["pcrs"])?;
    }
    for (name, value) in status.0["timings_ms"].as_object().into_iter().flatten() {
        timings.insert(format!("boot: {name}"), value.as_u64().unwrap_or_default());
    }
    timings.insert("total".to_owned(), milliseconds(start.elapsed()));
    let report = report(&world, &status, timings, signatures)?;
    fs::create_dir_all(&arguments.out).with_context(|| format!("cannot make {}", arguments.out.display()))?;
    let path = arguments.out.join("report.json");
    fs::write(&path, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", path.display()))?;

    print_summary(&world.options, &report, &status, start.elapsed())?;
    println!("  report          {}", path.display());
    if arguments.keep {
        wait_for_the_user(&world, &gateway, ingress)?;
    }

    drop(gateway);
    let exit = node.program.stop()?;
    ensure!(exit.success(), "the parent did not stop cleanly: {exit}\n{}", node.program.log_tail());
    println!("Everything is stopped.");
    Ok(())
}

fn qemu(target: &Path, arguments: &Arguments) -> Result<Qemu> {
    match &arguments.eif {
        Some(eif) => Qemu::with_image(target, eif, arguments.kms_authority.as_deref()),
        None => Qemu::in_target(target),
    }
}

fn sign(gateway: &Gateway, account: &Account) -> Result<Signature> {
    // 32 bytes, as a BIP340 signature hash is.
    let message = harness::sha256(format!("a transaction of {}", account.id).as_bytes());
    let answer = gateway.sign(&account.id, &message)?;
    ensure!(answer.code == 200, "the gateway answered {}: {}", answer.code, answer.body);
    let signature = answer.body["signature"].as_str().context("the gateway's answer has no signature")?;
    verify_signature(&account.scheme, &account.public_key, &message, &hex::decode(signature)?)?;
    Ok(Signature {
        scheme: account.scheme.clone(),
        transport: "stream",
        account: account.id.clone(),
        public_key: hex::encode(&account.public_key),
        message: hex::encode(message),
        signature: signature.to_owned(),
    })
}

fn report(
    world: &World,
    status: &Status,
    timings_ms: BTreeMap<String, u64>,
    signatures: Vec<Signature>,
) -> Result<Report> {
    Ok(Report {
        pcrs: status.0["pcrs"].clone(),
        attestation_document: status.text("/attestation_document")?.to_owned(),
        root_certificate: world.root_certificate()?,
        kms_request_id: status.text("/kms_request_id")?.to_owned(),
        bundle_sha256: status.0["bundle_sha256"].clone(),
        timings_ms,
        signatures,
        vsock: world.options.vsock.then(vsock).transpose()?,
    })
}

/// The system's vsock sockets; those of the control channel and of the signing service are among them.
fn vsock() -> Result<Vec<VsockSocket>> {
    let sockets = harness::vsock_sockets()?;
    for port in [ports::CONTROL, ports::SIGN] {
        let connected = sockets.iter().any(|socket| socket.is_connection_at(port));
        ensure!(connected, "nobody is connected to vsock port {port}, the kernel says: {sockets:?}");
    }
    Ok(sockets)
}

fn print_boot(status: &Status) {
    for (name, value) in status.0["timings_ms"].as_object().into_iter().flatten() {
        println!("             {value:>6} ms  {name}");
    }
}

fn print_summary(options: &Options, report: &Report, status: &Status, total: Duration) -> Result<()> {
    println!("Summary ({:.1} s)", total.as_secs_f64());
    if let Some(qemu) = &options.qemu {
        println!("  image           {}", qemu.booted());
    }
    println!("  PCR0            {}", status.text("/pcrs/0")?);
    println!("  PCR16           {}", status.text("/pcrs/16")?);
    println!("  KMS request     {}", report.kms_request_id);
    println!("  bundle SHA-256  {}", status.text("/bundle_sha256/ciphertext")?);
    if let Some(sockets) = &report.vsock {
        let listening = sockets.iter().filter(|socket| socket.state == "listening");
        let listening: Vec<_> = listening.map(|socket| socket.local.to_string()).collect();
        println!("  vsock           {}", listening.join(", "));
    }
    println!("  signatures      {}, each accepted by an independent library", report.signatures.len());
    Ok(())
}

fn wait_for_the_user(world: &World, gateway: &Gateway, ingress: &str) -> Result<()> {
    let account = world.accounts.first().context("no accounts")?;
    println!("\nRunning. The gateway is {}, the enclave's gRPC is {ingress} (mutual TLS).", gateway.url);
    println!("Files and logs: {}\n", world.path("").display());
    println!("  curl {}/v1/nodes", gateway.url);
    println!(
        "  curl -H 'content-type: application/json' {}/v1/sign -d '{{\"account\": \"{}\", \"message\": \"00ff\"}}'\n",
        gateway.url, account.id
    );
    println!("Ctrl-C stops everything.");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c())?;
    Ok(())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
