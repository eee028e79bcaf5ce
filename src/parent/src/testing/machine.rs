//! The configuration of a machine whose programs are shell scripts.

use std::path::Path;

use eif::{Architecture, Image, Metadata};

use super::programs::{FOR_EVER, READY};
use crate::config::{Invocation, Qemu};

/// An image that is well formed, and boots nowhere.
pub(crate) fn image() -> Image {
    Image {
        architecture: Architecture::X86_64,
        kernel: b"kernel".to_vec(),
        command_line: "console=ttyS0".to_owned(),
        ramdisks: vec![b"runtime".to_vec(), b"application".to_vec()],
        metadata: Metadata::new("test", "1", "6.12"),
    }
}

/// A machine with [`image`] as `directory/image.eif`, and programs that run for ever.
pub(crate) fn machine(directory: &Path) -> Qemu {
    let path = directory.join("image.eif");
    image().write(std::fs::File::create(&path).unwrap()).unwrap();
    Qemu {
        image: path,
        qemu: shell(FOR_EVER),
        vsock_device: shell(&format!(": > vhost.sock; {FOR_EVER}")),
        nsm_device: shell(&format!("{READY} {FOR_EVER}")),
        memory_mib: 64,
        guest_cid: 16,
        extra_command_line: String::new(),
    }
}

/// A program that is this script; what the backend appends are its arguments.
pub(crate) fn shell(script: &str) -> Invocation {
    Invocation { program: "/bin/sh".into(), arguments: ["-c", script, "program"].map(str::to_owned).into() }
}
