//! The image in QEMU: `cargo xtask vm` and `cargo xtask test` make what these tests need.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

mod image;
mod memory;
mod refusals;

use std::path::PathBuf;

use harness::{Node, Options, Qemu, Status, World, Worlds};

const TERMINAL: i32 = 2;
const TRANSIENT: i32 = 3;

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
    options.qemu = Some(qemu());
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
