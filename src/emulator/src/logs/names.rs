//! Names of log groups and log streams. Source: CloudWatch Logs API reference, CreateLogGroup and CreateLogStream.

use super::error::ServiceError;

/// Characters.
const MAX_NAME: usize = 512;

/// 1 to 512 of `a-z`, `A-Z`, `0-9`, `_`, `-`, `/`, `.` and `#`; "aws/" at the start is AWS's own (`/aws/` is not).
pub(crate) fn check_group(name: &str) -> Result<(), ServiceError> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "_-/.#".contains(character);
    check("logGroupName", r"[\.\-_/#A-Za-z0-9]+", name, allowed)?;
    if name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws/")) {
        return Err(ServiceError::invalid_parameter("Log groups starting with AWS/ are reserved for AWS."));
    }
    Ok(())
}

/// 1 to 512 characters, none of them `:` or `*`.
pub(crate) fn check_stream(name: &str) -> Result<(), ServiceError> {
    check("logStreamName", "[^:*]*", name, |character| !":*".contains(character))
}

fn check(member: &str, pattern: &str, name: &str, allowed: fn(char) -> bool) -> Result<(), ServiceError> {
    if !(1..=MAX_NAME).contains(&name.chars().count()) {
        return Err(ServiceError::invalid_member(member, "have length between 1 and 512"));
    }
    if !name.chars().all(allowed) {
        let constraint = format!("satisfy regular expression pattern: {pattern}");
        return Err(ServiceError::invalid_member(member, &constraint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_long_and_of_the_characters_that_are_documented() {
        let longest = "n".repeat(512);
        for name in ["/nitro-sign/parent", "a_b-c.d#1", "/aws/lambda/f", "aws", "aws-parent", &longest] {
            assert_eq!(check_group(name), Ok(()));
        }
        for name in ["i-0123456789abcdef0", "host name/é", &longest] {
            assert_eq!(check_stream(name), Ok(()));
        }
    }

    #[test]
    fn other_names_are_invalid_parameters() {
        let too_long = "n".repeat(513);
        for name in ["", "a group", "group:stream", "é", "aws/", "AWS/parent", &too_long] {
            assert_eq!(check_group(name).unwrap_err().code, "InvalidParameterException", "{name}");
        }
        for name in ["", "a:b", "a*", &too_long] {
            assert_eq!(check_stream(name).unwrap_err().code, "InvalidParameterException", "{name}");
        }
    }
}
