//! Listeners and connectors over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{io, time::Duration};

use nitro_sign_vsock::{Endpoint, Listener, Peer, Stream, connect};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

struct Vm {
    directory: tempfile::TempDir,
}

impl Vm {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("vm.vsock")
    }

    fn host(&self, port: u32) -> Endpoint {
        Peer::Unix { path: self.path() }.port(port)
    }

    fn guest(&self, port: u32) -> Endpoint {
        Peer::UnixGuest { path: self.path() }.port(port)
    }
}

async fn must_exchange(a: &mut Stream, b: &mut Stream) {
    for (from, to) in [(0, b"ping"), (1, b"pong")] {
        let (writer, reader) = if from == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
        writer.write_all(to).await.unwrap();
        let mut received = [0; 4];
        reader.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, to);
    }
}

async fn must_meet(listen: &Endpoint, dial: &Endpoint) {
    let listener = Listener::bind(listen).await.unwrap();
    let dial = if matches!(dial, Endpoint::Tcp { .. }) { listener.local() } else { dial };
    let (accepted, connected) = tokio::join!(listener.accept(), connect(dial));
    must_exchange(&mut accepted.unwrap(), &mut connected.unwrap()).await;
}

#[tokio::test]
async fn a_host_reaches_a_guest() {
    let vm = Vm::new();
    must_meet(&vm.guest(50051), &vm.host(50051)).await;
}

#[tokio::test]
async fn a_guest_reaches_the_host() {
    let vm = Vm::new();
    must_meet(&vm.host(9000), &vm.guest(9000)).await;
}

#[tokio::test]
async fn tcp_reports_the_port_the_system_chose() {
    let any: Endpoint = "tcp:127.0.0.1:0".parse().unwrap();
    must_meet(&any, &any).await;
}

#[tokio::test]
async fn a_port_nobody_listens_at_is_refused_by_name() {
    let vm = Vm::new();
    let listener = Listener::bind(&vm.guest(50051)).await.unwrap();
    let error = connect(&vm.host(50052)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains("port 50052"), "{error}");
    drop(listener);
}

#[tokio::test]
async fn slow_and_bad_clients_hold_up_nobody() {
    let vm = Vm::new();
    let listener = Listener::bind(&vm.guest(7)).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(UnixStream::connect(vm.path()).await.unwrap());
    }
    let mut bad = UnixStream::connect(vm.path()).await.unwrap();
    bad.write_all(b"CONNECT nine\n").await.unwrap();
    assert_eq!(bad.read(&mut [0; 1]).await.unwrap(), 0, "a bad client is disconnected");

    let host = vm.host(7);
    let meeting = async { tokio::join!(listener.accept(), connect(&host)) };
    let (accepted, connected) = timeout(Duration::from_secs(4), meeting).await.unwrap();
    must_exchange(&mut accepted.unwrap(), &mut connected.unwrap()).await;
}

#[tokio::test]
async fn a_cancelled_accept_loses_no_connection() {
    let vm = Vm::new();
    let listener = Listener::bind(&vm.guest(7)).await.unwrap();
    for _ in 0..3 {
        timeout(Duration::from_millis(5), listener.accept()).await.unwrap_err();
    }
    let mut connected = connect(&vm.host(7)).await.unwrap();
    must_exchange(&mut listener.accept().await.unwrap(), &mut connected).await;
}

#[tokio::test]
async fn the_socket_file_of_a_dead_process_is_replaced_and_of_a_live_one_is_not() {
    let vm = Vm::new();
    drop(std::os::unix::net::UnixListener::bind(vm.path()).unwrap());
    assert!(vm.path().exists(), "the standard library leaves the file behind");

    let live = Listener::bind(&vm.guest(7)).await.unwrap();
    let error = Listener::bind(&vm.guest(7)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("unix-guest:"), "{error}");

    drop(live);
    assert!(!vm.path().exists(), "dropping a listener removes its file");
}

#[tokio::test]
async fn a_file_that_is_not_a_socket_is_never_removed() {
    let vm = Vm::new();
    std::fs::write(vm.path(), "precious").unwrap();
    let error = Listener::bind(&vm.guest(7)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(vm.path()).unwrap(), "precious");
}

#[tokio::test]
async fn a_listener_for_one_context_id_closes_what_has_none_and_goes_on() {
    let vm = Vm::new();
    for (listen, dial) in [(vm.guest(7), vm.host(7)), (vm.host(9000), vm.guest(9000))] {
        let listener = Listener::bind(&listen).await.unwrap().only_from(16);
        let refused = async {
            for _ in 0..2 {
                let mut client = connect(&dial).await.unwrap();
                assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "still open");
            }
        };
        tokio::select! {
            accepted = listener.accept() => panic!("accepted {accepted:?}"),
            refused = timeout(Duration::from_secs(5), refused) => refused.unwrap(),
        }
    }
}
