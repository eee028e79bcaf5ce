//! The control channel, cut or abandoned.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use api::ports::CONTROL;
use harness::{Node, Options, World};
use nix::sys::signal::Signal;
use serde_json::json;
use vsock::{Bridge, Limits, Peer};

use crate::{TRANSIENT, console, leaves_nothing, processes_in, runtime, send, serve, small, until, world};

/// Longer than any test waits for an end: who ended before it did not wait for KMS.
const KMS_TIMEOUT_MS: u32 = 120_000;
/// The enclave ends within two seconds; a loaded machine that emulates it takes longer.
const SOON: Duration = Duration::from_secs(20);

/// A man in the middle of the control channel, between the enclave's vsock device and the parent.
struct Middle(Bridge);

impl Middle {
    /// Takes the parent's place as soon as the parent listens, which is before the machine is started.
    fn of(world: &World) -> Self {
        let socket = |name: &str| world.path("run/vm").join(name);
        let (device, parent) = (socket("vm.vsock"), socket("parent.vsock"));
        let at_port = |socket: &Path| PathBuf::from(format!("{}_{CONTROL}", socket.display()));
        until("the parent listens for the enclave", || {
            fs::rename(at_port(&device), at_port(&parent)).is_ok()
        });
        let from = Peer::Unix { path: device }.port(CONTROL);
        let to = Peer::UnixGuest { path: parent }.port(CONTROL);
        Self(runtime().block_on(Bridge::start("control", from, to, Limits::default())).unwrap())
    }

    fn cut(self) {
        assert!(self.0.stats().active > 0, "no connection that could be cut");
        runtime().block_on(self.0.stop());
    }
}

/// A parent whose enclave waits for KMS, which does not answer.
fn unsealing() -> (World, Node) {
    let world = world(Options { kms_timeout_ms: KMS_TIMEOUT_MS, ..small() });
    world.kms_fault(&json!({"mode": "hang"})).unwrap();
    let node = world.start_parent().unwrap();
    (world, node)
}

/// Waits until KMS was asked so many times.
fn wait_for_kms(world: &World, node: &Node, times: usize) {
    let asked = r#""outcome":"no answer""#;
    until("KMS is asked", || {
        fs::read_to_string(world.path("logs/kms.log")).unwrap().matches(asked).count() == times
    });
    assert_eq!(node.status().unwrap().state(), "Unsealing");
}

/// Cuts the control channel of an enclave whose parent can do nothing about it, and waits until the machine has ended.
fn ends_without(middle: Middle, node: &Node) {
    let machine = node.status().unwrap().enclave_pid().unwrap();
    assert!(is_running(machine));
    // A stopped parent kills no machine, and collects none that has ended.
    send(node.program.pid(), Signal::SIGSTOP);
    let started = Instant::now();
    middle.cut();
    until("the machine ends by itself", || !is_running(machine) || started.elapsed() > SOON);
    assert!(!is_running(machine), "the enclave goes on without its parent");
    send(node.program.pid(), Signal::SIGCONT);
}

fn is_running(pid: u32) -> bool {
    // After the name, which is in parentheses.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn an_enclave_that_loses_its_parent_while_it_waits_for_kms_ends_with_a_reason() {
    let (world, mut node) = unsealing();
    let middle = Middle::of(&world);
    wait_for_kms(&world, &node, 1);
    ends_without(middle, &node);
    let (status, code) = node.wait_failed().unwrap();
    assert_eq!((status.reason(), code), (Some("EnclaveExited"), TRANSIENT), "{}", status.0);
    assert_eq!(status.ingress(), None);
    assert!(!status.history().contains(&"Verifying"), "{:?}", status.history());
    let console = console(&world);
    let reason = "ParentUnreachable in step boot: the control channel ended during the boot";
    assert!(console.contains(reason), "{console}");
    leaves_nothing(&world);

    world.kms_fault(&json!({"mode": "none"})).unwrap();
    serve(&world);
}

#[test]
fn an_enclave_that_loses_its_parent_while_it_serves_ends() {
    let world = world(small());
    let mut node = world.start_parent().unwrap();
    let middle = Middle::of(&world);
    node.wait_serving(|_| {}).unwrap();
    ends_without(middle, &node);
    let (status, code) = node.wait_failed().unwrap();
    assert_eq!((status.reason(), code), (Some("EnclaveExited"), TRANSIENT), "{}", status.0);
    assert_eq!(status.ingress(), None);
    let console = console(&world);
    assert!(console.contains(r#""cause":"ControlEnded""#), "{console}");
    leaves_nothing(&world);
}

#[test]
fn a_parent_that_ends_while_its_enclave_waits_for_kms_takes_it_along_however_it_ends() {
    let (world, mut node) = unsealing();
    wait_for_kms(&world, &node, 1);
    let started = Instant::now();
    assert!(node.program.stop().unwrap().success());
    assert!(started.elapsed() < SOON, "stopping took {:?}", started.elapsed());
    assert_eq!(node.status().unwrap().state(), "Stopped");
    let log = fs::read_to_string(world.path("logs/parent.log")).unwrap();
    assert!(log.contains("the enclave has ended") && !log.contains("killing it"), "{log}");
    leaves_nothing(&world);

    let mut node = world.start_parent().unwrap();
    wait_for_kms(&world, &node, 2);
    send(node.program.pid(), Signal::SIGKILL);
    node.program.wait(SOON).unwrap();
    until("the kernel ends the machine", || processes_in(&world.path("run")).is_empty());

    // What the killed parent left does not disturb the next one.
    world.kms_fault(&json!({"mode": "none"})).unwrap();
    serve(&world);
}
