//! The journal on its way to CloudWatch Logs: `parent ship-journal` and `emulator logs` as processes, and a program that
//! plays `journalctl` out of a file.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

mod machine;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use machine::{
    ACCESS_KEY, GROUP, INSTANCE, Machine, Metadata, PATIENCE, POWERLESS_KEY, SECRET, signal, unix_us,
};
use nix::sys::signal::Signal;

#[test]
fn entries_arrive_with_their_fields_and_where_they_are_from() {
    let machine = Machine::new();
    let now = unix_us();
    machine.write(&format!(
        r#"{{"__CURSOR":"s=1;i=1","__REALTIME_TIMESTAMP":"{now}","_HOSTNAME":"ip-10-0-0-1","_SYSTEMD_UNIT":"nitro-sign-parent.service","PRIORITY":"6","MESSAGE":"{{\"source\":\"enclave\",\"message\":\"unsealed\",\"secret\":\"abc\"}}"}}"#
    ));
    machine.write(&format!(
        r#"{{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"{now}","_HOSTNAME":"ip-10-0-0-1","SYSLOG_IDENTIFIER":"kernel","PRIORITY":"4","MESSAGE":[27,91,109,104,105]}}"#
    ));
    let mut shipper = machine.ship();
    let events = machine.wait_for(2);
    assert_eq!((&events[0]["group"], &events[0]["stream"]), (&GROUP.into(), &"stream-1".into()));
    assert_eq!(events[0]["timestamp"], now / 1000);
    let message = |index: usize| events[index]["message"].as_str().unwrap();
    assert_eq!(
        message(0),
        r#"{"source":"enclave","message":"unsealed","secret":"[redacted]","host":"ip-10-0-0-1","priority":6,"unit":"nitro-sign-parent.service"}"#
    );
    assert_eq!(
        message(1),
        "{\"host\":\"ip-10-0-0-1\",\"message\":\"\\u001b[mhi\",\"priority\":4,\"unit\":\"kernel\"}"
    );
    machine.wait_for_cursor("s=1;i=2");
    assert_eq!(shipper.stop().unwrap().code(), Some(0));
}

#[test]
fn nothing_is_lost_by_a_kill_and_a_restart_and_little_is_sent_twice() {
    let machine = Machine::new();
    let mut expected = BTreeSet::new();
    let mut add = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            machine.entry(number);
            expected.insert(format!("m{number}"));
        }
    };
    add(1..12_000);
    let shipper = machine.ship();
    machine.wait_for_some_cursor();
    // In the middle of its work, with whatever is on its way.
    signal(&shipper, Signal::SIGKILL);
    drop(shipper);
    let acknowledged = machine.cursor_number();
    add(12_000..12_500);
    let mut shipper = machine.ship();
    let last = machine.wait_for_message("m12499");
    machine.wait_for_cursor("s=1;i=30d3");
    assert_eq!(shipper.stop().unwrap().code(), Some(0));

    let arrived: BTreeSet<_> = last.iter().cloned().collect();
    assert_eq!(arrived, expected);
    // Only what was on its way when it was killed comes twice.
    let number = |message: &String| message[1..].parse::<u32>().unwrap();
    let again = last.iter().filter(|message| number(message) <= acknowledged).count();
    assert_eq!(u32::try_from(again), Ok(acknowledged));
}

#[test]
fn a_stop_ships_what_was_written_and_the_next_start_goes_on_behind_it() {
    let machine = Machine::with("flush_ms = 60000\n");
    let mut shipper = machine.ship();
    machine.entry(1);
    machine.entry(2);
    // Long before they would be sent; the stand-in has to have printed them.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(machine.messages(), [""; 0]);
    assert_eq!(shipper.stop().unwrap().code(), Some(0));
    assert_eq!(machine.messages(), ["m1", "m2"]);

    machine.entry(3);
    let mut shipper = machine.ship();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(shipper.stop().unwrap().code(), Some(0));
    assert_eq!(machine.messages(), ["m1", "m2", "m3"]);
}

#[test]
fn after_a_reboot_that_took_the_journal_with_it_all_of_the_new_one_is_shipped() {
    let machine = Machine::new();
    let mut shipper = machine.ship();
    machine.entry(1);
    machine.wait_for_cursor("s=1;i=1");
    assert_eq!(shipper.stop().unwrap().code(), Some(0));

    fs::write(machine.path("journal.json"), "").unwrap();
    let earlier = unix_us() - 3_600_000_000;
    for number in 1..=3 {
        machine.write(&format!(
            r#"{{"__CURSOR":"s=2;i={number}","__REALTIME_TIMESTAMP":"{earlier}","MESSAGE":"new {number}"}}"#
        ));
    }
    let mut shipper = machine.ship();
    assert_eq!(machine.wait_for_message("new 3"), ["m1", "new 1", "new 2", "new 3"]);
    machine.wait_for_cursor("s=2;i=3");
    assert_eq!(shipper.stop().unwrap().code(), Some(0));
    machine.said(&["not in the journal any more"]);
}

#[test]
fn a_service_manager_hears_that_it_has_started_where_it_ships_and_of_the_end() {
    let machine = Machine::new();
    let manager = machine.manager();
    let mut shipper = machine.ship();
    let ready = manager.next();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    let status = format!("STATUS=Shipping the journal to group {GROUP}, stream stream-1 in eu-central-1");
    manager.until(&status);
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");
    assert_eq!(shipper.stop().unwrap().code(), Some(0));
    manager.until("STOPPING=1");
}

#[test]
fn no_batch_is_the_reason_for_the_next_one() {
    let machine = Machine::new();
    let mut shipper = machine.ship();
    for number in 1..=5 {
        machine.entry(number);
        machine.wait_for_message(&format!("m{number}"));
    }
    assert_eq!(shipper.stop().unwrap().code(), Some(0));
    let log = machine.log();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("shipping the journal"), "{log}");
}

#[test]
fn without_a_stream_and_credentials_the_instance_metadata_service_is_asked() {
    let machine = Machine::new();
    machine.configure(|config| config.replace("stream = \"stream-1\"\n", ""));
    let metadata = Metadata::start();
    machine.entry(1);
    let mut shipper = machine.ship_as(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url)]);
    let events = machine.wait_for(1);
    assert_eq!(events[0]["stream"], INSTANCE);
    assert_eq!(shipper.stop().unwrap().code(), Some(0));
    let asked = metadata.requests();
    assert!(asked.iter().any(|request| request.starts_with("PUT /latest/api/token")), "{asked:?}");
    assert!(!asked.iter().any(|request| request.contains("without token")), "{asked:?}");
}

#[test]
fn throttling_that_passes_is_lived_through_and_one_that_stays_ends_the_process() {
    let machine = Machine::new();
    machine.fault(r#"{"mode":"throttle","times":2}"#);
    machine.entry(1);
    let mut shipper = machine.ship();
    machine.wait_for_message("m1");
    machine.wait_for_cursor("s=1;i=1");

    machine.fault(r#"{"mode":"throttle"}"#);
    machine.entry(2);
    assert_eq!(shipper.wait(PATIENCE).unwrap().code(), Some(75));
    machine.said(&["logs:PutLogEvents", GROUP, "ThrottlingException", "Service Quotas"]);
    assert_eq!(machine.cursor(), "s=1;i=1");

    machine.fault(r#"{"mode":"none"}"#);
    let _shipper = machine.ship();
    assert_eq!(machine.wait_for_message("m2"), ["m1", "m2"]);
}

#[test]
fn a_batch_whose_answer_is_lost_is_sent_again() {
    let machine = Machine::new();
    machine.fault(r#"{"mode":"lose-answer","times":1}"#);
    machine.entry(1);
    let mut shipper = machine.ship();
    machine.wait_for(2);
    assert_eq!(machine.messages(), ["m1", "m1"]);
    machine.wait_for_cursor("s=1;i=1");
    assert_eq!(shipper.stop().unwrap().code(), Some(0));
}

#[test]
fn events_that_are_too_old_are_named_and_do_not_hold_up_the_others() {
    let machine = Machine::new();
    // Two in one batch, an hour on either side of the limit.
    let hour = 3_600_000_000;
    let limit = unix_us() - 14 * 24 * hour;
    machine.entry_at(1, limit - hour);
    machine.entry_at(2, limit + hour);
    machine.entry(3);
    let mut shipper = machine.ship();
    machine.wait_for_message("m3");
    machine.wait_for_cursor("s=1;i=3");
    assert_eq!(shipper.stop().unwrap().code(), Some(0));
    assert_eq!(machine.messages(), ["m2", "m3"]);
    machine.said(&["rejected events of a batch", "\"of\":2", "\"older_than_14_days\":1"]);
}

/// Runs it to its end, which has to be an error, and returns the exit code.
fn fails(machine: &Machine, environment: &[(&str, &str)]) -> i32 {
    machine.ship_as(environment).wait(PATIENCE).unwrap().code().unwrap()
}

const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];

#[test]
fn a_group_that_is_not_there_is_named_with_the_command_that_makes_it() {
    let machine = Machine::new();
    machine.configure(|config| config.replace(GROUP, "/no/such/group"));
    assert_eq!(fails(&machine, &CREDENTIALS), 75);
    let command = "aws logs create-log-group --region eu-central-1 --log-group-name /no/such/group";
    machine.said(&[
        "logs:CreateLogStream",
        "stream stream-1 in eu-central-1",
        "ResourceNotFoundException",
        command,
    ]);
}

#[test]
fn refused_credentials_and_missing_rights_are_told_apart() {
    let machine = Machine::new();
    let of = |id, secret| [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)];
    assert_eq!(fails(&machine, &of(ACCESS_KEY, "another secret")), 75);
    machine.said(&["InvalidSignatureException", "AWS_SECRET_ACCESS_KEY", "clock"]);
    assert_eq!(fails(&machine, &of("AKIAUNKNOWN", SECRET)), 75);
    machine.said(&["UnrecognizedClientException", "check the instance's role"]);
    assert_eq!(fails(&machine, &of(POWERLESS_KEY, SECRET)), 75);
    machine.said(&["AccessDeniedException", "has to allow logs:CreateLogStream and logs:PutLogEvents"]);
    let metadata = Metadata::refusing();
    assert_eq!(fails(&machine, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url)]), 75);
    machine.said(&["give the instance a role that allows logs:CreateLogStream", "AWS_ACCESS_KEY_ID"]);
}

#[test]
fn an_instance_id_that_cannot_be_asked_for_is_replaced_by_a_name() {
    let machine = Machine::new();
    machine.configure(|config| config.replace("stream = \"stream-1\"\n", ""));
    let metadata = Metadata::refusing();
    let environment = [CREDENTIALS[0], CREDENTIALS[1], ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url)];
    assert_eq!(fails(&machine, &environment), 75);
    machine.said(&["the instance metadata service", "give a name as `stream`"]);
}

#[test]
fn a_service_under_another_authority_or_not_there_at_all_is_unreachable() {
    let machine = Machine::new();
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(machine.path("other.pem"), certificate.cert.pem()).unwrap();
    machine.configure(|config| config.replace("logs/logs-ca.pem", "other.pem"));
    assert_eq!(fails(&machine, &CREDENTIALS), 75);
    machine.said(&["logs:CreateLogStream", "UnknownIssuer", "`ca_file`"]);

    // Port 9 (discard) of this machine: nobody.
    machine.configure(|config| {
        let line = config.lines().find(|line| line.starts_with("endpoint")).unwrap();
        config.replace(line, "endpoint = \"https://127.0.0.1:9\"")
    });
    assert_eq!(fails(&machine, &CREDENTIALS), 75);
    machine.said(&["Connection refused", "`endpoint`"]);
}

#[test]
fn an_end_of_journalctl_is_a_failure_with_its_last_words() {
    let machine = Machine::new();
    fs::write(machine.path("replay.sh"), "echo 'Failed to open files: Permission denied' >&2; exit 1")
        .unwrap();
    assert_eq!(fails(&machine, &CREDENTIALS), 75);
    machine.said(&["sh ended (exit status: 1): Failed to open files: Permission denied"]);
    machine.configure(|config| config.replace("\"sh\"", "\"/nonexistent/journalctl\""));
    assert_eq!(fails(&machine, &CREDENTIALS), 75);
    machine.said(&["cannot start /nonexistent/journalctl"]);
}

#[test]
fn what_only_a_person_can_correct_is_not_restarted() {
    let machine = Machine::new();
    fs::write(machine.path("cursor"), "what is this").unwrap();
    assert_eq!(fails(&machine, &CREDENTIALS), 78);
    machine.said(&["cursor holds no journal cursor; remove it"]);
    fs::remove_file(machine.path("cursor")).unwrap();

    let certificates = fs::read(machine.path("logs/logs-ca.pem")).unwrap();
    fs::write(machine.path("logs/logs-ca.pem"), "no certificate").unwrap();
    assert_eq!(fails(&machine, &CREDENTIALS), 78);
    machine.said(&["`ca_file`", "logs-ca.pem"]);
    fs::write(machine.path("logs/logs-ca.pem"), certificates).unwrap();

    machine.configure(|config| format!("{config}more = 1\n"));
    assert_eq!(fails(&machine, &CREDENTIALS), 78);
    machine.said(&["unknown field `more`", "journal.toml"]);
}

#[test]
fn a_shipper_that_is_killed_leaves_no_journalctl_behind() {
    let machine = Machine::new();
    let shipper = machine.ship();
    machine.entry(1);
    machine.wait_for(1);
    let pid = fs::read_to_string(machine.path("replay.pid")).unwrap();
    let proc = format!("/proc/{}/cmdline", pid.trim());
    assert!(fs::read_to_string(&proc).unwrap().contains("tail"));
    signal(&shipper, Signal::SIGKILL);
    drop(shipper);
    let deadline = Instant::now() + PATIENCE;
    // Empty: a zombie that its new parent has not collected.
    while fs::read(Path::new(&proc)).is_ok_and(|line| !line.is_empty()) {
        assert!(Instant::now() < deadline, "{proc} is still there");
        thread::sleep(Duration::from_millis(20));
    }
}
