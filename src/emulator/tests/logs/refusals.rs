//! What is refused, by the name that AWS documents.

use super::*;

/// A batch that is refused as a whole, of which nothing may be kept.
async fn assert_invalid(events: Vec<InputLogEvent>, words: &str) {
    let logs = Logs::start();
    let refused = put(&logs.shipper().await, events).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (400, "InvalidParameterException"), "{refused:?}");
    assert!(refused.message.contains(words), "{refused:?}");
    assert!(logs.recorded().is_empty());
}

#[tokio::test]
async fn a_batch_out_of_order_is_refused() {
    assert_invalid(vec![event(now(), "b"), event(now() - 1000, "a")], "chronological order").await;
}

#[tokio::test]
async fn a_batch_of_more_than_a_day_is_refused() {
    assert_invalid(vec![event(now() - DAY - 1000, "a"), event(now(), "b")], "24 hours").await;
}

#[tokio::test]
async fn a_batch_of_more_than_a_mebibyte_is_refused() {
    let half = "m".repeat(1_048_576 / 2 - 26);
    let events = vec![event(now(), &half), event(now(), half + "m")];
    assert_invalid(events, "Upload too large: 1048577 bytes").await;
}

#[tokio::test]
async fn an_event_of_more_than_a_mebibyte_is_refused() {
    let events = vec![event(now(), "m".repeat(1_048_576 - 25))];
    assert_invalid(events, "Log event too large: 1048577 bytes").await;
}

#[tokio::test]
async fn a_batch_of_more_than_ten_thousand_events_is_refused() {
    assert_invalid(vec![event(now(), "m"); 10_001], "'logEvents'").await;
}

#[tokio::test]
async fn a_batch_without_events_and_an_event_without_a_message_are_refused() {
    assert_invalid(vec![], "'logEvents'").await;
    assert_invalid(vec![event(now(), "m"), event(now(), "")], "'logEvents.2.member.message'").await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let logs = Logs::start();
    let client = logs.client();
    let refused = put(&client, vec![event(now(), "m")]).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (400, "ResourceNotFoundException"));
    assert_eq!(refused.message, "The specified log stream does not exist.");
    let refused = create_stream(&client, "/missing", STREAM).await.unwrap_err();
    assert_eq!(refused.code, "ResourceNotFoundException");
    assert_eq!(refused.message, "The specified log group does not exist.");
    let read = client.get_log_events().log_group_name(GROUP).log_stream_name(STREAM).send().await;
    assert_eq!(refusal(&read.unwrap_err()).code, "ResourceNotFoundException");
    let policy = client.put_retention_policy().log_group_name("/missing").retention_in_days(3).send().await;
    assert_eq!(refusal(&policy.unwrap_err()).code, "ResourceNotFoundException");
}

#[tokio::test]
async fn what_is_there_is_not_made_again() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    let refused = create_stream(&client, GROUP, STREAM).await.unwrap_err();
    assert_eq!(refused.code, "ResourceAlreadyExistsException");
    assert_eq!(refused.message, "The specified log stream already exists");
    let group = client.create_log_group().log_group_name(GROUP).send().await.unwrap_err();
    let refused = refusal(&group);
    assert_eq!(refused.code, "ResourceAlreadyExistsException");
    assert_eq!(refused.message, "The specified log group already exists");
}

#[tokio::test]
async fn names_and_numbers_out_of_bounds_are_refused() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    let group = client.create_log_group().log_group_name("no spaces").send().await.unwrap_err();
    assert_eq!(refusal(&group).code, "InvalidParameterException");
    assert_eq!(create_stream(&client, GROUP, "a:b").await.unwrap_err().code, "InvalidParameterException");
    let policy = client.put_retention_policy().log_group_name(GROUP).retention_in_days(2).send().await;
    assert_eq!(refusal(&policy.unwrap_err()).code, "InvalidParameterException");
    let request = || client.get_log_events().log_group_name(GROUP).log_stream_name(STREAM);
    let limit = request().limit(10_001).send().await.unwrap_err();
    assert_eq!(refusal(&limit).code, "InvalidParameterException");
    let token = request().next_token("nonsense").send().await.unwrap_err();
    assert_eq!(refusal(&token).code, "InvalidParameterException");
}

#[tokio::test]
async fn what_is_not_implemented_is_an_unknown_operation() {
    let logs = Logs::start();
    let refused = refusal(&logs.client().describe_log_groups().send().await.unwrap_err());
    assert_eq!((refused.status, refused.code.as_str()), (400, "UnknownOperationException"));
}

/// How a client with other credentials or another region is refused.
async fn stranger(logs: &Logs, credentials: Credentials, region: &'static str) -> Refusal {
    let config = logs.config().credentials_provider(credentials).region(Region::new(region));
    create_stream(&Client::from_conf(config.build()), GROUP, "stream").await.unwrap_err()
}

#[tokio::test]
async fn a_wrong_signature_and_an_unknown_key_are_refused() {
    let logs = Logs::start();
    let refused = stranger(&logs, credentials("AKIASHIPPER", "wrong", None), "eu-central-1").await;
    assert_eq!((refused.status, refused.code.as_str()), (400, "InvalidSignatureException"));
    let refused = stranger(&logs, credentials("AKIANOBODY", SECRET, None), "eu-central-1").await;
    assert_eq!(refused.code, "UnrecognizedClientException");
    let refused = stranger(&logs, credentials("AKIASHIPPER", SECRET, Some("token")), "eu-central-1").await;
    assert_eq!(refused.code, "UnrecognizedClientException");
}

#[tokio::test]
async fn a_signature_for_another_region_is_refused_if_the_host_or_the_option_says_which() {
    let shipper = || credentials("AKIASHIPPER", SECRET, None);
    for arguments in [
        &["--host", "localhost", "logs.eu-central-1.amazonaws.com"][..],
        &["--host", "localhost", "--region", "eu-central-1"],
    ] {
        let logs = Logs::with(arguments);
        let refused = stranger(&logs, shipper(), "us-east-1").await;
        assert_eq!(refused.code, "InvalidSignatureException");
        logs.shipper().await;
    }
    // Nothing here says which region it is.
    let logs = Logs::start();
    let config = logs.config().region(Region::new("us-east-1"));
    create_stream(&Client::from_conf(config.build()), GROUP, STREAM).await.unwrap();
}

#[tokio::test]
async fn a_principal_without_rights_is_denied_by_action_and_resource() {
    let other = format!("{OTHER}:AKIAOTHER:{SECRET}");
    let logs = Logs::with(&["--host", "localhost", "--principal-without-rights", &other]);
    let refused = stranger(&logs, credentials("AKIAOTHER", SECRET, None), "eu-central-1").await;
    assert_eq!((refused.status, refused.code.as_str()), (400, "AccessDeniedException"));
    let words = format!("User: {OTHER} is not authorized to perform: logs:CreateLogStream on resource: ");
    assert!(refused.message.starts_with(&words), "{refused:?}");
    assert!(
        refused.message.contains(&format!(":111122223333:log-group:{GROUP}:log-stream:stream")),
        "{refused:?}"
    );
    logs.shipper().await;
}

#[tokio::test]
async fn short_lived_credentials_come_with_their_token() {
    let logs = Logs::with(&["--host", "localhost", "--session-token", "AKIASHIPPER:token"]);
    let refused = stranger(&logs, credentials("AKIASHIPPER", SECRET, None), "eu-central-1").await;
    assert_eq!(refused.code, "UnrecognizedClientException");
    let config = logs.config().credentials_provider(credentials("AKIASHIPPER", SECRET, Some("token")));
    create_stream(&Client::from_conf(config.build()), GROUP, STREAM).await.unwrap();
}
