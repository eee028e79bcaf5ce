//! What the stand-ins for AWS's services share: AWS JSON 1.1 over TLS, signed requests, errors.

pub(crate) mod args;
pub(crate) mod authority;
pub(crate) mod error;
pub(crate) mod fault;
pub(crate) mod json;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod sigv4;
pub(crate) mod tls;
pub(crate) mod uuid;

/// The region in a host name that is `service.REGION.amazonaws.com`.
pub(crate) fn region_of<'a>(service: &str, host: &'a str) -> Option<&'a str> {
    let region = host.strip_prefix(service)?.strip_prefix('.')?.strip_suffix(".amazonaws.com")?;
    (!region.contains('.')).then_some(region)
}
