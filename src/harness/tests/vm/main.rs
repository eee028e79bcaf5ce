//! The image in QEMU: `cargo xtask vm` and `cargo xtask test` make what these tests need.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

mod bundle_size;
#[path = "../serving/client.rs"]
#[allow(dead_code, reason = "the tests over real processes use more of it")]
mod client;
mod control;
mod guest;
mod image;
mod memory;
#[path = "../workload/program.rs"]
mod program;
mod refusals;
mod service;
mod session;
mod workload;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use harness::{Account, Gateway, Node, Options, Qemu, Status, World, Worlds};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::runtime::Runtime;

const TERMINAL: i32 = 77;
const TRANSIENT: i32 = 75;
/// For what a loaded machine that emulates does in seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// A world whose parent serves.
struct Serving {
    world: World,
    node: Node,
    status: Status,
}

impl Serving {
    fn ingress(&self) -> &str {
        self.status.ingress().unwrap()
    }

    fn gateway(&self) -> Gateway {
        self.world.start_gateway(self.ingress(), self.status.text("/pcrs/0").unwrap()).unwrap()
    }
}

fn qemu() -> Qemu {
    Qemu::in_target(&target()).unwrap()
}

/// `target/`, or where `NITRO_SIGN_VM_DIR` says the image, QEMU and the vsock device are.
fn target() -> PathBuf {
    if let Some(directory) = std::env::var_os("NITRO_SIGN_VM_DIR") {
        return directory.into();
    }
    harness::binary("demo").unwrap().ancestors().nth(2).unwrap().to_owned()
}

fn world(mut options: Options) -> World {
    options.qemu.get_or_insert_with(qemu);
    Worlds::provision(options, &mut |_, _| {}).unwrap()
}

fn small() -> Options {
    Options { accounts_per_scheme: 1, ..Options::default() }
}

fn serve(world: &World) -> (Node, Status) {
    let mut node = world.start_parent().unwrap();
    let status = node.wait_serving(|_| {}).unwrap();
    (node, status)
}

fn refused(world: &World, reason: &str, exit_code: i32) -> Status {
    let mut node = world.start_parent().unwrap();
    let (status, code) = node.wait_failed().unwrap();
    assert_eq!(status.reason(), Some(reason), "{}\n{}", status.0, node.program.log_tail());
    assert_eq!(code, exit_code);
    assert!(!status.history().contains(&"Serving"));
    assert_eq!(status.ingress(), None);
    let pid = status.enclave_pid().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "QEMU {pid} is still there");
    status
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

fn signs(gateway: &Gateway, account: &Account) {
    let message = harness::sha256(account.id.as_bytes());
    let answer = gateway.sign(&account.id, &message).unwrap();
    assert_eq!(answer.code, 200, "{}", answer.body);
    let signature = hex::decode(answer.body["signature"].as_str().unwrap()).unwrap();
    harness::verify_signature(&account.scheme, &account.public_key, &message, &signature).unwrap();
}

/// What the last machine printed.
fn console(world: &World) -> String {
    fs::read_to_string(world.path("run/console.log")).unwrap()
}

/// The processes that work in `directory` or below, zombies left out.
fn processes_in(directory: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap();
    pids.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory)))
        .collect()
}

/// After the parent's end: no machine, no file of it, and nothing secret in what is kept.
fn leaves_nothing(world: &World) {
    assert_eq!(processes_in(&world.path("run")), [0; 0]);
    assert!(!world.path("run/vm").exists());
    let admin = world.kms_admin().unwrap();
    let bundle: serde_json::Value = serde_json::from_slice(&admin.open_bundle().unwrap()).unwrap();
    let mut secrets = vec!["AGE-SECRET-KEY-1", bundle["party_secret_key"].as_str().unwrap()];
    for account in &world.accounts {
        secrets.push(bundle["accounts"][&account.id]["share"].as_str().unwrap());
    }
    let mut read = 0;
    for directory in ["run", "logs"] {
        for entry in fs::read_dir(world.path(directory)).unwrap() {
            let path = entry.unwrap().path();
            let kept = fs::read(&path).unwrap();
            read += kept.len();
            for secret in &secrets {
                let found = memchr::memmem::find(&kept, secret.as_bytes());
                assert_eq!(found, None, "{} keeps a secret", path.display());
            }
        }
    }
    assert!(read > 0, "nothing is kept, so nothing was tested");
}
