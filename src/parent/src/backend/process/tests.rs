use std::{os::unix::fs::PermissionsExt as _, time::Instant};

use tokio::time::sleep;

use super::*;
use crate::testing::config_in;

const READY: &str = r#"echo '{"ready":true,"pcrs":{}}'; "#;
const FOR_EVER: &str = "sleep 1000 & wait";

struct Setting {
    directory: tempfile::TempDir,
    backend: ProcessBackend,
}

/// Shell scripts for the hypervisor and the enclave.
fn setting(hypervisor: &str, enclave: &str) -> Setting {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config_in(directory.path());
    config.enclave.process.hypervisor =
        vec![script(directory.path(), "hypervisor", hypervisor), "nsm".into()];
    script(directory.path(), "enclave", enclave);
    fs::create_dir(&config.runtime_dir).unwrap();
    Setting { backend: ProcessBackend::new(&config), directory }
}

fn script(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path.to_str().unwrap().to_owned()
}

impl Setting {
    async fn launch(&self) -> Result<Box<dyn Launched>, BackendError> {
        self.backend.prepare().await?;
        // A file written a moment ago may be held open by a child that another test is forking ("text file busy").
        for _ in 0..100 {
            match self.backend.launch().await {
                Err(BackendError::Start { source, .. })
                    if source.kind() == io::ErrorKind::ExecutableFileBusy =>
                {
                    sleep(Duration::from_millis(20)).await;
                }
                launched => return launched,
            }
        }
        panic!("the script stays busy")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("run/vm").join(name)
    }

    async fn content(&self, name: &str) -> String {
        for _ in 0..500 {
            if let Ok(content) = fs::read_to_string(self.path(name))
                && content.ends_with('\n')
            {
                return content;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("no {name}")
    }
}

/// Whether a process runs; a zombie does not.
fn runs(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
        Ok(stat) => !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'),
        Err(_) => false,
    }
}

async fn ends(pid: &str) {
    let started = Instant::now();
    while runs(pid) {
        assert!(started.elapsed() < Duration::from_secs(20), "process {pid} still runs");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_programs_run_in_a_fresh_private_directory_with_the_arguments_of_the_interface() {
    let setting = setting(
        &format!(r#"echo "$@" > arguments; {READY} {FOR_EVER}"#),
        &format!(r#"echo "$PWD $1" > where; {FOR_EVER}"#),
    );
    fs::create_dir(setting.path("")).unwrap();
    fs::write(setting.path("left-over"), "").unwrap();
    let _launched = setting.launch().await.unwrap();
    assert!(!setting.path("left-over").exists());
    assert_eq!(fs::metadata(setting.path("")).unwrap().permissions().mode() & 0o777, 0o700);
    let base = setting.directory.path().display();
    let arguments = format!(
        "nsm --socket nsm.sock --enclave {base}/enclave --sign-service {base}/sign-service --config {base}/enclave.toml\n"
    );
    assert_eq!(setting.content("arguments").await, arguments);
    assert_eq!(setting.content("where").await, format!("{base}/run/vm {base}/enclave.toml\n"));
}

#[tokio::test]
async fn the_environment_is_empty_but_for_two_variables() {
    let setting = setting(&format!("{READY} {FOR_EVER}"), &format!("/usr/bin/env > environment; {FOR_EVER}"));
    let _launched = setting.launch().await.unwrap();
    let environment = setting.content("environment").await;
    // The shell itself adds these.
    let allowed = ["PWD=", "_=", "SHLVL=", "OLDPWD=", "NITRO_SIGN_LOG=", "RUST_BACKTRACE="];
    for line in environment.lines() {
        assert!(allowed.iter().any(|name| line.starts_with(name)), "{line}");
    }
}

#[tokio::test]
async fn killing_an_enclave_ends_its_children_and_the_hypervisor_and_removes_the_directory() {
    let start_child = "sleep 1000 & echo $! > child; wait";
    let setting = setting(&format!("echo $$ > hypervisor-pid; {READY} {FOR_EVER}"), start_child);
    let mut launched = setting.launch().await.unwrap();
    let pids = [
        launched.pid().unwrap().to_string(),
        setting.content("child").await,
        setting.content("hypervisor-pid").await,
    ];
    assert!(pids.iter().all(|pid| runs(pid)));
    launched.kill().await;
    for pid in &pids {
        ends(pid).await;
    }
    drop(launched);
    assert!(!setting.path("").exists());
}

#[tokio::test]
async fn a_dropped_enclave_is_a_dead_enclave() {
    let setting = setting(&format!("{READY} {FOR_EVER}"), &format!("echo $$ > pid; {FOR_EVER}"));
    let launched = setting.launch().await.unwrap();
    let pid = setting.content("pid").await;
    drop(launched);
    ends(&pid).await;
}

#[tokio::test]
async fn an_end_is_told_with_its_status_and_last_words() {
    let setting = setting(&format!("{READY} {FOR_EVER}"), "echo first >&2; echo last words >&2; exit 7");
    let mut launched = setting.launch().await.unwrap();
    let exit = launched.exited().await;
    assert_eq!(exit, "the enclave ended (exit status: 7): last words");
    assert_eq!(launched.exited().await, exit);
}

#[tokio::test]
async fn without_its_hypervisor_an_enclave_counts_as_ended() {
    let setting = setting(&format!("{READY} sleep 0.2"), FOR_EVER);
    let mut launched = setting.launch().await.unwrap();
    assert!(launched.exited().await.starts_with("the hypervisor ended"));
}

#[tokio::test]
async fn a_hypervisor_that_does_not_become_ready_is_a_failed_launch() {
    for (script, problem) in [
        ("echo no authority >&2; exit 1", "exit status: 1): no authority"),
        ("echo hello; sleep 1000", "hello"),
        (r#"echo '{"ready":false}'; sleep 1000"#, "ready"),
    ] {
        let error = setting(script, FOR_EVER).launch().await.err().unwrap();
        assert!(matches!(error, BackendError::Hypervisor { .. }), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let setting = setting(&format!("{READY} {FOR_EVER}"), "");
    fs::remove_file(setting.directory.path().join("enclave")).unwrap();
    let error = setting.launch().await.err().unwrap();
    assert!(matches!(error, BackendError::Start { .. }));
    assert!(error.to_string().contains("enclave.process"), "{error}");
    assert!(setting.backend.measure().unwrap_err().to_string().contains("enclave"));
}
