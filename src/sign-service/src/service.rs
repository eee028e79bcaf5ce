use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use api::sign::{
    Account, GetAccountRequest, GetAttestationRequest, GetAttestationResponse, GetStatusRequest,
    GetStatusResponse, ListAccountsRequest, ListAccountsResponse, PingRequest, PingResponse, SignRequest,
    SignResponse, sign_service_server::SignService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{attest::Attestor, dictionary::Dictionary, fields, sessions::Sessions, signing};

/// Responses that wait for a slow client, per session. A round has one for each other signer.
const WAITING_RESPONSES: usize = 16;

/// Everything the calls share.
pub(crate) struct Node {
    pub(crate) dictionary: Dictionary,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) session_deadline: Duration,
    pub(crate) attestor: Attestor,
    pub(crate) configuration: Vec<u8>,
    pub(crate) sealed_bundle_sha384: [u8; 48],
    pub(crate) loaded_at: Instant,
    pub(crate) loaded_at_unix_ms: u64,
}

/// The calls of `proto/signservice.proto`.
pub(crate) struct Service(pub(crate) Arc<Node>);

#[tonic::async_trait]
impl SignService for Service {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        let Node { dictionary, .. } = &*self.0;
        Ok(Response::new(PingResponse { party: dictionary.party().to_owned(), epoch: dictionary.epoch() }))
    }

    async fn get_attestation(
        &self,
        request: Request<GetAttestationRequest>,
    ) -> Result<Response<GetAttestationResponse>, Status> {
        let GetAttestationRequest { nonce } = request.into_inner();
        fields::nonce(&nonce)?;
        let document = self.0.attestor.document(nonce).await?;
        Ok(Response::new(GetAttestationResponse {
            document,
            configuration: self.0.configuration.clone(),
            sealed_bundle_sha384: self.0.sealed_bundle_sha384.to_vec(),
        }))
    }

    async fn get_account(&self, request: Request<GetAccountRequest>) -> Result<Response<Account>, Status> {
        let GetAccountRequest { account: id } = request.into_inner();
        fields::account(&id)?;
        self.0.dictionary.account(&id).map(Response::new).ok_or_else(|| unknown_account(&id))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let ListAccountsRequest { page_size, page_token } = request.into_inner();
        let size = fields::page_size(page_size)?;
        let page = self.0.dictionary.page(fields::page_token(&page_token)?, size);
        Ok(Response::new(ListAccountsResponse {
            accounts: page.accounts,
            next_page_token: page.next.unwrap_or_default(),
            total: self.0.dictionary.len() as u64,
        }))
    }

    type SignStream = ReceiverStream<Result<SignResponse, Status>>;

    async fn sign(
        &self,
        request: Request<Streaming<SignRequest>>,
    ) -> Result<Response<Self::SignStream>, Status> {
        if self.0.sessions.is_draining() {
            return Err(crate::sessions::Refusal::Draining.into());
        }
        // A task of its own, so that the deadline holds whether or not the client reads its responses.
        let (responses, stream) = mpsc::channel(WAITING_RESPONSES);
        tokio::spawn(signing::run(Arc::clone(&self.0), request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let node = &*self.0;
        let figures = node.sessions.figures();
        Ok(Response::new(GetStatusResponse {
            party: node.dictionary.party().to_owned(),
            epoch: node.dictionary.epoch(),
            accounts: node.dictionary.len() as u64,
            active_sessions: saturate(figures.active),
            max_sessions: saturate(figures.max),
            completed_sessions: figures.completed,
            failed_sessions: figures.failed,
            uptime_ms: u64::try_from(node.loaded_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            loaded_at_unix_ms: node.loaded_at_unix_ms,
        }))
    }
}

pub(crate) fn unknown_account(id: &str) -> Status {
    Status::not_found(format!("account {id:?} is not in this node's bundle"))
}

fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
