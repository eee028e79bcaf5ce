//! `init`: the age identity, made in memory and handed to KMS.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::{
    KmsOptions, Usage,
    args::Init,
    aws::Aws,
    deployment::{BUNDLE, DEPLOYMENT, Deployment, IDENTITY, check_party, check_region, recover},
    files, policy, print_json, say,
    update::Update,
};

const MAX_POLICY_BYTES: u64 = 32 << 10;

#[derive(Serialize)]
struct Started<'a> {
    #[serde(flatten)]
    deployment: &'a Deployment,
    dir: &'a Path,
}

pub(crate) async fn run(args: &Init, options: &KmsOptions) -> Result<()> {
    let region = options.region.as_deref().ok_or_else(|| Usage("init needs --region".to_owned()))?;
    check_region("--region", region).map_err(|error| Usage(error.to_string()))?;
    check_party("--party", &args.party).map_err(|error| Usage(error.to_string()))?;
    let aws = Aws::new(options, region)?;
    let policy = match &args.policy {
        Some(path) => Some(files::read_text(path, MAX_POLICY_BYTES)?),
        None if args.create_kms_key => Some(policy::of_new_key(&args.admin)?.to_string()),
        None => None,
    };

    // Everything that can be refused is, before a key is made that costs money.
    files::make_directory(&args.dir)?;
    let _lock = files::Lock::take(&args.dir)?;
    recover(&args.dir)?;
    for name in [DEPLOYMENT, IDENTITY, BUNDLE] {
        must_be_free(&args.dir.join(name))?;
    }
    let mut update = Update::new(&args.dir)?;
    // deployment.toml last: without it the other file is no deployment.
    for name in [IDENTITY, DEPLOYMENT] {
        update.claim(&args.dir.join(name))?;
    }

    let created = match &policy {
        Some(policy) => Some(aws.create_key(&args.party, policy).await?),
        None => None,
    };
    let Some(key) = created.as_ref().or(args.kms_key.as_ref()) else {
        return Err(Usage("init needs --kms-key or --create-kms-key".to_owned()).into());
    };
    let deployment = start(args, &aws, region, key, update).await.with_context(|| match &created {
        Some(arn) => format!("the KMS key {arn} was made; run init again with --kms-key {arn}"),
        None => "no deployment was started".to_owned(),
    })?;

    say(format_args!("The age identity is encrypted by {} and exists nowhere else.", deployment.kms_key_id));
    if created.is_none() {
        say(format_args!(
            "Whoever may decrypt with {} now can have that identity; nitro-sign policy --apply ends that, but for grants.",
            deployment.kms_key_id
        ));
    }
    say("Next: nitro-sign key-gen.");
    print_json(&Started { deployment: &deployment, dir: &args.dir })
}

/// Refuses a path at which there is anything, be it a link to nothing.
fn must_be_free(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot look for {}", path.display())),
        Ok(_) => {
            bail!("{} exists already; a deployment is not overwritten: choose another --dir", path.display())
        }
    }
}

async fn start(args: &Init, aws: &Aws, region: &str, key: &str, mut update: Update) -> Result<Deployment> {
    let identity = keyshares::Identity::generate();
    let mut deployment = Deployment {
        region: region.to_owned(),
        kms_key_id: key.to_owned(),
        party: args.party.clone(),
        recipient: identity.recipient(),
        epoch: 0,
        identity_sha256: String::new(),
        bundle_sha256: None,
    };
    let encrypted = aws.encrypt(key, &identity.to_text(), deployment.encryption_context()).await?;
    drop(identity); // wiped here

    // The ARN, not what was asked for: an alias may point elsewhere tomorrow.
    deployment.kms_key_id = encrypted.key_arn;
    deployment.identity_sha256 = files::sha256_hex(&encrypted.ciphertext);
    let text = deployment.to_text()?;
    update.stage(&args.dir.join(IDENTITY), &encrypted.ciphertext, files::PRIVATE)?;
    update.stage(&args.dir.join(DEPLOYMENT), text.as_bytes(), files::PUBLIC)?;
    update.commit()?;
    Ok(deployment)
}
