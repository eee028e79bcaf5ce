//! Generates the types of `proto/` without protoc.
use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let descriptors = protox::compile(["signservice.proto", "parent.proto"], [&proto])?;
    let public = protox::compile(["signservice.proto"], [&proto])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("signservice.bin"), public.encode_to_vec())?;
    tonic_prost_build::configure()
        // Their `Debug` would print a secret key.
        .skip_debug([".nitrosign.parent.v1.Boot", ".nitrosign.parent.v1.Credentials"])
        .compile_fds(descriptors)?;
    Ok(())
}
