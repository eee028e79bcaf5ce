use std::collections::HashMap;

use aws_sdk_kms::{error::ProvideErrorMetadata, types::KeyState};

use super::*;

type Response<E> = aws_sdk_kms::error::SdkError<E, aws_sdk_kms::config::http::HttpResponse>;

/// AWS's name for a refusal.
fn refused<T, E: ProvideErrorMetadata>(result: Result<T, Response<E>>) -> String {
    result.map(|_| ()).unwrap_err().code().unwrap().to_owned()
}

fn context_map(epoch: &str) -> HashMap<String, String> {
    HashMap::from([("epoch".to_owned(), epoch.to_owned())])
}

#[tokio::test]
async fn a_key_is_created_and_described() {
    let world = World::start().await;
    let sdk = world.admin.sdk();
    let created = sdk.create_key().description("age identity").send().await.unwrap().key_metadata.unwrap();
    let key =
        sdk.describe_key().key_id(created.arn.as_ref().unwrap()).send().await.unwrap().key_metadata.unwrap();
    assert_eq!(key, created);
    assert_eq!(key.description(), Some("age identity"));
    assert_eq!(key.arn(), Some(format!("arn:aws:kms:{REGION}:111122223333:key/{}", key.key_id()).as_str()));
    assert_eq!((key.enabled(), key.key_state()), (true, Some(&KeyState::Enabled)));
}

#[tokio::test]
async fn what_this_kms_has_no_keys_for_is_refused() {
    let world = World::start().await;
    let sdk = world.admin.sdk();
    let rsa = sdk.create_key().key_spec(aws_sdk_kms::types::KeySpec::Rsa2048);
    assert_eq!(refused(rsa.send().await), "UnsupportedOperationException");
    let tagged = aws_sdk_kms::types::Tag::builder().tag_key("a").tag_value("b").build().unwrap();
    assert_eq!(refused(sdk.create_key().tags(tagged).send().await), "ValidationException");
    assert_eq!(refused(sdk.create_key().description("x".repeat(8193)).send().await), "ValidationException");
}

#[tokio::test]
async fn keys_are_named_by_id_or_arn_of_this_account_and_region() {
    let world = World::start().await;
    let id = world.create_key(&open_policy()).await;
    for name in [
        "alias/key".to_owned(),
        "00000000-0000-4000-8000-000000000000".to_owned(),
        format!("arn:aws:kms:us-east-1:111122223333:key/{id}"),
        format!("arn:aws:kms:{REGION}:444455556666:key/{id}"),
        format!("arn:aws:kms:{REGION}:111122223333:alias/{id}"),
        id.to_uppercase(),
    ] {
        let described = world.admin.sdk().describe_key().key_id(&name).send().await;
        assert_eq!(refused(described), "NotFoundException", "{name}");
    }
}

#[tokio::test]
async fn what_is_encrypted_decrypts_in_its_own_context_only() {
    let world = World::start().await;
    let key_id = world.create_key(&open_policy()).await;
    let sdk = world.parent.sdk();
    let encrypted = sdk.encrypt().key_id(&key_id).plaintext(b"secret".to_vec().into());
    let encrypted = encrypted.set_encryption_context(Some(context_map("1"))).send().await.unwrap();
    assert!(encrypted.key_id.unwrap().ends_with(&key_id));
    let ciphertext = encrypted.ciphertext_blob.unwrap();

    let decrypt = || sdk.decrypt().ciphertext_blob(ciphertext.clone());
    let decrypted = decrypt().set_encryption_context(Some(context_map("1"))).send().await.unwrap();
    assert_eq!(decrypted.plaintext.unwrap().into_inner(), b"secret");
    let wrong = decrypt().set_encryption_context(Some(context_map("2"))).send().await;
    assert_eq!(refused(wrong), "InvalidCiphertextException");
    assert_eq!(refused(decrypt().send().await), "InvalidCiphertextException");
}

#[tokio::test]
async fn lengths_are_limited() {
    let world = World::start().await;
    let key_id = world.create_key(&open_policy()).await;
    let sdk = world.admin.sdk();
    let encrypt = |length: usize| sdk.encrypt().key_id(&key_id).plaintext(vec![7; length].into());
    let ciphertext = encrypt(4096).send().await.unwrap().ciphertext_blob.unwrap();
    assert!(sdk.decrypt().ciphertext_blob(ciphertext).send().await.is_ok());
    assert_eq!(refused(encrypt(4097).send().await), "ValidationException");
    assert_eq!(refused(encrypt(0).send().await), "ValidationException");
    let long = Some([("a".to_owned(), "x".repeat(8192))].into());
    assert_eq!(refused(encrypt(1).set_encryption_context(long).send().await), "ValidationException");
    let decrypt = |length: usize| sdk.decrypt().ciphertext_blob(vec![7; length].into());
    assert_eq!(refused(decrypt(6145).send().await), "ValidationException");
    assert_eq!(refused(decrypt(6144).send().await), "InvalidCiphertextException");
}

#[tokio::test]
async fn re_encryption_changes_key_and_context_inside_of_kms() {
    let world = World::start().await;
    let sdk = world.admin.sdk();
    let (from, to) = (world.create_key(&open_policy()).await, world.create_key(&open_policy()).await);
    let ciphertext = world.encrypt(&from, b"secret", &[("epoch".to_owned(), "1".to_owned())]).await;
    let re_encrypt = |source: &str| {
        sdk.re_encrypt()
            .ciphertext_blob(ciphertext.clone().into())
            .source_key_id(&from)
            .set_source_encryption_context(Some(context_map(source)))
            .destination_key_id(&to)
            .set_destination_encryption_context(Some(context_map("2")))
    };
    let moved = re_encrypt("1").send().await.unwrap();
    assert!(moved.source_key_id.unwrap().ends_with(&from) && moved.key_id.unwrap().ends_with(&to));
    let decrypt = sdk.decrypt().key_id(&to).ciphertext_blob(moved.ciphertext_blob.unwrap());
    let decrypted = decrypt.set_encryption_context(Some(context_map("2"))).send().await.unwrap();
    assert_eq!(decrypted.plaintext.unwrap().into_inner(), b"secret");
    assert_eq!(refused(re_encrypt("2").send().await), "InvalidCiphertextException");
    assert_eq!(refused(re_encrypt("1").source_key_id(&to).send().await), "IncorrectKeyException");
}

#[tokio::test]
async fn re_encryption_needs_permission_on_both_keys() {
    let world = World::start().await;
    let only_from = json!({
        "Version": "2012-10-17",
        "Statement": [administration(), {
            "Effect": "Allow", "Principal": {"AWS": PARENT}, "Action": "kms:ReEncryptFrom", "Resource": "*",
            "Condition": {"Bool": {"kms:ReEncryptOnSameKey": "true"}},
        }],
    });
    let (from, to) = (world.create_key(&only_from).await, world.create_key(&open_policy()).await);
    let ciphertext = world.encrypt(&from, b"secret", &[]).await;
    for (destination, action) in [(&to, "kms:ReEncryptFrom"), (&from, "kms:ReEncryptTo")] {
        let request = world.parent.sdk().re_encrypt().ciphertext_blob(ciphertext.clone().into());
        let error = request.destination_key_id(destination).send().await.unwrap_err();
        assert!(error.message().unwrap().contains(&format!("perform: {action} on")), "{error:?}");
    }
}

#[tokio::test]
async fn a_policy_is_put_and_read_back_as_it_was() {
    let world = World::start().await;
    let sdk = world.admin.sdk();
    let key_id = world.create_key(&open_policy()).await;
    let text = format!("  {}\n", attested_policy(&Pcr::ZERO, &Pcr::ZERO));
    sdk.put_key_policy().key_id(&key_id).policy(&text).send().await.unwrap();
    let read = sdk.get_key_policy().key_id(&key_id).send().await.unwrap();
    assert_eq!((read.policy(), read.policy_name()), (Some(text.as_str()), Some("default")));
    assert_eq!(
        refused(world.parent.sdk().get_key_policy().key_id(&key_id).send().await),
        "AccessDeniedException"
    );
    let named = sdk.get_key_policy().key_id(&key_id).policy_name("other").send().await;
    assert_eq!(refused(named), "NotFoundException");
}

#[tokio::test]
async fn a_policy_that_is_not_understood_changes_nothing() {
    let world = World::start().await;
    let sdk = world.admin.sdk();
    let key_id = world.create_key(&open_policy()).await;
    let mut policy = open_policy();
    policy["Statement"]["Condition"] = json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}});
    let put = sdk.put_key_policy().key_id(&key_id).policy(policy.to_string()).send().await;
    assert_eq!(refused(put), "MalformedPolicyDocumentException");
    let created = sdk.create_key().policy(policy.to_string()).send().await;
    assert_eq!(refused(created), "MalformedPolicyDocumentException");
    let read = sdk.get_key_policy().key_id(&key_id).send().await.unwrap();
    assert_eq!(read.policy(), Some(open_policy().to_string().as_str()));
}

#[tokio::test]
async fn nobody_locks_themselves_out_by_accident() {
    let world = World::start().await;
    let sdk = world.admin.sdk();
    let key_id = world.create_key(&open_policy()).await;
    let mut policy = open_policy().to_string();
    policy = policy.replace("111122223333", PARENT);
    let put = || sdk.put_key_policy().key_id(&key_id).policy(&policy);
    assert_eq!(refused(put().send().await), "MalformedPolicyDocumentException");
    put().bypass_policy_lockout_safety_check(true).send().await.unwrap();
    assert_eq!(refused(put().send().await), "AccessDeniedException");
}

#[tokio::test]
async fn a_key_without_a_policy_of_its_own_belongs_to_the_account() {
    let world = World::start().await;
    let sdk = world.admin.sdk();
    let key_id = sdk.create_key().send().await.unwrap().key_metadata.unwrap().key_id;
    let policy = world.parent.sdk().get_key_policy().key_id(&key_id).send().await.unwrap().policy.unwrap();
    assert!(policy.contains("arn:aws:iam::111122223333:root"), "{policy}");
}

#[tokio::test]
async fn a_disabled_key_does_nothing_until_it_is_enabled() {
    let world = World::start().await;
    let sdk = world.admin.sdk();
    let key_id = world.create_key(&open_policy()).await;
    let ciphertext = world.encrypt(&key_id, b"secret", &[]).await;
    sdk.disable_key().key_id(&key_id).send().await.unwrap();
    let key = sdk.describe_key().key_id(&key_id).send().await.unwrap().key_metadata.unwrap();
    assert_eq!((key.enabled(), key.key_state()), (false, Some(&KeyState::Disabled)));
    let encrypt = sdk.encrypt().key_id(&key_id).plaintext(b"more".to_vec().into());
    assert_eq!(refused(encrypt.send().await), "DisabledException");
    let decrypt = || sdk.decrypt().ciphertext_blob(ciphertext.clone().into());
    assert_eq!(refused(decrypt().send().await), "DisabledException");
    assert_eq!(refused(sdk.enable_key_rotation().key_id(&key_id).send().await), "DisabledException");
    sdk.enable_key().key_id(&key_id).send().await.unwrap();
    assert!(decrypt().send().await.is_ok());
}

#[tokio::test]
async fn rotation_is_enabled_and_its_status_told() {
    let world = World::start().await;
    let sdk = world.admin.sdk();
    let key_id = world.create_key(&open_policy()).await;
    let status = || sdk.get_key_rotation_status().key_id(&key_id).send();
    assert!(!status().await.unwrap().key_rotation_enabled());
    sdk.enable_key_rotation().key_id(&key_id).send().await.unwrap();
    let enabled = status().await.unwrap();
    assert_eq!((enabled.key_rotation_enabled(), enabled.rotation_period_in_days()), (true, Some(365)));
    let short = sdk.enable_key_rotation().key_id(&key_id).rotation_period_in_days(89);
    assert_eq!(refused(short.send().await), "ValidationException");
}

#[tokio::test]
async fn every_operation_asks_the_policy() {
    let world = World::start().await;
    let key_id = world.create_key(&json!({"Version": "2012-10-17", "Statement": administration()})).await;
    let ciphertext = world.encrypt(&key_id, b"secret", &[]).await;
    let sdk = world.parent.sdk();
    let blob = || ciphertext.clone().into();
    let denials = [
        refused(sdk.describe_key().key_id(&key_id).send().await),
        refused(sdk.encrypt().key_id(&key_id).plaintext(blob()).send().await),
        refused(sdk.decrypt().ciphertext_blob(blob()).send().await),
        refused(sdk.re_encrypt().ciphertext_blob(blob()).destination_key_id(&key_id).send().await),
        refused(sdk.get_key_policy().key_id(&key_id).send().await),
        refused(sdk.put_key_policy().key_id(&key_id).policy(open_policy().to_string()).send().await),
        refused(sdk.disable_key().key_id(&key_id).send().await),
        refused(sdk.enable_key().key_id(&key_id).send().await),
        refused(sdk.enable_key_rotation().key_id(&key_id).send().await),
        refused(sdk.get_key_rotation_status().key_id(&key_id).send().await),
    ];
    for (index, denial) in denials.iter().enumerate() {
        assert_eq!(denial, "AccessDeniedException", "number {index}");
    }
}

#[tokio::test]
async fn an_operation_that_is_not_there_is_named_so() {
    let world = World::start().await;
    assert_eq!(refused(world.admin.sdk().list_keys().send().await), "UnknownOperationException");
}
