//! The kernel's command line, as far as it is for this program.
//!
//! On Nitro it is part of the measured image and nobody can append to it. An emulated machine's owner can, and tells the
//! enclave there where its parent is; the parent is not trusted in either case.

use std::fs;

use api::control::FailureReason;
use vsock::Peer;

use crate::error::{BootError, because};

const PATH: &str = "/proc/cmdline";
/// Words for other programs do not begin like this.
const PREFIX: &str = "nitro_sign.";
/// Context ids that can be another machine: 0 and 1 are this one's hypervisor and loopback, the last one means "any".
const PARENT_CIDS: std::ops::RangeInclusive<u32> = 2..=u32::MAX - 1;

#[derive(Debug, Default, PartialEq)]
pub(super) struct CommandLine {
    /// `nitro_sign.parent_cid=N`
    parent_cid: Option<u32>,
}

pub(super) fn read() -> Result<CommandLine, BootError> {
    let text =
        fs::read_to_string(PATH).map_err(because(FailureReason::Internal, format!("cannot read {PATH}")))?;
    CommandLine::parse(&text).map_err(invalid)
}

impl CommandLine {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for word in text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(PREFIX)) {
            match word.split_once('=') {
                Some(("parent_cid", value)) => {
                    let cid = cid(value).ok_or_else(|| {
                        format!("{PREFIX}{word}: expected a number from 2 to {}", PARENT_CIDS.end())
                    })?;
                    if parsed.parent_cid.replace(cid).is_some() {
                        return Err(format!("{PREFIX}parent_cid= is there twice"));
                    }
                }
                _ => return Err(format!("{PREFIX}{word} is not known; expected {PREFIX}parent_cid=N")),
            }
        }
        Ok(parsed)
    }

    pub(super) fn parent(&self, configured: &Peer) -> Result<Peer, BootError> {
        match (self.parent_cid, configured) {
            (None, _) => Ok(configured.clone()),
            (Some(cid), Peer::Vsock { .. }) => Ok(Peer::Vsock { cid }),
            (Some(_), other) => Err(invalid(format!(
                "{PREFIX}parent_cid= is for a parent on vsock; the configured one is {other}"
            ))),
        }
    }
}

/// Digits only: `u32::from_str` would also take a sign.
fn cid(value: &str) -> Option<u32> {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    value.parse().ok().filter(|cid| PARENT_CIDS.contains(cid))
}

fn invalid(problem: impl std::fmt::Display) -> BootError {
    BootError::new(FailureReason::ConfigurationInvalid, format!("the kernel's command line: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NITRO: &str = "reboot=k panic=1 pci=off nomodules console=ttyS0 random.trust_cpu=on";
    const CONFIGURED: Peer = Peer::Vsock { cid: 3 };

    fn parent(appended: &str) -> Result<Peer, BootError> {
        CommandLine::parse(&format!("{NITRO} {appended} reboot=t\n")).map_err(invalid)?.parent(&CONFIGURED)
    }

    #[test]
    fn on_nitro_the_parent_is_the_configured_one() {
        assert_eq!(parent("virtio_mmio.device=4K@0xd0000000:5").unwrap(), CONFIGURED);
    }

    #[test]
    fn an_emulated_machine_may_have_its_parent_elsewhere() {
        assert_eq!(parent("nitro_sign.parent_cid=2").unwrap(), Peer::Vsock { cid: 2 });
    }

    #[test]
    fn a_value_that_is_no_other_machine_is_refused_and_named() {
        for value in ["", "0", "1", "4294967295", "4294967296", "+2", "-1", "0x2", "any", "2,3"] {
            let error = parent(&format!("nitro_sign.parent_cid={value}")).unwrap_err();
            assert_eq!(error.reason, FailureReason::ConfigurationInvalid, "{value}");
            assert!(error.message.contains(&format!("parent_cid={value}:")), "{}", error.message);
        }
    }

    #[test]
    fn two_values_and_unknown_words_are_refused() {
        for words in [
            "nitro_sign.parent_cid=2 nitro_sign.parent_cid=2",
            "nitro_sign.parent_cid",
            "nitro_sign.skip_verification=1",
        ] {
            assert_eq!(parent(words).unwrap_err().reason, FailureReason::ConfigurationInvalid, "{words}");
        }
    }

    #[test]
    fn only_a_parent_on_vsock_has_a_context_id() {
        let elsewhere = Peer::UnixGuest { path: "vm.vsock".into() };
        let command_line = CommandLine { parent_cid: Some(2) };
        assert_eq!(command_line.parent(&elsewhere).unwrap_err().reason, FailureReason::ConfigurationInvalid);
        assert_eq!(CommandLine::default().parent(&elsewhere).unwrap(), elsewhere);
    }
}
