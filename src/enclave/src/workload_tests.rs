use std::{io::Write as _, net::TcpListener as StdTcpListener, path::PathBuf, process::Command};

use api::control::{LogLine, enclave_message::Message};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixListener,
};

use super::*;
use crate::{
    fake_parent::Sockets,
    key_file::KeyFile,
    outbox::{Queue, outbox},
};

/// A workload of this test's own, and where the parent reaches it.
struct Setting {
    directory: tempfile::TempDir,
    sockets: Sockets,
    workload: Workload,
}

fn setting() -> Setting {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("echo");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/echo.rs");
    let compiled = Command::new("rustc").args(["--edition=2024", source, "-o"]).arg(&program).status();
    assert!(compiled.unwrap().success(), "compiling the workload failed");
    let (listen, relay) = free_ports();
    let key_share_file = directory.path().join("shares.json");
    let args = vec![key_share_file.to_str().unwrap().to_owned(), listen.to_string(), relay.to_string()];
    let workload = Workload {
        program,
        args,
        key_share_file: Some(key_share_file),
        health: Health::Tcp,
        keep_key_file: false,
        listen,
        relay,
    };
    Setting { directory, sockets: Sockets::new(), workload }
}

fn free_ports() -> (SocketAddr, SocketAddr) {
    let listeners = [(); 2].map(|()| StdTcpListener::bind("127.0.0.1:0").unwrap());
    let [listen, relay] = listeners.map(|listener| listener.local_addr().unwrap());
    (listen, relay)
}

impl Setting {
    fn key_file(&self) -> KeyFile {
        let mut key_file = KeyFile::create(&self.directory.path().join("shares.json")).unwrap();
        key_file.write_all(b"{\"version\":1}").unwrap();
        key_file
    }

    async fn start(&self, outbox: Outbox) -> Result<Service, BootError> {
        start(&self.workload, &self.sockets.peer(), outbox).await
    }

    /// Asks the workload, from the parent's side of the vsock.
    async fn ask(&self, question: &str) -> std::io::Result<String> {
        let Peer::UnixGuest { path } = self.sockets.peer() else { panic!("not a process") };
        let mut stream = vsock::connect(&Endpoint::Unix { path, port: ports::SIGN }).await?;
        stream.write_all(format!("{question}\n").as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        Ok(answer.trim_end().to_owned())
    }
}

fn logged(queue: &mut Queue) -> Vec<String> {
    let mut lines: Vec<_> = std::iter::from_fn(|| queue.next_now())
        .map(|message| match message {
            Message::Log(LogLine { line, .. }) => line,
            other => panic!("expected a log line, got {other:?}"),
        })
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_program_that_knows_tcp_only_is_reached_over_vsock_and_reaches_the_relay_over_it() {
    let setting = setting();
    let relay = UnixListener::bind(setting.sockets.of_port(ports::RELAY)).unwrap();
    tokio::spawn(async move {
        let mut stream = BufReader::new(relay.accept().await.unwrap().0);
        let mut question = String::new();
        stream.read_line(&mut question).await.unwrap();
        stream.write_all(format!("the relay got {question}").as_bytes()).await.unwrap();
    });
    let key_file = setting.key_file();
    let (outbox, mut queue) = outbox();
    let mut service = setting.start(outbox).await.unwrap();

    assert_eq!(setting.ask("hello").await.unwrap(), "hello");
    assert_eq!(setting.ask("relay something").await.unwrap(), "the relay got something");
    assert_eq!(setting.ask("keys").await.unwrap(), "key file there: true");
    key_file.destroy().unwrap();
    assert_eq!(setting.ask("keys").await.unwrap(), "key file there: false");

    assert_eq!(setting.ask("exit").await.unwrap_or_default(), "");
    let error = service.ended().await;
    assert_eq!(error.reason, FailureReason::ServiceExited);
    assert!(error.message.contains("exit status: 4"), "{}", error.message);
    assert_eq!(logged(&mut queue), ["0 variables", "read 13 bytes of key shares"]);
}

#[tokio::test]
async fn a_program_that_ends_before_it_serves_has_exited_and_was_never_reachable() {
    let setting = setting();
    // Without its key file.
    let error = setting.start(outbox().0).await.err().unwrap();
    assert_eq!(error.reason, FailureReason::ServiceExited);
    assert!(error.message.contains("exit status: 1"), "{}", error.message);
    assert!(setting.ask("hello").await.is_err());
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let mut setting = setting();
    setting.workload.program = PathBuf::from("/nonexistent/other");
    let error = setting.start(outbox().0).await.err().unwrap();
    assert_eq!(error.reason, FailureReason::ServiceExited);
    assert!(error.message.contains("/nonexistent/other"), "{}", error.message);
}

#[tokio::test]
async fn a_port_that_is_taken_fails_before_the_program_starts() {
    let setting = setting();
    let _key_file = setting.key_file();
    let _taken = StdTcpListener::bind(setting.workload.relay).unwrap();
    let (outbox, mut queue) = outbox();
    let error = setting.start(outbox).await.err().unwrap();
    assert_eq!(error.reason, FailureReason::Internal);
    assert!(error.message.contains(&setting.workload.relay.to_string()), "{}", error.message);
    assert!(logged(&mut queue).is_empty());
}

#[tokio::test]
async fn stopping_ends_the_program_and_closes_the_way_to_it() {
    let setting = setting();
    let _key_file = setting.key_file();
    let service = setting.start(outbox().0).await.unwrap();
    assert_eq!(setting.ask("hello").await.unwrap(), "hello");
    service.stop().await;
    assert!(setting.ask("hello").await.is_err());
    assert!(std::net::TcpStream::connect(setting.workload.listen).is_err());
}
