use std::time::Instant;

use ::kms::CmsError;

use super::*;

struct Faulty {
    world: World,
    enclave: Enclave,
    key_id: String,
    ciphertext: Vec<u8>,
}

impl Faulty {
    async fn new() -> Self {
        let world = World::start().await;
        let key_id = world.create_key(&open_policy()).await;
        let ciphertext = world.encrypt(&key_id, b"a secret of more than one block", &context()).await;
        Self { enclave: world.enclave(), world, key_id, ciphertext }
    }

    async fn decrypt(&self, fault: &Value) -> Result<Vec<u8>, KmsError> {
        self.decrypt_within(fault, TIMEOUT).await
    }

    async fn decrypt_within(&self, fault: &Value, timeout: Duration) -> Result<Vec<u8>, KmsError> {
        self.world.fault(fault);
        let client = Client::new(Access { timeout, ..self.world.access() });
        let document = self.enclave.document();
        let released =
            client.decrypt_for_recipient(&self.key_id, &self.ciphertext, &context(), &document).await?;
        Ok(released.ciphertext_for_recipient)
    }

    /// What the recipient makes of a spoiled envelope, in both layouts.
    async fn open(&self, mode: &str) -> [Result<Vec<u8>, CmsError>; 2] {
        let first = self.decrypt(&json!({"mode": mode})).await.unwrap();
        let second = self.decrypt(&json!({"mode": mode})).await.unwrap();
        [first, second].map(|envelope| self.enclave.key.open(&envelope).map(|plaintext| plaintext.to_vec()))
    }
}

#[tokio::test]
async fn a_plaintext_in_the_answer_is_refused() {
    let error = Faulty::new().await.decrypt(&json!({"mode": "plaintext"})).await.unwrap_err();
    assert!(matches!(error, KmsError::PlaintextAnswer { .. }), "{error}");
    assert_has_request_id(&error);
    assert!(!error.is_transient() && !format!("{error:?}").contains("secret of more"));
}

#[tokio::test]
async fn a_truncated_envelope_is_refused() {
    for opened in Faulty::new().await.open("truncate-cms").await {
        assert!(matches!(opened, Err(CmsError::Malformed { .. })), "{opened:?}");
    }
}

#[tokio::test]
async fn an_envelope_with_an_altered_structure_is_refused() {
    for opened in Faulty::new().await.open("alter-cms").await {
        assert!(matches!(opened, Err(CmsError::Unexpected { element: "contentType", .. })), "{opened:?}");
    }
}

#[tokio::test]
async fn an_envelope_with_altered_content_is_refused_or_opens_to_something_else() {
    let faulty = Faulty::new().await;
    for opened in faulty.open("alter-cms-content").await {
        assert_eq!(opened, Err(CmsError::Undecryptable));
    }
    // The content is not authenticated: what is in it has to be judged by whoever uses it.
    for opened in faulty.open("alter-cms-plaintext").await {
        assert_eq!(opened.unwrap(), b"` secret of more than one block");
    }
}

#[tokio::test]
async fn silence_ends_within_the_timeout() {
    let (faulty, timeout) = (Faulty::new().await, Duration::from_millis(1500));
    let start = Instant::now();
    let error = faulty.decrypt_within(&json!({"mode": "hang"}), timeout).await.unwrap_err();
    let waited = start.elapsed();
    assert!(matches!(&error, KmsError::Unreachable(text) if text.contains("timeout")), "{error}");
    assert!(error.is_transient() && error.request_id().is_none());
    assert!(waited >= timeout && waited < timeout * 3, "{waited:?}");
}

#[tokio::test]
async fn a_late_answer_is_an_answer_if_it_is_within_the_timeout() {
    let faulty = Faulty::new().await;
    let start = Instant::now();
    let envelope = faulty.decrypt(&json!({"mode": "delay", "delay_ms": 300})).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(faulty.enclave.key.open(&envelope).is_ok());
    let late = json!({"mode": "delay", "delay_ms": 10_000});
    let error = faulty.decrypt_within(&late, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, KmsError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn trouble_of_kms_itself_is_transient() {
    let error = Faulty::new().await.decrypt(&json!({"mode": "internal-error"})).await.unwrap_err();
    assert_eq!(code(&error), "KMSInternalException");
    assert!(error.is_transient());
    assert_has_request_id(&error);
}

#[tokio::test]
async fn a_denial_on_request_is_one() {
    let error = Faulty::new().await.decrypt(&json!({"mode": "deny"})).await.unwrap_err();
    assert!(matches!(error, KmsError::Denied { .. }) && !error.is_transient(), "{error}");
}
