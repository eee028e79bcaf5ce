use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Endpoint;

/// Decides by its context id who may connect to a listener.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    only: Option<u32>,
    refused: AtomicU64,
}

impl Admission {
    pub(crate) fn only(cid: u32) -> Self {
        Self { only: Some(cid), refused: AtomicU64::new(0) }
    }

    /// Whether a connection to `local` may stay. `caller` is its context id, which Unix sockets and TCP do not have.
    pub(crate) fn admits(&self, local: &Endpoint, caller: Option<u32>) -> bool {
        if may_connect(self.only, caller) {
            return true;
        }
        let refused = self.refused.fetch_add(1, Relaxed) + 1;
        // Each time there are twice as many: a caller that goes on and on does not fill the log.
        if refused.is_power_of_two() {
            tracing::warn!(%local, caller, only = self.only, refused, "refused a connection: it is not from the context id that may");
        }
        false
    }
}

fn may_connect(only: Option<u32>, caller: Option<u32>) -> bool {
    only.is_none() || only == caller
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_restriction_anybody_may_connect() {
        for caller in [None, Some(1), Some(16), Some(u32::MAX)] {
            assert!(may_connect(None, caller), "{caller:?}");
        }
    }

    #[test]
    fn with_one_only_its_context_id_may() {
        assert!(may_connect(Some(16), Some(16)));
        // Another enclave, the loopback, the hypervisor's host, the parent itself, "any", and none.
        for caller in [Some(17), Some(1), Some(2), Some(3), Some(0), Some(u32::MAX), None] {
            assert!(!may_connect(Some(16), caller), "{caller:?}");
        }
    }

    #[test]
    fn refusals_are_counted_and_do_not_change_who_may() {
        let local: Endpoint = "vsock:any:9000".parse().unwrap();
        let admission = Admission::only(16);
        for _ in 0..5 {
            assert!(!admission.admits(&local, Some(1)));
            assert!(admission.admits(&local, Some(16)));
        }
        assert_eq!(admission.refused.load(Relaxed), 5);
    }
}
