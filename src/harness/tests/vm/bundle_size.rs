//! A machine with too little memory for its bundle.

use std::fs;

use harness::{Options, Qemu, Rebound, World};

use crate::{TERMINAL, leaves_nothing, qemu, refused, serve, small, world};

/// A machine of the least memory, whose bundle of two accounts has so much white space behind them.
fn world_with(white_space_mib: usize) -> World {
    let qemu = Qemu { memory_mib: 64, ..qemu() };
    let world = world(Options { qemu: Some(qemu), ..small() });
    let admin = world.kms_admin().unwrap();
    let mut plaintext = admin.open_bundle().unwrap();
    plaintext.resize(plaintext.len() + (white_space_mib << 20), b' ');
    let bundle = admin.seal(&plaintext).unwrap();
    admin.replace_bundle(&Rebound { bundle, epoch: 1 }).unwrap();
    world
}

#[test]
fn a_bundle_that_the_memory_is_not_enough_for_is_refused_before_kms_is_asked() {
    let world = world_with(9);
    let status = refused(&world, "MemoryTooSmall", TERMINAL);
    let message = status.text("/message").unwrap();
    assert!(message.contains(r#"step "fetch_bundle""#) && message.contains("MiB more"), "{message}");
    let size = fs::metadata(world.path("deployment/service_key_shares.json.age")).unwrap().len();
    assert!(message.contains(&format!("a bundle of {size} bytes takes")), "{message}");
    assert!(status.0["timings_ms"]["enclave.fetch_bundle"].is_null(), "{}", status.0["timings_ms"]);
    assert!(status.0["timings_ms"]["enclave.decrypt"].is_null());
    leaves_nothing(&world);
}

#[test]
fn a_bundle_that_the_memory_is_enough_for_is_served() {
    let world = world_with(3);
    let (_node, status) = serve(&world);
    let memory = &status.0["memory"];
    let [used, total] = ["used_kib", "total_kib"].map(|name| memory[name].as_u64().unwrap());
    assert!(used < total && total < 64 << 10 && memory["is_low"] == false, "{memory}");
}
