//! A program that knows TCP and nothing else, in the place of the signing service, and what the outside says to it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

use harness::{Status, World};

/// Compiles the program; `options` are rustc's.
pub(crate) fn compile(options: &[&str], program: &Path) {
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-o"]).arg(program).args(options);
    rustc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../enclave/tests/support/echo.rs"));
    assert!(rustc.status().unwrap().success(), "compiling the workload failed");
}

/// The configuration of an enclave, with a program in the place of the signing service.
pub(crate) fn with_workload(enclave: &str, program: &str, keys: &str, [listen, relay]: [&str; 2]) -> String {
    let mut enclave: toml::Table = toml::from_str(enclave).unwrap();
    enclave.remove("sign_service");
    let workload = serde_json::json!({
        "program": program,
        "args": [keys, listen, relay],
        "key_share_file": keys,
        "listen": listen,
        "relay": relay,
    });
    enclave.insert("workload".to_owned(), toml::Value::try_from(workload).unwrap());
    toml::to_string(&enclave).unwrap()
}

/// Lets the parent expect such a program, and the program reach a relay that answers one line.
pub(crate) fn expect(world: &World) {
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = relay.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = relay.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        write!(stream, "the relay got {line}").unwrap();
    });
    world
        .write_parent_toml(|parent| {
            parent["enclave"].as_table_mut().unwrap().insert("workload".to_owned(), true.into());
            let upstream = toml::Table::from_iter([("upstream".to_owned(), at.to_string().into())]);
            parent.as_table_mut().unwrap().insert("relay".to_owned(), upstream.into());
        })
        .unwrap();
}

fn ask(ingress: &str, question: &str) -> String {
    let mut stream = TcpStream::connect(ingress).unwrap();
    writeln!(stream, "{question}").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

/// Through ingress the program is reached; it reaches the relay; its key shares are gone; the document names the image.
pub(crate) fn assert_serves(status: &Status) {
    let ingress = status.ingress().unwrap();
    assert_eq!(ask(ingress, "hello"), "hello");
    assert_eq!(ask(ingress, "relay an event"), "the relay got an event");
    assert_eq!(ask(ingress, "keys"), "key file there: false");
    assert!(status.0["spki_sha256"].is_null(), "{}", status.0);
    assert!(status.text("/attestation_document").is_ok(), "{}", status.0);
}
