//! Which accounts and which co-signers `key-gen` deals to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail, ensure};
use keyshares::Scheme;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    Usage, files,
    import::{Import, Imported},
};

/// What an account id may be, in words.
pub(crate) const ACCOUNT_ID_RULE: &str = "expected 1 to 128 of A-Z a-z 0-9 . _ : -";
/// How an age file begins: <https://age-encryption.org/v1>, "Header".
const SEALED: &[u8] = b"age-encryption.org/v1\n";
const MAX_LIST_BYTES: u64 = 64 << 20;

/// Whether a bundle can carry this account id.
pub(crate) fn is_account_id(id: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    (1..=128).contains(&id.len()) && id.bytes().all(allowed)
}

/// `NAME=RECIPIENT=OUTFILE`: a party beside the enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CosignerSpec {
    /// The party's name.
    pub(crate) name: String,
    /// The age recipient its bundle is sealed to.
    pub(crate) recipient: String,
    /// Where its sealed bundle is written.
    pub(crate) outfile: PathBuf,
}

impl FromStr for CosignerSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Nothing is quoted: it may be a secret, in whatever place.
        if text.split('=').any(|part| part.to_ascii_uppercase().starts_with(crate::SECRET_KEY)) {
            let problem = "there is a secret key in it, now also in the shell's history: replace that key; expected \
                           NAME=RECIPIENT=OUTFILE with a recipient (age1…)";
            return Err(problem.to_owned());
        }
        let mut parts = text.splitn(3, '=');
        let mut part = |name| match parts.next() {
            Some(part) if !part.is_empty() => Ok(part.to_owned()),
            _ => Err(format!("{name} is missing; expected NAME=RECIPIENT=OUTFILE")),
        };
        let (name, recipient, outfile) = (part("NAME")?, part("RECIPIENT")?, part("OUTFILE")?);
        if !crate::deployment::is_party(&name) {
            return Err(format!("NAME: {}", crate::deployment::PARTY_RULE));
        }
        if !recipient.starts_with("age1") {
            return Err("RECIPIENT: expected an age recipient (age1…)".to_owned());
        }
        Ok(Self { name, recipient, outfile: outfile.into() })
    }
}

/// Reads all `--cosigner`. An error says which one is wrong by its place, and quotes nothing.
pub(crate) fn cosigners(texts: &[String]) -> Result<Vec<CosignerSpec>> {
    let parse = |(index, text): (usize, &String)| {
        text.parse().map_err(|problem| Usage(format!("--cosigner number {}: {problem}", index + 1)).into())
    };
    texts.iter().enumerate().map(parse).collect()
}

/// Refuses co-signers that are not parties of their own.
pub(crate) fn check_cosigners(party: &str, recipient: &str, cosigners: &[CosignerSpec]) -> Result<()> {
    let mut names = BTreeSet::from([party]);
    let mut recipients = BTreeSet::from([recipient]);
    let mut outfiles = BTreeSet::new();
    for cosigner in cosigners {
        let name = &cosigner.name;
        ensure!(
            names.insert(name),
            "--cosigner {name}: the party {name:?} is named twice; each needs its own name"
        );
        ensure!(
            recipients.insert(&cosigner.recipient),
            "--cosigner {name}: another party has the same recipient; whoever held that one identity would hold two \
             shares of every account"
        );
        let outfile =
            files::resolve(&cosigner.outfile).with_context(|| format!("--cosigner {name}: OUTFILE"))?;
        ensure!(
            outfiles.insert(outfile),
            "--cosigner {name}: another party writes to {}, too",
            cosigner.outfile.display()
        );
        must_be_replaceable(&cosigner.outfile).with_context(|| format!("--cosigner {name}: OUTFILE"))?;
    }
    Ok(())
}

/// Refuses to write over anything but a sealed bundle: a slip would cost an identity.
fn must_be_replaceable(outfile: &Path) -> Result<()> {
    let metadata = match outfile.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("cannot look at {}", outfile.display()))?,
    };
    let mut start = [0; SEALED.len()];
    // Only a file is opened: reading a pipe could wait for ever.
    let is_sealed = metadata.is_file()
        && File::open(outfile)
            .and_then(|mut file| file.read_exact(&mut start))
            .is_ok_and(|()| start == *SEALED);
    ensure!(
        is_sealed,
        "{} exists and is no sealed bundle; it is not overwritten: choose another path",
        outfile.display()
    );
    Ok(())
}

/// An account to deal.
pub(crate) struct Plan {
    pub(crate) scheme: Scheme,
    /// The secret to deal; none for a new key.
    pub(crate) secret: Option<Zeroizing<[u8; 32]>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    id: String,
    scheme: String,
}

/// Accounts by id, from the lists and the import. Without lists the import says which accounts there are; with them it
/// may only name accounts that are listed.
pub(crate) fn plan(
    ids: &[String],
    schemes: &[Scheme],
    file: Option<&Path>,
    import: Option<Import>,
) -> Result<BTreeMap<String, Plan>> {
    if ids.len() != schemes.len() {
        let message =
            format!("{} --account but {} --scheme; give one --scheme for each", ids.len(), schemes.len());
        return Err(Usage(message).into());
    }
    let mut plan = BTreeMap::new();
    for (id, scheme) in ids.iter().zip(schemes) {
        add(&mut plan, id, *scheme).context("--account")?;
    }
    if let Some(path) = file {
        read_list(path, &mut plan).with_context(|| path.display().to_string())?;
    }
    if let Some(import) = import {
        let closed = !plan.is_empty();
        for (id, imported) in import {
            add_import(&mut plan, id, imported, closed)?;
        }
    }
    ensure!(!plan.is_empty(), "there is no account to deal; name at least one");
    Ok(plan)
}

fn read_list(path: &Path, plan: &mut BTreeMap<String, Plan>) -> Result<()> {
    let content = files::read(path, MAX_LIST_BYTES)?;
    let listed: Vec<Listed> =
        serde_json::from_slice(&content).context(r#"expected a JSON list [{"id": "…", "scheme": "…"}]"#)?;
    for Listed { id, scheme } in &listed {
        let scheme = scheme.parse().with_context(|| format!("account `{id}`, field `scheme`"))?;
        add(plan, id, scheme)?;
    }
    Ok(())
}

fn add(plan: &mut BTreeMap<String, Plan>, id: &str, scheme: Scheme) -> Result<()> {
    ensure!(is_account_id(id), "account {id:?}: malformed id; {ACCOUNT_ID_RULE}");
    if plan.insert(id.to_owned(), Plan { scheme, secret: None }).is_some() {
        bail!("account `{id}` is given twice; remove one");
    }
    Ok(())
}

fn add_import(plan: &mut BTreeMap<String, Plan>, id: String, imported: Imported, closed: bool) -> Result<()> {
    let Imported { scheme, secret } = imported;
    match plan.get_mut(&id) {
        Some(listed) => {
            ensure!(
                listed.scheme == scheme,
                "account `{id}` is listed with scheme {}, but imported with scheme {scheme}",
                listed.scheme
            );
            listed.secret = Some(secret);
        }
        None if closed => {
            bail!("account `{id}` is imported, but not listed; list it, or remove it from the import")
        }
        None => {
            plan.insert(id, Plan { scheme, secret: Some(secret) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported(id: &str, scheme: Scheme) -> Import {
        Import::from([(id.to_owned(), Imported { scheme, secret: Zeroizing::new([7; 32]) })])
    }

    fn refusal(result: Result<BTreeMap<String, Plan>>) -> String {
        result.err().map(|error| format!("{error:#}")).expect("must be refused")
    }

    fn list(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn cosigner(text: &str) -> CosignerSpec {
        text.parse().unwrap()
    }

    #[test]
    fn accounts_come_from_the_command_line_and_the_file_together() {
        let file = list(r#"[{"id": "b", "scheme": "frost-secp256k1-tr"}]"#);
        let plan = plan(&["a".to_owned()], &[Scheme::FrostEd25519], Some(file.path()), None).unwrap();
        assert_eq!(plan.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(plan["b"].scheme, Scheme::FrostSecp256k1Tr);
        assert!(plan["a"].secret.is_none());
    }

    #[test]
    fn an_import_alone_says_which_accounts_there_are() {
        let plan = plan(&[], &[], None, Some(imported("a", Scheme::FrostEd25519))).unwrap();
        assert_eq!(plan["a"].secret.as_deref(), Some(&[7; 32]));
    }

    #[test]
    fn an_import_of_an_account_that_is_not_listed_is_refused() {
        let error = refusal(plan(
            &["a".to_owned()],
            &[Scheme::FrostEd25519],
            None,
            Some(imported("b", Scheme::FrostEd25519)),
        ));
        assert!(error.contains("account `b` is imported, but not listed"), "{error}");
    }

    #[test]
    fn an_import_with_another_scheme_is_refused() {
        let import = imported("a", Scheme::FrostSecp256k1Tr);
        let error = refusal(plan(&["a".to_owned()], &[Scheme::FrostEd25519], None, Some(import)));
        assert!(error.contains("frost-ed25519") && error.contains("frost-secp256k1-tr"), "{error}");
    }

    #[test]
    fn duplicate_and_malformed_accounts_are_refused_with_their_file() {
        for (content, problem) in [
            (
                r#"[{"id": "a", "scheme": "frost-ed25519"}, {"id": "a", "scheme": "frost-ed25519"}]"#,
                "`a` is given twice",
            ),
            (r#"[{"id": "a b", "scheme": "frost-ed25519"}]"#, "malformed id"),
            (r#"[{"id": "a", "scheme": "rsa"}]"#, "field `scheme`"),
            (r#"[{"id": "a", "scheme": "frost-ed25519", "colour": 1}]"#, "colour"),
            (r#"{"a": 1}"#, "expected a JSON list"),
            ("[]", "no account"),
        ] {
            let file = list(content);
            let error = refusal(plan(&[], &[], Some(file.path()), None));
            assert!(error.contains(problem), "{content}: {error}");
        }
    }

    #[test]
    fn accounts_and_schemes_that_do_not_pair_up_are_a_usage_error() {
        let error =
            plan(&["a".to_owned(), "b".to_owned()], &[Scheme::FrostEd25519], None, None).err().unwrap();
        assert!(error.is::<Usage>(), "{error:#}");
    }

    #[test]
    fn a_cosigner_is_read_and_its_file_name_may_hold_an_equals_sign() {
        let cosigner = cosigner("gateway=age1xyz=out/a=b.age");
        assert_eq!((cosigner.name.as_str(), cosigner.recipient.as_str()), ("gateway", "age1xyz"));
        assert_eq!(cosigner.outfile, Path::new("out/a=b.age"));
    }

    #[test]
    fn a_malformed_cosigner_is_refused_and_a_secret_key_in_it_not_quoted() {
        for text in
            ["", "gateway", "gateway=age1xyz", "gateway=age1xyz=", "Gate Way=age1xyz=f", "g=ssh-rsa=f"]
        {
            assert!(text.parse::<CosignerSpec>().is_err(), "{text}");
        }
        for text in ["g=AGE-SECRET-KEY-1QQQ=f", "AGE-SECRET-KEY-1QQQ", "age-secret-key-1QQQ=age1xyz=f"] {
            let error = text.parse::<CosignerSpec>().unwrap_err();
            assert!(error.contains("secret key") && !error.contains("1QQQ"), "{error}");
        }
    }

    #[test]
    fn cosigners_that_share_a_name_a_recipient_or_a_file_are_refused() {
        let refusal = |specs: &[&str]| {
            let cosigners: Vec<_> = specs.iter().map(|text| cosigner(text)).collect();
            check_cosigners("enclave-a", "age1own", &cosigners).map_err(|error| error.to_string())
        };
        assert_eq!(refusal(&["g=age1g=g.age", "h=age1h=h.age"]), Ok(()));
        assert!(refusal(&["enclave-a=age1g=g.age"]).unwrap_err().contains("named twice"));
        assert!(refusal(&["g=age1g=g.age", "g=age1h=h.age"]).unwrap_err().contains("named twice"));
        assert!(refusal(&["g=age1own=g.age"]).unwrap_err().contains("two shares"));
        assert!(refusal(&["g=age1g=g.age", "h=age1g=h.age"]).unwrap_err().contains("two shares"));
        assert!(refusal(&["g=age1g=g.age", "h=age1h=./g.age"]).unwrap_err().contains("writes to"));
    }
}
