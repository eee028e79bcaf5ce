use std::{pin::Pin, sync::Arc};

use api::sign::{
    Account, GetAccountRequest, GetAttestationRequest, GetAttestationResponse, GetStatusRequest,
    GetStatusResponse, ListAccountsRequest, ListAccountsResponse, PingRequest, PingResponse, SignRequest,
    SignResponse,
    sign_response::Step,
    sign_service_server::{SignService, SignServiceServer},
};
use attestation::{Nsm as _, software::SoftwareNsm};
use gateway::connection::Link;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Impostor, RunningNode, SEALED_BUNDLE_SHA384, World, configuration, honest_nsm};

/// How a node breaks the protocol of `Sign`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lie {
    /// Another signature than the session's.
    AlteredResult,
    /// The result of another session.
    ResultOfAnotherSession,
    /// The result right away.
    EarlyResult,
    /// The stream ends instead of a result.
    NoResult,
    /// A response without a step.
    EmptyResponse,
    /// An envelope with a flipped bit.
    AlteredEnvelope,
    /// An envelope whose session id is short.
    ShortSessionId,
}

/// A node that is attested as it should be and passes everything on to another, except for one lie.
struct Liar {
    truth: Link,
    nsm: SoftwareNsm,
    spki_sha256: [u8; 32],
    lie: Lie,
}

/// Starts a liar in front of `node`; gives its address.
pub(crate) async fn start_liar(world: &World, node: &RunningNode, lie: Lie) -> String {
    let impostor = Arc::new(Impostor::generate());
    let liar = Liar {
        truth: world.connect(node.address()).await.unwrap(),
        nsm: honest_nsm(world),
        spki_sha256: impostor.spki_sha256(),
        lie,
    };
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_address = plain.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(SignServiceServer::new(liar));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(plain)));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok(mut client) = impostor.accept(&listener).await {
            let mut server = TcpStream::connect(plain_address).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    address
}

type Responses = Pin<Box<dyn Stream<Item = Result<SignResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SignService for Liar {
    type SignStream = Responses;

    async fn get_attestation(
        &self,
        request: Request<GetAttestationRequest>,
    ) -> Result<Response<GetAttestationResponse>, Status> {
        let nonce = request.into_inner().nonce;
        Ok(Response::new(GetAttestationResponse {
            document: self.nsm.attest(Some(&self.spki_sha256), Some(&nonce), None).unwrap(),
            configuration: configuration().canonical_bytes(),
            sealed_bundle_sha384: SEALED_BUNDLE_SHA384.to_vec(),
        }))
    }

    async fn sign(
        &self,
        request: Request<Streaming<SignRequest>>,
    ) -> Result<Response<Self::SignStream>, Status> {
        let requests = request.into_inner().map_while(Result::ok);
        let responses = self.truth.client().sign(requests).await?.into_inner();
        let lie = self.lie;
        Ok(Response::new(Box::pin(responses.map_while(move |response| tell(lie, response)))))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        self.truth.client().ping(request.into_inner()).await
    }

    async fn get_account(&self, request: Request<GetAccountRequest>) -> Result<Response<Account>, Status> {
        self.truth.client().get_account(request.into_inner()).await
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        self.truth.client().list_accounts(request.into_inner()).await
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.truth.client().get_status(request.into_inner()).await
    }
}

/// What becomes of a response; `None` ends the stream.
fn tell(lie: Lie, response: Result<SignResponse, Status>) -> Option<Result<SignResponse, Status>> {
    let step = match (lie, response.unwrap().step.unwrap()) {
        (Lie::AlteredResult, Step::Result(mut result)) => {
            result.signature[0] ^= 1;
            Step::Result(result)
        }
        (Lie::ResultOfAnotherSession, Step::Result(mut result)) => {
            result.session_id[0] ^= 1;
            Step::Result(result)
        }
        (Lie::EarlyResult, Step::Message(envelope)) => {
            Step::Result(api::sign::SessionResult { session_id: envelope.session_id, signature: vec![0; 64] })
        }
        (Lie::NoResult, Step::Result(_)) => return None,
        (Lie::EmptyResponse, _) => return Some(Ok(SignResponse { step: None })),
        (Lie::AlteredEnvelope, Step::Message(mut envelope)) => {
            envelope.ciphertext[0] ^= 1;
            Step::Message(envelope)
        }
        (Lie::ShortSessionId, Step::Message(mut envelope)) => {
            envelope.session_id.pop();
            Step::Message(envelope)
        }
        (_, step) => step,
    };
    Some(Ok(SignResponse { step: Some(step) }))
}
