//! `key-gen`: deals the shares of all accounts and seals one bundle to each party.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use keyshares::{Account, Bundle, Secret32};
use rand::rngs::OsRng;
use serde::Serialize;

use crate::{
    KmsOptions, Usage,
    accounts::{self, CosignerSpec, Plan},
    args::KeyGen,
    aws::Aws,
    deployment::{ACCOUNTS, BUNDLE, DEPLOYMENT, Directory, IDENTITY},
    files::{self, PRIVATE, PUBLIC},
    import, print_json, say,
    update::Update,
};

const MAX_CA_BYTES: u64 = 1 << 20;

/// An account's line in accounts.json. Nothing in it is secret.
#[derive(Serialize)]
struct PublicAccount {
    id: String,
    scheme: &'static str,
    threshold: u16,
    parties: Vec<String>,
    public_key: String,
}

#[derive(Serialize)]
struct Report<'a> {
    epoch: u64,
    bundle_sha256: &'a str,
    accounts: &'a [PublicAccount],
}

pub(crate) async fn run(args: &KeyGen, options: &KmsOptions) -> Result<()> {
    let cosigners = accounts::cosigners(&args.cosigner)?;
    args.import.as_deref().map_or(Ok(()), must_be_source)?;
    let directory = Directory::open(&args.dir)?;
    let deployment = &directory.deployment;
    let region = options.region.as_deref().unwrap_or(&deployment.region);
    ensure!(
        region == deployment.region,
        "--region {region} is not the deployment's, {}; leave it out",
        deployment.region
    );
    let aws = Aws::new(options, region)?;
    let identity = directory.read_identity()?;
    accounts::check_cosigners(&deployment.party, &deployment.recipient, &cosigners)?;
    check_threshold(args.threshold, 1 + cosigners.len())?;
    let mut update = claim(&directory, &cosigners)?;
    let import = args.import.as_deref().map(import::read).transpose()?;
    let plan = accounts::plan(&args.account, &args.scheme, args.accounts.as_deref(), import)?;

    let mut next = deployment.clone();
    next.epoch = deployment.epoch.checked_add(1).context("the epoch cannot grow any more")?;
    let mut deal = Deal::start(args, &deployment.party, &cosigners, next.epoch)?;
    for (id, account) in plan {
        deal.add(id, &account, args.threshold)?;
    }
    let sealed = deal.seal(&deployment.recipient, &cosigners)?;
    let public = deal.public;

    // KMS comes first: it may refuse, and nothing of ours has changed by then. The old ciphertext stays valid.
    let bundle_sha256 = files::sha256_hex(&sealed.enclave);
    next.bundle_sha256 = Some(bundle_sha256.clone());
    let rebound = aws
        .rebind(&next.kms_key_id, identity, deployment.encryption_context(), next.encryption_context())
        .await
        .context("the deployment is unchanged")?;
    next.identity_sha256 = files::sha256_hex(&rebound);

    for (cosigner, content) in cosigners.iter().zip(&sealed.cosigners) {
        update.stage(&cosigner.outfile, content, PRIVATE)?;
    }
    update.stage(&directory.file(BUNDLE), &sealed.enclave, PRIVATE)?;
    update.stage(&directory.file(IDENTITY), &rebound, PRIVATE)?;
    update.stage(&directory.file(ACCOUNTS), &serde_json::to_vec_pretty(&public)?, PUBLIC)?;
    update.stage(&directory.file(DEPLOYMENT), next.to_text()?.as_bytes(), PUBLIC)?;
    update.commit()?;

    say(format_args!("Dealt {} accounts; the bundle has epoch {}.", public.len(), next.epoch));
    say(
        "Next: nitro-sign policy, so that KMS releases the identity for this bundle, then restart the enclave.",
    );
    print_json(&Report { epoch: next.epoch, bundle_sha256: &bundle_sha256, accounts: &public })
}

/// Claims the place of every file that changes: all files or none (see `update`). deployment.toml is the last to be
/// renamed: as long as it is the old one, its digests do not match the files that are new already, so that even a reader
/// who knows nothing of the journal sees that a change is not finished.
fn claim(directory: &Directory, cosigners: &[CosignerSpec]) -> Result<Update> {
    let mut update = Update::new(&directory.path)?;
    let own = [BUNDLE, IDENTITY, ACCOUNTS, DEPLOYMENT].map(|name| directory.file(name));
    for target in cosigners.iter().map(|cosigner| &cosigner.outfile).chain(&own) {
        update.claim(target)?;
    }
    Ok(update)
}

/// Refuses an import that is no file without repeating what was given: it may be the secret itself.
fn must_be_source(import: &Path) -> Result<()> {
    let is_there = import == Path::new("-") || import.exists();
    let message = "--import: there is no such file, and it is not repeated here lest it is a secret; expected the path of a \
                   file, or - for standard input";
    if is_there { Ok(()) } else { Err(Usage(message.to_owned()).into()) }
}

fn check_threshold(threshold: u16, parties: usize) -> Result<()> {
    if threshold < 2 || usize::from(threshold) > parties {
        let message = format!(
            "--threshold {threshold}: expected 2 to {parties}, the number of parties (with 1, each party could sign \
             alone)"
        );
        return Err(Usage(message).into());
    }
    Ok(())
}

/// All parties' bundles while they are filled.
struct Deal {
    /// In the order of FROST identifiers: the enclave first, then the co-signers as given.
    parties: Vec<String>,
    bundles: Vec<Bundle>,
    public: Vec<PublicAccount>,
}

/// Sealed bundles; nothing in them is secret in the clear.
struct Sealed {
    enclave: Vec<u8>,
    cosigners: Vec<Vec<u8>>,
}

impl Deal {
    /// Bundles without accounts, with fresh party keys.
    fn start(args: &KeyGen, enclave: &str, cosigners: &[CosignerSpec], epoch: u64) -> Result<Self> {
        let (client_ca, relay_ca) = (read_ca(&args.client_ca)?, read_ca(&args.relay_ca)?);
        let parties: Vec<String> = std::iter::once(enclave.to_owned())
            .chain(cosigners.iter().map(|cosigner| cosigner.name.clone()))
            .collect();
        let keys: Vec<_> = parties.iter().map(|_| threshold::generate_party_key()).collect();
        let public_keys: BTreeMap<_, _> =
            parties.iter().cloned().zip(keys.iter().map(|key| threshold::party_public_key(key))).collect();
        let bundles = parties
            .iter()
            .zip(&keys)
            .map(|(party, key)| Bundle {
                epoch,
                party: party.clone(),
                party_secret_key: Secret32::new(key),
                parties: public_keys.clone(),
                client_ca: client_ca.clone(),
                relay_ca: relay_ca.clone(),
                accounts: BTreeMap::new(),
            })
            .collect();
        Ok(Self { parties, bundles, public: Vec::new() })
    }

    /// Deals one account to every bundle.
    fn add(&mut self, id: String, plan: &Plan, threshold: u16) -> Result<()> {
        let scheme: threshold::SchemeId =
            plan.scheme.name().parse().with_context(|| format!("account `{id}`"))?;
        let secret = plan.secret.as_deref();
        let dealt = threshold::deal(scheme, threshold, self.parties.len(), secret, &mut OsRng)
            .with_context(|| format!("account `{id}` cannot be dealt"))?;
        ensure!(dealt.shares.len() == self.bundles.len(), "account `{id}`: not one share a party was dealt");
        for (bundle, share) in self.bundles.iter_mut().zip(&dealt.shares) {
            let account = Account {
                scheme: plan.scheme,
                threshold,
                parties: self.parties.clone(),
                public_key: dealt.public_key.clone(),
                verifying_shares: dealt.verifying_shares.clone(),
                share: Secret32::from_slice(share)
                    .with_context(|| format!("account `{id}`: share of odd length"))?,
            };
            bundle.accounts.insert(id.clone(), account);
        }
        self.public.push(PublicAccount {
            scheme: plan.scheme.name(),
            threshold,
            parties: self.parties.clone(),
            public_key: hex::encode(&dealt.public_key),
            id,
        });
        Ok(())
    }

    /// Validates each bundle as its reader will, and seals it to its party.
    fn seal(&self, enclave: &str, cosigners: &[CosignerSpec]) -> Result<Sealed> {
        let recipients =
            std::iter::once(enclave).chain(cosigners.iter().map(|cosigner| cosigner.recipient.as_str()));
        let mut sealed = self.bundles.iter().zip(recipients).map(|(bundle, recipient)| {
            bundle.validate()?;
            keyshares::seal(&bundle.to_json(), recipient)
                .with_context(|| format!("the bundle of {}", bundle.party))
        });
        let enclave = sealed.next().context("no bundle")??;
        Ok(Sealed { enclave, cosigners: sealed.collect::<Result<_>>()? })
    }
}

fn read_ca(path: &Path) -> Result<String> {
    let pem = files::read_text(path, MAX_CA_BYTES)?;
    let certificates = kms::roots_from_pem(&pem);
    certificates.with_context(|| format!("{}: expected PEM certificates of a CA", path.display()))?;
    Ok(pem)
}
