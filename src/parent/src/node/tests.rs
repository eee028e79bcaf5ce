use tokio::{net::TcpStream, runtime::Runtime, time::sleep};

use super::*;
use crate::{
    run::launch,
    testing::enclave::{Script, Setting, setting},
};

/// An enclave that is launched, unsealed and verified; ingress is yet closed.
async fn verified() -> (tempfile::TempDir, Node, Service) {
    let Setting { directory, config, backend } = setting(Script::Honest);
    let config = Arc::new(config);
    let mut status = StatusFile::create(&config.runtime_dir, "fake").unwrap();
    let (guest, expected) = launch(&config, Arc::new(backend), &mut status).await.unwrap();
    let mut node = Node::new(config, guest, expected, status);
    let service = node.unseal().await.unwrap();
    node.verify_inside(&service).await.unwrap();
    (directory, node, service)
}

#[tokio::test]
async fn an_ingress_bridge_that_dies_is_opened_again_at_its_port_and_everything_verified_again() {
    let (_directory, mut node, service) = verified().await;
    // The bridge runs on a runtime of its own, which can be taken from under it.
    let other = Runtime::new().unwrap();
    {
        let _context = other.enter();
        node.open_ingress().await.unwrap();
    }
    node.verify_through_ingress(&service).await.unwrap();
    node.serving();
    let before = node.status.get().clone();
    other.shutdown_background();

    while node.status.get().history.len() < before.history.len() + 2 {
        node.watch_once(&service).await.unwrap();
    }
    let after = node.status.get();
    let states: Vec<_> = after.history[before.history.len()..].iter().map(|entered| entered.state).collect();
    assert_eq!(states, [State::Verifying, State::Serving]);
    assert_eq!(after.ingress, before.ingress);
    assert_ne!(after.attestation_document, before.attestation_document);
    TcpStream::connect(after.ingress.as_ref().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_healthy_enclave_is_watched_quietly() {
    let (_directory, mut node, service) = verified().await;
    node.open_ingress().await.unwrap();
    node.verify_through_ingress(&service).await.unwrap();
    node.serving();
    let states = node.status.get().history.len();
    tokio::select! {
        failed = node.watch(&service) => panic!("{failed}"),
        () = sleep(Duration::from_millis(300)) => {}
    }
    assert_eq!(node.status.get().history.len(), states);
}

#[tokio::test]
async fn an_enclave_that_ends_without_a_word_after_it_warned_is_explained_by_the_warning() {
    let Setting { directory: _directory, config, backend } = setting(Script::EndsLater);
    let now = Arc::clone(&backend.now);
    let config = Arc::new(config);
    let mut status = StatusFile::create(&config.runtime_dir, "fake").unwrap();
    let (guest, expected) = launch(&config, Arc::new(backend), &mut status).await.unwrap();
    let mut node = Node::new(config, guest, expected, status);
    let service = node.unseal().await.unwrap();
    let details = [("memory_used_kib", "950"), ("memory_total_kib", "1000")];
    let details = details.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    node.note_step(&BootEvent { step: MEMORY_LOW.to_owned(), details, ..BootEvent::default() });
    now.notify_one();
    let failed = node.watch(&service).await;
    assert_eq!(failed.reason, Reason::EnclaveExited);
    assert!(failed.message.contains("ended (for a test); it had warned"), "{failed}");
    assert!(failed.message.contains("950 of 1000 KiB"), "{failed}");
}

#[test]
fn only_an_unexplained_end_after_a_warning_is_explained_by_it() {
    let exited = || Failed::new(Reason::EnclaveExited, "it ended");
    let memory = Memory { used_kib: 950, total_kib: 1000, is_low: true, unix_ms: 7 };
    assert_ne!(explained(exited(), Some(memory)), exited());
    assert_eq!(explained(exited(), Some(Memory { is_low: false, ..memory })), exited());
    assert_eq!(explained(exited(), None), exited());
    let named = Failed::new(Reason::ControlLost, "it runs on");
    assert_eq!(explained(named.clone(), Some(memory)), named);
}

#[tokio::test]
async fn the_enclaves_memory_is_in_the_status_and_a_warning_is_no_step() {
    let (_directory, mut node, _) = verified().await;
    assert_eq!(node.status.get().memory, None);
    let event = |step: &str, used: &str| {
        let details = [("memory_used_kib", used), ("memory_total_kib", "1000")];
        let details = details.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        BootEvent { step: step.to_owned(), unix_ms: 7, duration_us: 3000, details }
    };
    node.note_step(&event("ready", "500"));
    let mut expected = Memory { used_kib: 500, total_kib: 1000, is_low: false, unix_ms: 7 };
    assert_eq!(node.status.get().memory, Some(expected));

    node.note_step(&event("memory_low", "950"));
    (expected.used_kib, expected.is_low) = (950, true);
    assert_eq!(node.status.get().memory, Some(expected));
    assert_eq!(node.status.get().timings_ms["enclave.ready"], 3);
    assert!(!node.status.get().timings_ms.contains_key("enclave.memory_low"));

    // What is no figure changes nothing, and what reports no memory neither.
    node.note_step(&event("memory_low", "much"));
    node.note_step(&BootEvent { step: "later".to_owned(), ..BootEvent::default() });
    assert_eq!(node.status.get().memory, Some(expected));
}

#[tokio::test]
async fn a_digest_of_the_wrong_length_is_refused() {
    let failed = service(&Ready { spki_sha256: vec![1; 31], ..Ready::default() }, false).unwrap_err();
    assert_eq!(failed.reason, Reason::VerificationFailed);
    assert!(failed.message.contains("31 bytes"), "{failed}");
}

#[test]
fn what_listens_everywhere_is_dialled_on_the_loopback() {
    for (listen, dial) in [
        ("tcp:0.0.0.0:50051", "tcp:127.0.0.1:50051"),
        ("tcp:[::]:50051", "tcp:[::1]:50051"),
        ("tcp:10.0.0.1:50051", "tcp:10.0.0.1:50051"),
    ] {
        assert_eq!(reachable(&listen.parse().unwrap()).to_string(), dial);
    }
}

#[test]
fn an_address_is_written_as_clients_write_it() {
    assert_eq!(address(&"tcp:127.0.0.1:1".parse().unwrap()), "127.0.0.1:1");
    assert_eq!(address(&"tcp:[::1]:1".parse().unwrap()), "[::1]:1");
}
