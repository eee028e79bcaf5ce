use secrecy::{ExposeSecret as _, SecretString};

/// Why a text is not one age X25519 identity. Never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not UTF-8.
    #[error("the age identity is not text")]
    NotText,
    /// Only comments, or nothing.
    #[error("there is no AGE-SECRET-KEY-1… line in the age identity")]
    NoKey,
    /// More than one key line.
    #[error("there is more than one key in the age identity; exactly one is expected")]
    SeveralKeys,
    /// A line that is neither a comment nor an X25519 secret key.
    #[error("line {line} of the age identity is not an X25519 secret key (AGE-SECRET-KEY-1…)")]
    NotAKey {
        /// Counted from 1.
        line: usize,
    },
}

/// The age X25519 identity that opens a bundle. Wiped when dropped; no `Debug`.
pub struct Identity(Box<age::x25519::Identity>);

impl Identity {
    /// A fresh identity from the operating system's random number generator.
    pub fn generate() -> Self {
        Self(Box::new(age::x25519::Identity::generate()))
    }

    /// Reads an identity as `age-keygen` writes it: one `AGE-SECRET-KEY-1…` line, any number of `#` comment
    /// lines and empty lines. The caller wipes `text`.
    pub fn parse(text: &[u8]) -> Result<Self, IdentityError> {
        let text = std::str::from_utf8(text).map_err(|_| IdentityError::NotText)?;
        let mut keys =
            text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (index, key) = keys.next().ok_or(IdentityError::NoKey)?;
        if keys.next().is_some() {
            return Err(IdentityError::SeveralKeys);
        }
        match key.parse() {
            Ok(identity) => Ok(Self(Box::new(identity))),
            Err(_) => Err(IdentityError::NotAKey { line: index + 1 }),
        }
    }

    /// The recipient (`age1…`) to seal bundles to.
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// The identity as one `AGE-SECRET-KEY-1…` line with a newline, which [`Identity::parse`] and `age` read.
    pub fn to_text(&self) -> SecretString {
        let key = self.0.to_string();
        let mut text = String::with_capacity(key.expose_secret().len() + 1);
        text.push_str(key.expose_secret());
        text.push('\n');
        SecretString::from(text)
    }

    pub(crate) fn as_age(&self) -> &dyn age::Identity {
        &*self.0
    }
}
