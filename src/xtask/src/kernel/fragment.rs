/// Fragments behind each other. Of two that say something of the same option, only the later one's line is left.
pub(super) fn merged(fragments: &[String]) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for fragment in fragments {
        let names: Vec<_> = fragment.lines().filter_map(setting).map(|(name, _)| name).collect();
        kept.retain(|line| setting(line).is_none_or(|(name, _)| !names.contains(&name)));
        kept.extend(fragment.lines());
    }
    kept.join("\n") + "\n"
}

/// The lines of a configuration fragment that a whole configuration does not follow, each with what is there instead.
///
/// An option that is off may be left out of a configuration altogether: what it depends on is off.
pub(super) fn ignored(fragment: &str, config: &str) -> Vec<String> {
    let mut ignored = Vec::new();
    for line in fragment.lines() {
        let Some((option, wanted)) = setting(line) else { continue };
        let actual =
            config.lines().filter_map(setting).find(|(name, _)| *name == option).and_then(|(_, value)| value);
        if actual != wanted {
            ignored.push(format!(
                "{option}: asked for {}, got {}",
                wanted.unwrap_or("\"is not set\""),
                actual.unwrap_or("\"is not set\"")
            ));
        }
    }
    ignored
}

/// An option and its value; none means that it is off.
fn setting(line: &str) -> Option<(&str, Option<&str>)> {
    if let Some(option) = line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set")) {
        return option.starts_with("CONFIG_").then_some((option, None));
    }
    let (option, value) = line.strip_prefix("CONFIG_").and(line.split_once('='))?;
    Some((option, (value != "n").then_some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
# Linux/x86 Kernel Configuration
CONFIG_64BIT=y
CONFIG_NR_CPUS=64
CONFIG_SWAP=y
# CONFIG_MODULES is not set
CONFIG_DEFAULT_HOSTNAME=\"enclave\"
";

    #[test]
    fn a_later_fragment_has_the_last_word_on_an_option() {
        let fragments =
            ["# first\n# CONFIG_A is not set\nCONFIG_B=y\n", "CONFIG_A=y\n# CONFIG_B is not set\n"];
        let merged = merged(&fragments.map(str::to_owned));
        assert_eq!(merged, "# first\nCONFIG_A=y\n# CONFIG_B is not set\n");
    }

    #[test]
    fn options_that_took_effect_are_not_reported() {
        let fragment = "# words about CONFIG_64BIT\n\nCONFIG_64BIT=y\nCONFIG_NR_CPUS=64\nCONFIG_DEFAULT_HOSTNAME=\"enclave\"\n";
        assert!(ignored(fragment, CONFIG).is_empty());
    }

    #[test]
    fn an_option_that_is_missing_is_named() {
        assert_eq!(ignored("CONFIG_NSM=y", CONFIG), ["CONFIG_NSM: asked for y, got \"is not set\""]);
    }

    #[test]
    fn an_option_that_is_off_instead_of_on_is_named() {
        assert_eq!(ignored("CONFIG_MODULES=y", CONFIG), ["CONFIG_MODULES: asked for y, got \"is not set\""]);
    }

    #[test]
    fn an_option_with_another_value_is_named() {
        assert_eq!(ignored("CONFIG_NR_CPUS=8", CONFIG), ["CONFIG_NR_CPUS: asked for 8, got 64"]);
    }

    #[test]
    fn an_option_that_should_be_off_and_is_on_is_named() {
        assert_eq!(
            ignored("# CONFIG_SWAP is not set", CONFIG),
            ["CONFIG_SWAP: asked for \"is not set\", got y"]
        );
        assert_eq!(ignored("CONFIG_SWAP=n", CONFIG), ["CONFIG_SWAP: asked for \"is not set\", got y"]);
    }

    #[test]
    fn an_option_that_should_be_off_may_be_left_out() {
        assert!(ignored("# CONFIG_MODULES is not set\n# CONFIG_KEXEC is not set", CONFIG).is_empty());
    }

    #[test]
    fn a_name_that_begins_like_another_is_not_taken_for_it() {
        assert_eq!(ignored("CONFIG_SWA=y", CONFIG).len(), 1);
    }
}
