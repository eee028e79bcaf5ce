//! A deployment from `init` to `policy`, against the KMS stand-in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use keyshares::{Bundle, Identity};
use kms::KmsError;
use support::{ADMIN, ED25519, INIT, PARENT, SECP256K1, USER, World};

fn open(sealed: &[u8], identity: &[u8]) -> Bundle {
    let mut plaintext = Vec::new();
    keyshares::open(sealed, &Identity::parse(identity).unwrap(), 1 << 20, &mut plaintext).unwrap();
    Bundle::from_json(&plaintext).unwrap()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn policy_command(options: &str) -> String {
    format!(
        "policy --dir deployment --role {} --admin {} --pcr0 {} {options}",
        PARENT.arn,
        ADMIN.arn,
        "ab".repeat(48)
    )
}

#[tokio::test]
async fn init_leaves_an_identity_that_only_kms_can_read() {
    let world = World::start();
    let printed = world.init();

    let facts = world.facts();
    assert_eq!(facts["epoch"].as_integer(), Some(0));
    assert_eq!(facts["party"].as_str(), Some("enclave-a"));
    assert!(!facts.contains_key("bundle_sha256"));
    assert_eq!(printed["recipient"].as_str(), facts["recipient"].as_str());
    assert!(facts["kms_key_id"].as_str().unwrap().starts_with("arn:aws:kms:eu-central-1:"));

    let identity = world.identity().await;
    assert_eq!(Identity::parse(&identity).unwrap().recipient(), facts["recipient"].as_str().unwrap());
    let mut names: Vec<_> = world.files().into_keys().collect();
    names.sort();
    assert_eq!(names, ["age-identity.kms", "deployment.toml"]);
    for (name, content) in world.files() {
        assert!(!contains(&content, b"AGE-SECRET-KEY-1"), "{name}");
    }
    assert_eq!(fs::metadata(world.deployment()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn init_does_not_overwrite_a_deployment() {
    let world = World::start();
    world.init();
    let before = world.files();
    let again = world.run(&ADMIN, &format!("{INIT} --create-kms-key --admin {}", ADMIN.arn));
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert!(again.stderr.contains("deployment.toml exists already"), "{}", again.stderr);
    assert_eq!(world.files(), before);
}

#[test]
fn init_with_an_unknown_key_leaves_no_deployment_and_names_the_request() {
    let world = World::start();
    let key = "--kms-key 00000000-0000-0000-0000-000000000000";
    let ended = world.run(&ADMIN, &format!("init --region eu-central-1 --dir deployment --party x {key}"));
    assert_eq!(ended.code, 1);
    for part in ["NotFoundException", "request id", "check the key id and --region"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn key_gen_seals_the_accounts_to_each_party() {
    let world = World::start();
    world.init();
    let printed = world.key_gen();
    assert_eq!(printed["epoch"], 1);

    let identity = world.identity().await;
    let enclave = open(&fs::read(world.path("deployment/service_key_shares.json.age")).unwrap(), &identity);
    let gateway = open(
        &fs::read(world.path("gateway.json.age")).unwrap(),
        &fs::read(world.path("gateway-identity.txt")).unwrap(),
    );
    assert_eq!((enclave.party.as_str(), gateway.party.as_str()), ("enclave-a", "gateway"));
    assert_eq!((enclave.epoch, gateway.epoch), (1, 1));
    assert_eq!(enclave.parties, gateway.parties);
    assert_eq!(enclave.client_ca, fs::read_to_string(world.path("client-ca.pem")).unwrap());
    assert_eq!(gateway.relay_ca, fs::read_to_string(world.path("relay-ca.pem")).unwrap());
    assert_eq!(enclave.accounts.keys().collect::<Vec<_>>(), ["btc", "ed", "new"]);
    for bundle in [&enclave, &gateway] {
        for (id, account) in &bundle.accounts {
            let material = threshold::KeyMaterial {
                scheme: account.scheme.name().parse().unwrap(),
                threshold: account.threshold,
                parties: &account.parties,
                own: &bundle.party,
                public_key: &account.public_key,
                verifying_shares: &account.verifying_shares,
                share: account.share.expose(),
            };
            threshold::check(&material).unwrap_or_else(|error| panic!("{id} of {}: {error}", bundle.party));
        }
    }
}

#[test]
fn an_imported_account_keeps_its_public_key() {
    let world = World::start();
    world.init();
    world.key_gen();
    let accounts: Vec<serde_json::Value> =
        serde_json::from_slice(&fs::read(world.path("deployment/accounts.json")).unwrap()).unwrap();
    let account = |id: &str| accounts.iter().find(|account| account["id"] == id).unwrap();
    assert_eq!(account("ed")["public_key"], ED25519[1]);
    assert_eq!(account("btc")["public_key"], SECP256K1[1]);
    assert_eq!(account("new")["scheme"], "frost-ed25519");
    assert_eq!(account("new")["threshold"], 2);
    assert_eq!(account("new")["parties"], serde_json::json!(["enclave-a", "gateway"]));
    assert_eq!(account("new")["public_key"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn key_gen_binds_the_identity_to_the_new_bundle_and_epoch() {
    let world = World::start();
    world.init();
    let before = world.context();
    let unbound = world.identity().await;
    world.key_gen();

    assert_eq!(world.context()[1].1, "1");
    assert_eq!(world.identity().await, unbound);
    let ciphertext = fs::read(world.path("deployment/age-identity.kms")).unwrap();
    let refused = world.decrypt(&ADMIN, &ciphertext, before).await;
    assert!(matches!(refused, Err(KmsError::InvalidCiphertext { .. })), "{refused:?}");

    let first = world.context();
    world.key_gen();
    assert_eq!(world.context()[1].1, "2");
    assert_eq!(world.identity().await, unbound);
    let ciphertext = fs::read(world.path("deployment/age-identity.kms")).unwrap();
    assert!(world.decrypt(&ADMIN, &ciphertext, first).await.is_err());
}

#[tokio::test]
async fn nothing_that_is_written_or_printed_holds_a_secret() {
    let world = World::start();
    world.init();
    let ended =
        world.run(&ADMIN, &format!("{} --account a --scheme frost-ed25519", world.key_gen_arguments()));
    let identity = world.identity().await;
    let bundle = open(&fs::read(world.path("deployment/service_key_shares.json.age")).unwrap(), &identity);

    let mut secrets: Vec<[u8; 32]> =
        bundle.accounts.values().map(|account| *account.share.expose()).collect();
    secrets.push(*bundle.party_secret_key.expose());
    let mut needles: Vec<Vec<u8>> = vec![b"AGE-SECRET-KEY-1".to_vec()];
    for secret in secrets {
        needles.extend([
            secret.to_vec(),
            hex::encode(secret).into_bytes(),
            hex::encode_upper(secret).into_bytes(),
        ]);
    }
    let mut written = world.files();
    assert_eq!(written.len(), 4);
    written.insert("gateway.json.age".to_owned(), fs::read(world.path("gateway.json.age")).unwrap());
    written.insert("stdout".to_owned(), ended.stdout.into_bytes());
    written.insert("stderr".to_owned(), ended.stderr.into_bytes());
    for (name, content) in written {
        for needle in &needles {
            assert!(!contains(&content, needle), "{name} holds a secret");
        }
    }
}

#[test]
fn ciphertexts_are_for_their_owner_only() {
    let world = World::start();
    world.init();
    world.key_gen();
    let mode = |name: &str| fs::metadata(world.path(name)).unwrap().permissions().mode() & 0o777;
    for name in ["deployment/age-identity.kms", "deployment/service_key_shares.json.age", "gateway.json.age"]
    {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    for name in ["deployment/deployment.toml", "deployment/accounts.json"] {
        assert_eq!(mode(name) & 0o133, 0, "{name}");
    }
}

#[tokio::test]
async fn the_stock_age_tool_opens_the_bundle() {
    if Command::new("age").arg("--version").output().is_err() {
        eprintln!("age is not installed: not tested");
        return;
    }
    let world = World::start();
    world.init();
    world.key_gen();
    fs::write(world.path("identity"), world.identity().await).unwrap();
    let output = Command::new("age")
        .args(["--decrypt", "--identity", "identity", "deployment/service_key_shares.json.age"])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Bundle::from_json(&output.stdout).unwrap().accounts.len(), 3);
}

#[test]
fn a_key_gen_that_kms_refuses_or_does_not_answer_changes_nothing() {
    let world = World::start();
    world.init();
    world.key_gen();
    assert_eq!(world.run(&ADMIN, &policy_command("--apply")).code, 0);
    let before = (world.files(), fs::read(world.path("gateway.json.age")).unwrap());
    let key_gen = format!("{} --account a --scheme frost-ed25519", world.key_gen_arguments());

    let denied = world.run(&PARENT, &key_gen);
    assert_eq!(denied.code, 1);
    assert!(
        denied.stderr.contains("KMS ReEncrypt") && denied.stderr.contains("AccessDenied"),
        "{}",
        denied.stderr
    );
    let unreachable = world.run_at(&ADMIN, "127.0.0.1:1", &key_gen);
    assert_eq!(unreachable.code, 1);
    assert!(unreachable.stderr.contains("--kms-endpoint"), "{}", unreachable.stderr);

    assert_eq!((world.files(), fs::read(world.path("gateway.json.age")).unwrap()), before);
}

#[test]
fn an_altered_identity_or_bundle_stops_key_gen() {
    let world = World::start();
    world.init();
    world.key_gen();
    let key_gen = format!("{} --account a --scheme frost-ed25519", world.key_gen_arguments());
    for name in ["age-identity.kms", "service_key_shares.json.age"] {
        let path = world.deployment().join(name);
        let good = fs::read(&path).unwrap();
        fs::write(&path, b"of another deployment").unwrap();
        let ended = world.run(&ADMIN, &key_gen);
        assert_eq!(ended.code, 1);
        assert!(ended.stderr.contains(name) && ended.stderr.contains("not of one run"), "{}", ended.stderr);
        fs::write(&path, good).unwrap();
    }
    assert_eq!(world.run(&ADMIN, &key_gen).code, 0);
}

#[tokio::test]
async fn the_policy_takes_decryption_from_everybody_without_an_enclave() {
    let world = World::start();
    world.init();
    world.key_gen();
    let printed = world.run(&ADMIN, &policy_command("--apply")).json();

    let key = world.facts()["kms_key_id"].as_str().unwrap().to_owned();
    let in_force = world.client(&ADMIN).get_key_policy().key_id(key).send().await.unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(in_force.policy().unwrap()).unwrap(), printed);

    let ciphertext = fs::read(world.path("deployment/age-identity.kms")).unwrap();
    for who in [ADMIN, PARENT] {
        let refused = world.decrypt(&who, &ciphertext, world.context()).await;
        assert!(matches!(refused, Err(KmsError::Denied { .. })), "{}: {refused:?}", who.arn);
    }
}

#[test]
fn an_administrator_can_deal_again_under_the_policy() {
    let world = World::start();
    world.init();
    world.key_gen();
    assert_eq!(world.run(&ADMIN, &policy_command("--apply")).code, 0);
    assert_eq!(world.key_gen()["epoch"], 2);
}

#[test]
fn a_policy_that_locks_its_caller_out_is_refused() {
    let world = World::start();
    world.init();
    world.key_gen();
    let ended = world.run(&PARENT, &policy_command("--apply"));
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(ended.stderr.contains("KMS PutKeyPolicy"), "{}", ended.stderr);
    assert!(ended.stdout.is_empty());
}

#[tokio::test]
async fn an_administrator_cannot_take_the_identity_to_a_key_of_their_own() {
    let world = World::start();
    world.init();
    world.key_gen();
    assert_eq!(world.run(&ADMIN, &policy_command("--apply")).code, 0);

    let client = world.client(&ADMIN);
    let own = client.create_key().send().await.unwrap().key_metadata.unwrap().key_id;
    let taken = client
        .re_encrypt()
        .ciphertext_blob(fs::read(world.path("deployment/age-identity.kms")).unwrap().into())
        .set_source_encryption_context(Some(world.context().into()))
        .destination_key_id(own)
        .send()
        .await
        .map_err(KmsError::from);
    assert!(matches!(taken, Err(KmsError::Denied { .. })), "{taken:?}");
}

#[test]
fn a_key_that_was_made_for_an_init_that_failed_is_named() {
    let world = World::start();
    let policy = serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"AWS": ADMIN.arn},
            "Action": "kms:PutKeyPolicy",
            "Resource": "*",
        }],
    });
    fs::write(world.path("policy.json"), policy.to_string()).unwrap();
    let ended = world.run(&ADMIN, &format!("{INIT} --create-kms-key --policy policy.json"));
    assert_eq!(ended.code, 1);
    for part in ["--kms-key arn:aws:kms:", "KMS Encrypt", "AccessDeniedException", "kms:Encrypt"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn with_a_new_key_nobody_reads_the_identity_and_the_administrator_goes_on() {
    let world = World::start();
    world.run(&ADMIN, &format!("{INIT} --create-kms-key --admin {}", ADMIN.arn)).json();
    let ciphertext = fs::read(world.path("deployment/age-identity.kms")).unwrap();
    for who in [&ADMIN, &PARENT, &USER] {
        let refused = world.decrypt(who, &ciphertext, world.context()).await;
        assert!(matches!(refused, Err(KmsError::Denied { .. })), "{}: {refused:?}", who.arn);
    }
    let key = world.facts()["kms_key_id"].as_str().unwrap().to_owned();
    let first = world.client(&ADMIN).get_key_policy().key_id(key).send().await.unwrap();
    let first: serde_json::Value = serde_json::from_str(first.policy().unwrap()).unwrap();

    world.key_gen();
    let then = world.run(&ADMIN, &policy_command("--apply")).json();
    assert_eq!(first["Statement"].as_array().unwrap()[..], then["Statement"].as_array().unwrap()[..2]);
}

#[test]
fn no_key_is_made_for_an_administrator_that_is_too_wide() {
    let world = World::start();
    for admin in ["arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:role/*", "*"] {
        let admins = format!("--admin {} --admin {admin}", ADMIN.arn);
        // Nothing listens there: it is refused before anything is asked of KMS.
        let ended = world.run_at(&ADMIN, "127.0.0.1:1", &format!("{INIT} --create-kms-key {admins}"));
        assert_eq!(ended.code, 1, "{admin}");
        assert!(ended.stderr.contains(&format!("--admin {admin}: expected")), "{}", ended.stderr);
        assert!(!world.deployment().exists());
    }
}

#[test]
fn a_new_key_whose_maker_could_not_administrate_it_is_refused() {
    let world = World::start();
    let ended = world.run(&ADMIN, &format!("{INIT} --create-kms-key --admin {}", PARENT.arn));
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("MalformedPolicyDocumentException"), "{}", ended.stderr);
    assert!(world.files().is_empty());
}

#[test]
fn with_an_existing_key_init_says_who_can_have_the_identity() {
    let world = World::start();
    let key = world.init()["kms_key_id"].as_str().unwrap().to_owned();
    let again = format!("init --region eu-central-1 --dir other --party enclave-a --kms-key {key}");
    let ended = world.run(&ADMIN, &again);
    for part in ["Whoever may decrypt", &key, "nitro-sign policy --apply"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    ended.json();
}
