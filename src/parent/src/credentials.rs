use std::{fs::File, io::Read as _, path::Path};

use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Failed, Reason};

/// Far more than session tokens need, bytes.
const MAX_BYTES: u64 = 16 << 10;

/// AWS credentials for the enclave's one KMS call. They cannot be printed.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

impl Credentials {
    /// Reads the JSON file `{"access_key_id", "secret_access_key", "session_token"?}`. Blocks.
    pub fn load(file: &Path) -> Result<Self, Failed> {
        let refused = |problem: String| {
            let message = format!(
                "`kms.credentials_file` {}: {problem}; expected {{\"access_key_id\", \"secret_access_key\", \
                 \"session_token\" (optional)}}",
                file.display()
            );
            Failed::new(Reason::CredentialsUnavailable, message)
        };
        let mut content = Zeroizing::new(Vec::with_capacity(4096));
        File::open(file)
            .and_then(|open| open.take(MAX_BYTES).read_to_end(&mut content))
            .map_err(|error| refused(error.to_string()))?;
        // serde_json's own message may quote a value.
        let credentials: Self = serde_json::from_slice(&content)
            .map_err(|error| refused(format!("line {} column {} is wrong", error.line(), error.column())))?;
        if credentials.access_key_id.is_empty() || credentials.secret_access_key.is_empty() {
            return Err(refused("a value is empty".to_owned()));
        }
        Ok(credentials)
    }

    /// As a message for the enclave.
    pub(crate) fn to_message(&self) -> api::control::Credentials {
        api::control::Credentials {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: self.session_token.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(content: &str) -> Result<Credentials, Failed> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials.json");
        fs::write(&file, content).unwrap();
        Credentials::load(&file)
    }

    #[test]
    fn the_session_token_is_optional() {
        let long_term =
            load(r#"{"access_key_id":"AKIA","secret_access_key":"s"}"#).ok().unwrap().to_message();
        assert_eq!(long_term.session_token, "");
        let short =
            load(r#"{"access_key_id":"ASIA","secret_access_key":"s","session_token":"t"}"#).ok().unwrap();
        let short = short.to_message();
        assert_eq!([short.access_key_id, short.secret_access_key, short.session_token], ["ASIA", "s", "t"]);
    }

    #[test]
    fn a_refusal_names_the_file_and_never_quotes_a_value() {
        for content in [
            r#"{"access_key_id":"AKIA","secret_access_key":123456789}"#,
            r#"{"access_key_id":"AKIA","secret_access_key":"s3cr3t","more":1}"#,
            r#"{"access_key_id":"","secret_access_key":"s3cr3t"}"#,
            r#""s3cr3t""#,
            "",
        ] {
            let failed = load(content).err().unwrap();
            assert_eq!(failed.reason, Reason::CredentialsUnavailable);
            assert!(failed.message.contains("credentials.json"), "{failed}");
            assert!(!failed.message.contains("s3cr3t") && !failed.message.contains("123456789"), "{failed}");
        }
    }

    #[test]
    fn a_missing_file_is_transient() {
        let failed = Credentials::load(Path::new("/nonexistent/credentials.json")).err().unwrap();
        assert!(failed.reason.is_transient());
        assert!(failed.message.contains("/nonexistent/credentials.json"));
    }
}
