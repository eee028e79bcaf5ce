//! What clients that are not the SDK may send.

use std::sync::Arc;

use rustls::{ClientConfig, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::*;

/// Sends `request` as it is and reads until the end.
async fn exchange(world: &World, request: &str) -> String {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = ::kms::roots_from_pem(&world.ca).unwrap();
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let name = ServerName::try_from(format!("kms.{REGION}.amazonaws.com")).unwrap();
    let mut stream = tls.connect(name, TcpStream::connect(world.address).await.unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server closes without a closing alert.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn post(target: &str, headers: &str, body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: kms.{REGION}.amazonaws.com\r\nconnection: close\r\ncontent-type: \
         application/x-amz-json-1.1\r\nx-amz-target: {target}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn assert_refused(answer: &str, code: &str) {
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains(&format!("\"__type\":\"{code}\"")), "{answer}");
    let (_, id) = answer.split_once("x-amzn-requestid: ").unwrap();
    assert!(id[..36].parse::<uuid::Uuid>().is_ok(), "{answer}");
    assert!(answer.contains("content-type: application/x-amz-json-1.1\r\n"), "{answer}");
}

#[tokio::test]
async fn a_request_that_is_not_signed_is_refused_whatever_it_asks() {
    let world = World::start().await;
    for target in ["TrentService.CreateKey", "TrentService.Decrypt", "TrentService.Nonsense"] {
        let answer = exchange(&world, &post(target, "", "{}")).await;
        assert_refused(&answer, "MissingAuthenticationTokenException");
    }
}

#[tokio::test]
async fn half_a_signature_is_refused() {
    let world = World::start().await;
    let header = "authorization: AWS4-HMAC-SHA256 Credential=AKIAADMIN\r\n";
    assert_refused(
        &exchange(&world, &post("TrentService.CreateKey", header, "{}")).await,
        "IncompleteSignatureException",
    );
}

#[tokio::test]
async fn what_is_not_aws_json_is_no_operation() {
    let world = World::start().await;
    let request = post("TrentService.CreateKey", "", "{}");
    for other in [
        request.replace("POST", "GET"),
        request.replace("POST /", "POST /other"),
        request.replace("x-amz-json-1.1", "x-amz-json-1.0"),
        request.replace("TrentService.", "OtherService."),
        request.replace("x-amz-target", "x-amz-other"),
    ] {
        assert_refused(&exchange(&world, &other).await, "UnknownOperationException");
    }
}

#[tokio::test]
async fn a_body_without_end_is_not_read() {
    let world = World::start().await;
    let request = post("TrentService.CreateKey", "", &"x".repeat(1024 * 1024 + 1));
    assert_refused(&exchange(&world, &request).await, "SerializationException");
}

#[test]
fn members_that_are_not_known_or_not_json_are_refused() {
    let code = |body: &[u8]| request::read::<request::KeyOnly>(body).map(|_| ()).unwrap_err().code;
    assert_eq!(code(br#"{"KeyId": "a", "DryRun": true}"#), "ValidationException");
    assert_eq!(code(br#"{"KeyId": 7}"#), "ValidationException");
    assert_eq!(code(b"{}"), "ValidationException");
    assert_eq!(code(b"{"), "SerializationException");
    let blob =
        request::read::<request::Encrypt>(br#"{"KeyId": "a", "Plaintext": "!"}"#).map(|_| ()).unwrap_err();
    assert_eq!(blob.code, "ValidationException");
}
