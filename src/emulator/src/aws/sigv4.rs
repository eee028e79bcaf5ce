//! Who calls: Signature Version 4, verified by signing the request again with the key it names.
//!
//! Source: IAM User Guide, "AWS Signature Version 4 for API requests".

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use http::{HeaderMap, request::Parts};
use time::{PrimitiveDateTime, macros::format_description};
use zeroize::Zeroizing;

use super::error::ServiceError;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";
const MAX_SKEW: Duration = Duration::from_mins(5);
const DATE_HEADER: &str = "x-amz-date";
const TOKEN_HEADER: &str = "x-amz-security-token";

/// An IAM principal with its one access key.
#[derive(Clone)]
pub(crate) struct Principal {
    pub(crate) arn: String,
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
}

impl FromStr for Principal {
    type Err = String;

    /// `ARN:ACCESS_KEY_ID:SECRET`; only the ARN has colons.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.rsplitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(secret), Some(id), Some(arn))
                if !secret.is_empty() && !id.is_empty() && !arn.is_empty() =>
            {
                Ok(Self {
                    arn: arn.to_owned(),
                    access_key_id: id.to_owned(),
                    secret_access_key: secret.to_owned().into(),
                })
            }
            // The text itself has the secret in it.
            _ => Err("a principal is written ARN:ACCESS_KEY_ID:SECRET_ACCESS_KEY".to_owned()),
        }
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal").field("arn", &self.arn).finish_non_exhaustive()
    }
}

/// What has to come with an access key, and with no other.
#[derive(Clone)]
pub(crate) struct SessionToken {
    access_key_id: String,
    token: Zeroizing<String>,
}

impl FromStr for SessionToken {
    type Err = String;

    /// `ACCESS_KEY_ID:TOKEN`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((id, token)) if !id.is_empty() && !token.is_empty() => {
                Ok(Self { access_key_id: id.to_owned(), token: token.to_owned().into() })
            }
            _ => Err("a session token is written ACCESS_KEY_ID:TOKEN".to_owned()),
        }
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionToken").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Knows all access keys, and what requests have to be signed for.
pub(crate) struct Verifier {
    /// The service's name in signatures.
    pub(crate) service: &'static str,
    /// Without one, a request may be signed for any region.
    pub(crate) region: Option<String>,
    pub(crate) principals: Vec<Principal>,
    /// Keys that none of them is for are long-term ones.
    pub(crate) session_tokens: Vec<SessionToken>,
}

/// What the `Authorization` header says.
struct Authorization<'a> {
    access_key_id: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    terminator: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl Verifier {
    pub(crate) fn verify(
        &self,
        request: &Parts,
        body: &[u8],
        now: SystemTime,
    ) -> Result<&Principal, ServiceError> {
        let authorization = Authorization::of(&request.headers)?;
        let date = text(&request.headers, DATE_HEADER).ok_or_else(|| {
            let message =
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.";
            ServiceError::incomplete_signature(message)
        })?;
        let principal = self.principal(&authorization, &request.headers)?;
        self.check_scope(&authorization, date)?;
        check_signed_headers(&authorization, &request.headers)?;
        let time = read_time(date)?;
        check_time(date, time, now)?;
        let expected = self.signature(principal, &authorization, request, body, time)?;
        verify_slices_are_equal(expected.as_bytes(), authorization.signature.as_bytes())
            .map_err(|_| mismatch())?;
        Ok(principal)
    }

    /// A long-term key with a session token, and any other without its own, are credentials that do not exist.
    fn principal(
        &self,
        authorization: &Authorization<'_>,
        headers: &HeaderMap,
    ) -> Result<&Principal, ServiceError> {
        let found = self.principals.iter().find(|it| it.access_key_id == authorization.access_key_id);
        let expected = self.session_tokens.iter().find(|it| it.access_key_id == authorization.access_key_id);
        let expected = expected.map(|it| it.token.as_bytes());
        let actual = headers.get(TOKEN_HEADER).map(http::HeaderValue::as_bytes);
        found.filter(|_| actual == expected).ok_or_else(ServiceError::unrecognized_client)
    }

    fn check_scope(&self, authorization: &Authorization<'_>, date: &str) -> Result<(), ServiceError> {
        let service = self.service;
        let problem = if self.region.as_ref().is_some_and(|region| region != authorization.region) {
            "Credential should be scoped to a valid region.".to_owned()
        } else if authorization.service != service {
            format!("Credential should be scoped to correct service: '{service}'.")
        } else if authorization.terminator != TERMINATOR {
            format!("Credential should be scoped with a valid terminator: '{TERMINATOR}'.")
        } else if !date.starts_with(authorization.date) || authorization.date.len() != 8 {
            let date = date.get(..8).unwrap_or(date);
            format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{date}'"
            )
        } else {
            return Ok(());
        };
        Err(ServiceError::invalid_signature(problem))
    }

    fn signature(
        &self,
        principal: &Principal,
        authorization: &Authorization<'_>,
        request: &Parts,
        body: &[u8],
        time: SystemTime,
    ) -> Result<String, ServiceError> {
        let mut headers = Vec::new();
        for name in &authorization.signed_headers {
            for value in request.headers.get_all(*name) {
                headers.push((*name, value.to_str().map_err(|_| mismatch())?));
            }
        }
        let host = text(&request.headers, "host").ok_or_else(mismatch)?;
        let uri = format!("https://{host}{}", request.uri);
        let request = SignableRequest::new(
            request.method.as_str(),
            uri,
            headers.into_iter(),
            SignableBody::Bytes(body),
        )
        .map_err(|_| mismatch())?;

        let mut settings = SigningSettings::default();
        // The caller says which headers it signed.
        settings.excluded_headers = None;
        let secret = principal.secret_access_key.to_string();
        let identity = Credentials::new(&principal.access_key_id, secret, None, None, "emulator").into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(authorization.region)
            .name(self.service)
            .time(time)
            .settings(settings)
            .build()
            .map_err(|error| ServiceError::failure(error.to_string()))?;
        let signed = sign(request, &parameters.into()).map_err(|_| mismatch())?;
        Ok(signed.signature().to_owned())
    }
}

impl<'a> Authorization<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, ServiceError> {
        let header = text(headers, "authorization").ok_or_else(ServiceError::missing_authentication)?;
        let fields =
            header.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(' ')).ok_or_else(|| {
                ServiceError::incomplete_signature(format!(
                    "Authorization header requires the algorithm {ALGORITHM}."
                ))
            })?;
        let field = |name: &str| {
            let mut fields = fields.split(',').filter_map(|field| field.trim().split_once('='));
            fields.find(|(key, _)| *key == name).map(|(_, value)| value).ok_or_else(|| {
                ServiceError::incomplete_signature(format!(
                    "Authorization header requires '{name}' parameter."
                ))
            })
        };
        let [access_key_id, date, region, service, terminator] =
            field("Credential")?.split('/').collect::<Vec<_>>()[..]
        else {
            let message =
                "Credential must have exactly 5 slash-delimited elements: keyid/date/region/service/term";
            return Err(ServiceError::incomplete_signature(message));
        };
        Ok(Self {
            access_key_id,
            date,
            region,
            service,
            terminator,
            signed_headers: field("SignedHeaders")?.split(';').collect(),
            signature: field("Signature")?,
        })
    }
}

/// What decides about the meaning of a request has to be signed.
fn check_signed_headers(authorization: &Authorization<'_>, headers: &HeaderMap) -> Result<(), ServiceError> {
    let amazon = headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-"));
    for name in amazon.chain(["host"]) {
        if !authorization.signed_headers.contains(&name) {
            let message = format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.");
            return Err(ServiceError::invalid_signature(message));
        }
    }
    Ok(())
}

fn read_time(date: &str) -> Result<SystemTime, ServiceError> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = PrimitiveDateTime::parse(date, format).map_err(|_| {
        let message = format!("Date must be in ISO-8601 'basic format'. Got '{date}'.");
        ServiceError::incomplete_signature(message)
    })?;
    Ok(time.assume_utc().into())
}

fn check_time(date: &str, time: SystemTime, now: SystemTime) -> Result<(), ServiceError> {
    if now.duration_since(time).is_ok_and(|age| age > MAX_SKEW) {
        let message = format!("Signature expired: {date} is now earlier than five minutes ago");
        return Err(ServiceError::invalid_signature(message));
    }
    if time.duration_since(now).is_ok_and(|ahead| ahead > MAX_SKEW) {
        let message = format!("Signature not yet current: {date} is still later than in five minutes");
        return Err(ServiceError::invalid_signature(message));
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn mismatch() -> ServiceError {
    ServiceError::invalid_signature(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details.",
    )
}

#[cfg(test)]
mod tests;
