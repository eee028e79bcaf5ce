use std::{collections::BTreeMap, mem};

use rand::{CryptoRng, RngCore};
use sha2::{Digest as _, Sha256};

use crate::{
    Envelope, KeyMaterial, MAX_CIPHERTEXT_BYTES, PartyKeys, SessionError,
    envelope::Channel,
    scheme::{Fault, Next, Position, Round, Started},
};

/// Length of a session id, bytes.
pub const SESSION_ID_BYTES: usize = 32;

/// Longest message that is signed, bytes.
pub const MAX_MESSAGE_BYTES: usize = 65_536;

/// Length of the digest before the scheme's part of every plaintext, bytes.
const VIEW_BYTES: usize = 32;

/// What a session signs, and with whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Random, never used twice.
    pub session_id: [u8; SESSION_ID_BYTES],
    /// The account's id.
    pub account: String,
    /// What is signed, 1 to [`MAX_MESSAGE_BYTES`] bytes.
    pub message: Vec<u8>,
    /// The parties that sign, the own one included, in any order: each once, at least the account's
    /// threshold.
    pub signers: Vec<String>,
}

/// What an accepted message led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Other signers' messages are still to come.
    Waiting,
    /// A round ended; these are the own messages of the next one, one for each other signer.
    Send(Vec<Envelope>),
    /// The session ended.
    Done {
        /// 64 bytes: Ed25519 (RFC 8032) or BIP340; verified against the account's public key.
        signature: Vec<u8>,
    },
}

/// One signer's side of one signing session.
///
/// Every message carries, beside the scheme's part, the sender's view of what came before: in round 1 a
/// digest of message, key and signers, then of all messages of the rounds before. Signers that disagree find
/// out at once and by name. No `Debug`: it holds secrets.
pub struct Session {
    channel: Channel,
    /// All signers by position; the own one is `own`.
    signers: BTreeMap<Position, String>,
    own: Position,
    state: State,
}

enum State {
    Running(Running),
    Done(Vec<u8>),
    Failed,
}

struct Running {
    round: u32,
    view: [u8; VIEW_BYTES],
    /// This round's messages, the own one included.
    heard: BTreeMap<Position, Vec<u8>>,
    scheme: Box<dyn Round>,
}

impl Session {
    /// Opens a session and returns the own messages of round 1, one for each other signer.
    pub fn open<R: RngCore + CryptoRng>(
        params: Open,
        material: &KeyMaterial<'_>,
        keys: &PartyKeys<'_>,
        rng: &mut R,
    ) -> Result<(Self, Vec<Envelope>), SessionError> {
        check_message(&params.message)?;
        material.check_parties()?;
        let signers = check_signers(&params.signers, material)?;
        if keys.own != material.own {
            return Err(SessionError::NoPartyKey { party: material.own.to_owned() });
        }
        let names: Vec<&str> = signers.values().map(String::as_str).collect();
        let channel = Channel::new(params.session_id, params.account, keys, &names)?;

        let positions: Vec<Position> = signers.keys().copied().collect();
        let view = first_view(&params.message, material, &signers);
        let own = material.own_position()?;
        let mut session = Self { channel, signers, own, state: State::Failed };
        let envelopes = material
            .scheme
            .scheme()
            .start(material, &positions, &params.message, rng)
            .map_err(Stop::from)
            .and_then(|started| session.begin_round(1, view, started))
            .map_err(|stop| session.explain(stop, 1, own))?;
        Ok((session, envelopes))
    }

    /// Takes in another signer's message.
    ///
    /// A message that is refused before it proved authentic leaves the session as it was. An authentic
    /// message that is wrong ends the session; the error names its sender.
    ///
    /// With three or more signers another signer may be a round ahead: its message is refused as
    /// [`SessionError::WrongRound`] and has to be delivered again once this signer's round has ended.
    pub fn receive(&mut self, envelope: &Envelope) -> Result<Progress, SessionError> {
        let sender = self.check_envelope(envelope)?;
        let plaintext = self.channel.open(envelope)?;
        let State::Running(running) = mem::replace(&mut self.state, State::Failed) else {
            return Err(SessionError::Finished);
        };
        let round = running.round;
        self.advance(running, sender, &plaintext).map_err(|stop| self.explain(stop, round, sender))
    }

    /// The signature, once there is one.
    pub fn signature(&self) -> Option<&[u8]> {
        match &self.state {
            State::Done(signature) => Some(signature),
            _ => None,
        }
    }

    /// Whether the session has ended, with a signature or without.
    pub fn is_finished(&self) -> bool {
        !matches!(self.state, State::Running(_))
    }

    /// The signers whose message of the current round is still to come.
    pub fn waiting_for(&self) -> Vec<&str> {
        let State::Running(running) = &self.state else { return Vec::new() };
        let missing = self.signers.iter().filter(|(position, _)| !running.heard.contains_key(position));
        missing.map(|(_, name)| name.as_str()).collect()
    }

    /// All that can be said of an envelope without opening it.
    fn check_envelope(&self, envelope: &Envelope) -> Result<Position, SessionError> {
        let State::Running(running) = &self.state else { return Err(SessionError::Finished) };
        if envelope.session_id != self.channel.session_id {
            return Err(SessionError::WrongSession);
        }
        if envelope.account != self.channel.account {
            let (expected, actual) = (self.channel.account.clone(), envelope.account.clone());
            return Err(SessionError::WrongAccount { expected, actual });
        }
        if envelope.receiver != self.channel.own {
            let (expected, actual) = (self.channel.own.clone(), envelope.receiver.clone());
            return Err(SessionError::WrongReceiver { expected, actual });
        }
        let sender = self.other_signer(&envelope.sender)?;
        // Rounds that ended have been heard from everyone.
        let repeated = (1..running.round).contains(&envelope.round);
        if envelope.round != running.round && !repeated {
            return Err(SessionError::WrongRound { expected: running.round, actual: envelope.round });
        }
        if envelope.ciphertext.len() > MAX_CIPHERTEXT_BYTES {
            return Err(SessionError::TooLarge {
                limit: MAX_CIPHERTEXT_BYTES,
                actual: envelope.ciphertext.len(),
            });
        }
        if repeated || running.heard.contains_key(&sender) {
            return Err(SessionError::Repeated { round: envelope.round, sender: envelope.sender.clone() });
        }
        Ok(sender)
    }

    fn other_signer(&self, name: &str) -> Result<Position, SessionError> {
        let found = self.signers.iter().find(|(position, signer)| *signer == name && **position != self.own);
        let (position, _) = found.ok_or_else(|| SessionError::NotInSession { sender: name.to_owned() })?;
        Ok(*position)
    }

    fn advance(
        &mut self,
        mut running: Running,
        sender: Position,
        plaintext: &[u8],
    ) -> Result<Progress, Stop> {
        let (view, message) = plaintext.split_first_chunk::<VIEW_BYTES>().ok_or(Fault::Malformed)?;
        if *view != running.view {
            return Err(Stop::Disagreement);
        }
        running.scheme.accept(sender, message)?;
        running.heard.insert(sender, message.to_vec());
        if running.heard.len() < self.signers.len() {
            self.state = State::Running(running);
            return Ok(Progress::Waiting);
        }
        match running.scheme.finish()? {
            Next::Round(started) => {
                let view = next_view(&running.view, &running.heard);
                Ok(Progress::Send(self.begin_round(running.round + 1, view, started)?))
            }
            Next::Signature(signature) => {
                self.state = State::Done(signature.clone());
                Ok(Progress::Done { signature })
            }
        }
    }

    fn begin_round(
        &mut self,
        round: u32,
        view: [u8; VIEW_BYTES],
        started: Started,
    ) -> Result<Vec<Envelope>, Stop> {
        let plaintext = [&view[..], &started.message].concat();
        let envelopes = self
            .channel
            .peers()
            .map(|receiver| self.channel.seal(round, receiver, &plaintext))
            .collect::<Result<_, SessionError>>()?;
        let heard = BTreeMap::from([(self.own, started.message)]);
        self.state = State::Running(Running { round, view, heard, scheme: started.round });
        Ok(envelopes)
    }

    fn explain(&self, stop: Stop, round: u32, sender: Position) -> SessionError {
        let name = |position: Position| self.signers.get(&position).cloned().unwrap_or_default();
        match stop {
            Stop::Disagreement => SessionError::Disagreement { round, sender: name(sender) },
            Stop::Fault(Fault::Malformed) => SessionError::BadMessage { round, sender: name(sender) },
            Stop::Fault(Fault::BadShare(culprit)) => SessionError::InvalidShare { sender: name(culprit) },
            Stop::Fault(Fault::Material(error)) => SessionError::KeyMaterial(error),
            Stop::Fault(Fault::Protocol) => SessionError::Protocol { round },
            Stop::Session(error) => error,
        }
    }
}

/// Why the session cannot go on.
enum Stop {
    Disagreement,
    Fault(Fault),
    Session(SessionError),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<SessionError> for Stop {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

fn check_message(message: &[u8]) -> Result<(), SessionError> {
    match message.len() {
        0 => Err(SessionError::EmptyMessage),
        1..=MAX_MESSAGE_BYTES => Ok(()),
        actual => Err(SessionError::MessageTooLong { limit: MAX_MESSAGE_BYTES, actual }),
    }
}

fn check_signers(
    signers: &[String],
    material: &KeyMaterial<'_>,
) -> Result<BTreeMap<Position, String>, SessionError> {
    let mut positions = BTreeMap::new();
    for signer in signers {
        let position = material
            .position(signer)
            .ok_or_else(|| SessionError::UnknownSigner { signer: signer.clone() })?;
        if positions.insert(position, signer.clone()).is_some() {
            return Err(SessionError::DuplicateSigner { signer: signer.clone() });
        }
    }
    if !positions.contains_key(&material.own_position()?) {
        return Err(SessionError::OwnMissing { own: material.own.to_owned() });
    }
    if positions.len() < usize::from(material.threshold) {
        return Err(SessionError::NotEnoughSigners {
            threshold: material.threshold,
            actual: positions.len(),
        });
    }
    Ok(positions)
}

/// A digest of what the session is to do.
fn first_view(
    message: &[u8],
    material: &KeyMaterial<'_>,
    signers: &BTreeMap<Position, String>,
) -> [u8; VIEW_BYTES] {
    let mut hash = Sha256::new_with_prefix(b"nitro-sign v1 session");
    for part in [material.scheme.name().as_bytes(), material.public_key, message] {
        update_sized(&mut hash, part);
    }
    for (position, signer) in signers {
        hash.update(position.to_be_bytes());
        update_sized(&mut hash, signer.as_bytes());
    }
    hash.finalize().into()
}

/// A digest of all that has been said so far.
fn next_view(view: &[u8; VIEW_BYTES], heard: &BTreeMap<Position, Vec<u8>>) -> [u8; VIEW_BYTES] {
    let mut hash = Sha256::new_with_prefix(view);
    for (position, message) in heard {
        hash.update(position.to_be_bytes());
        update_sized(&mut hash, message);
    }
    hash.finalize().into()
}

fn update_sized(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, generate_party_key, party_public_key};

    /// A round that accepts anything and fails at its end.
    struct Failing(fn() -> Fault);

    impl Round for Failing {
        fn accept(&mut self, _: Position, _: &[u8]) -> Result<(), Fault> {
            Ok(())
        }

        fn finish(self: Box<Self>) -> Result<Next, Fault> {
            Err(self.0())
        }
    }

    /// A session at `a` in a failing round, and the message that makes it fail.
    fn failing(fault: fn() -> Fault) -> (Session, Envelope) {
        let secrets = [*generate_party_key(), *generate_party_key()];
        let public = BTreeMap::from([
            ("a".to_owned(), party_public_key(&secrets[0])),
            ("b".to_owned(), party_public_key(&secrets[1])),
        ]);
        let channel = |own, secret| {
            let keys = PartyKeys { own, secret, public: &public };
            Channel::new([1; 32], "account".to_owned(), &keys, &["a", "b"]).unwrap()
        };
        let view = [2; VIEW_BYTES];
        let signers = BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned())]);
        let mut session =
            Session { channel: channel("a", &secrets[0]), signers, own: 1, state: State::Failed };
        let started = Started { message: vec![3], round: Box::new(Failing(fault)) };
        assert!(session.begin_round(1, view, started).is_ok());
        let envelope = channel("b", &secrets[1]).seal(1, "a", &[&view[..], &[3]].concat()).unwrap();
        (session, envelope)
    }

    #[test]
    fn a_protocol_that_fails_without_a_culprit_ends_the_session() {
        let (mut session, envelope) = failing(|| Fault::Protocol);
        let error = session.receive(&envelope).unwrap_err();
        assert_eq!(error, SessionError::Protocol { round: 1 });
        assert_eq!(error.kind(), ErrorKind::Aborted);
        assert!(session.is_finished());
    }

    #[test]
    fn a_culprit_other_than_the_last_sender_is_named() {
        let (mut session, envelope) = failing(|| Fault::BadShare(1));
        let error = session.receive(&envelope).unwrap_err();
        assert_eq!(error, SessionError::InvalidShare { sender: "a".to_owned() });
    }
}
