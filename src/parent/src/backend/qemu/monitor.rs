use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::UnixStream,
    time::sleep,
};

const POLL: Duration = Duration::from_millis(10);
/// Longest greeting, bytes; QEMU's has about 150.
const MAX_GREETING: u64 = 16 << 10;

/// Waits for the greeting of QEMU's monitor, which comes once the machine is made; then the monitor is free again for
/// somebody else, for it serves one at a time.
///
/// Source: QEMU Machine Protocol Specification, "Server Greeting".
pub(super) async fn greeting(socket: &Path) -> io::Result<()> {
    let stream = loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                sleep(POLL).await;
            }
            Err(error) => return Err(error),
        }
    };
    let mut line = String::new();
    BufReader::new(stream.take(MAX_GREETING)).read_line(&mut line).await?;
    match serde_json::from_str::<serde_json::Value>(&line) {
        Ok(greeting) if greeting["QMP"].is_object() => Ok(()),
        _ => Err(io::Error::other("it did not greet as QEMU's monitor does")),
    }
}
