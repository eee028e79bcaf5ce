//! After SERVING the age identity is nowhere, and no share is in the parent.

use std::{fs, path::Path};

use harness::{Options, memory::occurrences};

use crate::Serving;

/// The processes that `pid` started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let list = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        found.extend(list.split_ascii_whitespace().map(|child| child.parse::<u32>().unwrap()));
    }
    found
}

fn no_key_file(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_key_file(&path);
        }
        assert_ne!(path.file_name().unwrap(), "service_key_shares.json", "{}", path.display());
    }
}

#[test]
fn no_secret_is_left_where_it_must_not_be() {
    let serving = Serving::start(Options::default());
    let admin = serving.world.kms_admin().unwrap();
    let identity = String::from_utf8(admin.identity().unwrap()).unwrap();
    let identity = identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap().to_owned();
    let (_, scalar) = bech32::decode(&identity).unwrap();
    assert_eq!(scalar.len(), 32);
    // Parts of the text too: a copy in pieces is a copy.
    let text = identity.as_bytes();
    let (front, back) = (&text[16..40], &text[text.len() - 24..]);
    let lower = identity.to_lowercase();

    let bundle: serde_json::Value = serde_json::from_slice(&admin.open_bundle().unwrap()).unwrap();
    let share = |id: &str| bundle["accounts"][id]["share"].as_str().unwrap().to_owned();
    let shares: Vec<_> = serving.world.accounts.iter().map(|account| share(&account.id)).collect();
    let raw: Vec<_> = shares.iter().map(|share| hex::decode(share).unwrap()).collect();
    let party_key = bundle["party_secret_key"].as_str().unwrap().to_owned();

    let enclave = serving.status.enclave_pid().unwrap();
    let parent = serving.node.program.pid();
    let service = children(enclave)[0];

    let identity_needles: [&[u8]; 5] = [text, front, back, lower.as_bytes(), &scalar];
    for (name, pid) in [("enclave", enclave), ("parent", parent), ("sign-service", service)] {
        let found = occurrences(pid, &identity_needles).unwrap();
        assert_eq!(found, [0; 5], "the age identity (text, its parts, lower case, scalar) in {name}");
    }

    let mut share_needles: Vec<&[u8]> = shares.iter().map(String::as_bytes).collect();
    share_needles.extend(raw.iter().map(Vec::as_slice));
    share_needles.push(party_key.as_bytes());
    for (name, pid) in [("parent", parent), ("enclave", enclave)] {
        let found = occurrences(pid, &share_needles).unwrap();
        assert!(found.iter().all(|&count| count == 0), "shares in {name}: {found:?}");
    }
    // The search would find them: the service has to hold the raw shares, and no longer their text.
    let raw_needles: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
    let found = occurrences(service, &raw_needles).unwrap();
    assert!(found.iter().all(|&count| count > 0), "the signing service holds its shares: {found:?}");
    let text_needles: Vec<&[u8]> = shares.iter().map(String::as_bytes).collect();
    let found = occurrences(service, &text_needles).unwrap();
    assert!(found.iter().all(|&count| count == 0), "the bundle's text in the signing service: {found:?}");

    no_key_file(&serving.world.path("run"));
    let logs = serving.world.all_logs().unwrap();
    for secret in shares.iter().chain([&identity, &party_key]) {
        assert!(!logs.contains(secret.as_str()), "a secret is in a log");
    }
}
