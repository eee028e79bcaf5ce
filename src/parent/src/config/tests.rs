use super::*;

const EXAMPLE: &str = include_str!("../../../../docs/parent.example.toml");
const FILE: &str = "/etc/nitro-sign/parent.toml";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new(FILE))
}

/// The line that chooses another backend.
const QEMU: &str = "backend = \"qemu\"";

/// The example for a real enclave.
fn nitro_example() -> String {
    example_with("backend", "backend = \"nitro\"")
        .replace("attestation_root = \"authority/root.pem\"", "attestation_root = \"aws\"")
}

fn process(config: &Config) -> &Process {
    match &config.enclave.backend {
        Backend::Process(process) => process,
        Backend::Qemu(_) | Backend::Nitro(_) => panic!("another backend"),
    }
}

/// The machine of a configuration that chooses it.
fn qemu(text: &str) -> Qemu {
    match parse(text).unwrap().enclave.backend {
        Backend::Qemu(machine) => machine,
        Backend::Process(_) | Backend::Nitro(_) => panic!("another backend"),
    }
}

/// The real enclave of a configuration that chooses it.
fn nitro(text: &str) -> Nitro {
    match parse(text).unwrap().enclave.backend {
        Backend::Nitro(enclave) => enclave,
        Backend::Process(_) | Backend::Qemu(_) => panic!("another backend"),
    }
}

/// The example with one line replaced; the line has to be there.
fn example_with(line_starts_with: &str, replacement: &str) -> String {
    assert!(EXAMPLE.lines().any(|line| line.starts_with(line_starts_with)), "no line {line_starts_with}");
    let replaced = |line| if str::starts_with(line, line_starts_with) { replacement } else { line };
    EXAMPLE.lines().map(replaced).collect::<Vec<_>>().join("\n")
}

/// The message for the example with one line replaced, which has to name the file and the key.
fn refusal(line_starts_with: &str, replacement: &str, key: &str) -> String {
    let message = parse(&example_with(line_starts_with, replacement)).unwrap_err().to_string();
    assert!(message.contains(FILE), "{message}");
    assert!(message.contains(key), "{message}");
    message
}

#[test]
fn the_documented_example_is_accepted_and_its_values_are_read() {
    let config = parse(EXAMPLE).unwrap();
    assert!(matches!(config.enclave.backend, Backend::Process(_)));
    assert_eq!(config.bundle.sha256[..2], [0x9f, 0x86]);
    assert_eq!(config.kms_upstream().to_string(), "tcp:kms.eu-central-1.amazonaws.com:443");
    assert_eq!(config.ingress().to_string(), "tcp:0.0.0.0:50051");
    assert_eq!(config.boot_timeout(), Duration::from_mins(2));
}

#[test]
fn the_documented_example_serves_for_the_other_backend_as_well() {
    let machine = qemu(&example_with("backend", QEMU));
    assert_eq!(machine.image, Path::new("/etc/nitro-sign/image.eif"));
    assert_eq!(machine.qemu.program, Path::new("/etc/nitro-sign/bin/qemu-system-x86_64"));
    assert_eq!(machine.vsock_device.program, Path::new("/etc/nitro-sign/bin/vhost-device-vsock"));
    assert_eq!(machine.nsm_device.program, Path::new("/etc/nitro-sign/bin/emulator"));
    assert_eq!(machine.nsm_device.arguments[0], "nsm-device");
}

#[test]
fn the_documented_example_serves_for_a_real_enclave_as_well() {
    let shown = nitro(&nitro_example());
    assert_eq!(shown.image, Path::new("/etc/nitro-sign/image.eif"));
    assert_eq!((shown.cpu_count, shown.memory_mib, shown.cid), (2, 512, 16));
    let defaults = nitro(&nitro_example().replace("\ncid = 16\n", "\n"));
    assert_eq!(defaults.cid, shown.cid);
    assert_eq!(parse(&nitro_example()).unwrap().enclave.attestation_root, Root::Aws);
}

#[test]
fn the_example_shows_the_defaults_of_the_machine() {
    let shown = qemu(&example_with("backend", QEMU));
    let optional = ["memory_mib", "guest_cid", "extra_command_line"];
    let (before, rest) = EXAMPLE.split_once("[enclave.qemu]").unwrap();
    let (machine, after) = rest.split_once("[enclave.nitro]").unwrap();
    let short: Vec<_> =
        machine.lines().filter(|line| !optional.iter().any(|key| line.starts_with(key))).collect();
    let short = format!("{before}[enclave.qemu]{}\n[enclave.nitro]{after}", short.join("\n"));
    let defaults = qemu(&short.replace("backend = \"process\"", QEMU));
    assert_eq!((defaults.memory_mib, defaults.guest_cid), (512, 16));
    assert_eq!((shown.memory_mib, shown.guest_cid), (defaults.memory_mib, defaults.guest_cid));
    assert_eq!(shown.extra_command_line, defaults.extra_command_line);
}

#[test]
fn processes_meet_at_a_unix_socket_unless_vsock_is_asked_for() {
    let line = "vsock = ";
    assert!(!process(&parse(EXAMPLE).unwrap()).vsock);
    assert!(!process(&parse(&example_with(line, "")).unwrap()).vsock);
    assert!(process(&parse(&example_with(line, "vsock = true")).unwrap()).vsock);
    refusal(line, "vsock = 1", "vsock");
}

#[test]
fn only_the_table_of_the_chosen_backend_is_needed() {
    let (before, tables) = EXAMPLE.split_once("[enclave.process]").unwrap();
    let (process, rest) = tables.split_once("[enclave.qemu]").unwrap();
    let (machine, rest) = rest.split_once("[enclave.nitro]").unwrap();
    let (enclave, after) = rest.split_once("[ciphertexts]").unwrap();
    let process = format!("{before}[enclave.process]{process}[ciphertexts]{after}");
    let machine = format!("{before}[enclave.qemu]{machine}[ciphertexts]{after}");
    let enclave = format!("{before}[enclave.nitro]{enclave}[ciphertexts]{after}")
        .replace("attestation_root = \"authority/root.pem\"", "attestation_root = \"aws\"");
    parse(&process).unwrap();
    nitro(&enclave.replace("backend = \"process\"", "backend = \"nitro\""));
    qemu(&machine.replace("backend = \"process\"", QEMU));
    let message = parse(&machine).unwrap_err().to_string();
    assert!(message.contains("needs [enclave.process]"), "{message}");
    let message = parse(&process.replace("backend = \"process\"", QEMU)).unwrap_err().to_string();
    assert!(message.contains("needs [enclave.qemu]"), "{message}");
    let message =
        parse(&process.replace("backend = \"process\"", "backend = \"nitro\"")).unwrap_err().to_string();
    assert!(message.contains("needs [enclave.nitro]"), "{message}");
}

#[test]
fn the_files_are_those_of_the_chosen_backend() {
    let keys = |text: &str| {
        let config = parse(text).unwrap();
        config
            .files()
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| key.starts_with("enclave."))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&example_with("backend", QEMU)),
        [
            "enclave.qemu.image",
            "enclave.qemu.qemu",
            "enclave.qemu.vsock_device",
            "enclave.qemu.nsm_device",
            "enclave.attestation_root"
        ]
    );
    assert_eq!(keys(&nitro_example()), ["enclave.nitro.image"]);
    assert!(keys(EXAMPLE).iter().all(|key| !key.starts_with("enclave.qemu")));
}

#[test]
fn the_example_shows_the_defaults_of_what_may_be_left_out() {
    let (required, limits) = EXAMPLE.split_once("[limits]").unwrap();
    let shown = parse(EXAMPLE).unwrap();
    let short: Vec<_> = required
        .lines()
        .filter(|l| !["upstream", "timeout_ms", "workload"].iter().any(|key| l.starts_with(key)))
        .collect();
    let defaults = parse(&short.join("\n")).unwrap();
    assert!(limits.contains("boot_timeout_ms"));
    assert_eq!(defaults.configuration(), shown.configuration());
    assert_eq!(defaults.boot_timeout(), shown.boot_timeout());
    assert_eq!(defaults.kms_upstream(), shown.kms_upstream());
    assert!(!defaults.enclave.workload && defaults.relay.is_none());
    assert_eq!(shown.relay.unwrap().upstream, "gateway.internal:8080".parse().unwrap());
    assert!(parse(&example_with("workload", "workload = true")).unwrap().enclave.workload);
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.runtime_dir, Path::new("/run/nitro-sign"));
    let programs = process(&config);
    assert_eq!(programs.enclave, Path::new("/etc/nitro-sign/bin/enclave"));
    assert_eq!(programs.hypervisor.program, Path::new("/etc/nitro-sign/bin/emulator"));
    assert_eq!(programs.hypervisor.arguments[0], "nsm");
    assert_eq!(config.ciphertexts.bundle, Path::new("/etc/nitro-sign/service_key_shares.json.age"));
    assert_eq!(config.kms.credentials_file, Path::new("/etc/nitro-sign/credentials.json"));
    assert_eq!(config.enclave.attestation_root, Root::Pem("/etc/nitro-sign/authority/root.pem".into()));
}

#[test]
fn a_file_named_without_a_directory_is_in_the_working_directory() {
    let config = Config::parse(EXAMPLE, Path::new("parent.toml")).unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(process(&config).config, here.join("enclave.toml"));
}

#[test]
fn the_configuration_for_the_enclave_has_every_measured_value() {
    let text = example_with("max_sessions", "max_sessions = 7").replace("epoch = 1", "epoch = 9");
    let configuration = parse(&text).unwrap().configuration();
    assert_eq!(configuration.max_sessions, 7);
    assert_eq!(configuration.epoch, 9);
    assert_eq!(configuration.region, "eu-central-1");
    assert_eq!(configuration.session_deadline_ms, 30_000);
    assert_eq!(configuration.kms_timeout_ms, 10_000);
    assert_eq!(Configuration::from_canonical_bytes(&configuration.canonical_bytes()), Ok(configuration));
}

#[test]
fn an_unknown_key_is_refused_by_name_in_every_table() {
    for table in [
        "[enclave]",
        "[enclave.process]",
        "[enclave.qemu]",
        "[enclave.nitro]",
        "[ciphertexts]",
        "[bundle]",
        "[kms]",
        "[ingress]",
        "[limits]",
        "[relay]",
    ] {
        let message = refusal(table, &format!("{table}\nregoin = \"x\""), "regoin");
        assert!(message.contains("unknown field"), "{table}: {message}");
    }
    refusal("runtime_dir", "runtime_dir = \"/run\"\nregoin = 1", "unknown field `regoin`");
}

#[test]
fn credentials_that_are_given_by_mistake_are_not_printed() {
    let secret = "wJalrXUtnFEMI/K7MDENG";
    for text in [
        format!("{{\"access_key_id\": \"AKIA\", \"secret_access_key\": \"{secret}\"}}"),
        format!("runtime_dir = \"/run\"\nsession_token = \"{secret}"),
    ] {
        let message = Config::parse(&text, Path::new("/etc/parent.toml")).unwrap_err().to_string();
        assert!(message.contains("/etc/parent.toml is refused: line "), "{message}");
        assert!(!message.contains("wJalr"), "{message}");
    }
}

#[test]
fn a_missing_key_is_named() {
    refusal("sha256", "", "missing field `sha256`");
    refusal("listen", "", "missing field `listen`");
}

#[test]
fn values_of_the_wrong_form_are_refused_with_what_is_expected() {
    assert!(refusal("sha256", "sha256 = \"9f86\"", "sha256").contains("64 hex digits"));
    assert!(refusal("listen", "listen = \"localhost:1\"", "listen").contains("0.0.0.0:50051"));
    assert!(refusal("upstream", "upstream = \"kms.example\"", "upstream").contains("host:port"));
    assert!(refusal("upstream", "upstream = \"kms.example:0\"", "upstream").contains("host:port"));
    assert!(refusal("backend", "backend = \"docker\"", "backend").contains("process"));
    refusal("pcr0", "pcr0 = \"12\"", "pcr0");
    assert!(refusal("hypervisor", "hypervisor = []", "hypervisor").contains("a program and its arguments"));
}

#[test]
fn values_out_of_range_are_refused_under_the_key_of_this_file() {
    assert!(refusal("region", "region = \"EU\"", "`kms.region`").contains("eu-central-1"));
    refusal("key_id", "key_id = \"\"", "`kms.key_id`");
    refusal("timeout_ms", "timeout_ms = 99", "`kms.timeout_ms`");
    refusal("max_sessions", "max_sessions = 0", "`limits.max_sessions`");
    refusal("session_deadline_ms", "session_deadline_ms = 1", "`limits.session_deadline_ms`");
    assert!(refusal("boot_timeout_ms", "boot_timeout_ms = 999", "`limits.boot_timeout_ms`").contains("1000"));
    refusal("epoch", "epoch = 0", "`bundle.epoch`");
    refusal("hypervisor", "hypervisor = [\"\"]", "`enclave.process.hypervisor`");
    refusal("identity", "identity = \"\"", "`ciphertexts.identity`");
}

#[test]
fn values_of_the_machine_out_of_range_are_refused() {
    let refusal = |line: &str, replacement: &str, key: &str| {
        let text = example_with(line, replacement).replace("backend = \"process\"", QEMU);
        let message = parse(&text).unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
        message
    };
    assert!(refusal("memory_mib", "memory_mib = 63", "`enclave.qemu.memory_mib`").contains("64 to"));
    refusal("memory_mib", "memory_mib = 4294967295", "`enclave.qemu.memory_mib`");
    assert!(refusal("guest_cid", "guest_cid = 2", "`enclave.qemu.guest_cid`").contains("3 or more"));
    refusal("guest_cid", "guest_cid = 4294967295", "`enclave.qemu.guest_cid`");
    let long = format!("extra_command_line = \"{}\"", "x".repeat(513));
    for extra in [&long, "extra_command_line = \"a\\nb\"", "extra_command_line = \"\u{e9}\""] {
        refusal("extra_command_line", extra, "`enclave.qemu.extra_command_line`");
    }
    refusal("image", "image = \"\"", "`enclave.qemu.image`");
    refusal("vsock_device", "vsock_device = []", "a program and its arguments");
}

#[test]
fn values_of_a_real_enclave_out_of_range_are_refused() {
    let refusal = |line: &str, replacement: &str, key: &str| {
        let (before, table) =
            nitro_example().split_once("[enclave.nitro]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(table.contains(line));
        let message = parse(&format!("{before}[enclave.nitro]{}", table.replacen(line, replacement, 1)))
            .unwrap_err()
            .to_string();
        assert!(message.contains(FILE) && message.contains(key), "{message}");
        message
    };
    refusal("cpu_count = 2", "cpu_count = 0", "`enclave.nitro.cpu_count`");
    refusal("cpu_count = 2", "cpu_count = 1025", "`enclave.nitro.cpu_count`");
    refusal("cpu_count = 2", "", "missing field `cpu_count`");
    assert!(refusal("memory_mib = 512", "memory_mib = 63", "`enclave.nitro.memory_mib`").contains("64 to"));
    refusal("memory_mib = 512", "memory_mib = 4294967295", "`enclave.nitro.memory_mib`");
    refusal("memory_mib = 512", "", "missing field `memory_mib`");
    assert!(refusal("\ncid = 16", "\ncid = 3", "`enclave.nitro.cid`").contains("4 or more"));
    refusal("\ncid = 16", "\ncid = 4294967295", "`enclave.nitro.cid`");
    refusal("image = \"image.eif\"", "image = \"\"", "`enclave.nitro.image`");
    refusal("\ncid = 16", "\ndebug_mode = true", "unknown field `debug_mode`");
}

#[test]
fn a_real_enclave_is_verified_under_the_root_of_aws_only() {
    let other = nitro_example().replace("attestation_root = \"aws\"", "attestation_root = \"root.pem\"");
    let message = parse(&other).unwrap_err().to_string();
    assert!(
        message.contains("`enclave.attestation_root`") && message.contains("set it to \"aws\""),
        "{message}"
    );
}

#[test]
fn one_image_is_pinned_and_never_a_choice_of_them() {
    let pin = format!("\"{}\"", "11".repeat(48));
    refusal("pcr0", &format!("pcr0 = [{pin}, {pin}]"), "pcr0");
}

#[test]
fn the_pcr0_of_debug_mode_cannot_be_pinned() {
    let zero = format!("pcr0 = \"{}\"", "0".repeat(96));
    assert!(refusal("pcr0", &zero, "`enclave.pcr0`").contains("debug mode"));
}

#[test]
fn a_directory_too_long_for_sockets_is_refused() {
    let longest = format!("/{}", "d".repeat(88));
    assert!(parse(&example_with("runtime_dir", &format!("runtime_dir = \"{longest}\""))).is_ok());
    let message = refusal("runtime_dir", &format!("runtime_dir = \"{longest}d\""), "`runtime_dir`");
    assert!(message.contains("1 bytes too long"), "{message}");
}

#[test]
fn a_missing_file_is_named_with_the_option_that_gives_it() {
    let message = Config::load(Path::new("/nonexistent/parent.toml")).unwrap_err().to_string();
    assert!(message.contains("/nonexistent/parent.toml") && message.contains("--config"), "{message}");
}

#[test]
fn a_trust_root_that_is_no_certificate_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("root.pem"), "hello").unwrap();
    let text = example_with("attestation_root", "attestation_root = \"root.pem\"");
    let config = Config::parse(&text, &directory.path().join("parent.toml")).unwrap();
    let message = config.trust_root().unwrap_err().to_string();
    assert!(message.contains("root.pem") && message.contains("attestation_root"), "{message}");
}

#[test]
fn aws_is_the_root_that_is_compiled_in() {
    let config = parse(&example_with("attestation_root", "attestation_root = \"aws\"")).unwrap();
    assert_eq!(config.enclave.attestation_root, Root::Aws);
    assert!(config.trust_root().is_ok());
}
