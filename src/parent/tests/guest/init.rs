//! PID 1 of a test's enclave: sends the heartbeat to the parent, then does what the kernel's command line says. Compiled by
//! the test with nothing but the standard library; `tests/qemu.rs` is the test.

use std::{
    env,
    fs::File,
    io::{Error, Read, Result, Write},
    os::fd::{AsRawFd, FromRawFd},
    thread::sleep,
    time::Duration,
};

const AF_VSOCK: i32 = 40;
const SOCK_STREAM: i32 = 1;
const HEARTBEAT_PORT: u32 = 9000;
const RB_AUTOBOOT: i32 = 0x0123_4567;

/// `struct sockaddr_vm` of linux/vm_sockets.h.
#[repr(C)]
struct SockaddrVm {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    zero: [u8; 4],
}

unsafe extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn connect(socket: i32, address: *const SockaddrVm, length: u32) -> i32;
    fn reboot(what: i32) -> i32;
}

fn main() {
    let variable = |name| env::var(name).unwrap_or_default();
    // The kernel makes environment variables of what it does not know on its command line, if it has no dot.
    let then = variable("guest_then");
    match heartbeat(2) {
        Ok(answer) => println!("guest: the heartbeat was answered with {answer:#04x}"),
        Err(error) => println!("guest: no heartbeat: {error}"),
    }
    match then.as_str() {
        "ends" => end(),
        "sleeps" => {
            println!("guest: before");
            sleep(Duration::from_secs(3));
            println!("guest: after");
            end()
        }
        "panics" => println!("guest: returning"),
        _ => loop {
            sleep(Duration::from_secs(1000));
        },
    }
}

fn heartbeat(cid: u32) -> Result<u8> {
    let address =
        SockaddrVm { family: AF_VSOCK as u16, reserved: 0, port: HEARTBEAT_PORT, cid, zero: [0; 4] };
    // SAFETY: plain system calls; the descriptor is checked, and owned by `stream` alone.
    let mut stream = unsafe {
        let descriptor = socket(AF_VSOCK, SOCK_STREAM, 0);
        if descriptor < 0 {
            return Err(Error::last_os_error());
        }
        File::from_raw_fd(descriptor)
    };
    // SAFETY: the address lives for the call and has the length given.
    if unsafe { connect(stream.as_raw_fd(), &address, size_of::<SockaddrVm>() as u32) } < 0 {
        return Err(Error::last_os_error());
    }
    stream.write_all(&[0xB7])?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}

/// With `-no-reboot` QEMU ends here.
fn end() {
    // SAFETY: takes a number, and nothing of this program outlives it.
    unsafe { reboot(RB_AUTOBOOT) };
}
