//! What every stand-in for a service is told in the same words.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, ensure};

use super::{
    authority::{Authority, Kind},
    server::Server,
    service::Service,
    sigv4::{Principal, SessionToken, Verifier},
    tls::Tls,
};

/// Options of one service.
#[derive(Debug, clap::Args)]
pub(crate) struct ServiceArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Account that owns everything: 12 digits.
    #[arg(long, default_value = "111122223333")]
    pub(crate) account: String,
    /// Directory with the authority of the server's certificate, a file *-ca.pem and a file *-ca.key; made if it is not
    /// there [default: an authority for this run]
    #[arg(long)]
    pub(crate) authority_dir: Option<PathBuf>,
    /// A principal and its access key, as ARN:ACCESS_KEY_ID:SECRET_ACCESS_KEY; repeat for more.
    #[arg(long = "principal", required = true)]
    pub(crate) principals: Vec<Principal>,
    /// Session token that an access key is of no use without, as ACCESS_KEY_ID:TOKEN; short-lived credentials have one.
    #[arg(long = "session-token")]
    pub(crate) session_tokens: Vec<SessionToken>,
}

/// Who a service is, and for whom.
pub(crate) struct Identity<'a> {
    /// Its name in signatures.
    pub(crate) name: &'static str,
    /// Without one, requests may be signed for any.
    pub(crate) region: Option<String>,
    /// Names and IP addresses that clients call it by.
    pub(crate) hosts: &'a [String],
    pub(crate) authority: Kind,
}

impl ServiceArgs {
    /// Listens from here on; answers once it serves.
    pub(crate) async fn bind<S: Service>(
        self,
        identity: Identity<'_>,
        service: S,
    ) -> anyhow::Result<Server<S>> {
        ensure!(
            self.account.len() == 12 && self.account.bytes().all(|byte| byte.is_ascii_digit()),
            "--account {:?} is not 12 digits",
            self.account
        );
        let Identity { name, region, hosts, authority } = identity;
        let authority = Authority::open(authority, self.authority_dir.as_deref());
        let tls =
            Tls::generate(hosts, authority.with_context(|| format!("the authority of the TLS of {name}"))?)?;
        let verifier = Verifier {
            service: name,
            region,
            principals: self.principals,
            session_tokens: self.session_tokens,
        };
        Server::bind(self.listen, tls, service, verifier).await
    }
}
