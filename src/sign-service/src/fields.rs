//! The limits of `proto/signservice.proto`, field by field.

use api::sign;
use threshold::{Envelope, MAX_CIPHERTEXT_BYTES, MAX_MESSAGE_BYTES};
use tonic::Status;

use crate::sessions::SessionId;

/// Bytes of a nonce for an attestation document; the NSM takes at most 512.
pub(crate) const MIN_NONCE: usize = 16;
pub(crate) const MAX_NONCE: usize = 512;
/// Bytes of an account id.
pub(crate) const MAX_ACCOUNT: usize = 128;
/// Bytes of a party id.
const MAX_PARTY: usize = 64;
/// Accounts in a page.
const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

pub(crate) fn nonce(nonce: &[u8]) -> Result<(), Status> {
    if (MIN_NONCE..=MAX_NONCE).contains(&nonce.len()) {
        return Ok(());
    }
    let length = nonce.len();
    Err(Status::invalid_argument(format!("nonce: expected {MIN_NONCE} to {MAX_NONCE} bytes, got {length}")))
}

pub(crate) fn account(id: &str) -> Result<(), Status> {
    text("account", id, MAX_ACCOUNT)
}

pub(crate) fn page_size(size: u32) -> Result<usize, Status> {
    match size {
        0 => Ok(DEFAULT_PAGE as usize),
        1..=MAX_PAGE => Ok(size as usize),
        _ => Err(Status::invalid_argument(format!("page_size: expected 1 to {MAX_PAGE}, got {size}"))),
    }
}

/// A page token is the last id of the page before.
pub(crate) fn page_token(token: &str) -> Result<Option<&str>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    text("page_token", token, MAX_ACCOUNT).map(|()| Some(token))
}

pub(crate) fn open(open: sign::OpenSession) -> Result<threshold::Open, Status> {
    let sign::OpenSession { session_id, account: id, message, signers } = open;
    let session_id = session(&session_id)?;
    account(&id)?;
    if message.is_empty() {
        return Err(Status::invalid_argument("message: empty; expected what is to be signed"));
    }
    size("message", message.len(), MAX_MESSAGE_BYTES)?;
    for signer in &signers {
        text("signers", signer, MAX_PARTY)?;
    }
    Ok(threshold::Open { session_id, account: id, message, signers })
}

pub(crate) fn envelope(envelope: sign::Envelope) -> Result<Envelope, Status> {
    let sign::Envelope { session_id, account: id, round, sender, receiver, encapsulated_key, ciphertext } =
        envelope;
    account(&id)?;
    text("sender", &sender, MAX_PARTY)?;
    text("receiver", &receiver, MAX_PARTY)?;
    size("ciphertext", ciphertext.len(), MAX_CIPHERTEXT_BYTES)?;
    Ok(Envelope {
        session_id: session(&session_id)?,
        account: id,
        round,
        sender,
        receiver,
        encapsulated_key: exactly("encapsulated_key", &encapsulated_key)?,
        ciphertext,
    })
}

pub(crate) fn encode(envelope: Envelope) -> sign::Envelope {
    sign::Envelope {
        session_id: envelope.session_id.to_vec(),
        account: envelope.account,
        round: envelope.round,
        sender: envelope.sender,
        receiver: envelope.receiver,
        encapsulated_key: envelope.encapsulated_key.to_vec(),
        ciphertext: envelope.ciphertext,
    }
}

fn session(id: &[u8]) -> Result<SessionId, Status> {
    exactly("session_id", id)
}

fn exactly<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Status> {
    bytes
        .try_into()
        .map_err(|_| Status::invalid_argument(format!("{field}: expected {N} bytes, got {}", bytes.len())))
}

fn text(field: &str, text: &str, max: usize) -> Result<(), Status> {
    if (1..=max).contains(&text.len()) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("{field}: expected 1 to {max} bytes, got {}", text.len())))
}

fn size(field: &str, length: usize, max: usize) -> Result<(), Status> {
    if length <= max {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!("{field}: {length} bytes are over the limit of {max} bytes")))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn valid_open() -> sign::OpenSession {
        sign::OpenSession {
            session_id: vec![1; 32],
            account: "a".to_owned(),
            message: vec![2; MAX_MESSAGE_BYTES],
            signers: vec!["node".to_owned(), "gateway".to_owned()],
        }
    }

    fn valid_envelope() -> sign::Envelope {
        sign::Envelope {
            session_id: vec![1; 32],
            account: "a".repeat(MAX_ACCOUNT),
            round: 1,
            sender: "s".repeat(MAX_PARTY),
            receiver: "r".to_owned(),
            encapsulated_key: vec![3; 32],
            ciphertext: vec![4; MAX_CIPHERTEXT_BYTES],
        }
    }

    fn must_name<T>(result: Result<T, Status>, code: Code, field: &str, limit: &str) {
        let status = result.err().unwrap();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(field), "{status}");
        assert!(status.message().contains(limit), "{status}");
    }

    #[test]
    fn the_largest_allowed_values_pass_unchanged() {
        assert_eq!(open(valid_open()).ok().unwrap().message.len(), MAX_MESSAGE_BYTES);
        assert_eq!(encode(envelope(valid_envelope()).ok().unwrap()), valid_envelope());
        nonce(&[0; MIN_NONCE]).unwrap();
        nonce(&[0; MAX_NONCE]).unwrap();
        assert_eq!((page_size(0).unwrap(), page_size(1000).unwrap()), (100, 1000));
        assert_eq!(page_token("").unwrap(), None);
    }

    #[test]
    fn a_nonce_of_another_size_is_refused() {
        for length in [0, MIN_NONCE - 1, MAX_NONCE + 1] {
            must_name(nonce(&vec![0; length]), Code::InvalidArgument, "nonce", "16 to 512");
        }
    }

    #[test]
    fn pages_out_of_range_are_refused() {
        must_name(page_size(1001), Code::InvalidArgument, "page_size", "1 to 1000");
        must_name(page_token(&"x".repeat(129)), Code::InvalidArgument, "page_token", "128");
    }

    #[test]
    fn every_field_of_open_is_limited() {
        use Code::{InvalidArgument, ResourceExhausted};
        let with = |change: fn(&mut sign::OpenSession)| {
            let mut message = valid_open();
            change(&mut message);
            open(message)
        };
        must_name(with(|o| o.session_id = vec![1; 31]), InvalidArgument, "session_id", "32");
        must_name(with(|o| o.account.clear()), InvalidArgument, "account", "128");
        must_name(with(|o| o.message.clear()), InvalidArgument, "message", "empty");
        must_name(with(|o| o.message.push(0)), ResourceExhausted, "message", "65536");
        must_name(with(|o| o.signers[0] = "x".repeat(65)), InvalidArgument, "signers", "64");
        must_name(with(|o| o.signers[0].clear()), InvalidArgument, "signers", "64");
    }

    #[test]
    fn every_field_of_an_envelope_is_limited() {
        use Code::{InvalidArgument, ResourceExhausted};
        let with = |change: fn(&mut sign::Envelope)| {
            let mut message = valid_envelope();
            change(&mut message);
            envelope(message)
        };
        must_name(with(|e| e.session_id.clear()), InvalidArgument, "session_id", "32");
        must_name(with(|e| e.account.push('a')), InvalidArgument, "account", "128");
        must_name(with(|e| e.sender.push('s')), InvalidArgument, "sender", "64");
        must_name(with(|e| e.receiver.clear()), InvalidArgument, "receiver", "64");
        must_name(with(|e| e.encapsulated_key.push(0)), InvalidArgument, "encapsulated_key", "32");
        must_name(with(|e| e.ciphertext.push(0)), ResourceExhausted, "ciphertext", "65536");
    }
}
