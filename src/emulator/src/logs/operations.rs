//! The operations of CloudWatch Logs: what a signed request does. Source: Amazon CloudWatch Logs API reference.

mod reading;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    batch,
    error::ServiceError,
    fault::{Faults, Mode},
    names,
    request::{CreateLogGroup, CreateLogStream, GetLogEvents, PutLogEvents, PutRetentionPolicy, read},
    store::Store,
};
use crate::aws::service::{self, Answer, Summary};

/// PutRetentionPolicy: "Possible values".
const RETENTION_DAYS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// One account's CloudWatch Logs in one region.
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) faults: Faults,
    /// Any, if it is not known.
    pub(crate) region: Option<String>,
    pub(crate) account: String,
    /// ARNs of principals that no policy allows anything.
    pub(crate) powerless: Vec<String>,
}

type Call<'a> = service::Call<'a, Notes>;

/// Never has a message in it.
#[derive(Default)]
pub(crate) struct Notes {
    group: Option<String>,
    stream: Option<String>,
    /// Number of events in the batch, and of those that were taken.
    events: Option<usize>,
    taken: Option<usize>,
    /// What was done wrong on purpose.
    fault: Option<String>,
}

impl service::Service for Service {
    const TARGET_PREFIX: &'static str = "Logs_20140328.";
    /// A batch may have 1 MiB, and JSON takes six bytes for a control character.
    const MAX_BODY: usize = 8 * 1024 * 1024;
    type Notes = Notes;

    async fn answer(&self, call: &mut Call<'_>) -> Result<Answer, ServiceError> {
        let (operation, body) = (call.operation, call.body);
        let fault = self.faults.next(operation)?;
        if fault.mode != Mode::None {
            call.notes.fault = Some(format!("{:?}", fault.mode));
        }
        sleep(fault.delay()).await;
        match fault.mode {
            Mode::None | Mode::LoseAnswer => {}
            Mode::Hang => return Ok(Answer::Silence),
            Mode::Deny => return Err(self.denied(operation, "*", call)),
            Mode::Throttle => return Err(ServiceError::throttled()),
            Mode::Unavailable => return Err(ServiceError::unavailable("injected by the fault file")),
            Mode::InternalError => return Err(ServiceError::failure("injected by the fault file")),
        }
        let members = match operation {
            "CreateLogGroup" => self.create_log_group(body, call)?,
            "CreateLogStream" => self.create_log_stream(body, call)?,
            "GetLogEvents" => self.get_log_events(body, call)?,
            "PutLogEvents" => self.put_log_events(body, call)?,
            "PutRetentionPolicy" => self.put_retention_policy(body, call)?,
            _ => return Err(ServiceError::unknown_operation()),
        };
        Ok(if fault.mode == Mode::LoseAnswer { Answer::Silence } else { Answer::Members(members) })
    }

    fn log(request: &Summary<'_>, notes: &Notes) {
        tracing::info!(
            operation = request.operation,
            principal = request.principal,
            request_id = request.request_id,
            outcome = request.outcome,
            error_message = request.error_message,
            group = notes.group,
            stream = notes.stream,
            events = notes.events,
            taken = notes.taken,
            fault = notes.fault,
            "request"
        );
    }
}

impl Service {
    fn create_log_group(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: CreateLogGroup = read(body)?;
        self.authorize_group("CreateLogGroup", &request.log_group_name, call)?;
        self.store.create_group(&request.log_group_name)?;
        Ok(json!({}))
    }

    fn put_retention_policy(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: PutRetentionPolicy = read(body)?;
        let days = request.retention_in_days;
        if !RETENTION_DAYS.contains(&days) {
            let constraint = format!("satisfy enum value set: {RETENTION_DAYS:?}");
            return Err(ServiceError::invalid_member("retentionInDays", &constraint));
        }
        self.authorize_group("PutRetentionPolicy", &request.log_group_name, call)?;
        self.store.set_retention(&request.log_group_name, days)?;
        Ok(json!({}))
    }

    fn create_log_stream(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: CreateLogStream = read(body)?;
        let (group, stream) = (&request.log_group_name, &request.log_stream_name);
        self.authorize_stream("CreateLogStream", group, stream, call)?;
        self.store.create_stream(group, stream)?;
        Ok(json!({}))
    }

    fn put_log_events(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: PutLogEvents = read(body)?;
        let (group, stream) = (&request.log_group_name, &request.log_stream_name);
        call.notes.events = Some(request.log_events.len());
        batch::check_members(&request.log_events)?;
        self.authorize_stream("PutLogEvents", group, stream, call)?;
        let judged = self.store.put(group, stream, &request.log_events, now()?)?;
        call.notes.taken = Some(judged.taken.len());
        Ok(judged
            .rejected
            .members()
            .map_or_else(|| json!({}), |rejected| json!({"rejectedLogEventsInfo": rejected})))
    }

    fn get_log_events(&self, body: &[u8], call: &mut Call<'_>) -> Result<Value, ServiceError> {
        let request: GetLogEvents = read(body)?;
        let (group, stream) = (&request.log_group_name, &request.log_stream_name);
        self.authorize_stream("GetLogEvents", group, stream, call)?;
        reading::page(&request, self.store.events(group, stream)?)
    }

    /// The name comes before the rights, because the rights are about what it names.
    fn authorize_group(&self, operation: &str, group: &str, call: &mut Call<'_>) -> Result<(), ServiceError> {
        names::check_group(group)?;
        call.notes.group = Some(group.to_owned());
        self.authorize(operation, &format!("log-group:{group}"), call)
    }

    fn authorize_stream(
        &self,
        operation: &str,
        group: &str,
        stream: &str,
        call: &mut Call<'_>,
    ) -> Result<(), ServiceError> {
        names::check_group(group)?;
        names::check_stream(stream)?;
        call.notes.group = Some(group.to_owned());
        call.notes.stream = Some(stream.to_owned());
        self.authorize(operation, &format!("log-group:{group}:log-stream:{stream}"), call)
    }

    /// All principals are administrators but those without rights.
    fn authorize(&self, operation: &str, resource: &str, call: &Call<'_>) -> Result<(), ServiceError> {
        if self.powerless.iter().any(|arn| arn == call.principal) {
            return Err(self.denied(operation, resource, call));
        }
        Ok(())
    }

    fn denied(&self, operation: &str, resource: &str, call: &Call<'_>) -> ServiceError {
        let (region, account) = (self.region.as_deref().unwrap_or("*"), &self.account);
        let action = format!("logs:{operation}");
        let reason = format!("because no identity-based policy allows the {action} action");
        let resource = format!("arn:aws:logs:{region}:{account}:{resource}");
        ServiceError::not_authorized(call.principal, &action, &resource, &reason)
    }
}

/// Milliseconds since 1970.
fn now() -> Result<i64, ServiceError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let since = since.and_then(|since| i64::try_from(since.as_millis()).ok());
    since.ok_or_else(|| ServiceError::failure("the clock is not set"))
}
