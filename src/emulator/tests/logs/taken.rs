//! What is accepted.

use super::*;

#[tokio::test]
async fn events_that_are_accepted_are_in_the_file_before_the_answer_and_can_be_read_back() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    let time = now();
    let answer = put(&client, vec![event(time - 1, "one"), event(time, "zwei – \"2\"\n")]).await.unwrap();
    assert_eq!(answer.rejected_log_events_info(), None);
    let line = |timestamp, message: &str| json!({"group": GROUP, "stream": STREAM, "timestamp": timestamp, "message": message});
    assert_eq!(logs.recorded(), [line(time - 1, "one"), line(time, "zwei – \"2\"\n")]);

    let read = client.get_log_events().log_group_name(GROUP).log_stream_name(STREAM).send().await.unwrap();
    let events: Vec<_> =
        read.events().iter().map(|event| (event.timestamp().unwrap(), event.message().unwrap())).collect();
    assert_eq!(events, [(time - 1, "one"), (time, "zwei – \"2\"\n")]);
    assert!(read.events().iter().all(|event| event.ingestion_time().unwrap() >= time));
}

#[tokio::test]
async fn a_sequence_token_is_ignored() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    let request = client.put_log_events().log_group_name(GROUP).log_stream_name(STREAM);
    request.sequence_token("nonsense").log_events(event(now(), "one")).send().await.unwrap();
    assert_eq!(logs.recorded_messages(), ["one"]);
}

#[tokio::test]
async fn the_largest_batch_is_taken_even_if_json_makes_it_six_times_as_large() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    let message = "\u{1}".repeat(1_048_576 - 26);
    put(&client, vec![event(now(), &message)]).await.unwrap();
    assert_eq!(logs.recorded_messages(), [message]);
}

#[tokio::test]
async fn ten_thousand_events_are_taken_at_once() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    put(&client, vec![event(now(), "m"); 10_000]).await.unwrap();
    assert_eq!(logs.recorded().len(), 10_000);
}

#[tokio::test]
async fn events_too_old_and_too_new_are_rejected_and_the_others_taken() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    let time = now();
    let events = vec![
        event(time - 20 * DAY, "old"),
        event(time - 15 * DAY, "old"),
        event(time - 1000, "taken"),
        event(time, "taken, too"),
        event(time + DAY, "new"),
    ];
    let answer = put(&client, events).await.unwrap();
    let rejected = answer.rejected_log_events_info().unwrap();
    assert_eq!(rejected.too_old_log_event_end_index(), Some(2));
    assert_eq!(rejected.too_new_log_event_start_index(), Some(4));
    assert_eq!(rejected.expired_log_event_end_index(), None);
    assert_eq!(logs.recorded_messages(), ["taken", "taken, too"]);
}

#[tokio::test]
async fn events_past_the_retention_of_their_group_are_expired() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    client.put_retention_policy().log_group_name(GROUP).retention_in_days(3).send().await.unwrap();
    let time = now();
    let four_days = time - 4 * DAY;
    let answer =
        put(&client, vec![event(four_days, "expired"), event(four_days + 1, "expired")]).await.unwrap();
    let rejected = answer.rejected_log_events_info().unwrap();
    assert_eq!(rejected.expired_log_event_end_index(), Some(2));
    assert_eq!(rejected.too_old_log_event_end_index(), None);
    put(&client, vec![event(time - 2 * DAY, "kept")]).await.unwrap();
    assert_eq!(logs.recorded_messages(), ["kept"]);
}

#[tokio::test]
async fn a_group_can_be_made() {
    let logs = Logs::start();
    let client = logs.client();
    client.create_log_group().log_group_name("another").send().await.unwrap();
    create_stream(&client, "another", STREAM).await.unwrap();
}

#[tokio::test]
async fn a_stream_is_read_page_by_page_in_both_directions() {
    let logs = Logs::start();
    let client = logs.shipper().await;
    let time = now();
    put(&client, (0..5).map(|number| event(time + number, number.to_string())).collect()).await.unwrap();
    let request = || client.get_log_events().log_group_name(GROUP).log_stream_name(STREAM).limit(2);
    let messages = |answer: &aws_sdk_cloudwatchlogs::operation::get_log_events::GetLogEventsOutput| {
        answer.events().iter().map(|event| event.message().unwrap()).collect::<Vec<_>>().join(" ")
    };

    let first = request().start_from_head(true).send().await.unwrap();
    assert_eq!(messages(&first), "0 1");
    let next = |token: Option<&str>| request().set_next_token(token.map(str::to_owned)).send();
    let second = next(first.next_forward_token()).await.unwrap();
    assert_eq!(messages(&second), "2 3");
    let last = next(second.next_forward_token()).await.unwrap();
    assert_eq!(messages(&last), "4");
    let end = next(last.next_forward_token()).await.unwrap();
    assert_eq!((messages(&end), end.next_forward_token()), (String::new(), last.next_forward_token()));
    assert_eq!(messages(&next(second.next_backward_token()).await.unwrap()), "0 1");

    let latest = request().send().await.unwrap();
    assert_eq!(messages(&latest), "3 4");
    let between = request().start_time(time + 1).end_time(time + 2).send().await.unwrap();
    assert_eq!(messages(&between), "1");
}
