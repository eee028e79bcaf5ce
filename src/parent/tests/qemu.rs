//! The backend `qemu` with a real QEMU, real devices, and the kernel of the image; the guest is `tests/guest/init.rs`.
//!
//! `cargo xtask test` makes what this needs: `target/image/image.eif`, whose kernel and command line are taken,
//! `target/qemu/qemu-system-x86_64`, `target/tools/bin/vhost-device-vsock` and `target/debug/emulator`;
//! `NITRO_SIGN_IMAGE`, `NITRO_SIGN_QEMU`, `NITRO_SIGN_VSOCK_DEVICE` and `NITRO_SIGN_EMULATOR` name others.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use attestation::Measurements;
use eif::{Entry, EntryKind, Image, Ramdisk};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parent::{
    Heartbeat,
    backend::{Backend as _, Launched, qemu::QemuBackend},
    config::{Invocation, Qemu},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::{sleep, timeout},
};
use vsock::Listener;

/// A boot takes two seconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(2);
const HEARTBEAT_PORT: u32 = 9000;
/// SHA-256 of `bundle`, which is what the bundle of these tests holds.
const SHA256_OF_BUNDLE: &str = "1e6ed65d77d6364eeaed5a745ba5c4985ae2b700dd85d7cf7f027bdf294a33fc";

#[tokio::test]
async fn an_image_boots_sends_its_heartbeat_and_is_killed_without_a_trace() {
    let setting = setting("stays");
    let mut enclave = boot(&setting).await;
    console_says(&setting, "guest: the heartbeat was answered with 0xb7").await;
    assert!(console(&setting).contains("Linux version"), "{}", console(&setting));
    assert_eq!(monitor_status(&enclave.qmp().unwrap()).await["return"]["status"], "running");
    assert_eq!(processes_in(&setting.run()).len(), 3);
    assert!(processes_in(&setting.run()).contains(&enclave.pid().unwrap()));

    enclave.kill().await;
    assert!(processes_in(&setting.run()).is_empty());
    drop(enclave);
    assert!(!setting.run().join("vm").exists());
}

#[tokio::test]
async fn a_guest_that_ends_ends_the_machine_and_its_delays_were_right() {
    let setting = setting("sleeps");
    let mut enclave = boot(&setting).await;
    console_says(&setting, "guest: before").await;
    let started = Instant::now();
    console_says(&setting, "guest: after").await;
    let slept = started.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&slept), "3 s took {slept:?}");
    let ended = timeout(PATIENCE, enclave.exited()).await.unwrap();
    assert!(ended.starts_with("QEMU ended (exit status: 0)"), "{ended}");
    enclave.kill().await;
    assert!(processes_in(&setting.run()).is_empty());
}

#[tokio::test]
async fn a_kernel_that_panics_ends_the_machine() {
    let setting = setting("panics");
    let mut enclave = boot(&setting).await;
    let ended = timeout(PATIENCE, enclave.exited()).await.unwrap();
    assert!(ended.starts_with("QEMU ended (exit status: 0)"), "{ended}");
    assert!(console(&setting).contains("Kernel panic"), "{}", console(&setting));
}

#[tokio::test]
async fn without_a_device_the_enclave_is_gone() {
    let setting = setting("stays");
    let mut enclave = boot(&setting).await;
    let device = processes_in(&setting.run())
        .into_iter()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("nsm-device"))
        .unwrap();
    send(Signal::SIGKILL, device);
    let ended = timeout(PATIENCE, enclave.exited()).await.unwrap();
    assert!(ended.starts_with("the NSM device ended (signal: 9 (SIGKILL))"), "{ended}");
    enclave.kill().await;
    assert!(processes_in(&setting.run()).is_empty());
}

#[tokio::test]
async fn the_whole_machine_dies_with_the_parent_however_the_parent_ends() {
    for (signal, code) in [(Signal::SIGTERM, Some(0)), (Signal::SIGKILL, None)] {
        let setting = setting("stays");
        let mut parent = setting.parent();
        until("the machine runs", || !status(&setting)["qmp"].is_null()).await;
        console_says(&setting, "guest: the heartbeat was answered").await;
        until("the heartbeat is noticed", || status(&setting)["state"] == "Unsealing").await;
        assert_eq!(status(&setting)["backend"], "qemu");
        let running = processes_in(&setting.run());
        assert!(
            running.len() == 3 && running.contains(&pid(&status(&setting)["enclave_pid"])),
            "{running:?}"
        );

        send(signal, parent.0.id());
        assert_eq!(parent.ended().code(), code);
        until("nothing is left", || processes_in(&setting.run()).is_empty()).await;
        if code == Some(0) {
            let status = status(&setting);
            assert_eq!((&status["state"], &status["qmp"]), (&"Stopped".into(), &Value::Null));
            assert!(!setting.run().join("vm").exists());
        }
    }
}

#[tokio::test]
async fn parent_measure_prints_the_pcrs_of_the_image() {
    let setting = setting("stays");
    let config = setting.write_config();
    let output =
        Command::new(env!("CARGO_BIN_EXE_parent")).args(["measure", "--config"]).arg(config).output();
    let measured: Measurements = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(measured, setting.measurements);
}

struct Setting {
    directory: tempfile::TempDir,
    machine: Qemu,
    measurements: Measurements,
}

/// A machine with the test's guest in the production image's place; `then` is what it does after the heartbeat.
fn setting(then: &str) -> Setting {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let image = path("test.eif");
    let measurements = make_image(directory.path(), &image);
    fs::create_dir(path("run")).unwrap();
    let emulator = input("NITRO_SIGN_EMULATOR", "debug/emulator", "cargo xtask build");
    let made = Command::new(&emulator).arg("authority").arg("--dir").arg(path("authority")).status();
    assert!(made.unwrap().success());
    let program = |program: PathBuf| Invocation { program, arguments: vec![] };
    let authority = path("authority").to_str().unwrap().to_owned();
    let machine = Qemu {
        image,
        qemu: program(input("NITRO_SIGN_QEMU", "qemu/qemu-system-x86_64", "cargo xtask qemu")),
        vsock_device: program(input(
            "NITRO_SIGN_VSOCK_DEVICE",
            "tools/bin/vhost-device-vsock",
            "cargo xtask qemu",
        )),
        nsm_device: Invocation {
            program: emulator,
            arguments: vec!["nsm-device".to_owned(), "--authority-dir".to_owned(), authority],
        },
        memory_mib: 128,
        guest_cid: 16,
        extra_command_line: format!("guest_then={then}"),
    };
    Setting { directory, machine, measurements }
}

/// Takes kernel and command line of the production image.
fn make_image(directory: &Path, image: &Path) -> Measurements {
    let production = input("NITRO_SIGN_IMAGE", "image/image.eif", "cargo xtask image");
    let parts = directory.join("production");
    let summary = eif::extract(&production, &parts).unwrap();
    let mut ramdisk = Ramdisk::default();
    let program = EntryKind::File(fs::read(guest(directory)).unwrap());
    ramdisk.add("/init", Entry { mode: 0o755, kind: program }).unwrap();
    let made = Image {
        architecture: summary.architecture,
        kernel: fs::read(parts.join("kernel")).unwrap(),
        command_line: summary.command_line,
        ramdisks: vec![ramdisk.to_gzip().unwrap(), Ramdisk::default().to_gzip().unwrap()],
        metadata: summary.metadata,
    };
    made.write(File::create(image).unwrap()).unwrap();
    made.measurements()
}

/// Compiles the guest's program.
fn guest(directory: &Path) -> PathBuf {
    let program = directory.join("init");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--target=x86_64-unknown-linux-musl", "-Cpanic=abort", "-Cstrip=symbols"]);
    rustc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/init.rs")).arg("-o").arg(&program);
    assert!(rustc.status().unwrap().success(), "compiling the guest's program failed");
    program
}

/// A file that another command makes, under `target/`.
fn input(variable: &str, default: &str, made_by: &str) -> PathBuf {
    // Cargo makes `target/tmp` for tests.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let path = std::env::var_os(variable).map_or_else(|| target.join(default), PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `{made_by}`, or set {variable}", path.display());
    path
}

impl Setting {
    fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Writes a configuration for the program, and the files that it reads before a launch.
    fn write_config(&self) -> PathBuf {
        let path = |name: &str| self.directory.path().join(name);
        for name in ["identity", "bundle"] {
            fs::write(path(name), name).unwrap();
        }
        let credentials = r#"{"access_key_id":"AKIATEST","secret_access_key":"s3cr3t"}"#;
        fs::write(path("credentials.json"), credentials).unwrap();
        let machine = &self.machine;
        let words = |invocation: &Invocation| {
            let mut words = vec![invocation.program.to_str().unwrap().to_owned()];
            words.extend(invocation.arguments.iter().cloned());
            words
        };
        let text = toml::to_string(&json!({
            "runtime_dir": "run",
            "enclave": {
                "backend": "qemu",
                "pcr0": self.measurements.pcr0,
                "attestation_root": "authority/root.pem",
                "qemu": {
                    "image": machine.image,
                    "qemu": words(&machine.qemu),
                    "vsock_device": words(&machine.vsock_device),
                    "nsm_device": words(&machine.nsm_device),
                    "memory_mib": machine.memory_mib,
                    "extra_command_line": machine.extra_command_line,
                },
            },
            "ciphertexts": { "identity": "identity", "bundle": "bundle" },
            "bundle": { "epoch": 1, "sha256": SHA256_OF_BUNDLE },
            "kms": {
                "region": "eu-central-1",
                "key_id": "key",
                "upstream": "127.0.0.1:1",
                "credentials_file": "credentials.json",
            },
            "ingress": { "listen": "127.0.0.1:0" },
            "limits": { "session_deadline_ms": 100 },
        }))
        .unwrap();
        let config = path("parent.toml");
        fs::write(&config, text).unwrap();
        config
    }

    fn parent(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_parent"));
        command.args(["run", "--config"]).arg(self.write_config()).stdin(Stdio::null());
        Process(command.spawn().unwrap())
    }
}

/// A process that is killed when the test ends.
struct Process(Child);

impl Process {
    fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the machine and returns after its heartbeat.
async fn boot(setting: &Setting) -> Box<dyn Launched> {
    let backend = QemuBackend::new(setting.machine.clone(), &setting.run());
    let staged = backend.stage().unwrap();
    assert_eq!(staged.measurements(), setting.measurements);
    let heartbeat = Heartbeat::start(Listener::bind(&staged.peer().port(HEARTBEAT_PORT)).await.unwrap());
    let mut enclave = staged.launch().await.unwrap();
    tokio::select! {
        seen = timeout(PATIENCE, heartbeat.seen()) => seen.expect("no heartbeat"),
        ended = enclave.exited() => panic!("{ended}"),
    }
    enclave
}

fn console(setting: &Setting) -> String {
    fs::read_to_string(setting.run().join("console.log")).unwrap_or_default()
}

async fn console_says(setting: &Setting, text: &str) {
    until(text, || console(setting).contains(text)).await;
}

fn status(setting: &Setting) -> Value {
    let content = fs::read(setting.run().join("status.json")).unwrap_or_default();
    serde_json::from_slice(&content).unwrap_or_default()
}

fn pid(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What QEMU's monitor says about the machine.
async fn monitor_status(socket: &Path) -> Value {
    let mut stream = BufReader::new(UnixStream::connect(socket).await.unwrap());
    let mut answer = String::new();
    stream.read_line(&mut answer).await.unwrap();
    for command in ["qmp_capabilities", "query-status"] {
        stream.write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes()).await.unwrap();
        answer.clear();
        stream.read_line(&mut answer).await.unwrap();
    }
    serde_json::from_str(&answer).unwrap()
}

fn send(signal: Signal, process: u32) {
    kill(Pid::from_raw(process.try_into().unwrap()), signal).unwrap();
}

/// The processes whose working directory is `directory` or below, zombies left out.
fn processes_in(directory: &Path) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
        })
        .collect()
}
