//! Tests of the crate through its public API, by subject.

mod arbitrary;
mod cheating;
mod dealing;
mod envelopes;
mod group;
mod refusals;
mod shares;
mod signing;
mod vectors;
