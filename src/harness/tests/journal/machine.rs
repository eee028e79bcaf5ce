//! A machine whose journal is shipped: its files, its processes, and the instance metadata service.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use harness::{Program, binary};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

pub(crate) const GROUP: &str = "/nitro-sign/parent";
pub(crate) const ACCESS_KEY: &str = "AKIASHIPPER";
pub(crate) const POWERLESS_KEY: &str = "AKIAPOWERLESS";
/// The key of the instance's role, and what it is of no use without.
const ROLE_KEY: &str = "ASIAROLE";
const ROLE_TOKEN: &str = "role-token";
pub(crate) const SECRET: &str = "shipper-secret";
pub(crate) const INSTANCE: &str = "i-0123456789abcdef0";
/// Nothing here takes longer on a loaded machine; four attempts at a request take 25 s at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const WATCHDOG: Duration = Duration::from_secs(1);

/// Plays `journalctl`: prints the lines of a file, from the one with the cursor, and then what is added to it. An entry that is
/// gone it takes for a later one than all, as after a reboot at which the clock was set back.
const REPLAY: &str = r#"
file=$1
first=1
follow=
for argument; do
  case $argument in
    --cursor=*)
      first=$(grep -nF "\"__CURSOR\":\"${argument#--cursor=}\"" "$file" | head -n 1 | cut -d: -f1)
      [ -n "$first" ] || first=$(($(wc -l < "$file") + 1)) ;;
    --follow) follow=1 ;;
  esac
done
[ -n "$follow" ] || { tail -n "+$first" "$file" | head -n 1; exit; }
echo $$ > "$(dirname "$file")/replay.pid"
exec tail -n "+$first" -s 0.1 -f "$file"
"#;

/// The service, and a directory with everything else.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    _logs: Program,
}

impl Machine {
    /// With the stream `stream-1`, and batches that wait only 200 ms.
    pub(crate) fn new() -> Self {
        Self::with("flush_ms = 200\n")
    }

    pub(crate) fn with(configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("logs")).unwrap();
        fs::write(path("replay.sh"), REPLAY).unwrap();
        fs::write(path("fault.json"), r#"{"mode":"none"}"#).unwrap();
        File::create(path("journal.json")).unwrap();
        let mut command = Command::new(binary("emulator").unwrap());
        command.args(["logs", "--host", "127.0.0.1", "--region", "eu-central-1", "--group", GROUP]);
        command
            .args(["--principal", &format!("arn:aws:iam::111122223333:role/parent:{ACCESS_KEY}:{SECRET}")]);
        command.args([
            "--principal",
            &format!("arn:aws:sts::111122223333:assumed-role/parent/i:{ROLE_KEY}:{SECRET}"),
        ]);
        command.args(["--session-token", &format!("{ROLE_KEY}:{ROLE_TOKEN}")]);
        command.arg("--principal-without-rights");
        command.arg(format!("arn:aws:iam::111122223333:role/nobody:{POWERLESS_KEY}:{SECRET}"));
        command.arg("--state-dir").arg(path("logs")).arg("--fault-file").arg(path("fault.json"));
        let mut logs = Program::start("logs", &mut command, directory.path()).unwrap();
        let ready = logs.ready().unwrap();
        let endpoint = format!("https://{}", ready["address"].as_str().unwrap());
        let replay = [json!("sh"), json!(path("replay.sh")), json!(path("journal.json"))];
        let configuration = format!(
            "region = \"eu-central-1\"\ngroup = \"{GROUP}\"\nstream = \"stream-1\"\ncursor_file = \"cursor\"\n\
             endpoint = \"{endpoint}\"\nca_file = \"logs/logs-ca.pem\"\njournalctl = {}\n{configuration}",
            json!(replay)
        );
        fs::write(path("journal.toml"), configuration).unwrap();
        Self { directory, _logs: logs }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Changes `journal.toml`.
    pub(crate) fn configure(&self, change: impl FnOnce(&str) -> String) {
        let old = fs::read_to_string(self.path("journal.toml")).unwrap();
        let new = change(&old);
        assert_ne!(old, new, "nothing was changed");
        fs::write(self.path("journal.toml"), new).unwrap();
    }

    /// Adds a line to the journal.
    pub(crate) fn write(&self, line: &str) {
        let mut file = File::options().append(true).open(self.path("journal.json")).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Adds an entry of this moment: `m1`, `m2`, …
    pub(crate) fn entry(&self, number: u32) {
        self.entry_at(number, unix_us());
    }

    pub(crate) fn entry_at(&self, number: u32, unix_us: i64) {
        self.write(&format!(
            r#"{{"__CURSOR":"s=1;i={number:x}","__REALTIME_TIMESTAMP":"{unix_us}","MESSAGE":"m{number}"}}"#
        ));
    }

    /// Says how the service misbehaves from now on.
    pub(crate) fn fault(&self, fault: &str) {
        fs::write(self.path("fault.json"), fault).unwrap();
    }

    /// Starts the shipper with the credentials that are accepted.
    pub(crate) fn ship(&self) -> Program {
        self.ship_as(&[("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)])
    }

    /// Starts it with these variables.
    pub(crate) fn ship_as(&self, environment: &[(&str, &str)]) -> Program {
        // One log for each run.
        let _ = fs::remove_file(self.path("parent.log"));
        let mut command = Command::new(binary("parent").unwrap());
        command.args(["ship-journal", "--config"]).arg(self.path("journal.toml"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        // A home directory whose files of AWS's tools are of no use to it.
        command.env("HOME", self.directory.path()).env("NITRO_SIGN_LOG", "info");
        command.env("NOTIFY_SOCKET", self.path("notify.sock"));
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        if !self.path("notify.sock").exists() {
            command.env_remove("NOTIFY_SOCKET");
        }
        command.envs(environment.iter().copied());
        let mut shipper = Program::start("parent", &mut command, self.directory.path()).unwrap();
        shipper.discard_output();
        shipper
    }

    /// What the shipper that was started last has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("parent.log")).unwrap()
    }

    /// The log has to hold each of these, and no secret.
    #[track_caller]
    pub(crate) fn said(&self, parts: &[&str]) {
        let log = self.log();
        for part in parts {
            assert!(log.contains(part), "no {part:?} in:\n{log}");
        }
        assert!(!log.contains(SECRET), "{log}");
    }

    pub(crate) fn cursor(&self) -> String {
        fs::read_to_string(self.path("cursor")).unwrap_or_default().trim_end().to_owned()
    }

    /// The number of the entry at the cursor; 0 without one.
    pub(crate) fn cursor_number(&self) -> u32 {
        let cursor = self.cursor();
        let number = cursor.strip_prefix("s=1;i=").map(|number| u32::from_str_radix(number, 16).unwrap());
        number.unwrap_or_default()
    }

    /// Waits until a batch has been acknowledged.
    #[track_caller]
    pub(crate) fn wait_for_some_cursor(&self) {
        self.wait(|| (self.cursor_number() > 0).then_some(()), &|| "no cursor".to_owned());
    }

    #[track_caller]
    pub(crate) fn wait_for_cursor(&self, expected: &str) {
        self.wait(|| (self.cursor() == expected).then_some(()), &|| {
            format!("the cursor is {:?}", self.cursor())
        });
    }

    /// The events that the service has taken, in its order.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("logs/events.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Their `message`.
    pub(crate) fn messages(&self) -> Vec<String> {
        let message = |event: &Value| {
            let message: Value = serde_json::from_str(event["message"].as_str().unwrap()).unwrap();
            message["message"].as_str().unwrap().to_owned()
        };
        self.events().iter().map(message).collect()
    }

    /// Waits for so many events or more.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Value> {
        let arrived = || Some(self.events()).filter(|events| events.len() >= count);
        self.wait(arrived, &|| format!("{} events of {count}", self.events().len()))
    }

    #[track_caller]
    pub(crate) fn wait_for_message(&self, message: &str) -> Vec<String> {
        let arrived = || Some(self.messages()).filter(|all| all.iter().any(|other| other == message));
        self.wait(arrived, &|| format!("no {message}, but {} others", self.events().len()))
    }

    #[track_caller]
    fn wait<T>(&self, condition: impl Fn() -> Option<T>, problem: &dyn Fn() -> String) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(Instant::now() < deadline, "{}; the log says:\n{}", problem(), self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a service manager hears from the next shipper.
    pub(crate) fn manager(&self) -> Manager {
        let socket = UnixDatagram::bind(self.path("notify.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager(socket)
    }
}

pub(crate) struct Manager(UnixDatagram);

impl Manager {
    pub(crate) fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).unwrap();
        std::str::from_utf8(&buffer[..length]).unwrap().to_owned()
    }

    pub(crate) fn until(&self, line: &str) {
        while !self.next().lines().any(|other| other == line) {}
    }
}

/// The instance metadata service, version 2 (Amazon EC2 User Guide, "Use the Instance Metadata Service").
pub(crate) struct Metadata {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Metadata {
    pub(crate) fn start() -> Self {
        Self::serve(|request| {
            let credentials = json!({
                "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
                "AccessKeyId": ROLE_KEY, "SecretAccessKey": SECRET, "Token": ROLE_TOKEN,
                "Expiration": "2099-01-01T00:00:00Z",
            });
            match request {
                "PUT /latest/api/token" => Some("metadata-token".to_owned()),
                "GET /latest/meta-data/instance-id" => Some(INSTANCE.to_owned()),
                "GET /latest/meta-data/iam/security-credentials/" => Some("parent-role".to_owned()),
                "GET /latest/meta-data/iam/security-credentials/parent-role" => Some(credentials.to_string()),
                _ => None,
            }
        })
    }

    /// One that is switched off.
    pub(crate) fn refusing() -> Self {
        Self::serve(|_| None)
    }

    fn serve(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream: TcpStream = stream.unwrap();
                let head: Vec<_> = BufReader::new(&stream)
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let Some(request) = head.first().and_then(|line| line.strip_suffix(" HTTP/1.1")) else {
                    continue;
                };
                let has_token = head
                    .iter()
                    .any(|line| line.eq_ignore_ascii_case("x-aws-ec2-metadata-token: metadata-token"));
                let note = if has_token || request.starts_with("PUT") { "" } else { " without token" };
                heard.lock().unwrap().push(format!("{request}{note}"));
                let answer = answer(request).map_or_else(
                    || "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
                    |body| {
                        let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 21600";
                        let length = body.len();
                        format!("HTTP/1.1 200 OK\r\n{ttl}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                    },
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, requests }
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Now, Unix time in microseconds.
pub(crate) fn unix_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

pub(crate) fn signal(program: &Program, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(program.pid()).unwrap()), signal).unwrap();
}
