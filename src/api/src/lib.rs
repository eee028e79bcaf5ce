//! The generated types of `proto/`, the port numbers, and the rules of the boot configuration.
//!
//! The comments of the generated items are those of `proto/signservice.proto` and `proto/parent.proto`.

mod boot;

pub use boot::{ConfigurationError, MAX_BUNDLE_BYTES, MAX_IDENTITY_CIPHERTEXT_BYTES, encryption_context};

/// The public API: package `nitrosign.v1`.
#[allow(missing_docs, clippy::pedantic, unreachable_pub, reason = "generated code")]
pub mod sign {
    tonic::include_proto!("nitrosign.v1");

    /// Encoded `FileDescriptorSet` of the public API, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/signservice.bin"));
}

/// The control channel: package `nitrosign.parent.v1`.
#[allow(missing_docs, clippy::pedantic, unreachable_pub, reason = "generated code")]
pub mod control {
    tonic::include_proto!("nitrosign.parent.v1");
}

/// Ports, on vsock and, where a bridge maps them, on TCP.
pub mod ports {
    /// Enclave to parent: the enclave sends 0xB7 at its start, the parent answers it.
    pub const HEARTBEAT: u32 = 9000;
    /// Enclave to parent: the control channel (`proto/parent.proto`).
    pub const CONTROL: u32 = 9001;
    /// Enclave to parent: bridged to the KMS endpoint, port 443.
    pub const KMS: u32 = 5000;
    /// Enclave to parent: bridged to the Sign Gateway's relay.
    pub const RELAY: u32 = 8080;
    /// Parent to enclave: the public API (`proto/signservice.proto`).
    pub const SIGN: u32 = 50051;
}
