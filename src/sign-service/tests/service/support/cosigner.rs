use api::sign::{
    self, OpenSession, SignRequest, SignResponse, sign_request, sign_response,
    sign_service_client::SignServiceClient,
};
use threshold::{Envelope, Open, Progress, Session};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{GATEWAY, Group, NODE, fresh_session_id};

/// Both directions of one `Sign` call.
pub(crate) struct Stream {
    requests: mpsc::Sender<SignRequest>,
    responses: Streaming<SignResponse>,
}

impl Stream {
    pub(crate) async fn send(&self, step: sign_request::Step) {
        // Fails when the server has ended the stream; what it said is read by `next`.
        let _ = self.requests.send(SignRequest { step: Some(step) }).await;
    }

    pub(crate) async fn next(&mut self) -> Result<Option<sign_response::Step>, Status> {
        Ok(self.responses.message().await?.map(|response| response.step.expect("a step")))
    }

    pub(crate) fn end_requests(self) -> Streaming<SignResponse> {
        self.responses
    }
}

pub(crate) async fn open_stream(client: &mut SignServiceClient<Channel>) -> Stream {
    let (requests, stream) = mpsc::channel(16);
    let responses = client.sign(ReceiverStream::new(stream)).await.unwrap().into_inner();
    Stream { requests, responses }
}

/// An `open` for the gateway and the node.
pub(crate) fn must_open(account: &str) -> OpenSession {
    OpenSession {
        session_id: fresh_session_id().to_vec(),
        account: account.to_owned(),
        message: b"a payment".to_vec(),
        signers: vec![GATEWAY.to_owned(), NODE.to_owned()],
    }
}

/// Opens a session at the service and at the gateway; gives the stream after the service's first message, the gateway's
/// session and its own first message.
pub(crate) async fn must_send(
    client: &mut SignServiceClient<Channel>,
    group: &Group,
    open: OpenSession,
) -> (Stream, Session, Envelope, Envelope) {
    let (session, mut own) = group.session(GATEWAY, same(&open));
    let mut stream = open_stream(client).await;
    stream.send(sign_request::Step::Open(open)).await;
    let first = must_be_message(stream.next().await.unwrap());
    (stream, session, own.remove(0), first)
}

/// A whole session; gives the signature both sides agree on.
pub(crate) async fn must_sign(
    client: &mut SignServiceClient<Channel>,
    group: &Group,
    open: OpenSession,
) -> Vec<u8> {
    let session_id = open.session_id.clone();
    let (mut stream, mut session, own, first) = must_send(client, group, open).await;
    stream.send(message(&own)).await;
    let Progress::Send(second) = session.receive(&first).unwrap() else { panic!("expected round 2") };
    stream.send(message(&second[0])).await;
    let share = must_be_message(stream.next().await.unwrap());
    let Progress::Done { signature } = session.receive(&share).unwrap() else {
        panic!("expected a signature")
    };
    match stream.next().await.unwrap() {
        Some(sign_response::Step::Result(result)) => {
            assert_eq!((result.session_id, result.signature), (session_id, signature.clone()));
        }
        other => panic!("expected the result, got {other:?}"),
    }
    assert_eq!(stream.next().await.unwrap(), None, "the result is the last response");
    signature
}

/// The error that ends a stream, whatever is sent before.
pub(crate) async fn must_end(stream: &mut Stream) -> Status {
    loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without an error"),
            Err(status) => return status,
        }
    }
}

pub(crate) fn message(envelope: &Envelope) -> sign_request::Step {
    let Envelope { session_id, account, round, sender, receiver, encapsulated_key, ciphertext } =
        envelope.clone();
    sign_request::Step::Message(sign::Envelope {
        session_id: session_id.to_vec(),
        account,
        round,
        sender,
        receiver,
        encapsulated_key: encapsulated_key.to_vec(),
        ciphertext,
    })
}

fn must_be_message(step: Option<sign_response::Step>) -> Envelope {
    let Some(sign_response::Step::Message(envelope)) = step else {
        panic!("expected a message, got {step:?}")
    };
    Envelope {
        session_id: envelope.session_id.try_into().unwrap(),
        account: envelope.account,
        round: envelope.round,
        sender: envelope.sender,
        receiver: envelope.receiver,
        encapsulated_key: envelope.encapsulated_key.try_into().unwrap(),
        ciphertext: envelope.ciphertext,
    }
}

fn same(open: &OpenSession) -> Open {
    Open {
        session_id: open.session_id.clone().try_into().unwrap(),
        account: open.account.clone(),
        message: open.message.clone(),
        signers: open.signers.clone(),
    }
}
