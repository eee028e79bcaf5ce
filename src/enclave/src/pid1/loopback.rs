//! The loopback interface, for a workload that knows TCP only. An enclave has no other.

use std::os::fd::AsRawFd as _;

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// rtnetlink(7): `RTM_NEWLINK` with an acknowledgement (`NLM_F_REQUEST | NLM_F_ACK`), and the answer's type.
const RTM_NEWLINK: u16 = 16;
const REQUEST_WITH_ACK: u16 = 5;
const NLMSG_ERROR: u16 = 2;
/// Index of `lo`, the first interface that the kernel makes.
const LOOPBACK: i32 = 1;
const IFF_UP: u32 = 1;

const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: u8 = 32;

/// Brings `lo` up; the kernel then gives it 127.0.0.1 by itself.
pub(crate) fn up() -> nix::Result<()> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    acknowledged(&answer[..length])
}

/// `struct nlmsghdr` and `struct ifinfomsg`: of all flags, change `IFF_UP`, to 1.
fn request() -> [u8; REQUEST_BYTES as usize] {
    let mut request = [0; REQUEST_BYTES as usize];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &u32::from(REQUEST_BYTES).to_ne_bytes());
    put(4, &RTM_NEWLINK.to_ne_bytes());
    put(6, &REQUEST_WITH_ACK.to_ne_bytes());
    put(HEADER_BYTES + 4, &LOOPBACK.to_ne_bytes());
    put(HEADER_BYTES + 8, &IFF_UP.to_ne_bytes());
    put(HEADER_BYTES + 12, &IFF_UP.to_ne_bytes());
    request
}

/// `struct nlmsgerr`: a negative error number, or 0.
fn acknowledged(answer: &[u8]) -> nix::Result<()> {
    let number = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    match (kind, number(HEADER_BYTES)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(Errno::from_raw(-error)),
        _ => Err(Errno::EBADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, error: i32) -> Vec<u8> {
        let mut answer = vec![0; HEADER_BYTES];
        answer[4..6].copy_from_slice(&kind.to_ne_bytes());
        answer.extend(error.to_ne_bytes());
        answer.extend(request());
        answer
    }

    #[test]
    fn only_an_acknowledgement_without_error_is_success() {
        assert_eq!(acknowledged(&answer(NLMSG_ERROR, 0)), Ok(()));
        assert_eq!(acknowledged(&answer(NLMSG_ERROR, -1)), Err(Errno::EPERM));
        assert_eq!(acknowledged(&answer(RTM_NEWLINK, 0)), Err(Errno::EBADMSG));
        assert_eq!(acknowledged(&answer(NLMSG_ERROR, 0)[..HEADER_BYTES]), Err(Errno::EBADMSG));
        assert_eq!(acknowledged(b""), Err(Errno::EBADMSG));
    }

    /// On a machine whose loopback is up already it changes nothing; without the right to ask for it the kernel refuses.
    #[test]
    fn the_kernel_understands_the_request() {
        assert!(matches!(up(), Ok(()) | Err(Errno::EPERM)), "{:?}", up());
    }
}
