//! The NSM as a virtio device, as QEMU sees it: over vhost-user, with a driver's ring in shared memory.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "../src/nsm_device/ring/driver.rs"]
#[allow(dead_code, reason = "the tests beside the ring use the rest")]
mod driver;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use attestation::{ErrorCode, Expected, Measurements, MismatchError, Request, Response, TrustRoot, verify};
use driver::{Driver, MEMORY_SIZE, Part};
use eif::{Architecture, Image, Metadata};
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend as _, VhostUserProtocolFeatures};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const PATIENCE: Duration = Duration::from_secs(20);
/// The kernel driver's buffer for an answer.
const ROOM: usize = 0x3000;

fn emulator() -> Command {
    Command::new(env!("CARGO_BIN_EXE_emulator"))
}

fn image() -> Image {
    Image {
        architecture: Architecture::X86_64,
        kernel: b"kernel".to_vec(),
        command_line: "console=ttyS0".to_owned(),
        ramdisks: vec![b"runtime".to_vec(), b"application".to_vec()],
        metadata: Metadata::new("test", "1", "6.12"),
    }
}

/// An image and an authority.
fn prepared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    image().write(File::create(directory.path().join("image.eif")).unwrap()).unwrap();
    let authority = directory.path().join("authority");
    assert!(emulator().arg("authority").arg("--dir").arg(authority).status().unwrap().success());
    directory
}

fn device_command(directory: &Path) -> Command {
    let mut command = emulator();
    command.current_dir(directory).args(["nsm-device", "--socket", "nsm.sock"]);
    command.args(["--authority-dir", "authority", "--eif", "image.eif"]);
    command
}

/// The device's process, and the line it printed.
struct Device {
    child: Child,
    ready: serde_json::Value,
}

impl Device {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }

    fn pcrs(&self) -> Measurements {
        assert_eq!(self.ready["ready"], true);
        serde_json::from_value(self.ready["pcrs"].clone()).unwrap()
    }

    /// How the process ended by itself, and what it said on stderr.
    fn ended(mut self) -> (ExitStatus, String) {
        let status = within_patience("the device to end", || self.child.try_wait().unwrap());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status, log)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn within_patience<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What QEMU has of a device: its memory and the connection.
struct Machine {
    memory: GuestMemoryMmap,
    frontend: Frontend,
    kick: EventFd,
    call: EventFd,
}

impl Machine {
    fn connect(socket: &Path) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY_SIZE as u64).unwrap();
        let range = (GuestAddress(0), MEMORY_SIZE, Some(FileOffset::new(file, 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();

        let mut frontend = Frontend::connect(socket, 1).unwrap();
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        frontend.set_features(features).unwrap();
        let offered = frontend.get_protocol_features().unwrap();
        assert_eq!(offered, VhostUserProtocolFeatures::REPLY_ACK);
        frontend.set_protocol_features(offered).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let machine = Self {
            memory,
            frontend,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(EFD_NONBLOCK).unwrap(),
        };
        machine.frontend.set_mem_table(&[machine.region()]).unwrap();
        machine
    }

    fn region(&self) -> VhostUserMemoryRegionInfo {
        let region = self.memory.iter().next().unwrap();
        VhostUserMemoryRegionInfo::from_guest_region(region).unwrap()
    }

    /// What QEMU does when the driver says that it is ready (`DRIVER_OK`).
    fn start_ring(&mut self) {
        let start = self.region().userspace_addr;
        let ring = VringConfigData {
            queue_max_size: driver::QUEUE_SIZE,
            queue_size: driver::QUEUE_SIZE,
            desc_table_addr: start + driver::TABLE,
            avail_ring_addr: start + driver::AVAILABLE,
            used_ring_addr: start + driver::USED,
            ..VringConfigData::default()
        };
        self.frontend.set_vring_num(0, driver::QUEUE_SIZE).unwrap();
        self.frontend.set_vring_addr(0, &ring).unwrap();
        self.frontend.set_vring_base(0, 0).unwrap();
        self.frontend.set_vring_call(0, &self.call).unwrap();
        self.frontend.set_vring_kick(0, &self.kick).unwrap();
        self.frontend.set_vring_enable(0, true).unwrap();
    }

    fn wait_for_call(&self) {
        within_patience("the device's interrupt", || self.call.read().ok());
    }

    /// Sends one request over a ring that is used from its start, and waits for the answer.
    fn ask(&mut self, request: &Request) -> Response {
        let memory = self.memory.clone();
        let mut driver = Driver::new(&memory);
        self.start_ring();
        let (_, _, buffer) = driver.request(&bytes_of(request), ROOM);
        self.kick.write(1).unwrap();
        self.wait_for_call();
        let response = answer(&driver, buffer);
        self.frontend.get_vring_base(0).unwrap();
        response
    }
}

fn bytes_of(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(request, &mut bytes).unwrap();
    bytes
}

/// The answer to the only request in the ring.
fn answer(driver: &Driver<'_>, buffer: Part) -> Response {
    let [(_, 0), (_, written)] = driver.returned()[..] else { panic!("{:?}", driver.returned()) };
    let bytes = driver.contents(buffer, usize::try_from(written).unwrap());
    ciborium::from_reader(&bytes[..]).unwrap()
}

fn document(directory: &Path, response: Response) -> attestation::Document {
    let Response::Attestation { document } = response else { panic!("{response:?}") };
    let root = fs::read_to_string(directory.join("authority/root.pem")).unwrap();
    verify(&document, &TrustRoot::from_pem(&root).unwrap(), SystemTime::now()).unwrap()
}

#[test]
fn the_device_measures_the_image_extends_locks_and_signs() {
    let directory = prepared();
    let device = Device::start(&mut device_command(directory.path()));
    assert_eq!(device.pcrs(), image().measurements());
    let mut machine = Machine::connect(&directory.path().join("nsm.sock"));

    let extend = Request::ExtendPCR { index: 16, data: b"configuration".to_vec() };
    assert!(matches!(machine.ask(&extend), Response::ExtendPCR { .. }));
    assert!(matches!(machine.ask(&Request::LockPCR { index: 16 }), Response::LockPCR));
    assert!(matches!(machine.ask(&extend), Response::Error(ErrorCode::ReadOnlyIndex)));
    let nonce = b"nonce".to_vec();
    let attest =
        Request::Attestation { user_data: None, nonce: Some(nonce.clone().into()), public_key: None };
    let document = document(directory.path(), machine.ask(&attest));
    let pcr16 = attestation::Pcr::ZERO.extend(b"configuration");
    let expected = Expected {
        nonce: Some(&nonce),
        pcr0: &[image().measurements().pcr0],
        pcr16: Some(pcr16),
        ..Expected::default()
    };
    assert_eq!(document.check(&expected), Ok(()));

    drop(machine);
    let (status, log) = device.ended();
    assert!(status.success(), "{log}");
}

#[test]
fn a_request_is_found_although_nobody_said_that_it_is_there() {
    let directory = prepared();
    let _device = Device::start(&mut device_command(directory.path()));
    let mut machine = Machine::connect(&directory.path().join("nsm.sock"));
    let memory = machine.memory.clone();
    // Queued before the ring is handed over: its kick went nowhere.
    let mut driver = Driver::new(&memory);
    let (_, _, buffer) = driver.request(&bytes_of(&Request::GetRandom), ROOM);
    machine.start_ring();
    machine.wait_for_call();
    assert!(matches!(answer(&driver, buffer), Response::GetRandom { random } if random.len() == 256));

    // And one that is queued later, in two steps.
    let request = driver.readable(&bytes_of(&Request::DescribeNSM));
    driver.chain(&[request]);
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(driver.returned().len(), 2);
    let buffer = driver.writable(ROOM);
    driver.chain(&[buffer]);
    machine.wait_for_call();
    assert_eq!(driver.returned().len(), 4);
}

#[test]
fn a_ring_that_is_taken_back_is_left_alone_and_served_again_from_its_start() {
    let directory = prepared();
    let _device = Device::start(&mut device_command(directory.path()));
    let mut machine = Machine::connect(&directory.path().join("nsm.sock"));
    let memory = machine.memory.clone();
    let mut driver = Driver::new(&memory);
    machine.start_ring();
    let request = driver.readable(&bytes_of(&Request::GetRandom));
    driver.chain(&[request]);
    machine.kick.write(1).unwrap();
    std::thread::sleep(Duration::from_millis(120));
    // The request that has no buffer yet still belongs to the driver.
    assert_eq!(machine.frontend.get_vring_base(0).unwrap(), 0);
    let buffer = driver.writable(ROOM);
    driver.chain(&[buffer]);
    machine.kick.write(1).unwrap();
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(driver.returned(), []);

    assert!(matches!(machine.ask(&Request::DescribeNSM), Response::DescribeNSM { .. }));
}

#[test]
fn a_ring_that_makes_no_sense_is_reported_once_and_does_not_end_the_device() {
    let directory = prepared();
    let device = Device::start(&mut device_command(directory.path()));
    let mut machine = Machine::connect(&directory.path().join("nsm.sock"));
    let memory = machine.memory.clone();
    let driver = Driver::new(&memory);
    driver.set_available(999);
    machine.start_ring();
    machine.kick.write(1).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    machine.frontend.get_vring_base(0).unwrap();
    assert!(matches!(machine.ask(&Request::GetRandom), Response::GetRandom { .. }));
    drop(machine);
    let (status, log) = device.ended();
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("cannot be served").count(), 1, "{log}");
}

#[test]
fn the_socket_goes_as_soon_as_there_is_a_connection() {
    let directory = prepared();
    let socket = directory.path().join("nsm.sock");
    let _device = Device::start(&mut device_command(directory.path()));
    let _machine = Machine::connect(&socket);
    within_patience("the socket to go", || (!socket.exists()).then_some(()));
}

#[test]
fn a_peer_that_speaks_something_else_ends_the_device_with_an_error() {
    let directory = prepared();
    let device = Device::start(&mut device_command(directory.path()));
    let mut stream = UnixStream::connect(directory.path().join("nsm.sock")).unwrap();
    stream.write_all(&[0xff; 512]).unwrap();
    let (status, log) = device.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("vhost-user connection"), "{log}");
}

#[test]
fn debug_mode_has_zeros() {
    let directory = prepared();
    let device = Device::start(device_command(directory.path()).arg("--debug-mode"));
    assert_eq!(device.pcrs(), Measurements::ZERO);
    let mut machine = Machine::connect(&directory.path().join("nsm.sock"));
    let attest = Request::Attestation { user_data: None, nonce: None, public_key: None };
    let document = document(directory.path(), machine.ask(&attest));
    assert_eq!(document.check(&Expected::default()), Err(MismatchError::DebugMode));
}

#[test]
fn a_socket_that_a_killed_device_left_is_replaced_but_not_a_file() {
    let directory = prepared();
    drop(Device::start(&mut device_command(directory.path())));
    let socket = directory.path().join("nsm.sock");
    assert!(socket.exists());
    drop(Device::start(&mut device_command(directory.path())));

    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "precious").unwrap();
    let output = device_command(directory.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nsm.sock"));
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
}

#[test]
fn an_image_that_is_missing_or_altered_is_named() {
    let directory = prepared();
    let path = directory.path().join("image.eif");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = || {
        let output = device_command(directory.path()).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let message = refused();
    assert!(message.contains("image.eif") && message.contains("CRC"), "{message}");
    fs::remove_file(&path).unwrap();
    assert!(refused().contains("image.eif"));
}
