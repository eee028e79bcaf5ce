use super::*;

/// A key under [`attested_policy`] and a secret under it.
struct Sealed {
    world: World,
    key_id: String,
    ciphertext: Vec<u8>,
}

impl Sealed {
    async fn new() -> Self {
        Self::under(attested_policy(&Enclave::measurements().pcr0, &Enclave::pcr16())).await
    }

    async fn under(policy: Value) -> Self {
        let world = World::start().await;
        let key_id = world.create_key(&policy).await;
        let ciphertext = world.encrypt(&key_id, b"age identity", &context()).await;
        Self { world, key_id, ciphertext }
    }

    async fn decrypt(&self, document: &[u8]) -> Result<::kms::Released, KmsError> {
        self.world.parent.decrypt_for_recipient(&self.key_id, &self.ciphertext, &context(), document).await
    }

    async fn refusal(&self, document: &[u8]) -> KmsError {
        let error = self.decrypt(document).await.unwrap_err();
        assert_has_request_id(&error);
        error
    }
}

#[tokio::test]
async fn the_image_and_configuration_on_the_list_get_the_secret_in_both_layouts() {
    let sealed = Sealed::new().await;
    let enclave = sealed.world.enclave();
    let mut lengths = Vec::new();
    for _ in 0..2 {
        let released = sealed.decrypt(&enclave.document()).await.unwrap();
        assert_eq!(*enclave.key.open(&released.ciphertext_for_recipient).unwrap(), b"age identity");
        assert!(released.request_id.parse::<uuid::Uuid>().is_ok());
        assert!(released.latency > Duration::ZERO && released.latency < TIMEOUT);
        lengths.push(released.ciphertext_for_recipient.len());
    }
    // The constructed content has two bytes more at its beginning, and two at its end.
    assert_eq!(lengths[0], lengths[1] + 4);
}

#[tokio::test]
async fn the_key_may_be_named_by_its_arn() {
    let sealed = Sealed::new().await;
    let enclave = sealed.world.enclave();
    let arn = format!("arn:aws:kms:{REGION}:111122223333:key/{}", sealed.key_id);
    let parent = &sealed.world.parent;
    let released = parent
        .decrypt_for_recipient(&arn, &sealed.ciphertext, &context(), &enclave.document())
        .await
        .unwrap();
    assert_eq!(*enclave.key.open(&released.ciphertext_for_recipient).unwrap(), b"age identity");
}

#[tokio::test]
async fn another_enclave_cannot_open_the_answer() {
    let sealed = Sealed::new().await;
    let released = sealed.decrypt(&sealed.world.enclave().document()).await.unwrap();
    let other = sealed.world.enclave();
    let error = other.key.open(&released.ciphertext_for_recipient).unwrap_err();
    assert!(matches!(error, ::kms::CmsError::OtherRecipient { .. }), "{error}");
}

#[tokio::test]
async fn another_image_is_denied() {
    let sealed = Sealed::under(attested_policy(&Pcr::from_bytes([2; 48]), &Enclave::pcr16())).await;
    let error = sealed.refusal(&sealed.world.enclave().document()).await;
    assert!(matches!(&error, KmsError::Denied { code, .. } if code == "AccessDeniedException"), "{error}");
    assert!(
        error.to_string().contains("because no resource-based policy allows the kms:Decrypt action"),
        "{error}"
    );
}

#[tokio::test]
async fn another_configuration_is_denied() {
    let sealed = Sealed::new().await;
    let enclave = Enclave::configured(&sealed.world.authority, b"another configuration");
    assert_eq!(code(&sealed.refusal(&enclave.document()).await), "AccessDeniedException");
}

#[tokio::test]
async fn a_configuration_register_that_is_not_locked_is_denied() {
    let sealed = Sealed::new().await;
    let nsm = SoftwareNsm::new(&sealed.world.authority, Enclave::measurements()).unwrap();
    nsm.extend_pcr(PCR_CONFIGURATION, &attestation::sha384(b"configuration")).unwrap();
    let enclave = Enclave { nsm, key: RecipientKey::generate().unwrap() };
    assert_eq!(code(&sealed.refusal(&enclave.document()).await), "AccessDeniedException");
}

#[tokio::test]
async fn debug_mode_is_denied() {
    let sealed = Sealed::new().await;
    let nsm = SoftwareNsm::debug(&sealed.world.authority).unwrap();
    let enclave = Enclave { nsm, key: RecipientKey::generate().unwrap() };
    assert_eq!(code(&sealed.refusal(&enclave.document()).await), "AccessDeniedException");
}

#[tokio::test]
async fn without_an_attestation_document_nobody_decrypts() {
    let sealed = Sealed::new().await;
    for client in [&sealed.world.parent, &sealed.world.admin] {
        let request =
            client.sdk().decrypt().key_id(&sealed.key_id).ciphertext_blob(sealed.ciphertext.clone().into());
        let request = request.set_encryption_context(Some(context().into_iter().collect()));
        let error = KmsError::from(request.send().await.unwrap_err());
        assert_eq!(code(&error), "AccessDeniedException");
    }
}

#[tokio::test]
async fn a_principal_without_permission_is_denied_even_with_the_right_document() {
    let sealed = Sealed::new().await;
    let document = sealed.world.enclave().document();
    let admin = &sealed.world.admin;
    let error = admin.decrypt_for_recipient(&sealed.key_id, &sealed.ciphertext, &context(), &document).await;
    assert_eq!(code(&error.unwrap_err()), "AccessDeniedException");
}

#[tokio::test]
async fn a_context_that_the_policy_does_not_allow_is_denied() {
    let sealed = Sealed::new().await;
    let document = sealed.world.enclave().document();
    for wrong in [vec![], vec![("bundle-sha256".to_owned(), "beef".to_owned())]] {
        let parent = &sealed.world.parent;
        let error = parent.decrypt_for_recipient(&sealed.key_id, &sealed.ciphertext, &wrong, &document).await;
        assert_eq!(code(&error.unwrap_err()), "AccessDeniedException");
    }
}

#[tokio::test]
async fn a_context_that_the_policy_allows_but_the_ciphertext_does_not_is_invalid() {
    let sealed = Sealed::new().await;
    let document = sealed.world.enclave().document();
    let mut wrong = context();
    wrong[1].1 = "2".to_owned();
    let parent = &sealed.world.parent;
    let error = parent
        .decrypt_for_recipient(&sealed.key_id, &sealed.ciphertext, &wrong, &document)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, KmsError::InvalidCiphertext { code, .. } if code == "InvalidCiphertextException"),
        "{error}"
    );
}

#[tokio::test]
async fn an_altered_ciphertext_is_invalid() {
    let mut sealed = Sealed::new().await;
    let document = sealed.world.enclave().document();
    let last = sealed.ciphertext.len() - 1;
    sealed.ciphertext[last] ^= 1;
    assert_eq!(code(&sealed.refusal(&document).await), "InvalidCiphertextException");
    sealed.ciphertext = b"no ciphertext at all".to_vec();
    assert_eq!(code(&sealed.refusal(&document).await), "InvalidCiphertextException");
}

#[tokio::test]
async fn a_document_under_another_root_is_refused() {
    let sealed = Sealed::new().await;
    let foreign = Enclave::launch(&TestAuthority::generate().unwrap());
    let error = sealed.refusal(&foreign.document()).await;
    assert_eq!(code(&error), "ValidationException");
    assert!(error.to_string().contains("signed under root"), "{error}");
}

#[tokio::test]
async fn an_altered_document_and_one_that_is_none_are_refused() {
    let sealed = Sealed::new().await;
    let mut document = sealed.world.enclave().document();
    let last = document.len() - 1;
    document[last] ^= 1;
    assert_eq!(code(&sealed.refusal(&document).await), "ValidationException");
    assert_eq!(code(&sealed.refusal(b"no document").await), "ValidationException");
    assert_eq!(code(&sealed.refusal(b"").await), "ValidationException");
}

#[tokio::test]
async fn a_document_that_is_not_believed_is_kept_and_one_that_is_denied_is_not() {
    let sealed = Sealed::under(attested_policy(&Pcr::from_bytes([2; 48]), &Enclave::pcr16())).await;
    let kept = sealed.world.directory.path().join("refused.cose");
    sealed.refusal(&sealed.world.enclave().document()).await;
    assert!(!kept.exists());
    for document in [&b"no document"[..], b"another one"] {
        sealed.refusal(document).await;
        assert_eq!(fs::read(&kept).unwrap(), document);
    }
}

#[tokio::test]
async fn a_document_without_a_usable_key_is_refused() {
    let sealed = Sealed::new().await;
    let nsm = sealed.world.enclave().nsm;
    let elliptic = rcgen::KeyPair::generate().unwrap();
    for (key, reason) in [
        (None, "no public key"),
        (Some(&b"no key"[..]), "not an RSA key"),
        (Some(&rsa_1024()[..]), "not an RSA key"),
        (Some(rcgen::PublicKeyData::subject_public_key_info(&elliptic).as_slice()), "not an RSA key"),
    ] {
        let error = sealed.refusal(&nsm.attest(None, None, key).unwrap()).await;
        assert_eq!(code(&error), "ValidationException");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// SubjectPublicKeyInfo of an RSA key whose modulus has 1024 bits.
fn rsa_1024() -> Vec<u8> {
    let element = |tag: u8, contents: &[u8]| {
        let length = u8::try_from(contents.len()).unwrap();
        [&[tag][..], if length < 0x80 { &[] } else { &[0x81] }, &[length], contents].concat()
    };
    let modulus = element(0x02, &[&[0][..], &[0xc5; 128]].concat());
    let key = element(0x30, &[modulus, element(0x02, &[1, 0, 1])].concat());
    let algorithm = element(0x30, &hex::decode("06092a864886f70d0101010500").unwrap());
    element(0x30, &[algorithm, element(0x03, &[&[0][..], &key].concat())].concat())
}

#[tokio::test]
async fn a_document_of_more_than_five_minutes_ago_or_ahead_is_refused() {
    let authority = TestAuthority::generate().unwrap();
    let enclave = Enclave::launch(&authority);
    let members = json!({
        "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "AttestationDocument": request::blob(&enclave.document()),
    });
    let info: recipient::RecipientInfo = serde_json::from_value(members).unwrap();
    let root = TrustRoot::from_der(authority.root_der());
    let at = |offset: Duration, ahead: bool| {
        let now = std::time::SystemTime::now();
        let now = if ahead { now + offset } else { now - offset };
        recipient::Recipient::new(&info, &root, now).map(|_| ()).map_err(|error| error.code)
    };
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    assert_eq!(at(minutes(0), true), Ok(()));
    assert_eq!(at(minutes(4), true), Ok(()));
    assert_eq!(at(minutes(6), true), Err("ValidationException"));
    assert_eq!(at(minutes(6), false), Err("ValidationException"));
}

#[test]
fn another_algorithm_for_the_recipient_is_refused() {
    let authority = TestAuthority::generate().unwrap();
    let members = json!({"KeyEncryptionAlgorithm": "RSAES_PKCS1_V1_5", "AttestationDocument": "AAAA"});
    let info: recipient::RecipientInfo = serde_json::from_value(members).unwrap();
    let root = TrustRoot::from_der(authority.root_der());
    let error =
        recipient::Recipient::new(&info, &root, std::time::SystemTime::now()).map(|_| ()).unwrap_err();
    assert!(error.message.unwrap().contains("recipient.keyEncryptionAlgorithm"));
}

#[tokio::test]
async fn a_disabled_key_and_one_that_does_not_exist_are_denials() {
    let sealed = Sealed::new().await;
    let document = sealed.world.enclave().document();
    sealed.world.admin.sdk().disable_key().key_id(&sealed.key_id).send().await.unwrap();
    let error = sealed.refusal(&document).await;
    assert!(matches!(&error, KmsError::Denied { code, .. } if code == "DisabledException"), "{error}");

    let parent = &sealed.world.parent;
    let unknown = "00000000-0000-4000-8000-000000000000";
    let error =
        parent.decrypt_for_recipient(unknown, &sealed.ciphertext, &context(), &document).await.unwrap_err();
    assert!(matches!(&error, KmsError::Denied { code, .. } if code == "NotFoundException"), "{error}");
}

#[tokio::test]
async fn a_ciphertext_of_another_key_is_told_apart() {
    let sealed = Sealed::new().await;
    let other = sealed.world.create_key(&open_policy()).await;
    let document = sealed.world.enclave().document();
    let parent = &sealed.world.parent;
    let error =
        parent.decrypt_for_recipient(&other, &sealed.ciphertext, &context(), &document).await.unwrap_err();
    assert!(
        matches!(&error, KmsError::InvalidCiphertext { code, .. } if code == "IncorrectKeyException"),
        "{error}"
    );
}
