//! One signature: a threshold session between the co-signer and a node, over the node's `Sign` stream.

use std::time::Duration;

use api::sign::{GetAccountRequest, OpenSession, SignRequest, SignResponse, sign_request, sign_response};
use keyshares::Account;
use rand::{RngCore as _, rngs::OsRng};
pub use threshold::MAX_MESSAGE_BYTES;
use threshold::{Envelope, Open, Progress, Session};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    SignError,
    cosigner::CoSigner,
    pool::{Chosen, Pool},
    wire,
};

/// Signers of every session: a node and the co-signer.
const SIGNERS: u16 = 2;
/// Everything the co-signer sends in a session: the opening and one envelope in each of two rounds. With this much
/// room, sending never waits for the node.
const REQUESTS_PER_SESSION: usize = 3;

/// A signature and where it comes from.
#[derive(Debug)]
pub struct Signed {
    /// The account's scheme, as the API spells it.
    pub scheme: String,
    /// The account's public key, standard encoding.
    pub public_key: Vec<u8>,
    /// The signature, verified against that key.
    pub signature: Vec<u8>,
    /// The node that took part.
    pub node: String,
    /// The session.
    pub session_id: [u8; 32],
}

/// Signs `message` with `account`, on the node called `node` or on any that can; takes at most `timeout`.
pub async fn sign(
    pool: &Pool,
    cosigner: &CoSigner,
    account: &str,
    message: Vec<u8>,
    node: Option<&str>,
    timeout: Duration,
) -> Result<Signed, SignError> {
    if message.is_empty() || message.len() > MAX_MESSAGE_BYTES {
        let problem = format!("`message`: expected 1 to {MAX_MESSAGE_BYTES} bytes, got {}", message.len());
        return Err(SignError::BadRequest(problem));
    }
    let unknown = || SignError::UnknownAccount { account: account.to_owned() };
    let shared = cosigner.account(account).ok_or_else(unknown)?;
    if shared.threshold > SIGNERS {
        return Err(SignError::TooManySigners { account: account.to_owned(), threshold: shared.threshold });
    }
    let job = Job { cosigner, id: account, account: shared, node: pool.choose(node, account, shared)? };
    let work = async {
        job.agree().await?;
        job.run(message).await
    };
    tokio::time::timeout(timeout, work).await.map_err(|_| SignError::TimedOut { after: timeout })?
}

/// One signature in the making.
struct Job<'a> {
    cosigner: &'a CoSigner,
    id: &'a str,
    account: &'a Account,
    node: Chosen,
}

impl Job<'_> {
    /// Makes sure that node and co-signer mean the same account, once a connection.
    async fn agree(&self) -> Result<(), SignError> {
        if self.node.link.agrees_on(self.id) {
            return Ok(());
        }
        let request = GetAccountRequest { account: self.id.to_owned() };
        let theirs = self
            .node
            .link
            .client()
            .get_account(request)
            .await
            .map_err(|status| self.refused(status))?
            .into_inner();
        let differing = [
            ("public_key", theirs.public_key == self.account.public_key),
            ("scheme", theirs.scheme == self.account.scheme.to_string()),
            ("threshold", theirs.threshold == u32::from(self.account.threshold)),
            ("parties", theirs.parties == self.account.parties),
        ]
        .into_iter()
        .find(|(_, equal)| !equal);
        if let Some((field, _)) = differing {
            let (node, account) = (self.node.name.clone(), self.id.to_owned());
            return Err(SignError::AccountMismatch { node, account, field });
        }
        self.node.link.remember_agreement(self.id);
        Ok(())
    }

    async fn run(self, message: Vec<u8>) -> Result<Signed, SignError> {
        let mut session_id = [0; 32];
        OsRng.fill_bytes(&mut session_id);
        let signers = vec![self.node.link.party.clone(), self.cosigner.party().to_owned()];
        let open = Open {
            session_id,
            account: self.id.to_owned(),
            message: message.clone(),
            signers: signers.clone(),
        };
        let (session, first) =
            self.cosigner.open_session(self.account, open).map_err(|error| self.failed(error))?;

        let (requests, outgoing) = mpsc::channel(REQUESTS_PER_SESSION);
        let open =
            OpenSession { session_id: session_id.to_vec(), account: self.id.to_owned(), message, signers };
        self.send(&requests, sign_request::Step::Open(open))?;
        self.send_all(&requests, first)?;
        let responses = self
            .node
            .link
            .client()
            .sign(ReceiverStream::new(outgoing))
            .await
            .map_err(|status| self.refused(status))?
            .into_inner();

        let signature = self.exchange(session, session_id, &requests, responses).await?;
        Ok(Signed {
            scheme: self.account.scheme.to_string(),
            public_key: self.account.public_key.clone(),
            signature,
            node: self.node.name,
            session_id,
        })
    }

    /// Passes envelopes to and fro until the node has sent its result, and compares it with the co-signer's own.
    async fn exchange(
        &self,
        mut session: Session,
        session_id: [u8; 32],
        requests: &mpsc::Sender<SignRequest>,
        mut responses: Streaming<SignResponse>,
    ) -> Result<Vec<u8>, SignError> {
        let mut own = None;
        while let Some(response) = responses.message().await.map_err(|status| self.refused(status))? {
            match response.step {
                Some(sign_response::Step::Message(envelope)) => {
                    let envelope =
                        wire::from_wire(envelope).ok_or_else(|| self.broken("a malformed envelope"))?;
                    match session.receive(&envelope).map_err(|error| self.failed(error))? {
                        Progress::Waiting => {}
                        Progress::Send(envelopes) => self.send_all(requests, envelopes)?,
                        Progress::Done { signature } => own = Some(signature),
                    }
                }
                Some(sign_response::Step::Result(result)) => {
                    // Both sides add up the same signature shares, so the results are equal to the bit.
                    let own = own.ok_or_else(|| self.broken("a result before its last message"))?;
                    if result.session_id != session_id || result.signature != own {
                        return Err(self.broken("a result that differs from the co-signer's"));
                    }
                    return Ok(own);
                }
                None => return Err(self.broken("an empty response")),
            }
        }
        Err(self.broken("the stream ended without a result"))
    }

    fn send_all(&self, to: &mpsc::Sender<SignRequest>, envelopes: Vec<Envelope>) -> Result<(), SignError> {
        envelopes
            .into_iter()
            .try_for_each(|envelope| self.send(to, sign_request::Step::Message(wire::to_wire(envelope))))
    }

    fn send(&self, to: &mpsc::Sender<SignRequest>, step: sign_request::Step) -> Result<(), SignError> {
        // A full queue cannot be; a closed one means that the node has ended the stream, and its status follows.
        match to.try_send(SignRequest { step: Some(step) }) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(self.broken("more rounds than the scheme has")),
        }
    }

    fn refused(&self, status: tonic::Status) -> SignError {
        SignError::Node { node: self.node.name.clone(), status: Box::new(status) }
    }

    fn failed(&self, source: threshold::SessionError) -> SignError {
        SignError::Session { node: self.node.name.clone(), source }
    }

    fn broken(&self, problem: &'static str) -> SignError {
        SignError::Protocol { node: self.node.name.clone(), problem }
    }
}
