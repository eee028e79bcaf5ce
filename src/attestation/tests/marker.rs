//! What a search of a production binary looks for is really there to be found.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use attestation::{NsmError, open};

/// With other spaces, so that this test does not bring along what it searches for.
const MARKER: &str = "nitro-sign_software_NSM_(not_for_production)";

#[test]
fn the_marker_is_in_a_binary_exactly_if_it_has_the_software_module() {
    // A security module is opened, as every program of the enclave does; with a place that nobody knows at build time.
    let location = std::env::var("NSM").unwrap_or_else(|_| "unix:/nowhere/nsm.sock".to_owned());
    let error = open(&location).err().unwrap();

    let binary = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let marker = MARKER.replace('_', " ");
    let found = binary.windows(marker.len()).any(|window| window == marker.as_bytes());
    assert_eq!(found, cfg!(feature = "software-nsm"));
    assert_eq!(error.to_string().contains(&marker), found);
    assert_eq!(matches!(error, NsmError::Location(_)), !found);
}
