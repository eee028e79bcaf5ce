use std::io;

use vsock::{Listener, Peer};

use crate::{
    Failed, Reason,
    backend::{Staged, process::LOCAL},
};

/// Where this side listens for an enclave, and from whom it accepts there.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    at: Peer,
    caller: Option<u32>,
}

impl Host {
    /// Of an enclave that is about to be launched.
    pub(crate) fn of(staged: &dyn Staged) -> Self {
        Self { at: staged.peer(), caller: staged.caller() }
    }

    #[cfg(test)]
    pub(crate) fn of_unix_socket(path: &std::path::Path) -> Self {
        Self { at: Peer::Unix { path: path.to_owned() }, caller: None }
    }

    /// Listens for the enclave at this port, and for nobody else where it can be told from others.
    pub(crate) async fn listen(&self, port: u32) -> Result<Listener, Failed> {
        let bound = Listener::bind(&self.at.port(port)).await;
        let listener = bound.map_err(|error| unavailable(&self.at, &error))?;
        Ok(match self.caller {
            Some(cid) => listener.only_from(cid),
            None => listener,
        })
    }
}

fn unavailable(host: &Peer, error: &io::Error) -> Failed {
    let remedy = match (host, error.kind()) {
        (Peer::Vsock { .. }, io::ErrorKind::AddrInUse) => "; another parent may be running on this machine",
        // The kinds that the system uses for a context id, or a family of sockets, that it lacks have no stable names.
        (&Peer::Vsock { cid: LOCAL }, _) => {
            "; vsock has to be there with its loopback: `modprobe vsock_loopback`"
        }
        (Peer::Vsock { .. }, _) => "; vsock has to be there: `modprobe nitro_enclaves`",
        _ => "",
    };
    Failed::new(Reason::SocketUnavailable, format!("{error}{remedy}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::*;

    #[test]
    fn a_vsock_port_that_cannot_be_had_is_named_with_its_remedy() {
        let vsock = Peer::Vsock { cid: LOCAL };
        let any = vsock.any();
        let unix = Peer::Unix { path: "vm.vsock".into() };
        for (host, kind, remedy) in [
            (&vsock, io::ErrorKind::AddrNotAvailable, "modprobe vsock_loopback"),
            (&vsock, io::ErrorKind::AddrInUse, "another parent"),
            (&any, io::ErrorKind::AddrInUse, "another parent"),
            (&any, io::ErrorKind::AddrNotAvailable, "modprobe nitro_enclaves"),
            (&unix, io::ErrorKind::AddrInUse, "port 9000"),
        ] {
            let failed = unavailable(host, &io::Error::new(kind, "cannot listen at port 9000"));
            assert_eq!(failed.reason, Reason::SocketUnavailable);
            assert!(failed.message.starts_with("cannot listen at port 9000"), "{failed}");
            assert!(failed.message.contains(remedy), "{failed}");
        }
    }

    /// Unix sockets have no context id, so nobody at them is the caller: what is refused and what is not can be seen here.
    #[tokio::test]
    async fn listeners_are_for_the_caller_alone_if_there_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.vsock");
        let dial = Peer::UnixGuest { path: path.clone() }.port(9000);
        for (caller, is_served) in [(None, true), (Some(16), false)] {
            let host = Host { at: Peer::Unix { path: path.clone() }, caller };
            let listener = host.listen(9000).await.unwrap();
            let served = async {
                let mut client = vsock::connect(&dial).await.unwrap();
                client.read_u8().await.is_ok()
            };
            let serve = async {
                listener.accept().await.unwrap().write_u8(1).await.unwrap();
                std::future::pending::<()>().await;
            };
            let served = timeout(Duration::from_secs(10), async {
                tokio::select! {
                    served = served => served,
                    () = serve => false,
                }
            });
            assert_eq!(served.await, Ok(is_served), "{caller:?}");
        }
    }

    /// On a machine that has vsock with its loopback the port is had; on any other the failure says what is missing.
    #[tokio::test]
    async fn the_systems_own_refusal_is_one_of_them() {
        let host = Host { at: Peer::Vsock { cid: LOCAL }, caller: Some(LOCAL) };
        // No port of this system.
        if let Err(failed) = host.listen(59_123).await {
            assert!(failed.message.contains("vsock:1:59123"), "{failed}");
            assert!(failed.message.contains("modprobe vsock_loopback"), "{failed}");
        }
    }
}
