//! Two requests to the kernel over netlink(7): bring the loopback interface up, and list the vsock sockets.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};
use serde::Serialize;
use vsock::Endpoint;

const HEADER_BYTES: usize = 16;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// rtnetlink(7)
const RTM_NEWLINK: u16 = 16;
/// Index of `lo`, the first interface that the kernel makes.
const LOOPBACK: u32 = 1;
const IFF_UP: u32 = 1;

/// sock_diag(7), with `struct vsock_diag_req` and `struct vsock_diag_msg` of `linux/vm_sockets_diag.h`
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_VSOCK: u8 = 40;
const VSOCK_DIAG_BYTES: usize = 32;
const ESTABLISHED: u8 = 1;
const LISTENING: u8 = 10;

/// Brings `lo` up; the kernel then gives it 127.0.0.1 by itself.
pub(crate) fn loopback_up() -> Result<()> {
    // `struct ifinfomsg`: of all flags, change `IFF_UP`, to 1.
    let body = [0, LOOPBACK, IFF_UP, IFF_UP].map(u32::to_ne_bytes).concat();
    let socket = ask(SockProtocol::NetlinkRoute, RTM_NEWLINK, NLM_F_ACK, &body)?;
    match messages(&receive(&socket)?)?.as_slice() {
        [(NLMSG_ERROR, answer)] if error_of(answer)? == 0 => Ok(()),
        [(NLMSG_ERROR, answer)] => Err(Errno::from_raw(-error_of(answer)?).into()),
        _ => bail!("the kernel answered something else"),
    }
}

/// An `AF_VSOCK` socket of this machine, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VsockSocket {
    /// `listening`, `connected` or `other`.
    pub state: &'static str,
    /// Its own address.
    pub local: Endpoint,
    /// The other side's address, if it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Endpoint>,
}

impl VsockSocket {
    /// Is it the connection of one that listened at `port`?
    pub fn is_connection_at(&self, port: u32) -> bool {
        let at = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Vsock { port: p, .. } if *p == port);
        self.state == "connected" && at(&self.local)
    }
}

/// All vsock sockets of this machine: needs the kernel's `vsock_diag`.
pub fn vsock_sockets() -> Result<Vec<VsockSocket>> {
    list().context("the kernel does not list its vsock sockets; `modprobe vsock_diag`")
}

fn list() -> Result<Vec<VsockSocket>> {
    let mut body = vec![AF_VSOCK, 0, 0, 0];
    // In every state.
    body.extend(u32::MAX.to_ne_bytes());
    body.extend([0; 16]);
    let socket = ask(SockProtocol::NetlinkSockDiag, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &body)?;
    let mut sockets = Vec::new();
    loop {
        for (kind, body) in messages(&receive(&socket)?)? {
            match kind {
                NLMSG_DONE => return Ok(sockets),
                NLMSG_ERROR => return Err(Errno::from_raw(-error_of(body)?).into()),
                _ => sockets.push(vsock_socket(body)?),
            }
        }
    }
}

fn vsock_socket(message: &[u8]) -> Result<VsockSocket> {
    if message.len() < VSOCK_DIAG_BYTES {
        bail!("the kernel describes a vsock socket in {} bytes", message.len());
    }
    let endpoint = |at| {
        Ok::<_, anyhow::Error>(Endpoint::Vsock { cid: number(message, at)?, port: number(message, at + 4)? })
    };
    let (state, remote) = match message[2] {
        LISTENING => ("listening", None),
        ESTABLISHED => ("connected", Some(endpoint(12)?)),
        _ => ("other", None),
    };
    Ok(VsockSocket { state, local: endpoint(4)?, remote })
}

/// Sends one request.
fn ask(protocol: SockProtocol, kind: u16, flags: u16, body: &[u8]) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let mut request = u32::try_from(HEADER_BYTES + body.len())?.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Neither a sequence number nor a port is needed: there is one request for each socket.
    request.extend([0; 8]);
    request.extend(body);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    Ok(socket)
}

fn receive(socket: &OwnedFd) -> Result<Vec<u8>> {
    // More than the kernel puts into one answer.
    let mut answer = vec![0; 64 << 10];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

/// The messages in an answer: type and what is behind the header.
fn messages(mut answer: &[u8]) -> Result<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !answer.is_empty() {
        let length = usize::try_from(number(answer, 0)?)?;
        if length < HEADER_BYTES || length > answer.len() {
            bail!("the kernel's answer has a message of {length} bytes in {}", answer.len());
        }
        found.push((u16::from_ne_bytes([answer[4], answer[5]]), &answer[HEADER_BYTES..length]));
        answer = &answer[length.next_multiple_of(4).min(answer.len())..];
    }
    Ok(found)
}

/// `struct nlmsgerr`: a negative error number, or 0.
fn error_of(body: &[u8]) -> Result<i32> {
    Ok(number(body, 0)?.cast_signed())
}

fn number(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).context("the kernel's answer is too short")?;
    Ok(u32::from_ne_bytes(bytes.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = u32::try_from(HEADER_BYTES + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    fn described(state: u8, addresses: [u32; 4]) -> Vec<u8> {
        let mut body = vec![AF_VSOCK, 1, state, 0];
        body.extend(addresses.map(u32::to_ne_bytes).concat());
        body.extend([0; 12]);
        body
    }

    #[test]
    fn sockets_are_told_with_their_state_and_addresses() {
        let listening = vsock_socket(&described(LISTENING, [u32::MAX, 50051, u32::MAX, u32::MAX])).unwrap();
        assert_eq!(
            serde_json::to_value(&listening).unwrap(),
            serde_json::json!({"state": "listening", "local": "vsock:any:50051"})
        );
        assert!(!listening.is_connection_at(50051));
        let connected = vsock_socket(&described(ESTABLISHED, [1, 9001, 1, 1234])).unwrap();
        assert_eq!(
            serde_json::to_value(&connected).unwrap(),
            serde_json::json!({"state": "connected", "local": "vsock:1:9001", "remote": "vsock:1:1234"})
        );
        assert!(connected.is_connection_at(9001) && !connected.is_connection_at(1234));
        assert!(vsock_socket(&[AF_VSOCK; 31]).is_err());
    }

    #[test]
    fn an_answer_is_cut_into_its_messages_and_one_that_lies_about_its_length_is_refused() {
        let both = [message(20, &[7; 4]), message(NLMSG_DONE, &[0; 4])].concat();
        assert_eq!(messages(&both).unwrap(), [(20, &[7; 4][..]), (NLMSG_DONE, &[0; 4][..])]);
        assert!(messages(&both[..both.len() - 1]).is_err());
        assert!(messages(&[0; 16]).is_err());
        assert!(messages(&[1; 3]).is_err());
    }

    /// What the kernel refuses, and whether it has vsock, depends on the machine; that it understands does not.
    #[test]
    fn the_kernel_understands_the_request_for_the_loopback() {
        match loopback_up() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.downcast::<Errno>().unwrap(), Errno::EPERM),
        }
    }
}
