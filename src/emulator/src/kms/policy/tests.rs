use std::collections::BTreeMap;

use attestation::{Document, Pcr};
use serde_json::{Value, json};

use super::*;

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const ROLE: &str = "arn:aws:iam::111122223333:role/parent";
const OTHER: &str = "arn:aws:iam::111122223333:role/other";
const STRANGER: &str = "arn:aws:iam::444455556666:role/parent";
const IMAGE: Pcr = Pcr::from_bytes([0xab; 48]);
const CONFIGURATION: Pcr = Pcr::from_bytes([0x16; 48]);

fn statement(changes: &Value) -> Value {
    let mut statement =
        json!({"Effect": "Allow", "Principal": {"AWS": ROLE}, "Action": "kms:Decrypt", "Resource": "*"});
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => statement.as_object_mut().unwrap().remove(name),
            value => statement.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    statement
}

fn policy(statements: &[Value]) -> Policy {
    Policy::parse(&json!({"Version": "2012-10-17", "Statement": statements}).to_string()).unwrap()
}

fn values() -> ConditionValues {
    let context = BTreeMap::from([("Bundle".to_owned(), "cafe".to_owned())]);
    let document = Document {
        module_id: "i-1-enc1".to_owned(),
        timestamp_ms: 0,
        digest: "SHA384".to_owned(),
        pcrs: [(0, IMAGE), (16, CONFIGURATION)].into(),
        public_key: None,
        user_data: None,
        nonce: None,
        certificate: vec![],
        cabundle: vec![],
    };
    ConditionValues::new(&context, Some(&document))
}

fn ask(policy: &Policy, principal: &str, action: &str, values: &ConditionValues) -> Result<(), ServiceError> {
    policy.authorize(&Question { principal, action, resource: KEY, values })
}

fn allows(policy: &Policy, principal: &str, action: &str) -> bool {
    ask(policy, principal, action, &ConditionValues::default()).is_ok()
}

/// Does a statement with this condition allow a request with [`values`], and one without any?
fn allows_under(condition: &Value) -> (bool, bool) {
    let policy = policy(&[statement(&json!({"Condition": condition}))]);
    (
        ask(&policy, ROLE, "kms:Decrypt", &values()).is_ok(),
        ask(&policy, ROLE, "kms:Decrypt", &ConditionValues::default()).is_ok(),
    )
}

#[test]
fn nothing_said_is_no_in_the_words_of_aws() {
    let error = ask(&policy(&[statement(&json!({}))]), OTHER, "kms:Decrypt", &values()).unwrap_err();
    assert_eq!(error.code, "AccessDeniedException");
    assert_eq!(
        error.message.unwrap(),
        format!(
            "User: {OTHER} is not authorized to perform: kms:Decrypt on resource: {KEY} because no resource-based \
             policy allows the kms:Decrypt action"
        )
    );
}

#[test]
fn principals_are_matched_whole() {
    let of = |principal: Value| policy(&[statement(&json!({"Principal": principal}))]);
    for (principal, role, other, stranger) in [
        (json!({"AWS": ROLE}), true, false, false),
        (json!({"AWS": [OTHER, ROLE]}), true, true, false),
        (json!({"AWS": "arn:aws:iam::111122223333:root"}), true, true, false),
        (json!({"AWS": "111122223333"}), true, true, false),
        (json!({"AWS": "*"}), true, true, true),
        (json!("*"), true, true, true),
    ] {
        let policy = of(principal.clone());
        let actual = [ROLE, OTHER, STRANGER].map(|principal| allows(&policy, principal, "kms:Decrypt"));
        assert_eq!(actual, [role, other, stranger], "{principal}");
    }
}

#[test]
fn actions_are_matched_with_trailing_wildcards() {
    let of = |action: Value| policy(&[statement(&json!({"Action": action}))]);
    for (action, decrypt, describe) in [
        (json!("kms:Decrypt"), true, false),
        (json!("KMS:decrypt"), true, false),
        (json!("kms:De*"), true, true),
        (json!("kms:*"), true, true),
        (json!("*"), true, true),
        (json!(["kms:Encrypt", "kms:DescribeKey"]), false, true),
        (json!("kms:Decryp"), false, false),
    ] {
        let policy = of(action.clone());
        let actual = ["kms:Decrypt", "kms:DescribeKey"].map(|action| allows(&policy, ROLE, action));
        assert_eq!(actual, [decrypt, describe], "{action}");
    }
}

#[test]
fn resources_are_all_or_this_key() {
    let of = |resource: Value| policy(&[statement(&json!({"Resource": resource}))]);
    assert!(allows(&of(json!("*")), ROLE, "kms:Decrypt"));
    assert!(allows(&of(json!([KEY])), ROLE, "kms:Decrypt"));
    let another = KEY.replace("1234abcd", "00000000");
    assert!(!allows(&of(json!(another)), ROLE, "kms:Decrypt"));
}

#[test]
fn a_statement_that_denies_beats_one_that_allows_in_any_order() {
    let (allow, deny) = (statement(&json!({})), statement(&json!({"Effect": "Deny", "Principal": "*"})));
    for statements in [[allow.clone(), deny.clone()], [deny, allow]] {
        let error = ask(&policy(&statements), ROLE, "kms:Decrypt", &values()).unwrap_err();
        assert!(error.message.unwrap().ends_with("with an explicit deny in a resource-based policy"));
    }
}

#[test]
fn pcrs_and_encryption_context_are_compared() {
    let image = IMAGE.to_string();
    for (key, value) in [
        ("kms:RecipientAttestation:ImageSha384", image.as_str()),
        ("kms:RecipientAttestation:PCR0", &image),
        ("kms:RecipientAttestation:PCR16", &CONFIGURATION.to_string()),
        ("KMS:recipientattestation:pcr16", &CONFIGURATION.to_string()),
        ("kms:EncryptionContext:Bundle", "cafe"),
        ("kms:EncryptionContext:bundle", "cafe"),
    ] {
        assert_eq!(allows_under(&json!({"StringEquals": {key: value}})), (true, false), "{key}");
        assert_eq!(allows_under(&json!({"StringEquals": {key: "00"}})), (false, false), "{key}");
        assert_eq!(allows_under(&json!({"StringEquals": {key: ["00", value]}})), (true, false), "{key}");
    }
    assert_eq!(
        allows_under(&json!({"StringEquals": {"kms:RecipientAttestation:PCR8": IMAGE.to_string()}})),
        (false, false)
    );
}

#[test]
fn case_matters_unless_the_operator_says_otherwise() {
    let key = "kms:RecipientAttestation:ImageSha384";
    let upper = IMAGE.to_string().to_uppercase();
    assert_eq!(allows_under(&json!({"StringEquals": {key: upper}})), (false, false));
    assert_eq!(allows_under(&json!({"StringEqualsIgnoreCase": {key: upper}})), (true, false));
    assert_eq!(allows_under(&json!({"StringEqualsIgnoreCase": {key: "00"}})), (false, false));
}

#[test]
fn all_conditions_of_a_statement_have_to_hold() {
    let (image, context) = ("kms:RecipientAttestation:ImageSha384", "kms:EncryptionContext:Bundle");
    let image_value = IMAGE.to_string();
    assert_eq!(allows_under(&json!({"StringEquals": {image: image_value, context: "cafe"}})), (true, false));
    assert_eq!(allows_under(&json!({"StringEquals": {image: image_value, context: "beef"}})), (false, false));
    assert_eq!(
        allows_under(
            &json!({"StringEquals": {image: image_value}, "StringEqualsIgnoreCase": {context: "BEEF"}})
        ),
        (false, false)
    );
}

#[test]
fn a_missing_key_satisfies_only_the_operators_that_deny() {
    let key = "kms:RecipientAttestation:ImageSha384";
    assert_eq!(allows_under(&json!({"StringNotEquals": {key: "00"}})), (true, true));
    assert_eq!(allows_under(&json!({"StringNotEquals": {key: [IMAGE.to_string(), "00"]}})), (false, true));
    assert_eq!(allows_under(&json!({"Null": {key: "true"}})), (false, true));
    assert_eq!(allows_under(&json!({"Null": {key: false}})), (true, false));
}

#[test]
fn re_encryption_is_told_from_one_key_to_another() {
    let condition = json!({"Bool": {"kms:ReEncryptOnSameKey": "true"}});
    let policy = policy(&[statement(&json!({"Action": "kms:ReEncrypt*", "Condition": condition}))]);
    let under = |same_key| ConditionValues::new(&BTreeMap::new(), None).re_encrypt(same_key);
    assert!(ask(&policy, ROLE, "kms:ReEncryptTo", &under(true)).is_ok());
    assert!(ask(&policy, ROLE, "kms:ReEncryptTo", &under(false)).is_err());
    assert!(!allows(&policy, ROLE, "kms:ReEncryptTo"));
}

#[test]
fn a_deny_without_attestation_works_as_documented_by_aws() {
    let deny = statement(&json!({
        "Effect": "Deny",
        "Principal": "*",
        "Condition": {"Null": {"kms:RecipientAttestation:ImageSha384": true}},
    }));
    let policy = policy(&[statement(&json!({})), deny]);
    assert!(ask(&policy, ROLE, "kms:Decrypt", &values()).is_ok());
    assert!(ask(&policy, ROLE, "kms:Decrypt", &ConditionValues::default()).is_err());
}

#[test]
fn the_default_policy_is_for_the_whole_account_and_nobody_else() {
    let policy = Policy::default_for("111122223333").unwrap();
    assert!(allows(&policy, ROLE, "kms:PutKeyPolicy"));
    assert!(allows(&policy, OTHER, "kms:Decrypt"));
    assert!(!allows(&policy, STRANGER, "kms:Decrypt"));
}

#[test]
fn what_is_not_understood_is_refused_when_the_policy_is_put() {
    let image = "kms:RecipientAttestation:ImageSha384";
    let statements = [
        json!({"Effect": "allow"}),
        json!({"Effect": null}),
        json!({"Principal": null}),
        json!({"Principal": "arn:aws:iam::111122223333:role/parent"}),
        json!({"Principal": {}}),
        json!({"Principal": {"AWS": []}}),
        json!({"Principal": {"Service": "ec2.amazonaws.com"}}),
        json!({"Principal": {"AWS": "parent"}}),
        json!({"Principal": {"AWS": "arn:aws:iam::111122223333:role/*"}}),
        json!({"Principal": {"AWS": "arn:aws:iam::1111:role/parent"}}),
        json!({"Principal": {"AWS": "11112222333"}}),
        json!({"NotPrincipal": {"AWS": "*"}}),
        json!({"NotAction": "kms:Decrypt"}),
        json!({"Action": null}),
        json!({"Action": "s3:GetObject"}),
        json!({"Action": "kms:*crypt"}),
        json!({"Action": "kms:Decryp?"}),
        json!({"Action": []}),
        json!({"Action": 7}),
        json!({"Resource": null}),
        json!({"Resource": "arn:aws:kms:*"}),
        json!({"Resource": "my key"}),
        json!({"Unknown": 1}),
        json!({"Condition": {"StringLike": {image: "*"}}}),
        json!({"Condition": {"ForAllValues:StringEquals": {image: "00"}}}),
        json!({"Condition": {"StringEqualsIfExists": {image: "00"}}}),
        json!({"Condition": {"StringEquals": {"kms:ViaService": "s3"}}}),
        json!({"Condition": {"StringEquals": {"kms:RecipientAttestation:PCR32": "00"}}}),
        json!({"Condition": {"StringEquals": {"kms:RecipientAttestation:PCR00": "00"}}}),
        json!({"Condition": {"StringEquals": {"kms:EncryptionContext:": "00"}}}),
        json!({"Condition": {"StringEquals": {image: []}}}),
        json!({"Condition": {"Null": {image: "yes"}}}),
        json!({"Condition": {"Bool": {"kms:ReEncryptOnSameKey": "yes"}}}),
    ];
    for changes in statements {
        let text = json!({"Version": "2012-10-17", "Statement": [statement(&changes)]}).to_string();
        let error = Policy::parse(&text).map(|_| ()).unwrap_err();
        assert_eq!(error.code, "MalformedPolicyDocumentException", "{changes}");
    }
}

#[test]
fn documents_that_are_no_policies_are_refused() {
    let good = statement(&json!({})).to_string();
    let twice = good.replacen('{', r#"{"Effect": "Deny", "#, 1);
    let conditions =
        r#""Condition": {"StringEquals": {"kms:EncryptionContext:a": "1", "kms:EncryptionContext:a": "2"}}"#;
    let condition_twice = good.replacen('{', &format!("{{{conditions}, "), 1);
    for text in [
        "[]".to_owned(),
        "not JSON".to_owned(),
        format!(r#"{{"Statement": [{good}]}}"#),
        format!(r#"{{"Version": "2020-01-01", "Statement": [{good}]}}"#),
        r#"{"Version": "2012-10-17"}"#.to_owned(),
        r#"{"Version": "2012-10-17", "Statement": []}"#.to_owned(),
        format!(r#"{{"Version": "2012-10-17", "Statement": [{good}], "More": 1}}"#),
        format!(r#"{{"Version": "2012-10-17", "Statement": [{twice}]}}"#),
        format!(r#"{{"Version": "2012-10-17", "Statement": [{condition_twice}]}}"#),
    ] {
        let error = Policy::parse(&text).map(|_| ()).unwrap_err();
        assert_eq!(error.code, "MalformedPolicyDocumentException", "{text}");
    }
    for text in [String::new(), " ".repeat(MAX_LENGTH + 1)] {
        assert_eq!(Policy::parse(&text).map(|_| ()).unwrap_err().code, "ValidationException");
    }
}
