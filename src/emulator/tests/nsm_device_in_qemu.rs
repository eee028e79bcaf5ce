//! The NSM device under the kernel of the image: QEMU boots it with a program that uses the module and prints what came
//! of it (`src/emulator/guest`).
//!
//! `cargo xtask test` makes what this needs: `target/image/image.eif`, whose kernel and command line are taken, and
//! `target/qemu/qemu-system-x86_64`; `NITRO_SIGN_IMAGE` and `NITRO_SIGN_QEMU` name others. The program is built by the
//! test, which takes two minutes the first time.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use attestation::{Expected, Measurements, Pcr, TrustRoot, verify};
use eif::{Architecture, Entry, EntryKind, Image, Ramdisk};
use serde_json::Value;

const GUEST_TARGET: &str = "x86_64-unknown-linux-musl";
/// A boot takes two seconds on an idle machine.
const PATIENCE: Duration = Duration::from_mins(2);

#[test]
fn the_kernels_driver_finds_a_module_that_extends_locks_and_signs() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let measurements = make_image(directory.path());

    let emulator = || Command::new(env!("CARGO_BIN_EXE_emulator"));
    assert!(emulator().arg("authority").arg("--dir").arg(path("authority")).status().unwrap().success());
    let mut device = Process::start(
        emulator()
            .arg("nsm-device")
            .args(["--socket", "nsm.sock", "--authority-dir", "authority", "--eif", "test.eif"])
            .current_dir(directory.path()),
    );
    let ready: Value = serde_json::from_str(&device.line(|_| true)).unwrap();
    assert_eq!(serde_json::from_value::<Measurements>(ready["pcrs"].clone()).unwrap(), measurements);

    let mut nonce = [0; 32];
    File::open("/dev/urandom").unwrap().read_exact(&mut nonce).unwrap();
    let mut qemu = Process::start(&mut qemu(directory.path(), &nonce));
    let report: Value = serde_json::from_str(&qemu.line(|line| line.starts_with('{'))).unwrap();
    println!("{report:#}");
    assert_eq!(report["error"], Value::Null);

    assert_eq!((&report["max_pcrs"], &report["pcr0"]["locked"]), (&32.into(), &true.into()));
    assert_eq!(report["locked_pcrs"], (0..16).collect::<Value>());
    assert_eq!(report["pcr0"]["value"], measurements.pcr0.to_string());
    let pcr16 = Pcr::ZERO.extend(b"configuration");
    assert_eq!(report["pcr16"], pcr16.to_string());
    let refusals =
        ["locked", "no_such_pcr", "too_large"].map(|name| report["refusals"][name].as_str().unwrap());
    assert_eq!(refusals, ["ReadOnlyIndex", "InvalidIndex", "InputTooLarge"]);
    let random = [&report["random"][0], &report["random"][1]]
        .map(|random| hex::decode(random.as_str().unwrap()).unwrap());
    assert!(random[0] != random[1] && random.iter().all(|random| random.len() == 256));

    let root = TrustRoot::from_pem(&fs::read_to_string(path("authority/root.pem")).unwrap()).unwrap();
    let cose = hex::decode(report["document"].as_str().unwrap()).unwrap();
    let document = verify(&cose, &root, SystemTime::now()).unwrap();
    assert_eq!(report["module_id"], *document.module_id);
    let expected = Expected {
        nonce: Some(&nonce),
        user_data: Some(b"user data"),
        public_key: Some(&[3; 1024]),
        pcr0: &[measurements.pcr0],
        pcr16: Some(pcr16),
        ..Expected::default()
    };
    assert_eq!(document.check(&expected), Ok(()));
    assert_eq!([document.pcr(1), document.pcr(2)], [Some(measurements.pcr1), Some(measurements.pcr2)]);

    qemu.ends();
    device.ends();
}

/// `test.eif` in `directory`, with the kernel of the production image; `kernel`, `cmdline` and `initrd` beside it, as the
/// hypervisor takes them out of the image.
fn make_image(directory: &Path) -> Measurements {
    let production = input("NITRO_SIGN_IMAGE", "image/image.eif", "cargo xtask image");
    let parts = directory.join("production");
    let summary = eif::extract(&production, &parts).unwrap();
    let mut ramdisk = Ramdisk::default();
    let program = EntryKind::File(fs::read(guest()).unwrap());
    ramdisk.add("/init", Entry { mode: 0o755, kind: program }).unwrap();
    ramdisk.add("/dev", Entry { mode: 0o755, kind: EntryKind::Directory }).unwrap();
    let image = Image {
        architecture: Architecture::X86_64,
        kernel: fs::read(parts.join("kernel")).unwrap(),
        command_line: summary.command_line,
        ramdisks: vec![ramdisk.to_gzip().unwrap(), Ramdisk::default().to_gzip().unwrap()],
        metadata: summary.metadata,
    };
    let path = directory.join("test.eif");
    image.write(File::create(&path).unwrap()).unwrap();
    eif::extract(&path, directory).unwrap();
    image.measurements()
}

/// A file that another command makes, under `target/`.
fn input(variable: &str, default: &str, made_by: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| target_directory().join(default), PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `{made_by}`, or set {variable}", path.display());
    path
}

fn target_directory() -> PathBuf {
    // Cargo makes `target/tmp` for tests.
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// Builds the guest's program and gives its path.
fn guest() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "nsm-guest", "--target", GUEST_TARGET]);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    build.arg("--target-dir").arg(target_directory());
    assert!(build.status().unwrap().success(), "building the guest's program failed");
    target_directory().join(GUEST_TARGET).join("debug/nsm-guest")
}

fn qemu(directory: &Path, nonce: &[u8]) -> Command {
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let command_line = format!(
        "{} reboot=t tsc=reliable tsc_early_khz={} quiet nsm_nonce={}",
        fs::read_to_string(directory.join("cmdline")).unwrap(),
        host_khz(),
        hex::encode(nonce),
    );
    let mut qemu = Command::new(input("NITRO_SIGN_QEMU", "qemu/qemu-system-x86_64", "cargo xtask qemu"));
    qemu.args(["-M", "microvm,acpi=off,pcie=off,accel=tcg,memory-backend=mem0"])
        .args(["-object", "memory-backend-memfd,id=mem0,size=256M,share=on", "-cpu", "max", "-smp", "1"])
        .args(["-no-reboot", "-nodefaults", "-display", "none", "-serial", "stdio"])
        .args(["-chardev", &format!("socket,id=nsm,path={}", file("nsm.sock"))])
        .args(["-device", "vhost-user-test-device,chardev=nsm,virtio-id=33,num_vqs=1,vq_size=64"])
        .args(["-kernel", &file("kernel"), "-initrd", &file("initrd"), "-append", &command_line]);
    qemu
}

/// The guest's clock runs at the host's rate; measuring it under load goes wrong.
fn host_khz() -> u64 {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap();
    let line = cpus.lines().find(|line| line.starts_with("cpu MHz")).expect("cpu MHz in /proc/cpuinfo");
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// A process that is killed when the test ends, and the lines it prints.
struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    deadline: Instant,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|size| size > 0) {
                // The console ends its lines with two characters.
                let text = String::from_utf8_lossy(&line).trim().to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new(), deadline: Instant::now() + PATIENCE }
    }

    /// The next line that `is_it`.
    fn line(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        loop {
            match self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if is_it(&line) => return line,
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("{error} after {:#?}", self.seen),
            }
        }
    }

    /// Waits for the process to end by itself, in peace.
    fn ends(mut self) {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < self.deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
