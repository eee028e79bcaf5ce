use std::{fs, os::unix::fs::PermissionsExt as _};

use tokio::{
    io::AsyncWriteExt as _,
    net::UnixListener,
    task::{AbortHandle, JoinSet},
    time::{pause, sleep},
};

use super::*;
use crate::{
    Reason,
    config::Invocation,
    testing::{
        machine::{image, machine, shell},
        programs::{FOR_EVER, READY, content, ends, runs},
    },
};

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

struct Setting {
    directory: tempfile::TempDir,
    machine: Qemu,
    /// What plays the monitor of fake QEMUs.
    monitors: JoinSet<()>,
    greeting: &'static str,
}

fn setting() -> Setting {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("run")).unwrap();
    let machine = machine(directory.path());
    Setting { directory, machine, monitors: JoinSet::new(), greeting: GREETING }
}

impl Setting {
    fn backend(&self) -> QemuBackend {
        QemuBackend::new(self.machine.clone(), &self.directory.path().join("run"))
    }

    async fn launch(&mut self) -> Result<Box<dyn Launched>, BackendError> {
        let staged = self.backend().stage()?;
        self.monitor();
        staged.launch().await
    }

    /// Plays QEMU's monitor, beside the script that plays the rest.
    fn monitor(&mut self) -> AbortHandle {
        let listener = UnixListener::bind(self.path("qmp.sock")).unwrap();
        let greeting = self.greeting;
        self.monitors.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting.as_bytes()).await.unwrap();
            // Somebody who does not greet holds the connection.
            sleep(Duration::from_secs(if greeting.is_empty() { 1000 } else { 0 })).await;
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("run/vm").join(name)
    }

    async fn content(&self, name: &str) -> String {
        content(&self.path(name)).await
    }

    fn console_log(&self) -> PathBuf {
        self.directory.path().join("run/console.log")
    }

    /// The error of a launch that fails, after which nothing is left of it.
    async fn refused(&mut self) -> (Reason, String) {
        let error = self.launch().await.err().unwrap();
        assert!(!self.path("").exists(), "the directory is left");
        (error.reason(), error.to_string())
    }
}

#[tokio::test]
async fn the_programs_run_in_a_fresh_private_directory_with_the_arguments_of_the_interface() {
    let mut setting = setting();
    let tell = |name: &str| format!("printf '%s\\n' \"$@\" > {name}-arguments; ");
    setting.machine.vsock_device = shell(&format!("{}: > vhost.sock; {FOR_EVER}", tell("vsock")));
    setting.machine.nsm_device = shell(&format!("{}{READY}{FOR_EVER}", tell("nsm")));
    setting.machine.qemu =
        shell(&format!("{}cat kernel initrd > booted; echo >> booted; {FOR_EVER}", tell("qemu")));
    setting.machine.memory_mib = 96;
    setting.machine.guest_cid = 17;
    setting.machine.extra_command_line = "loglevel=7".to_owned();
    fs::create_dir(setting.path("")).unwrap();
    fs::write(setting.path("left-over"), "").unwrap();

    let _launched = setting.launch().await.unwrap();
    assert!(!setting.path("left-over").exists());
    assert_eq!(fs::metadata(setting.path("")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(
        setting.content("vsock-arguments").await,
        "--vm\nguest-cid=17,socket=vhost.sock,uds-path=vm.vsock\n"
    );
    assert_eq!(setting.content("nsm-arguments").await, "--socket\nnsm.sock\n--eif\nimage.eif\n");
    assert_eq!(setting.content("booted").await, "kernelruntimeapplication\n");
    let arguments = setting.content("qemu-arguments").await;
    assert!(arguments.contains("size=96M"), "{arguments}");
    let appended = arguments.lines().last().unwrap();
    assert!(appended.starts_with("console=ttyS0 nitro_sign.parent_cid=2 reboot=t"), "{appended}");
    assert!(appended.ends_with(" loglevel=7"), "{appended}");
}

#[tokio::test]
async fn what_was_measured_is_what_boots_whatever_becomes_of_the_configured_file() {
    let mut setting = setting();
    setting.machine.nsm_device = shell(&format!("cat image.eif > measured; {READY}{FOR_EVER}"));
    setting.machine.qemu = shell(&format!("cat kernel > booted; echo >> booted; {FOR_EVER}"));
    let measured = fs::read(&setting.machine.image).unwrap();
    let staged = setting.backend().stage().unwrap();
    assert_eq!(staged.measurements(), image().measurements());

    let mut other = image();
    other.kernel = b"malice".to_vec();
    other.write(fs::File::create(&setting.machine.image).unwrap()).unwrap();
    assert_ne!(setting.backend().measure().unwrap(), staged.measurements());
    setting.monitor();
    let _launched = staged.launch().await.unwrap();
    assert_eq!(setting.content("booted").await, "kernel\n");
    assert_eq!(fs::read(setting.path("measured")).unwrap(), measured);
}

#[test]
fn measuring_leaves_the_directory_of_a_running_enclave_alone() {
    let setting = setting();
    fs::create_dir(setting.path("")).unwrap();
    fs::write(setting.path("running"), "").unwrap();
    assert_eq!(setting.backend().measure().unwrap(), image().measurements());
    assert!(setting.path("running").exists());
}

#[test]
fn a_stage_that_is_not_launched_is_cleared_away() {
    let setting = setting();
    let staged = setting.backend().stage().unwrap();
    assert!(setting.path("kernel").exists());
    drop(staged);
    assert!(!setting.path("").exists());
}

#[tokio::test]
async fn an_image_that_cannot_be_launched_is_refused_by_name() {
    let mut setting = setting();
    let path = setting.machine.image.clone();
    fs::write(&path, "hello").unwrap();
    let (reason, message) = setting.refused().await;
    assert_eq!(reason, Reason::MeasurementMismatch);
    assert!(message.contains("image.eif") && message.contains("truncated"), "{message}");
    assert!(setting.backend().measure().unwrap_err().to_string().contains("`enclave.qemu.image`"));

    let mut other = image();
    other.architecture = eif::Architecture::Aarch64;
    other.write(fs::File::create(&path).unwrap()).unwrap();
    let (reason, message) = setting.refused().await;
    assert_eq!(reason.name(), "ConfigurationInvalid");
    assert!(message.contains("aarch64"), "{message}");

    let mut other = image();
    other.kernel = vec![0; 16 << 20];
    other.write(fs::File::create(&path).unwrap()).unwrap();
    let (reason, message) = setting.refused().await;
    assert_eq!(reason.name(), "ConfigurationInvalid");
    assert!(message.contains("to 65 or more, it is 64"), "{message}");

    for (missing, problem) in [("none.eif", "No such file"), ("run", "not a regular file")] {
        setting.machine.image = setting.directory.path().join(missing);
        let (reason, message) = setting.refused().await;
        assert_eq!(reason, Reason::MeasurementMismatch);
        assert!(message.contains(missing) && message.contains(problem), "{message}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_with_its_key() {
    let missing = Invocation { program: "/nonexistent/program".into(), arguments: vec![] };
    for key in ["qemu", "vsock_device", "nsm_device"] {
        let mut setting = setting();
        let machine = &mut setting.machine;
        *match key {
            "qemu" => &mut machine.qemu,
            "vsock_device" => &mut machine.vsock_device,
            _ => &mut machine.nsm_device,
        } = missing.clone();
        let (reason, message) = setting.refused().await;
        assert_eq!(reason, Reason::LaunchFailed);
        assert!(message.contains("/nonexistent/program"), "{message}");
        assert!(message.contains(&format!("`enclave.qemu.{key}`")), "{message}");
    }
}

#[tokio::test]
async fn a_device_that_ends_before_it_is_ready_is_named_with_its_last_words() {
    let mut setting = setting();
    setting.machine.vsock_device = shell("echo no such option >&2; exit 2");
    let (reason, message) = setting.refused().await;
    assert_eq!(reason, Reason::LaunchFailed);
    assert!(message.contains("the vsock device ended (exit status: 2): no such option"), "{message}");

    let mut setting = self::setting();
    setting.machine.nsm_device = shell("echo no authority >&2; exit 1");
    let (reason, message) = setting.refused().await;
    assert_eq!(reason, Reason::LaunchFailed);
    assert!(message.contains("the NSM device ended (exit status: 1): no authority"), "{message}");
}

#[tokio::test]
async fn a_qemu_that_refuses_the_machine_tells_why_and_nothing_is_left_running() {
    let mut setting = setting();
    let pids = setting.directory.path().join("pids");
    let keep = format!("echo $$ >> {}; ", pids.display());
    setting.machine.vsock_device = shell(&format!("{keep}: > vhost.sock; {FOR_EVER}"));
    setting.machine.nsm_device = shell(&format!("{keep}{READY}{FOR_EVER}"));
    setting.machine.qemu =
        shell("echo warning >&2; echo \"-device x: 'x' is not a valid device\" >&2; exit 1");
    // Nobody answers at the monitor's socket.
    let error = setting.backend().stage().unwrap().launch().await.err().unwrap();
    assert_eq!(error.reason(), Reason::LaunchFailed);
    let message = error.to_string();
    assert!(
        message.contains("QEMU ended (exit status: 1): warning; -device x: 'x' is not a valid device"),
        "{message}"
    );
    let pids = fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        ends(pid).await;
    }
    assert!(!setting.path("").exists());
}

#[tokio::test]
async fn something_else_at_the_monitors_socket_is_a_failed_launch() {
    let mut setting = setting();
    setting.greeting = "220 mail ready\r\n";
    let (reason, message) = setting.refused().await;
    assert_eq!(reason, Reason::LaunchFailed);
    assert!(message.contains("did not greet"), "{message}");
}

/// The message of a launch in which nothing more happens once the process `name`, whose script makes a file of that
/// name, has started.
async fn out_of_time(mut setting: Setting, name: &str) -> String {
    let started = setting.path(name);
    let waits = async {
        content(&started).await;
        pause();
        std::future::pending::<()>().await;
    };
    let launch = setting.launch();
    let error = tokio::select! {
        launched = launch => launched.err().unwrap(),
        () = waits => unreachable!("it waits for ever"),
    };
    assert_eq!(error.reason(), Reason::LaunchFailed);
    error.to_string()
}

#[tokio::test]
async fn a_program_that_never_becomes_ready_runs_out_of_time() {
    let silent = shell(&format!("echo > started; {FOR_EVER}"));
    let mut no_socket = setting();
    no_socket.machine.vsock_device = silent.clone();
    let message = out_of_time(no_socket, "started").await;
    assert!(message.contains("the vsock device") && message.contains("no socket"), "{message}");
}

#[tokio::test]
async fn a_device_that_does_not_say_that_it_is_ready_runs_out_of_time() {
    let mut silent = setting();
    silent.machine.nsm_device = shell(&format!("echo > started; {FOR_EVER}"));
    let message = out_of_time(silent, "started").await;
    assert!(
        message.contains("the NSM device") && message.contains("nothing on standard output"),
        "{message}"
    );
}

#[tokio::test]
async fn a_qemu_whose_monitor_is_silent_runs_out_of_time() {
    let mut silent = setting();
    silent.greeting = "";
    silent.machine.qemu = shell(&format!("echo > started; {FOR_EVER}"));
    let message = out_of_time(silent, "started").await;
    assert!(message.contains("QEMU") && message.contains("no monitor"), "{message}");
}

#[tokio::test]
async fn if_any_of_the_three_ends_the_enclave_is_gone() {
    for (name, end) in [
        ("QEMU", "QEMU ended (exit status: 7)"),
        ("the vsock device", "the vsock device ended (exit status: 7)"),
        ("the NSM device", "the NSM device ended (exit status: 7)"),
    ] {
        let mut setting = setting();
        let until_told = "while [ ! -e end ]; do sleep 0.02; done; exit 7";
        let machine = &mut setting.machine;
        match name {
            "QEMU" => machine.qemu = shell(until_told),
            "the vsock device" => machine.vsock_device = shell(&format!(": > vhost.sock; {until_told}")),
            _ => machine.nsm_device = shell(&format!("{READY}{until_told}")),
        }
        let mut launched = setting.launch().await.unwrap();
        assert!(timeout(Duration::from_millis(50), launched.exited()).await.is_err());
        fs::write(setting.path("end"), "").unwrap();
        assert_eq!(launched.exited().await, end);
        assert_eq!(launched.exited().await, end);
    }
}

#[tokio::test]
async fn the_end_of_qemu_explains_more_than_that_of_a_device_that_saw_it_first() {
    let mut setting = setting();
    setting.machine.nsm_device = shell(&format!("{READY} while [ ! -e end ]; do sleep 0.02; done"));
    setting.machine.qemu =
        shell("echo 'reboot: Power down'; while [ ! -e end ]; do sleep 0.02; done; sleep 0.2");
    let mut launched = setting.launch().await.unwrap();
    fs::write(setting.path("end"), "").unwrap();
    assert_eq!(
        launched.exited().await,
        "QEMU ended (exit status: 0); last on the console: reboot: Power down"
    );
}

#[tokio::test]
async fn what_the_machine_prints_is_kept_without_secrets() {
    let mut setting = setting();
    let key = format!("AGE-SECRET-KEY-1{}", "Q".repeat(58));
    setting.machine.qemu = shell(&format!("printf 'Linux\\r\\nidentity {key}\\r\\nend\\r\\n'; {FOR_EVER}"));
    fs::write(setting.console_log(), "an earlier launch\n").unwrap();
    let _launched = setting.launch().await.unwrap();
    let started = std::time::Instant::now();
    let log = loop {
        let log = content(&setting.console_log()).await;
        if log.ends_with("end\n") {
            break log;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{log}");
        sleep(Duration::from_millis(10)).await;
    };
    assert!(log.starts_with("Linux\nidentity "), "{log}");
    assert!(!log.contains("QQQ"), "{log}");
}

#[tokio::test]
async fn killing_an_enclave_ends_all_programs_with_their_children_and_removes_the_directory() {
    let mut setting = setting();
    let tell = |name: &str| format!("sleep 1000 & echo $$ $! > {name}-pids; ");
    setting.machine.vsock_device = shell(&format!("{}: > vhost.sock; wait", tell("vsock")));
    setting.machine.nsm_device = shell(&format!("{}{READY} wait", tell("nsm")));
    setting.machine.qemu = shell(&format!("{} wait", tell("qemu")));
    let mut launched = setting.launch().await.unwrap();
    let mut pids = Vec::new();
    for name in ["qemu-pids", "vsock-pids", "nsm-pids"] {
        pids.extend(setting.content(name).await.split_whitespace().map(str::to_owned));
    }
    assert_eq!(launched.pid().unwrap().to_string(), pids[0]);
    assert_eq!(launched.qmp().unwrap(), setting.path("qmp.sock"));
    assert!(pids.len() == 6 && pids.iter().all(|pid| runs(pid)));
    launched.kill().await;
    for pid in &pids {
        ends(pid).await;
    }
    drop(launched);
    assert!(!setting.path("").exists());
}

#[tokio::test]
async fn a_dropped_enclave_is_a_dead_enclave() {
    let mut setting = setting();
    setting.machine.qemu = shell(&format!("echo $$ > pid; {FOR_EVER}"));
    let launched = setting.launch().await.unwrap();
    let pid = setting.content("pid").await;
    drop(launched);
    ends(&pid).await;
}
