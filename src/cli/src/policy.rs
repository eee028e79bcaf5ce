//! `policy`: the KMS key policy under which only one image with one bundle can unseal.

use anyhow::{Context as _, Result, bail, ensure};
use attestation::Pcr;
use serde_json::{Value, json};

use crate::{
    KmsOptions, args,
    aws::Aws,
    deployment::{Deployment, Directory},
    print_json, say,
};

/// What administrators may do besides ReEncrypt.
///
/// Not `kms:*`: there is no Decrypt and no GenerateDataKey, and no CreateGrant, by which an administrator could give
/// a right to decrypt that the conditions of the enclave's statement do not limit. Encrypt makes identities (`init`).
/// An administrator can still replace this policy, which CloudTrail records; that is the one way around it.
const ADMINISTRATOR_ACTIONS: [&str; 21] = [
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:Encrypt",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
];

pub(crate) async fn run(args: &args::Policy, options: &KmsOptions) -> Result<()> {
    let directory = Directory::open(&args.dir)?;
    let deployment = &directory.deployment;
    let policy = render(args, deployment)?;
    if args.apply {
        let aws = Aws::new(options, &deployment.region)?;
        aws.put_policy(&deployment.kms_key_id, &policy.to_string()).await?;
        say(format_args!("The policy is in force on {}.", deployment.kms_key_id));
    } else {
        say(format_args!("The policy is NOT in force yet on {}; --apply does that.", deployment.kms_key_id));
    }
    print_json(&policy)
}

/// The policy's JSON.
///
/// All statements name their principals; there is none for the account root (`arn:aws:iam::ACCOUNT:root`), which
/// would let IAM policies give anybody in the account any right on the key, Decrypt without attestation included. The
/// price is that nobody but the administrators can repair the policy. KMS's lock-out check, which stays on, makes sure
/// that whoever puts the policy is one of them.
fn render(args: &args::Policy, deployment: &Deployment) -> Result<Value> {
    let Some(bundle_sha256) = &deployment.bundle_sha256 else {
        bail!("the deployment has no bundle yet that the policy could name; run `nitro-sign key-gen` first");
    };
    check_principals(&args.role, &args.admin)?;
    let mut attested = json!({ "kms:RecipientAttestation:ImageSha384": pcr_values("--pcr0", &args.pcr0)? });
    if !args.pcr16.is_empty() {
        attested["kms:RecipientAttestation:PCR16"] = pcr_values("--pcr16", &args.pcr16)?;
    }
    let context: serde_json::Map<_, _> = api::encryption_context(bundle_sha256, deployment.epoch)
        .into_iter()
        .map(|(key, value)| (format!("kms:EncryptionContext:{key}"), Value::String(value)))
        .collect();
    let [manage, bind] = administrators(&args.admin);
    let unseal = json!({
        "Sid": "TheEnclaveUnsealsItsBundle",
        "Effect": "Allow",
        "Principal": { "AWS": args.role },
        "Action": "kms:Decrypt",
        "Resource": "*",
        "Condition": { "StringEqualsIgnoreCase": attested, "StringEquals": context },
    });
    Ok(document(&[manage, bind, unseal]))
}

/// The policy of a key that was just made: nobody decrypts with it.
pub(crate) fn of_new_key(admins: &[String]) -> Result<Value> {
    check_administrators(admins)?;
    Ok(document(&administrators(admins)))
}

fn document(statements: &[Value]) -> Value {
    json!({ "Version": "2012-10-17", "Id": "nitro-sign", "Statement": statements })
}

fn administrators(admins: &[String]) -> [Value; 2] {
    [
        json!({
            "Sid": "AdministratorsManageTheKey",
            "Effect": "Allow",
            "Principal": { "AWS": admins },
            "Action": ADMINISTRATOR_ACTIONS,
            "Resource": "*",
        }),
        // `key-gen` binds the identity to a bundle. Onto this key only: re-encrypted under a key of their own, an
        // administrator could decrypt it there.
        json!({
            "Sid": "AdministratorsBindTheIdentityToABundle",
            "Effect": "Allow",
            "Principal": { "AWS": admins },
            "Action": ["kms:ReEncryptFrom", "kms:ReEncryptTo"],
            "Resource": "*",
            "Condition": { "Bool": { "kms:ReEncryptOnSameKey": "true" } },
        }),
    ]
}

/// The conditions are met only by a request with an attestation document: without one the keys are absent.
fn pcr_values(option: &str, pcrs: &[Pcr]) -> Result<Value> {
    ensure!(!pcrs.is_empty(), "{option} is missing");
    ensure!(
        !pcrs.iter().any(Pcr::is_zero),
        "{option} is all zero: every enclave in debug mode has that value, and its console shows its secrets; give \
         the value that `nitro-sign measure` or `nitro-sign pcr16` prints"
    );
    Ok(pcrs.iter().map(ToString::to_string).collect())
}

fn check_principals(role: &str, admins: &[String]) -> Result<()> {
    let role_name = iam_resource("--role", role)?;
    ensure!(role_name.starts_with("role/"), "--role {role}: expected a role, arn:aws:iam::ACCOUNT:role/NAME");
    check_administrators(admins)?;
    if let Some(admin) = admins.iter().find(|admin| *admin == role) {
        bail!("--admin {admin} is --role, too: the parent could replace the policy that binds it");
    }
    Ok(())
}

fn check_administrators(admins: &[String]) -> Result<()> {
    for admin in admins {
        let name = iam_resource("--admin", admin)?;
        ensure!(
            name.starts_with("role/") || name.starts_with("user/"),
            "--admin {admin}: expected a role or user; with the account root, IAM policies would decide who \
             administrates the key"
        );
    }
    Ok(())
}

/// The last part of `arn:PARTITION:iam::ACCOUNT:RESOURCE`.
fn iam_resource<'a>(option: &str, arn: &'a str) -> Result<&'a str> {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let resource = match parts.as_slice() {
        ["arn", "aws" | "aws-cn" | "aws-us-gov", "iam", "", account, resource]
            if account.len() == 12
                && account.bytes().all(|b| b.is_ascii_digit())
                && !resource.contains('*') =>
        {
            Some(*resource)
        }
        _ => None,
    };
    resource.with_context(|| {
        format!("{option} {arn}: expected an IAM ARN with a 12-digit account and no wildcard, arn:aws:iam::ACCOUNT:…")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::111122223333:role/parent";
    const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";

    fn pcr(byte: u8) -> Pcr {
        Pcr::from_bytes([byte; 48])
    }

    fn args() -> args::Policy {
        args::Policy {
            dir: "deployment".into(),
            role: ROLE.to_owned(),
            admin: vec![ADMIN.to_owned()],
            pcr0: vec![pcr(0xab)],
            pcr16: Vec::new(),
            apply: false,
        }
    }

    fn deployment() -> Deployment {
        Deployment {
            region: "eu-central-1".to_owned(),
            kms_key_id: "key".to_owned(),
            party: "enclave-a".to_owned(),
            recipient: "age1x".to_owned(),
            epoch: 3,
            identity_sha256: "cd".repeat(32),
            bundle_sha256: Some("ef".repeat(32)),
        }
    }

    fn statement(policy: &Value, sid: &str) -> Value {
        let statements = policy["Statement"].as_array().unwrap();
        statements.iter().find(|statement| statement["Sid"] == sid).unwrap().clone()
    }

    fn refusal(args: &args::Policy) -> String {
        render(args, &deployment()).unwrap_err().to_string()
    }

    #[test]
    fn the_role_may_only_decrypt_and_only_for_the_image_and_the_bundle() {
        let policy = render(&args(), &deployment()).unwrap();
        let expected = json!({
            "Sid": "TheEnclaveUnsealsItsBundle",
            "Effect": "Allow",
            "Principal": { "AWS": ROLE },
            "Action": "kms:Decrypt",
            "Resource": "*",
            "Condition": {
                "StringEqualsIgnoreCase": { "kms:RecipientAttestation:ImageSha384": ["ab".repeat(48)] },
                "StringEquals": {
                    "kms:EncryptionContext:bundle_sha256": "ef".repeat(32),
                    "kms:EncryptionContext:epoch": "3",
                },
            },
        });
        assert_eq!(statement(&policy, "TheEnclaveUnsealsItsBundle"), expected);
        assert_eq!(policy.to_string().matches(ROLE).count(), 1);
    }

    #[test]
    fn pcr16_is_required_when_it_is_given() {
        let policy = render(
            &args::Policy { pcr16: vec![pcr(1), pcr(2)], pcr0: vec![pcr(3), pcr(4)], ..args() },
            &deployment(),
        );
        let condition = &statement(&policy.unwrap(), "TheEnclaveUnsealsItsBundle")["Condition"];
        assert_eq!(
            condition["StringEqualsIgnoreCase"],
            json!({
                "kms:RecipientAttestation:ImageSha384": ["03".repeat(48), "04".repeat(48)],
                "kms:RecipientAttestation:PCR16": ["01".repeat(48), "02".repeat(48)],
            })
        );
    }

    #[test]
    fn administrators_can_replace_the_policy_but_neither_decrypt_nor_grant() {
        let policy = render(&args(), &deployment()).unwrap();
        let actions = statement(&policy, "AdministratorsManageTheKey")["Action"].clone();
        let actions: Vec<String> = serde_json::from_value(actions).unwrap();
        assert!(actions.contains(&"kms:PutKeyPolicy".to_owned()));
        for forbidden in ["Decrypt", "CreateGrant", "GenerateDataKey", "ReEncrypt", "*"] {
            assert!(!actions.iter().any(|action| action.contains(forbidden)), "{forbidden}");
        }
    }

    #[test]
    fn administrators_re_encrypt_onto_the_same_key_only() {
        let policy = render(&args(), &deployment()).unwrap();
        let statement = statement(&policy, "AdministratorsBindTheIdentityToABundle");
        assert_eq!(statement["Condition"], json!({ "Bool": { "kms:ReEncryptOnSameKey": "true" } }));
        assert_eq!(statement["Action"], json!(["kms:ReEncryptFrom", "kms:ReEncryptTo"]));
    }

    #[test]
    fn no_statement_is_for_the_account_root_or_for_everybody() {
        let policy = render(&args(), &deployment()).unwrap();
        for statement in policy["Statement"].as_array().unwrap() {
            let principal = statement["Principal"].to_string();
            assert!(!principal.contains(":root") && !principal.contains('*'), "{principal}");
        }
    }

    #[test]
    fn an_all_zero_pcr_is_refused() {
        let error = refusal(&args::Policy { pcr0: vec![pcr(1), Pcr::ZERO], ..args() });
        assert!(error.contains("--pcr0 is all zero") && error.contains("debug mode"), "{error}");
        assert!(refusal(&args::Policy { pcr16: vec![Pcr::ZERO], ..args() }).contains("--pcr16 is all zero"));
    }

    #[test]
    fn a_deployment_without_bundle_is_refused() {
        let deployment = Deployment { epoch: 0, bundle_sha256: None, ..deployment() };
        assert!(render(&args(), &deployment).unwrap_err().to_string().contains("key-gen"));
    }

    #[test]
    fn principals_that_are_too_wide_are_refused() {
        for role in
            ["*", "111122223333", "arn:aws:iam::111122223333:root", "arn:aws:iam::111122223333:user/x"]
        {
            assert!(refusal(&args::Policy { role: role.to_owned(), ..args() }).contains("--role"), "{role}");
        }
        for admin in [
            "*",
            "arn:aws:iam::111122223333:root",
            "arn:aws:iam::111122223333:role/*",
            "arn:aws:iam::1:role/x",
        ] {
            let error = refusal(&args::Policy { admin: vec![admin.to_owned()], ..args() });
            assert!(error.contains("--admin"), "{admin}: {error}");
        }
        assert!(
            refusal(&args::Policy { admin: vec![ROLE.to_owned()], ..args() })
                .contains("could replace the policy")
        );
    }
}
