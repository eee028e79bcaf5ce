use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant},
};

use api::sign::{
    Envelope, OpenSession, SessionResult, SignRequest, SignResponse, sign_request, sign_response,
};
use rand::rngs::OsRng;
use threshold::{Progress, Session};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Status, Streaming};

use crate::{
    MAX_REQUEST_BYTES, fields,
    service::{Node, unknown_account},
    sessions::{Place, SessionId},
    status::of_session,
};

type Responses = mpsc::Sender<Result<SignResponse, Status>>;

/// How long a client that does not read may delay the end of its stream. Its session has ended by then.
const FAREWELL: Duration = Duration::from_secs(1);

/// One `Sign` stream, from its first request to its last response.
pub(crate) async fn run(node: Arc<Node>, requests: Streaming<SignRequest>, responses: Responses) {
    let begun = Instant::now();
    let mut exchange = Exchange { requests, responses: responses.clone(), opened: None };
    let ended = tokio::select! {
        ended = timeout(node.session_deadline, exchange.drive(&node)) => {
            ended.unwrap_or_else(|_| Err(past_deadline(node.session_deadline)))
        }
        // The response stream is gone: the client cancelled the call or disconnected.
        () = responses.closed() => Err(Status::cancelled("the client has gone")),
    };
    let status = ended.err();
    exchange.log(begun, status.as_ref());
    if let Some(status) = status {
        // Fails only if the client does not read any more.
        let _ = timeout(FAREWELL, responses.send(Err(status))).await;
    }
}

fn past_deadline(limit: Duration) -> Status {
    let limit = limit.as_millis();
    Status::deadline_exceeded(format!("the session was not complete within its deadline of {limit} ms"))
}

/// The two directions of a stream, and what is known for the log.
struct Exchange {
    requests: Streaming<SignRequest>,
    responses: Responses,
    opened: Option<(SessionId, String)>,
}

impl Exchange {
    /// Dropping the future of this gives the session's place back.
    async fn drive(&mut self, node: &Node) -> Result<(), Status> {
        let open = fields::open(self.first().await?)?;
        let (id, account) = (open.session_id, open.account.clone());
        // Threshold steps run right here: with FROST one takes well under a millisecond (0.35 ms of a core for a whole
        // session), less than handing it to a blocking thread and back is worth.
        let (mut session, place, messages) = begin(node, open)?;
        self.opened = Some((id, account));
        self.send(messages).await?;
        loop {
            let envelope = fields::envelope(self.next().await?)?;
            match session.receive(&envelope).map_err(|error| of_session(&error))? {
                Progress::Waiting => {}
                Progress::Send(messages) => self.send(messages).await?,
                Progress::Done { signature } => return self.finish(place, id, signature).await,
            }
        }
    }

    async fn first(&mut self) -> Result<OpenSession, Status> {
        match self.request().await? {
            Some(sign_request::Step::Open(open)) => Ok(open),
            Some(sign_request::Step::Message(_)) => {
                Err(Status::failed_precondition("the first request must be `open`, got `message`"))
            }
            None => Err(Status::failed_precondition("the request stream ended without `open`")),
        }
    }

    async fn next(&mut self) -> Result<Envelope, Status> {
        match self.request().await? {
            Some(sign_request::Step::Message(envelope)) => Ok(envelope),
            Some(sign_request::Step::Open(_)) => {
                Err(Status::failed_precondition("the session is open already; a stream carries one session"))
            }
            None => {
                Err(Status::failed_precondition("the request stream ended before the session was complete"))
            }
        }
    }

    async fn request(&mut self) -> Result<Option<sign_request::Step>, Status> {
        let Some(request) = self.requests.message().await.map_err(unreadable)? else { return Ok(None) };
        let empty = || Status::invalid_argument("step: empty; expected `open` or `message`");
        request.step.map(Some).ok_or_else(empty)
    }

    async fn send(&self, messages: Vec<threshold::Envelope>) -> Result<(), Status> {
        for message in messages {
            self.respond(sign_response::Step::Message(fields::encode(message))).await?;
        }
        Ok(())
    }

    /// The place is given back first, so that a client that has its signature finds the session counted as completed.
    async fn finish(&self, place: Place, id: SessionId, signature: Vec<u8>) -> Result<(), Status> {
        place.complete();
        self.respond(sign_response::Step::Result(SessionResult { session_id: id.to_vec(), signature })).await
    }

    async fn respond(&self, step: sign_response::Step) -> Result<(), Status> {
        let response = Ok(SignResponse { step: Some(step) });
        self.responses.send(response).await.map_err(|_| Status::cancelled("the client has gone"))
    }

    fn log(&self, begun: Instant, status: Option<&Status>) {
        let (id, account) = match &self.opened {
            Some((id, account)) => (hex::encode(id), account.as_str()),
            None => (String::new(), ""),
        };
        let duration_us = begun.elapsed().as_micros();
        match status {
            None => tracing::debug!(session = id, account, duration_us, "session completed"),
            Some(status) => {
                let (code, reason) = (status.code(), status.message());
                tracing::info!(session = id, account, duration_us, ?code, reason, "session failed");
            }
        }
    }
}

/// Takes a place and makes this node's first messages.
fn begin(node: &Node, open: threshold::Open) -> Result<(Session, Place, Vec<threshold::Envelope>), Status> {
    let material = node.dictionary.material(&open.account).ok_or_else(|| unknown_account(&open.account))?;
    let place = node.sessions.begin(open.session_id)?;
    let (session, messages) = Session::open(open, &material, &node.dictionary.party_keys(), &mut OsRng)
        .map_err(|error| of_session(&error))?;
    Ok((session, place, messages))
}

/// What tonic says about a request it cannot hand over, in the API's words.
fn unreadable(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => {
            Status::resource_exhausted(format!("the request is over the limit of {MAX_REQUEST_BYTES} bytes"))
        }
        // With a source it is the connection's error, not the message's.
        Code::Internal if status.source().is_none() => {
            Status::invalid_argument("the request is not a nitrosign.v1.SignRequest")
        }
        _ => status,
    }
}
