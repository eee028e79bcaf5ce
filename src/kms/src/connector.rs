//! Carries the SDK's HTTP over any [`vsock::Endpoint`]: the SDK has no hook for a dialer of one's own.

use std::{error::Error, fmt, io, sync::Arc};

use aws_sdk_kms::config::{RuntimeComponents, http::HttpRequest, http::HttpResponse};
use aws_smithy_runtime_api::client::{
    http::{
        HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
        http_client_fn,
    },
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{client::legacy, rt::TokioExecutor};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version::TLS13};
use vsock::{Dial, Endpoint};

/// An HTTP client for the SDK that dials `endpoint` whatever the host in the URL is. That host is still the one that
/// is asked for in TLS (SNI), the one the certificate has to name, and the one in the `Host` header.
///
/// Its timeouts are the SDK's own: [`HttpConnectorSettings`] are ignored.
pub(crate) fn http_client(endpoint: Endpoint, roots: RootCertStore) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(TunnelConnector::new(endpoint, roots));
    http_client_fn(move |_: &HttpConnectorSettings, _: &RuntimeComponents| connector.clone())
}

struct TunnelConnector(legacy::Client<HttpsConnector<Dial>, SdkBody>);

impl TunnelConnector {
    fn new(endpoint: Endpoint, roots: RootCertStore) -> Self {
        let tls = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(roots))
            .https_only()
            .enable_http1()
            .wrap_connector(Dial::new(endpoint));
        Self(legacy::Client::builder(TokioExecutor::new()).build(tls))
    }

    /// A future of its own, since the SDK's must not borrow the connector.
    fn send(
        &self,
        request: HttpRequest,
    ) -> impl Future<Output = Result<HttpResponse, ConnectorError>> + Send + use<> {
        let request = request.try_into_http1x().map(|request| self.0.request(request));
        async move {
            let response =
                request.map_err(|error| ConnectorError::user(error.into()))?.await.map_err(classify)?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        }
    }
}

impl HttpConnector for TunnelConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.send(request))
    }
}

impl fmt::Debug for TunnelConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TunnelConnector")
    }
}

/// TLS 1.3 alone. AWS KMS recommends it and offers it in every region (AWS KMS Developer Guide, "Infrastructure
/// security"), so there is nothing to fall back from, and the code of TLS 1.2 stays out of the enclave.
fn tls_config(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let Ok(builder) = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]) else {
        unreachable!("aws-lc-rs implements TLS 1.3")
    };
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// The SDK tries again after I/O errors. A TLS error is not one of them: whoever answers has no certificate for the
/// host under the roots, and will not have one a moment later.
fn classify(error: legacy::Error) -> ConnectorError {
    let connecting = error.is_connect();
    let tls = is_tls(&error);
    let error =
        if tls { ConnectorError::other(error.into(), None) } else { ConnectorError::io(error.into()) };
    if connecting { error.never_connected() } else { error }
}

/// Looks for a rustls error among the causes. `io::Error::source` skips the error it wraps, hence `get_ref`.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let inner =
        wrapped.map(|wrapped: &(dyn Error + Send + Sync + 'static)| wrapped as &(dyn Error + 'static));
    inner.or_else(|| error.source()).is_some_and(is_tls)
}
