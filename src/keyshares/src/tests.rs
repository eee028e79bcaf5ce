//! Tests of the crate through its public API, by subject.

mod arbitrary;
mod opening;
mod parsing;
mod sample;
mod secrecy;
