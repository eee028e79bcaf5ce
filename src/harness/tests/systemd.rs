//! What a service manager sees of the parent: the notifications of systemd's protocol, over a real socket.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

use harness::{Options, Program, World, Worlds, binary};
use serde_json::Value;

/// A boot on a loaded machine takes no longer.
const PATIENCE: Duration = Duration::from_mins(4);
/// What the manager would wait for a ping; half of it is between two.
const WATCHDOG: Duration = Duration::from_secs(1);

/// A parent that a service manager has started.
struct Unit {
    world: World,
    parent: Program,
    manager: UnixDatagram,
}

/// A notification, and what `status.json` says when it has come.
struct Notified {
    message: String,
    status: Value,
}

fn start(edit: impl FnOnce(&mut toml::Value)) -> Unit {
    let options = Options { accounts_per_scheme: 1, ..Options::default() };
    let world = Worlds::provision(options, &mut |_, _| {}).unwrap();
    world.write_parent_toml(edit).unwrap();
    let manager = UnixDatagram::bind(world.path("notify.sock")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(binary("parent").unwrap());
    command
        .args(["run", "--config"])
        .arg(world.path("parent.toml"))
        .env("NOTIFY_SOCKET", world.path("notify.sock"))
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let mut parent = Program::start("parent", &mut command, &world.path("logs")).unwrap();
    parent.discard_output();
    Unit { world, parent, manager }
}

impl Unit {
    fn next(&self) -> Notified {
        let mut buffer = [0; 4096];
        let length = self
            .manager
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("{error}: {}", self.parent.log_tail()));
        let message = std::str::from_utf8(&buffer[..length]).unwrap().to_owned();
        let status = std::fs::read(self.world.path("run/status.json")).unwrap();
        Notified { message, status: serde_json::from_slice(&status).unwrap() }
    }

    /// The notifications up to the first that has this line, which is the last of them.
    fn until(&self, line: &str) -> Vec<Notified> {
        let mut seen = Vec::new();
        loop {
            let notified = self.next();
            let found = has(&notified, line);
            seen.push(notified);
            if found {
                return seen;
            }
        }
    }
}

fn has(notified: &Notified, line: &str) -> bool {
    notified.message.lines().any(|l| l == line)
}

/// The states that status lines named, in order.
fn states(notifications: &[Notified]) -> Vec<&str> {
    let lines = notifications.iter().flat_map(|notified| notified.message.lines());
    lines.filter_map(|line| line.strip_prefix("STATUS=")?.split(':').next()).collect()
}

#[test]
fn a_unit_is_ready_when_the_enclave_is_verified_and_pings_until_it_is_stopped() {
    let mut unit = start(|_| {});
    let boot = unit.until("READY=1");
    assert_eq!(states(&boot), ["Fetching", "Measuring", "Launching", "Unsealing", "Verifying", "Serving"]);
    let ready = boot.last().unwrap();
    let ingress = ready.status["ingress"].as_str().unwrap();
    assert_eq!(ready.status["state"], "Serving");
    assert!(
        has(ready, &format!("STATUS=Serving: verified, clients connect to {ingress}")),
        "{}",
        ready.message
    );
    // 180 s are configured, and 30 s are for the end of a boot that fails.
    assert!(boot.iter().any(|notified| has(notified, "EXTEND_TIMEOUT_USEC=210000000")));
    assert!(!boot.iter().any(|notified| notified.message.contains("STOPPING")));

    let started = Instant::now();
    for _ in 0..4 {
        unit.until("WATCHDOG=1");
    }
    assert!(started.elapsed() < 4 * WATCHDOG, "a ping is late: {:?} for four", started.elapsed());
    assert!(started.elapsed() > WATCHDOG, "{:?} for four pings", started.elapsed());

    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(unit.parent.pid()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    let stopping = unit.until("STOPPING=1");
    assert_eq!(states(&stopping), ["Draining"]);
    // A session may last 30 s, the enclave has 5 s on top, and 30 s are for the rest.
    let end = unit.until("STATUS=Stopped");
    assert!(end.iter().any(|notified| has(notified, "EXTEND_TIMEOUT_USEC=65000000")));
    assert_eq!(unit.parent.wait(PATIENCE).unwrap().code(), Some(0));
}

#[test]
fn a_unit_that_fails_was_never_ready_and_names_its_reason() {
    let mut unit = start(|parent| parent["enclave"]["pcr0"] = "ab".repeat(48).into());
    let notified = unit.until("STOPPING=1");
    assert_eq!(states(&notified), ["Fetching", "Measuring", "Failed"]);
    assert!(!notified.iter().any(|notified| has(notified, "READY=1")));
    let failed = &notified.last().unwrap().message;
    assert!(failed.contains("STATUS=Failed: MeasurementMismatch: the image has PCR0 "), "{failed}");
    assert_eq!(unit.parent.wait(PATIENCE).unwrap().code(), Some(77));
}
