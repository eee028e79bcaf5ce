//! Derivations as files in a store directory, which inputs of two of them belong together, and what of two differs
//! beside their inputs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result, ensure};
use nix_derivation::{Derivation, StorePath, StructuredAttrs};

/// What all store paths begin with.
pub(super) const STORE: &str = "/nix/store/";
/// Length of the hash in a store path's name, characters.
const HASH: usize = 32;
/// The largest derivations of nixpkgs have some hundred kB.
const MAX_BYTES: u64 = 64 << 20;

/// A directory with derivations: `/nix/store` or a copy of a part of it.
pub(super) struct Store {
    directory: PathBuf,
    read: HashMap<StorePath, Rc<Derivation>>,
}

impl Store {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), read: HashMap::new() }
    }

    /// Reads a derivation, once.
    pub(super) fn read(&mut self, path: &StorePath) -> Result<Rc<Derivation>> {
        if let Some(derivation) = self.read.get(path) {
            return Ok(Rc::clone(derivation));
        }
        let file = self.directory.join(path.to_basename());
        let bytes = crate::files::read(&file, MAX_BYTES).with_context(|| {
            format!(
                "cannot read the derivation {}; if it is in another directory, name that with --store",
                file.display()
            )
        })?;
        let name = path.name().trim_end_matches(".drv");
        let derivation = Derivation::from_aterm_bytes(&bytes, name)
            .with_context(|| format!("{} is not a derivation that can be read", file.display()))?;
        let derivation = Rc::new(derivation);
        self.read.insert(path.clone(), Rc::clone(&derivation));
        Ok(derivation)
    }
}

/// The store path that a file is named after. Symbolic links are followed.
pub(super) fn store_path(file: &Path) -> Result<(PathBuf, StorePath)> {
    let file = fs::canonicalize(file).with_context(|| format!("cannot find {}", file.display()))?;
    let name = file.file_name().unwrap_or_default();
    let path = StorePath::from_basename(name.as_encoded_bytes());
    let path = path.ok().filter(StorePath::is_derivation);
    ensure!(
        path.is_some(),
        "{} is not named like a derivation of a store (HASH-NAME.drv); `nix path-info --derivation .#eif` prints one",
        file.display()
    );
    let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((directory, path.context("a derivation's name")?))
}

/// The inputs of two derivations: those that differ side by side, and those that only one has. Equal ones are in none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pairs {
    pub(super) differ: Vec<(StorePath, StorePath)>,
    pub(super) removed: Vec<StorePath>,
    pub(super) added: Vec<StorePath>,
}

impl Pairs {
    /// Pairs by whole name first, then by the name without its version; in the order of names.
    pub(super) fn of<'a>(
        base: impl Iterator<Item = &'a StorePath>,
        head: impl Iterator<Item = &'a StorePath>,
    ) -> Self {
        let (base, head): (BTreeSet<_>, BTreeSet<_>) = (base.collect(), head.collect());
        let mut pairs = Self {
            removed: base.difference(&head).copied().cloned().collect(),
            added: head.difference(&base).copied().cloned().collect(),
            differ: Vec::new(),
        };
        pairs.pair_by(StorePath::name);
        pairs.pair_by(|path| stem(path.name()));
        let by_name = |path: &StorePath| (path.name().to_owned(), path.clone());
        pairs.differ.sort_by_cached_key(|(base, _)| by_name(base));
        pairs.removed.sort_by_cached_key(by_name);
        pairs.added.sort_by_cached_key(by_name);
        pairs
    }

    fn pair_by(&mut self, key: impl Fn(&StorePath) -> &str) {
        let mut left = Vec::new();
        for base in std::mem::take(&mut self.removed) {
            match self.added.iter().position(|head| key(head) == key(&base)) {
                Some(index) => self.differ.push((base, self.added.remove(index))),
                None => left.push(base),
            }
        }
        self.removed = left;
    }
}

/// A name up to its version: `linux` of `linux-6.12.94`, `linux_6.12.94.tar.xz` and `linux-6.12.94.drv`.
fn stem(name: &str) -> &str {
    let bytes = name.as_bytes();
    let is_version = |index: usize| {
        matches!(bytes[index], b'-' | b'_') && bytes.get(index + 1).is_some_and(u8::is_ascii_digit)
    };
    let end = (0..bytes.len()).find(|&index| is_version(index));
    end.map_or(name, |end| &name[..end])
}

/// An environment variable or structured attribute, as text.
pub(super) fn attribute(derivation: &Derivation, name: &str) -> Option<String> {
    attributes(derivation).remove(name).map(|value| String::from_utf8_lossy(&value).into_owned())
}

/// Environment and structured attributes.
pub(super) fn attributes(derivation: &Derivation) -> BTreeMap<String, Vec<u8>> {
    let mut attributes = derivation.environment().clone();
    for (name, value) in derivation.structured_attrs().into_iter().flat_map(StructuredAttrs::iter) {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        attributes.insert(name.to_owned(), text.into_bytes());
    }
    attributes
}

/// Store paths that have another hash in each derivation although they mean the same, and what stands for them.
#[derive(Default)]
pub(super) struct Names(HashMap<Vec<u8>, (Vec<u8>, String)>);

impl Names {
    /// From now on `path` is written as `name`.
    pub(super) fn insert(&mut self, path: &StorePath, name: String) {
        let path = path.to_absolute_path().into_bytes();
        let hash = path[STORE.len()..][..HASH].to_vec();
        // A derivation's own output and another of the same hash cannot be: the hash covers the name.
        self.0.insert(hash, (path, name));
    }

    /// The text with the names in the place of paths.
    pub(super) fn apply(&self, text: &[u8]) -> Vec<u8> {
        let prefix = STORE.as_bytes();
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(&byte) = rest.first() {
            let known = rest.strip_prefix(prefix).and_then(|tail| tail.get(..HASH));
            match known.and_then(|hash| self.0.get(hash)) {
                Some((path, name)) if rest.starts_with(path) => {
                    out.extend_from_slice(name.as_bytes());
                    rest = &rest[path.len()..];
                }
                _ => {
                    out.push(byte);
                    rest = &rest[1..];
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(hash: char, name: &str) -> StorePath {
        StorePath::from_basename(format!("{}-{name}", hash.to_string().repeat(HASH)).as_bytes()).unwrap()
    }

    #[test]
    fn a_stem_ends_before_the_version() {
        for (name, expected) in [
            ("linux-6.12.94.drv", "linux"),
            ("linux_6.12.94.tar.xz", "linux"),
            ("gcc-wrapper-14.3.0", "gcc-wrapper"),
            ("source", "source"),
            ("fix-", "fix-"),
        ] {
            assert_eq!(stem(name), expected);
        }
    }

    #[test]
    fn inputs_pair_by_name_then_by_name_without_version_and_the_rest_is_added_or_removed() {
        let base = [path('0', "same"), path('1', "tool"), path('2', "linux-6.12.94"), path('3', "gone")];
        let head = [path('0', "same"), path('4', "linux-6.12.95"), path('5', "tool"), path('6', "new")];
        let pairs = Pairs::of(base.iter(), head.iter());
        let expected = Pairs {
            differ: vec![(base[2].clone(), head[1].clone()), (base[1].clone(), head[2].clone())],
            removed: vec![base[3].clone()],
            added: vec![head[3].clone()],
        };
        assert_eq!(pairs, expected);
    }

    #[test]
    fn only_whole_known_paths_are_renamed() {
        let mut names = Names::default();
        names.insert(&path('1', "tool"), "TOOL".to_owned());
        let (known, other) = ("1".repeat(HASH), "2".repeat(HASH));
        let text = format!("a /nix/store/{known}-tool/bin:/nix/store/{known}-too /nix/store/{other}-tool");
        let expected = format!("a TOOL/bin:/nix/store/{known}-too /nix/store/{other}-tool");
        assert_eq!(names.apply(text.as_bytes()), expected.into_bytes());
    }
}
