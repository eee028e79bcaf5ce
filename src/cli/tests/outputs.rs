//! Where `init` and `key-gen` write, and that a refusal comes before KMS is asked and changes no file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use support::{ADMIN, Ended, INIT, World};

/// Nothing listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// Everything under a directory: of a file its content, of a link where it leads.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut tree = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            tree.insert(path.clone(), fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
        } else if path.is_dir() {
            tree.extend(self::tree(&path));
            tree.insert(path, Vec::new());
        } else {
            tree.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    tree
}

/// Runs a command that is refused without KMS and without a change, for this reason.
fn refused(world: &World, arguments: &str, reason: &str) {
    let before = tree(&world.path(""));
    let Ended { code, stdout, stderr } = world.run_at(&ADMIN, NOWHERE, arguments);
    assert_eq!((code, stdout.as_str()), (1, ""), "{arguments}: {stderr}");
    assert!(stderr.contains(reason) && !stderr.contains("KMS"), "{arguments}: {stderr}");
    assert!(tree(&world.path("")) == before, "{arguments} changed a file");
}

/// The arguments of a key-gen that writes the gateway's bundle to `outfile`.
fn key_gen_to(world: &World, outfile: &str) -> String {
    let arguments = world.key_gen_arguments().replace("=gateway.json.age", &format!("={outfile}"));
    format!("{arguments} --account ed --scheme frost-ed25519 --import import.json")
}

/// A world with a deployment of epoch 1, whose administrators can deal again.
fn dealt() -> World {
    let world = World::start();
    world.init();
    world.key_gen();
    fs::write(
        world.path("import.json"),
        serde_json::json!({"ed": {"scheme": "frost-ed25519", "secret": support::ED25519[0]}}).to_string(),
    )
    .unwrap();
    world
}

#[test]
fn key_gen_overwrites_no_file_but_a_sealed_bundle() {
    let world = dealt();
    fs::write(world.path("empty"), "").unwrap();
    fs::write(world.path("short"), "age-encryption.org/v").unwrap();
    symlink("gateway-identity.txt", world.path("link")).unwrap();
    for outfile in [
        "gateway-identity.txt",
        "link",
        "client-ca.pem",
        "relay-ca.pem",
        "import.json",
        "empty",
        "short",
        "/dev/null",
    ] {
        refused(&world, &key_gen_to(&world, outfile), &format!("{outfile} exists and is no sealed bundle"));
    }
    let again = world.run(&ADMIN, &key_gen_to(&world, "gateway.json.age")).json();
    assert_eq!(again["epoch"], 2);
}

#[test]
fn a_bundle_is_written_over_no_file_of_the_deployment_by_any_name() {
    let world = dealt();
    symlink("deployment", world.path("link")).unwrap();
    let directories = ["deployment", "deployment/../deployment", "link", "link/../deployment/."];
    for directory in directories {
        for name in ["deployment.toml", "accounts.json", "age-identity.kms"] {
            let outfile = format!("{directory}/{name}");
            refused(
                &world,
                &key_gen_to(&world, &outfile),
                &format!("{outfile} exists and is no sealed bundle"),
            );
        }
        for name in ["service_key_shares.json.age", ".deployment.toml.new", ".nitro-sign-update.json"] {
            refused(
                &world,
                &key_gen_to(&world, &format!("{directory}/{name}")),
                "two files would be written to",
            );
        }
    }
    // Nothing is in the way of the next command.
    let again = world.run(&ADMIN, &key_gen_to(&world, "link/../gateway.json.age")).json();
    assert_eq!(again["epoch"], 2);
    assert_eq!(world.files().len(), 4);
}

#[test]
fn two_cosigners_do_not_share_a_file_by_two_names() {
    let world = dealt();
    symlink(".", world.path("here")).unwrap();
    let other = world.run(&ADMIN, "cosigner --identity other.txt").json();
    let more = format!("--cosigner other={}=here/new.age", other["recipient"].as_str().unwrap());
    let arguments = format!("{} {more}", key_gen_to(&world, "deployment/../new.age"));
    refused(&world, &arguments, "another party writes to here/new.age, too");
}

#[test]
fn key_gen_asks_nothing_of_kms_if_a_bundle_could_not_be_written() {
    let world = dealt();
    refused(&world, &key_gen_to(&world, "/proc/gateway.json.age"), "/proc/.gateway.json.age.new");
    refused(&world, &key_gen_to(&world, "missing/gateway.json.age"), "missing/gateway.json.age");
    refused(&world, &key_gen_to(&world, "deployment"), "deployment exists and is no sealed bundle");
}

#[test]
fn init_makes_no_key_where_it_cannot_write() {
    let world = World::start();
    let init = format!("{INIT} --create-kms-key --admin {}", ADMIN.arn);
    refused(&world, &init.replace("--dir deployment", "--dir /proc"), "/proc/.age-identity.kms.new");
    fs::create_dir(world.deployment()).unwrap();
    for name in ["deployment.toml", "age-identity.kms", "service_key_shares.json.age"] {
        symlink("nothing", world.deployment().join(name)).unwrap();
        refused(&world, &init, &format!("{name} exists already"));
        fs::remove_file(world.deployment().join(name)).unwrap();
    }
    world.run(&ADMIN, &init).json();
}

#[test]
fn a_region_that_is_no_host_name_is_refused_before_anything_is_done() {
    let world = World::start();
    for region in ["EU", "eu_central_1", "eu-central-1.example.com/", "a@b", &"x".repeat(64)] {
        let init = format!("{INIT} --create-kms-key --admin {}", ADMIN.arn).replace("eu-central-1", region);
        let ended = world.run_at(&ADMIN, NOWHERE, &init);
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains("--region: expected an AWS region"), "{}", ended.stderr);
        assert!(!world.deployment().exists());
    }
}

#[test]
fn an_init_whose_disk_is_full_leaves_no_file_and_goes_on_with_the_key_it_made() {
    let world = World::start();
    let init = format!("{INIT} --create-kms-key --admin {}", ADMIN.arn);
    // A limit of file sizes is what a full disk is: files can be made, but not filled.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"trap "" XFSZ; ulimit -f 0; exec "$0" "$@""#, env!("CARGO_BIN_EXE_nitro-sign")]);
    let ended = world.run_with(shell, &ADMIN, &init);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot write") && world.files().is_empty(), "{}", ended.stderr);

    let key = ended.stderr.split_once("--kms-key ").unwrap().1.split_once(": ").unwrap().0;
    let again = world.run(&ADMIN, &format!("{INIT} --kms-key {key}")).json();
    assert_eq!(again["kms_key_id"], key);
}

#[test]
fn an_init_that_was_interrupted_between_its_files_is_finished_and_not_overwritten() {
    let world = World::start();
    world.init();
    // As if the program had died between the two renames.
    let facts = fs::read(world.path("deployment/deployment.toml")).unwrap();
    fs::rename(world.path("deployment/deployment.toml"), world.path("deployment/.deployment.toml.new"))
        .unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &facts);
    let journal = serde_json::json!([
        {"target": world.path("deployment/deployment.toml"), "sha256": hex::encode(digest)},
    ]);
    fs::write(world.path("deployment/.nitro-sign-update.json"), journal.to_string()).unwrap();

    let again = world.run_at(&ADMIN, NOWHERE, &format!("{INIT} --create-kms-key --admin {}", ADMIN.arn));
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("deployment.toml exists already"), "{}", again.stderr);
    assert_eq!(fs::read(world.path("deployment/deployment.toml")).unwrap(), facts);
    assert_eq!(world.files().len(), 2);
}
