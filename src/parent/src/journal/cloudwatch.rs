//! CloudWatch Logs, through the AWS SDK.

use std::{env, error::Error, fs, path::Path, time::Duration};

use aws_config::{
    environment::EnvironmentVariableCredentialsProvider,
    imds::{self, credentials::ImdsCredentialsProvider},
    meta::credentials::CredentialsProviderChain,
    provider_config::ProviderConfig,
};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_cloudwatchlogs::{
    Client,
    config::{
        BehaviorVersion, Region, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId as _,
    types::{InputLogEvent, RejectedLogEventsInfo},
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::{JournalConfig, JournalError, event::Event, ship::Sink};

/// Attempts at one request, the first included. The SDK repeats what was throttled, failed inside AWS or did not arrive.
const ATTEMPTS: u32 = 4;
/// Before the second attempt; doubled before each other. Times a random factor below one.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Longest time for one attempt: a mebibyte at a megabit a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for a request, all attempts and the pauses between them. Three of them are less than a service manager
/// waits for the end by default (90 s): a batch that is on its way, one that becomes full, and the last one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(25);

/// The variable that names another instance metadata service, as AWS's tools have it.
const METADATA_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
/// The instance metadata service (Amazon EC2 User Guide, "Access instance metadata").
const METADATA: &str = "http://169.254.169.254";

const CREATE: &str = "logs:CreateLogStream";
const PUT: &str = "logs:PutLogEvents";

/// One log stream.
#[derive(Debug)]
pub(super) struct CloudWatch {
    client: Client,
    region: String,
    group: String,
    stream: String,
}

impl CloudWatch {
    /// Makes the stream, unless it is there.
    pub(super) async fn connect(config: &JournalConfig) -> Result<Self, JournalError> {
        let metadata = Metadata::new();
        let stream = match &config.stream {
            Some(stream) => stream.clone(),
            None => metadata.instance_id().await?,
        };
        let this = Self {
            client: client(config, &metadata)?,
            region: config.region.clone(),
            group: config.group.clone(),
            stream,
        };
        this.create_stream().await?;
        Ok(this)
    }

    /// For people.
    pub(super) fn destination(&self) -> String {
        format!("group {}, stream {} in {}", self.group, self.stream, self.region)
    }

    async fn create_stream(&self) -> Result<(), JournalError> {
        let request = self.client.create_log_stream();
        match request.log_group_name(&self.group).log_stream_name(&self.stream).send().await {
            Err(SdkError::ServiceError(refused)) if refused.err().is_resource_already_exists_exception() => {
                Ok(())
            }
            Err(error) => Err(self.failed(CREATE, &error)),
            Ok(_) => Ok(()),
        }
    }

    fn failed<E>(&self, action: &'static str, error: &SdkError<E>) -> JournalError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
        let cause = if is_about_credentials(error) { Cause::NoCredentials } else { Cause::of(code) };
        let problem = match error.as_service_error() {
            Some(refused) => {
                let message = refused.message().unwrap_or("no message");
                let request = error.request_id().unwrap_or("unknown");
                format!("{}: {message} (request {request})", code.unwrap_or("an error without a name"))
            }
            None => chain(error),
        };
        JournalError::CloudWatch {
            action,
            destination: self.destination(),
            problem: telemetry::redact(&problem).into_owned(),
            remedy: cause.remedy(action, &self.region, &self.group),
        }
    }
}

impl Sink for CloudWatch {
    async fn put(&self, events: Vec<Event>) -> Result<(), JournalError> {
        let count = events.len();
        let events = events.into_iter().map(|event| {
            let event = InputLogEvent::builder().timestamp(event.unix_ms).message(event.message).build();
            event.map_err(|error| self.failed::<CreateError>(PUT, &SdkError::construction_failure(error)))
        });
        let request = self.client.put_log_events().log_group_name(&self.group).log_stream_name(&self.stream);
        let request = request.set_log_events(Some(events.collect::<Result<_, _>>()?));
        let answer = request.send().await.map_err(|error| self.failed(PUT, &error))?;
        // At debug level, see the comment of `journal`.
        tracing::debug!(count, request_id = answer.request_id(), "CloudWatch Logs took a batch");
        if let Some(rejected) = answer.rejected_log_events_info() {
            warn_of_rejected(rejected, count);
        }
        Ok(())
    }
}

type CreateError = aws_sdk_cloudwatchlogs::operation::create_log_stream::CreateLogStreamError;

/// Those events are gone. The line is an event of the present: it is not rejected in its turn.
fn warn_of_rejected(rejected: &RejectedLogEventsInfo, count: usize) {
    let number = |index: Option<i32>| index.and_then(|index| usize::try_from(index).ok());
    let too_new =
        number(rejected.too_new_log_event_start_index()).map_or(0, |first| count.saturating_sub(first));
    tracing::warn!(
        of = count,
        older_than_14_days = number(rejected.too_old_log_event_end_index()).unwrap_or(0),
        older_than_the_groups_retention = number(rejected.expired_log_event_end_index()).unwrap_or(0),
        more_than_2_hours_in_the_future = too_new,
        "CloudWatch Logs rejected events of a batch"
    );
}

fn client(config: &JournalConfig, metadata: &Metadata) -> Result<Client, JournalError> {
    let tls = TlsContext::builder().with_trust_store(trust_store(config.ca_file.as_deref())?).build();
    let Ok(tls) = tls else { unreachable!("a trust store is all there is to a context") };
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::rustls(CryptoMode::AwsLc))
        .tls_context(tls);
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_BACKOFF);
    let timeouts = TimeoutConfig::builder()
        .operation_timeout(REQUEST_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let mut sdk = aws_sdk_cloudwatchlogs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .credentials_provider(metadata.credentials())
        .retry_config(retries)
        .timeout_config(timeouts)
        // Requests and answers are in memory, at most a mebibyte: the timeouts above are all the protection they need.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(http.build_https());
    sdk.set_endpoint_url(config.endpoint.clone());
    Ok(Client::from_conf(sdk.build()))
}

/// The file is read here and its certificates tried: the HTTP client panics at those it cannot use.
fn trust_store(ca_file: Option<&Path>) -> Result<TrustStore, JournalError> {
    let Some(file) = ca_file else { return Ok(TrustStore::default()) };
    let refused = |problem: String| JournalError::Roots { file: file.to_owned(), problem };
    let pem = fs::read(file).map_err(|error| refused(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refused("no certificate in it".to_owned()));
    }
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

/// The instance metadata service, version 2 only.
struct Metadata {
    config: ProviderConfig,
    client: imds::Client,
}

impl Metadata {
    fn new() -> Self {
        // Plain HTTP is what the service speaks, and all that is enabled here.
        let http = aws_smithy_http_client::Builder::new().build_http();
        let config = ProviderConfig::without_region().with_http_client(http);
        let endpoint = env::var(METADATA_VARIABLE).unwrap_or_default();
        // Given here, or files of AWS's tools in a home directory would be asked for it.
        let endpoint = if endpoint.is_empty() { METADATA.to_owned() } else { endpoint };
        let client = imds::Client::builder().configure(&config);
        let client = client.clone().endpoint(endpoint).unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&*error), "{METADATA_VARIABLE} is no URL");
            client
        });
        Self { config, client: client.build() }
    }

    async fn instance_id(&self) -> Result<String, JournalError> {
        let answer = self.client.get("/latest/meta-data/instance-id").await;
        let answer = answer.map_err(|error| JournalError::InstanceId { problem: chain(&error) })?;
        let id = answer.as_ref().trim();
        // EC2: `i-` and hexadecimal digits.
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(JournalError::InstanceId { problem: "the answer is no instance id".to_owned() });
        }
        Ok(id.to_owned())
    }

    /// The environment, then the role of the instance; no files.
    fn credentials(&self) -> CredentialsProviderChain {
        let instance = ImdsCredentialsProvider::builder()
            .configure(&self.config)
            .imds_client(self.client.clone())
            .build();
        CredentialsProviderChain::first_try("environment", EnvironmentVariableCredentialsProvider::new())
            .or_else("instance metadata", instance)
    }
}

/// Why a request failed, as far as there is something else to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Missing,
    Denied,
    NoCredentials,
    BadCredentials,
    Busy,
    Unreachable,
    Other,
}

impl Cause {
    /// Of an error's name (Amazon CloudWatch Logs API reference, "Common error types" and those of the operations);
    /// `None`: there was no answer.
    fn of(code: Option<&str>) -> Self {
        match code {
            None => Self::Unreachable,
            Some("ResourceNotFoundException") => Self::Missing,
            Some("AccessDeniedException" | "NotAuthorized" | "OptInRequired") => Self::Denied,
            Some(
                "ExpiredToken"
                | "ExpiredTokenException"
                | "IncompleteSignature"
                | "InvalidClientTokenId"
                | "InvalidSignatureException"
                | "MissingAuthenticationToken"
                | "MissingAuthenticationTokenException"
                | "RequestExpired"
                | "UnrecognizedClientException",
            ) => Self::BadCredentials,
            Some(
                "InternalFailure"
                | "LimitExceededException"
                | "ServiceUnavailable"
                | "ServiceUnavailableException"
                | "Throttling"
                | "ThrottlingException"
                | "TooManyRequestsException",
            ) => Self::Busy,
            Some(_) => Self::Other,
        }
    }

    fn remedy(self, action: &str, region: &str, group: &str) -> String {
        match self {
            Self::Missing => format!(
                "the group has to be there (the stream is made at each start): \
                 aws logs create-log-group --region {region} --log-group-name {group}"
            ),
            Self::Denied => format!(
                "the caller's role has to allow {CREATE} and {PUT} on log-group:{group}:*, and so has the policy of a \
                 VPC endpoint"
            ),
            Self::NoCredentials => format!(
                "give the instance a role that allows {action}, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ),
            Self::BadCredentials => "check the instance's role or the variables AWS_ACCESS_KEY_ID, \
                                     AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and this machine's clock"
                .to_owned(),
            Self::Busy => format!(
                "it was tried {ATTEMPTS} times, and the next start tries again; if it stays, ask Service Quotas for a \
                 higher rate of {action}"
            ),
            Self::Unreachable => {
                "check the route to the endpoint (NAT or interface VPC endpoint, security groups), \
                                  `region`, `endpoint`, and `ca_file` if it names a certificate"
                    .to_owned()
            }
            Self::Other => "nothing was lost: the next start tries again".to_owned(),
        }
    }
}

fn is_about_credentials(error: &(dyn Error + 'static)) -> bool {
    error.is::<CredentialsError>() || error.source().is_some_and(is_about_credentials)
}

/// The SDK's errors say little themselves; what happened is in their sources.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_what_to_change() {
        let remedy = |code| Cause::of(code).remedy(PUT, "eu-central-1", "/nitro-sign/parent");
        let missing = remedy(Some("ResourceNotFoundException"));
        let command = "aws logs create-log-group --region eu-central-1 --log-group-name /nitro-sign/parent";
        assert!(missing.ends_with(command), "{missing}");
        let denied = remedy(Some("AccessDeniedException"));
        assert!(
            denied.contains("logs:CreateLogStream and logs:PutLogEvents on log-group:/nitro-sign/parent:*")
        );
        assert!(remedy(Some("UnrecognizedClientException")).contains("AWS_ACCESS_KEY_ID"));
        assert!(remedy(Some("ThrottlingException")).contains("rate of logs:PutLogEvents"));
        assert!(remedy(None).contains("`endpoint`"));
        assert!(remedy(Some("SomethingNew")).contains("nothing was lost"));
    }

    #[test]
    fn roots_that_cannot_be_used_are_refused_with_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let damaged = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        for content in ["", "hello", damaged, "-----BEGIN CERTIFICATE-----\nMIIB\n"] {
            fs::write(&file, content).unwrap();
            let message = trust_store(Some(&file)).unwrap_err().to_string();
            assert!(message.contains("`ca_file`") && message.contains("ca.pem"), "{message}");
        }
        assert!(trust_store(Some(Path::new("/nonexistent/ca.pem"))).is_err());
        let certificate = rcgen::generate_simple_self_signed(["logs.example".to_owned()]).unwrap();
        fs::write(&file, certificate.cert.pem()).unwrap();
        assert!(trust_store(Some(&file)).is_ok());
        assert!(trust_store(None).is_ok());
    }
}
