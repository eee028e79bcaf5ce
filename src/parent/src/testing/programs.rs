//! Shell scripts for programs, and what became of them.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// Prints the line that a hypervisor or device prints when it is ready.
pub(crate) const READY: &str = r#"echo '{"ready":true,"pcrs":{}}'; "#;
/// Does not end by itself; has a child.
pub(crate) const FOR_EVER: &str = "sleep 1000 & wait";

const PATIENCE: Duration = Duration::from_secs(20);

/// The text of a file, once its last line is whole.
pub(crate) async fn content(path: &Path) -> String {
    let started = Instant::now();
    loop {
        if let Ok(content) = fs::read_to_string(path)
            && content.ends_with('\n')
        {
            return content;
        }
        assert!(started.elapsed() < PATIENCE, "no {}", path.display());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a process runs; a zombie does not.
pub(crate) fn runs(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
        Ok(stat) => !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'),
        Err(_) => false,
    }
}

/// Waits until a process has ended.
pub(crate) async fn ends(pid: &str) {
    let started = Instant::now();
    while runs(pid) {
        assert!(started.elapsed() < PATIENCE, "process {pid} still runs");
        sleep(Duration::from_millis(10)).await;
    }
}
