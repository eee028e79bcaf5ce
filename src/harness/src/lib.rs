//! Every program of the system, started on one machine as users start them: the stand-ins for AWS, the operator's
//! tool, the parent with its enclave as local processes, and the Sign Gateway. The demo prints it; the tests over real
//! processes try to break it.

pub mod events;
mod gateway;
mod image;
mod kms_admin;
pub mod memory;
mod netlink;
mod nitro_enclave;
mod node;
pub mod parent_vm;
mod program;
pub mod qmp;
pub mod report;
mod signature;
mod world;

pub use gateway::Gateway;
pub use image::{GivenImage, Qemu};
pub use kms_admin::{KmsAdmin, Rebound};
pub use netlink::{VsockSocket, vsock_sockets};
pub use node::{Node, Status};
pub use program::{Program, binary};
pub use signature::verify_signature;
pub use world::{Account, Credentials, Deployment, Options, SCHEMES, World, Worlds, client_certificate};

/// SHA-256.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data).as_ref());
    digest
}
