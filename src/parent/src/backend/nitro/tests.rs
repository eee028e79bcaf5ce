use std::{
    collections::VecDeque,
    fs,
    io::{self, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, MutexGuard},
};

use tokio::time::{sleep, timeout};

use super::*;
use crate::{Reason, testing::machine::image};

const PATIENCE: Duration = Duration::from_secs(20);

/// Plays the driver: remembers what it was asked, and fails as it was told.
#[derive(Debug, Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    asked: Vec<String>,
    /// Error numbers of the next steps whose name starts so.
    failures: VecDeque<(&'static str, i32)>,
    image: Vec<u8>,
    /// The context id of the enclave, if it is not the one that was asked for.
    other_cid: Option<u64>,
    /// The other end of the enclave's descriptor.
    hypervisor: Option<UnixStream>,
}

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn failing(failures: &[(&'static str, i32)]) -> Self {
        let fake = Self::default();
        fake.state().failures.extend(failures);
        fake
    }

    fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    fn step(&self, name: &'static str, asked: String) -> Result<(), DriverError> {
        let mut state = self.state();
        state.asked.push(asked);
        match state.failures.front() {
            Some((step, code)) if *step == name => {
                let code = *code;
                state.failures.pop_front();
                Err(DriverError::Refused { step: name, code })
            }
            _ => Ok(()),
        }
    }
}

impl Driver for Fake {
    fn create(&self) -> Result<Box<dyn Slot>, DriverError> {
        self.step("create", "create".to_owned())?;
        let (descriptor, hypervisor) = UnixStream::pair().unwrap();
        self.state().hypervisor = Some(hypervisor);
        Ok(Box::new(FakeSlot { driver: self.clone(), descriptor }))
    }
}

struct FakeSlot {
    driver: Fake,
    descriptor: UnixStream,
}

impl AsFd for FakeSlot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Slot for FakeSlot {
    fn add_cpu(&mut self) -> Result<(), DriverError> {
        self.driver.step("cpu", "cpu".to_owned())
    }

    fn set_memory(&mut self, image: &[u8], memory_mib: usize) -> Result<(), DriverError> {
        self.driver.state().image = image.to_vec();
        self.driver.step("memory", format!("memory {memory_mib}"))
    }

    fn start(&mut self, cid: u32) -> Result<u64, DriverError> {
        self.driver.step("start", format!("start {cid}"))?;
        Ok(self.driver.state().other_cid.unwrap_or(cid.into()))
    }
}

impl Drop for FakeSlot {
    fn drop(&mut self) {
        self.driver.state().asked.push("closed".to_owned());
    }
}

struct Setting {
    directory: tempfile::TempDir,
    backend: NitroBackend,
    driver: Fake,
}

fn setting(driver: Fake) -> Setting {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.eif");
    image().write(fs::File::create(&path).unwrap()).unwrap();
    let first_core = directory.path().join("thread_siblings_list");
    fs::write(&first_core, "0-1\n").unwrap();
    let enclave = Nitro { image: path, cpu_count: 2, memory_mib: 65, cid: 17 };
    let fake = Arc::new(driver.clone());
    let backend = NitroBackend { enclave, driver: fake, first_core, pause: Duration::ZERO };
    Setting { directory, backend, driver }
}

impl Setting {
    async fn launch(&self) -> Result<Box<dyn Launched>, BackendError> {
        self.backend.stage()?.launch().await
    }

    async fn refused(&self) -> (Reason, String) {
        let error = self.launch().await.err().unwrap();
        (error.reason(), error.to_string())
    }
}

const LAUNCH: [&str; 5] = ["create", "cpu", "cpu", "memory 66", "start 17"];

#[tokio::test]
async fn an_enclave_gets_its_cores_whole_huge_pages_and_the_image_that_was_measured() {
    let setting = setting(Fake::default());
    let measured = fs::read(&setting.backend.enclave.image).unwrap();
    let staged = setting.backend.stage().unwrap();
    assert_eq!(staged.measurements(), image().measurements());
    assert_eq!(setting.backend.measure().unwrap(), image().measurements());
    assert_eq!(staged.peer().to_string(), "vsock:any");
    assert_eq!(staged.caller(), Some(17));
    assert_eq!(setting.driver.asked(), [""; 0], "nothing is asked of the driver before the launch");

    fs::write(&setting.backend.enclave.image, "malice").unwrap();
    let launched = staged.launch().await.unwrap();
    assert_eq!(setting.driver.asked(), LAUNCH);
    assert_eq!(setting.driver.state().image, measured);
    assert_eq!(launched.peer().to_string(), "vsock:17");
    assert_eq!(launched.pid(), None);
}

#[tokio::test]
async fn an_enclave_that_ends_is_noticed_and_one_that_runs_is_not() {
    let setting = setting(Fake::default());
    let mut launched = setting.launch().await.unwrap();
    assert!(timeout(Duration::from_millis(100), launched.exited()).await.is_err());
    // Something to read is no end.
    setting.driver.state().hypervisor.as_ref().unwrap().write_all(b"x").unwrap();
    assert!(timeout(Duration::from_millis(100), launched.exited()).await.is_err());

    let hypervisor = setting.driver.state().hypervisor.take();
    let end = async {
        sleep(Duration::from_millis(50)).await;
        drop(hypervisor);
    };
    let (how, ()) = timeout(PATIENCE, async { tokio::join!(launched.exited(), end) }).await.unwrap();
    assert!(how.contains("the enclave ended"), "{how}");
    // It may be asked again.
    assert_eq!(timeout(PATIENCE, launched.exited()).await.unwrap(), how);
}

#[tokio::test]
async fn killing_or_dropping_an_enclave_closes_its_descriptor() {
    let setting = setting(Fake::default());
    let mut launched = setting.launch().await.unwrap();
    launched.kill().await;
    assert_eq!(setting.driver.asked().last().unwrap(), "closed");
    assert_eq!(timeout(PATIENCE, launched.exited()).await.unwrap(), "the enclave was terminated");
    launched.kill().await;
    drop(launched);
    assert_eq!(setting.driver.asked().len(), LAUNCH.len() + 1);

    let launched = setting.launch().await.unwrap();
    drop(launched);
    assert_eq!(setting.driver.asked().last().unwrap(), "closed");
}

#[tokio::test]
async fn what_fails_right_after_another_enclaves_end_is_tried_again() {
    let setting = setting(Fake::failing(&[("create", 5), ("cpu", 272), ("cpu", 272), ("start", 4)]));
    let _launched = setting.launch().await.unwrap();
    assert_eq!(
        setting.driver.asked(),
        ["create", "create", "cpu", "cpu", "cpu", "cpu", "memory 66", "start 17", "start 17"]
    );
}

#[tokio::test]
async fn what_keeps_failing_is_given_up_and_the_enclave_closed() {
    let setting = setting(Fake::failing(&[("cpu", 272); 4]));
    let (reason, message) = setting.refused().await;
    assert_eq!(reason, Reason::LaunchFailed);
    assert!(message.contains("ne_cpus") && message.contains("`enclave.nitro.cpu_count`"), "{message}");
    assert_eq!(setting.driver.asked(), ["create", "cpu", "cpu", "cpu", "cpu", "closed"]);
}

#[tokio::test]
async fn an_enclave_under_another_context_id_than_its_listeners_accept_from_is_closed() {
    let setting = setting(Fake::default());
    setting.driver.state().other_cid = Some(18);
    let (reason, message) = setting.refused().await;
    assert_eq!(reason, Reason::LaunchFailed);
    assert!(message.contains("18 instead of 17") && message.contains("`enclave.nitro.cid`"), "{message}");
    assert_eq!(setting.driver.asked().last().unwrap(), "closed");
}

#[tokio::test]
async fn memory_is_asked_for_once() {
    let setting = setting(Fake::failing(&[("memory", 264)]));
    let (reason, message) = setting.refused().await;
    assert_eq!(reason, Reason::LaunchFailed);
    assert!(message.contains("NUMA"), "{message}");
    assert_eq!(setting.driver.asked(), ["create", "cpu", "cpu", "memory 66", "closed"]);
}

#[tokio::test]
async fn what_the_configuration_has_wrong_is_not_tried_again() {
    for (step, code, key) in
        [("start", 269, "`enclave.nitro.cpu_count`"), ("start", 275, "`enclave.nitro.cid`")]
    {
        let setting = setting(Fake::failing(&[(step, code)]));
        let (reason, message) = setting.refused().await;
        assert_eq!(reason.name(), "ConfigurationInvalid");
        assert!(message.contains(key), "{message}");
        assert_eq!(setting.driver.asked().iter().filter(|asked| asked.starts_with(step)).count(), 1);
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_launched_is_refused_before_the_driver_is_asked() {
    let mut setting = setting(Fake::default());
    let path = setting.backend.enclave.image.clone();
    let mut other = image();
    other.architecture = match MACHINE {
        Architecture::X86_64 => Architecture::Aarch64,
        Architecture::Aarch64 => Architecture::X86_64,
    };
    other.write(fs::File::create(&path).unwrap()).unwrap();
    let (reason, message) = setting.refused().await;
    assert_eq!(reason.name(), "ConfigurationInvalid");
    assert!(message.contains("x86_64") && message.contains("aarch64"), "{message}");
    assert!(message.contains("`enclave.nitro.image`"), "{message}");

    let mut other = image();
    other.kernel = vec![0; 17 << 20];
    other.write(fs::File::create(&path).unwrap()).unwrap();
    let (reason, message) = setting.refused().await;
    assert_eq!(reason.name(), "ConfigurationInvalid");
    assert!(message.contains("set `enclave.nitro.memory_mib` to 69 or more, it is 65"), "{message}");

    fs::write(&path, "hello").unwrap();
    let (reason, message) = setting.refused().await;
    assert_eq!(reason, Reason::MeasurementMismatch);
    assert!(message.contains("image.eif") && message.contains("`enclave.nitro.image`"), "{message}");

    setting.backend.enclave.image = setting.directory.path().join("none.eif");
    assert!(setting.refused().await.1.contains("none.eif"));
    setting.backend.enclave.cpu_count = 3;
    let (reason, message) = setting.refused().await;
    assert_eq!(reason.name(), "ConfigurationInvalid");
    assert!(message.contains("multiple of 2"), "{message}");
    assert_eq!(setting.driver.asked(), [""; 0]);
}

/// Only where there is no driver: on an instance with enclaves this would start one.
#[tokio::test]
async fn a_machine_without_the_driver_is_told_what_it_lacks() {
    if Path::new(error::DEVICE).exists() {
        return;
    }
    let mut setting = setting(Fake::default());
    setting.backend.driver = Arc::new(Kernel);
    let (reason, message) = setting.refused().await;
    assert_eq!(reason, Reason::LaunchFailed);
    let source = io::Error::from_raw_os_error(nix::libc::ENOENT).to_string();
    assert!(message.contains(&format!("cannot open /dev/nitro_enclaves: {source}")), "{message}");
    assert!(message.contains("load the kernel module nitro_enclaves"), "{message}");
}
