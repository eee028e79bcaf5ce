//! A program of the user's own in the place of the signing service, in the image.

use std::fs;

use crate::{program, qemu, refusals::rebuild, serve, small, world};

const KEYS: &str = "/run/nitro-sign/service_key_shares.json";

#[test]
fn an_unmodified_program_in_the_image_is_reached_and_reaches_the_relay() {
    let world = world(small());
    let echo = world.path("echo");
    program::compile(&["--target=x86_64-unknown-linux-musl", "-Cpanic=abort", "-Cstrip=symbols"], &echo);
    let enclave = fs::read_to_string(world.path("image/inputs/enclave.toml")).unwrap();
    let at = ["127.0.0.1:50051", "127.0.0.1:8080"];
    let enclave = program::with_workload(&enclave, "/bin/sign-service", KEYS, at);
    let files = [("sign-service", &*fs::read(echo).unwrap()), ("enclave.toml", enclave.as_bytes())];
    rebuild(&world, |argument| argument, &files);
    let pcrs = world.measure().unwrap();
    assert_eq!(pcrs["PCR1"], pcrs_of_the_image()["PCR1"], "only what PCR2 covers is another");
    world.apply_policy(&[pcrs["PCR0"].as_str().unwrap()], &[]).unwrap();
    program::expect(&world);
    let (_node, status) = serve(&world);
    program::assert_serves(&status);
}

fn pcrs_of_the_image() -> serde_json::Value {
    serde_json::from_slice(&fs::read(qemu().image.join("pcrs.json")).unwrap()).unwrap()
}
