//! The guest's whole memory after SERVING.

use std::{fs, path::Path};

use harness::qmp::Qmp;

use crate::{serve, small, world};

fn count(memory: &[u8], needle: &[u8]) -> usize {
    memchr::memmem::find_iter(memory, needle).count()
}

#[test]
fn guest_memory_holds_neither_the_identity_nor_the_bundle_file() {
    let world = world(small());
    let (_node, status) = serve(&world);
    let admin = world.kms_admin().unwrap();
    let identity = String::from_utf8(admin.identity().unwrap()).unwrap();
    let identity = identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap();
    let (_, scalar) = bech32::decode(identity).unwrap();
    let plaintext = admin.open_bundle().unwrap();
    let bundle: serde_json::Value = serde_json::from_slice(&plaintext).unwrap();
    let share = bundle["accounts"][&world.accounts[0].id]["share"].as_str().unwrap();
    let raw_share = hex::decode(share).unwrap();

    let dump = world.path("memory");
    let memory_bytes = u64::from(crate::qemu().memory_mib) << 20;
    let mut qmp = Qmp::connect(Path::new(status.text("/qmp").unwrap())).unwrap();
    qmp.dump_memory(memory_bytes, &dump).unwrap();
    let memory = fs::read(&dump).unwrap();
    assert_eq!(memory.len() as u64, memory_bytes);

    // The search works: the service holds the raw share, and the image's configuration is in the initramfs.
    assert!(
        count(&memory, &raw_share) > 0,
        "the signing service's share is not found: is the dump the guest's?"
    );
    assert!(count(&memory, b"nitro-sign") > 0);

    let text = identity.as_bytes();
    assert_eq!(count(&memory, text), 0, "the age identity as text");
    assert_eq!(count(&memory, &text[16..40]), 0, "the first half of its text");
    assert_eq!(count(&memory, &text[text.len() - 24..]), 0, "the end of its text");
    assert_eq!(count(&memory, &scalar), 0, "the age identity as scalar");
    assert_eq!(count(&memory, share.as_bytes()), 0, "a share as the bundle file spells it");
    assert_eq!(count(&memory, &plaintext[..64]), 0, "the bundle file's first bytes");
    assert_eq!(count(&memory, &plaintext[plaintext.len() - 64..]), 0, "the bundle file's last bytes");
}
