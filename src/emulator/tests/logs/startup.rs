//! Options, files and the log.

use super::*;

#[tokio::test]
async fn it_is_called_by_any_of_its_names_under_its_authority() {
    let logs = Logs::start();
    assert_eq!(logs.ready["ca"], json!(logs.directory.path().join("logs-ca.pem")));
    let ca = fs::read(logs.directory.path().join("logs-ca.pem")).unwrap();
    for (host, stream) in [("localhost", "one"), ("127.0.0.1", "two")] {
        let client = Client::from_conf(logs.config_for(host, &ca).build());
        create_stream(&client, GROUP, stream).await.unwrap();
    }
}

#[tokio::test]
async fn another_name_and_another_authority_are_not_trusted() {
    let (logs, other) = (Logs::with(&["--host", "logs.example"]), Logs::start());
    let foreign = fs::read(other.ready["ca"].as_str().unwrap()).unwrap();
    for config in [
        logs.config(),
        other.config_for("localhost", &fs::read(logs.ready["ca"].as_str().unwrap()).unwrap()),
        logs.config_for("localhost", &foreign),
    ] {
        let client = Client::from_conf(config.build());
        let error = client.create_log_stream().log_group_name(GROUP).log_stream_name(STREAM).send().await;
        let error = error.unwrap_err();
        assert!(matches!(&error, SdkError::DispatchFailure(_)), "{error:?}");
        assert!(format!("{error:?}").contains("InvalidCertificate"), "{error:?}");
    }
}

#[tokio::test]
async fn an_authority_that_is_kept_serves_again_and_the_file_of_events_grows() {
    let directory = tempfile::tempdir().unwrap();
    let (state, authority) = (directory.path().join("new/state"), directory.path().join("kept"));
    let mut authorities = Vec::new();
    for message in ["one", "two"] {
        let mut command = command(&state);
        command.args(["--host", "localhost", "--group", GROUP, "--authority-dir"]).arg(&authority);
        let mut child = command.spawn().unwrap();
        let ready = process::ready(&mut child);
        let logs = Logs { directory: tempfile::tempdir().unwrap(), child, ready };
        put(&logs.shipper().await, vec![event(now(), message)]).await.unwrap();
        authorities.push(fs::read(state.join("logs-ca.pem")).unwrap());
    }
    assert_eq!(authorities[0], authorities[1]);
    assert_eq!(authorities[0], fs::read(authority.join("logs-ca.pem")).unwrap());
    let events = fs::read_to_string(state.join("events.jsonl")).unwrap();
    assert_eq!(events.lines().count(), 2);
}

#[tokio::test]
async fn every_request_is_logged_without_its_messages() {
    let mut logs = Logs::start();
    let client = logs.shipper().await;
    put(&client, vec![event(now() - 20 * DAY, "confidential"), event(now(), "confidential")]).await.unwrap();
    put(&client, vec![]).await.unwrap_err();
    let (text, lines) = process::log_of(&mut logs.child);
    let requests: Vec<_> = lines.iter().filter(|line| line["message"] == "request").collect();
    let summary: Vec<_> =
        requests.iter().map(|line| json!([line["operation"], line["outcome"], line["taken"]])).collect();
    let expected = [
        json!(["CreateLogStream", "ok", null]),
        json!(["PutLogEvents", "ok", 1]),
        json!(["PutLogEvents", "InvalidParameterException", null]),
    ];
    assert_eq!(summary, expected);
    assert_eq!((&requests[1]["group"], &requests[1]["stream"]), (&json!(GROUP), &json!(STREAM)));
    assert_eq!((&requests[1]["principal"], &requests[1]["events"]), (&json!(SHIPPER), &json!(2)));
    assert!(!text.contains("confidential") && !text.contains(SECRET), "{text}");
}

#[test]
fn options_that_cannot_work_are_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let failure = |arguments: &[&str]| process::failure(command(directory.path()).args(arguments));
    let words = failure(&["--group", "no spaces"]);
    assert!(words.contains("--group \"no spaces\"") && words.contains("regular expression"), "{words}");
    let words = failure(&["--group", "twice", "twice"]);
    assert!(words.contains("--group \"twice\"") && words.contains("already exists"), "{words}");
    let words = failure(&["--account", "1"]);
    assert!(words.contains("--account \"1\" is not 12 digits"), "{words}");
    let words = failure(&["--session-token", "token"]);
    assert!(words.contains("ACCESS_KEY_ID:TOKEN"), "{words}");
    let file = directory.path().join("events.jsonl");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let words = failure(&[]);
    assert!(words.contains("cannot write") && words.contains("events.jsonl"), "{words}");
}
