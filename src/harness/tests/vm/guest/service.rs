//! A program in the signing service's place that ends as a service should not. Compiled by the tests with nothing but the
//! standard library; `SERVICE_DOES` is set then.

use std::{
    fs,
    hint::black_box,
    io::{Write, stdout},
    process::abort,
    thread::sleep,
    time::Duration,
};

fn main() {
    match env!("SERVICE_DOES") {
        "crashes" => abort(),
        "says that it serves, then crashes" => {
            let key = "07".repeat(32);
            let _ = writeln!(
                stdout(),
                r#"{{"ready":true,"spki_sha256":"{key}","accounts":1,"loaded_at_unix_ms":5}}"#
            );
            // The file with the shares goes first, then the parent is told.
            while fs::exists("/run/nitro-sign/service_key_shares.json").unwrap_or(true) {
                sleep(Duration::from_millis(5));
            }
            sleep(Duration::from_millis(300));
            abort();
        }
        "takes memory until there is none" => {
            let mut taken = Vec::new();
            loop {
                taken.push(black_box(vec![1_u8; 1 << 20]));
                sleep(Duration::from_millis(40));
            }
        }
        other => panic!("no such way to end: {other}"),
    }
}
