//! A signing service that ends as it should not.

use std::fs;

use harness::{Options, Qemu, Status, World};

use crate::{TRANSIENT, guest::service_that, leaves_nothing, qemu, refusals::rebuild, refused, small, world};

/// In a machine of `memory_mib`, an image whose service does `what`.
fn world_with(what: &str, memory_mib: u32) -> World {
    let qemu = Qemu { memory_mib, ..qemu() };
    let world = world(Options { qemu: Some(qemu), ..small() });
    rebuild(&world, |argument| argument, &[("sign-service", &service_that(what))]);
    let pcrs = world.measure().unwrap();
    world.apply_policy(&[pcrs["PCR0"].as_str().unwrap()], &[]).unwrap();
    world
}

fn ends(world: &World) -> Status {
    let status = refused(world, "ServiceExited", TRANSIENT);
    leaves_nothing(world);
    status
}

#[test]
fn a_service_that_crashes_is_reported_with_its_signal() {
    let status = ends(&world_with("crashes", 256));
    let message = status.text("/message").unwrap();
    assert!(message.contains(r#"step "start_service""#) && message.contains("SIGABRT"), "{message}");
}

#[test]
fn a_service_that_crashes_later_is_reported_with_its_signal() {
    let status = ends(&world_with("says that it serves, then crashes", 256));
    assert!(status.history().contains(&"Verifying"), "{:?}", status.history());
    let message = status.text("/message").unwrap();
    assert!(message.contains(r#"step "serve""#) && message.contains("SIGABRT"), "{message}");
}

#[test]
fn memory_that_runs_out_is_reported_before_the_kernel_ends_the_service_for_it() {
    let memory_mib = 128;
    let world = world_with("takes memory until there is none", memory_mib);
    let status = ends(&world);
    let message = status.text("/message").unwrap();
    assert!(message.contains("the kernel says: Out of memory: Killed process"), "{message}");
    assert!(message.contains("(sign-service)"), "{message}");

    let memory = &status.0["memory"];
    let [used, total, at] = ["used_kib", "total_kib", "unix_ms"].map(|name| memory[name].as_u64().unwrap());
    assert_eq!(memory["is_low"], true, "{memory}");
    assert!(total < u64::from(memory_mib) << 10 && (total * 9 / 10..=total).contains(&used), "{memory}");
    let failed = status.0["history"].as_array().unwrap().last().unwrap()["unix_ms"].as_u64().unwrap();
    assert!(at < failed, "warned at {at}, failed at {failed}");
    // In the log, too, in this order.
    let log = fs::read_to_string(world.path("logs/parent.log")).unwrap();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?} in {log}"));
    assert!(at("the enclave's memory is low") < at("the enclave reported a failure"), "{log}");
}
