//! Walks two graphs of derivations from the top to the first packages that differ by themselves.
//!
//! Whatever depends on a changed package has changed too, so most differences say nothing. A package is named as a cause
//! if it differs after the paths of its inputs have been replaced by what they are inputs for. The walk goes breadth
//! first, in the order of names, and does not look beneath a package that has another version, nor at packages whose
//! outputs are the same. Derivations whose inputs are content-addressed are compared like others: their placeholders
//! count as differences.

use std::{
    collections::{HashSet, VecDeque},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix_derivation::{Derivation, StorePath};

use super::{
    graph::{Names, Pairs, STORE, Store, attribute, attributes, store_path},
    image::Image,
};

/// Values of attributes are shown up to this length, characters.
const SHORT: usize = 60;

/// A package that differs by itself.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Cause {
    /// Without its version.
    pub(super) name: String,
    /// If both have one and it is another.
    pub(super) versions: Option<(String, String)>,
    /// How it differs.
    pub(super) what: Vec<String>,
    /// From the top to the package that has it as input; empty for the top.
    pub(super) via: Vec<String>,
}

/// The packages that made `head` differ from `base`, two files in a store directory; in a fixed order, none twice.
pub(super) fn compare(base: &Path, head: &Path, store: Option<&Path>) -> Result<Vec<Cause>> {
    let (base_directory, base) = store_path(base)?;
    let (head_directory, head) = store_path(head)?;
    let mut walk = Walk {
        base: Store::new(store.unwrap_or(&base_directory)),
        head: Store::new(store.unwrap_or(&head_directory)),
        seen: HashSet::new(),
        queue: VecDeque::new(),
        causes: Vec::new(),
    };
    walk.push(base.clone(), head.clone(), &[]);
    while let Some((base, head, via)) = walk.queue.pop_front() {
        walk.visit(&base, &head, &via).with_context(|| format!("comparing {base} with {head}"))?;
    }
    // Nix makes no derivations of which this is true: somebody changed them, or they depend on themselves.
    ensure!(
        !walk.causes.is_empty() || has_same_outputs(&*walk.base.read(&base)?, &*walk.head.read(&head)?)?,
        "{base} and {head} differ, but none of their inputs does by itself; have Nix write them again (`nix eval \
         .#eif.drvPath`)"
    );
    Ok(walk.causes)
}

/// Whether an image says that it was made by `derivation`: of outputs of its inputs, and of files that it names. An image
/// that says nothing of the kind cannot be matched; one that was made of something else is an error.
pub(super) fn must_have_made(image: &Image, derivation: &Path, store: Option<&Path>) -> Result<bool> {
    let inputs = image.provenance.iter().flat_map(|provenance| &provenance.inputs);
    let sources: Vec<_> = inputs.filter_map(|input| input.source.as_deref()).collect();
    let (directory, path) = store_path(derivation)?;
    let mut store = Store::new(store.unwrap_or(&directory));
    let top = store.read(&path)?;
    let mut known: HashSet<_> = top.input_sources().iter().cloned().collect();
    for input in top.input_derivations().keys() {
        for output in store.read(input)?.resolved_outputs()?.into_values() {
            // Content-addressed: known once it is built.
            let Some(path) = output.path else { return Ok(false) };
            known.insert(path);
        }
    }
    for source in &sources {
        let name = source.strip_prefix(STORE).and_then(|rest| rest.split('/').next());
        let Some(name) = name else { return Ok(false) };
        ensure!(
            StorePath::from_basename(name.as_bytes()).is_ok_and(|path| known.contains(&path)),
            "{} does not make what {} was made of ({source}): are the two derivations swapped, or those of other images?",
            derivation.display(),
            image.path.display()
        );
    }
    Ok(!sources.is_empty())
}

struct Walk {
    base: Store,
    head: Store,
    seen: HashSet<(StorePath, StorePath)>,
    queue: VecDeque<(StorePath, StorePath, Vec<String>)>,
    causes: Vec<Cause>,
}

impl Walk {
    fn push(&mut self, base: StorePath, head: StorePath, via: &[String]) {
        if base != head && self.seen.insert((base.clone(), head.clone())) {
            self.queue.push_back((base, head, via.to_vec()));
        }
    }

    fn visit(&mut self, base_path: &StorePath, head_path: &StorePath, via: &[String]) -> Result<()> {
        let (base, head) = (self.base.read(base_path)?, self.head.read(head_path)?);
        if has_same_outputs(&base, &head)? {
            return Ok(());
        }
        let inputs = Pairs::of(base.input_derivations().keys(), head.input_derivations().keys());
        let (sources, inputs) = self.split(inputs)?;
        let mut what = self.own_differences(&base, &head, &inputs, &sources)?;
        let (name, base_version) = identity(&base);
        let (head_name, head_version) = identity(&head);
        let is_other_package = (&name, &base_version) != (&head_name, &head_version);
        if !is_other_package && base.name() != head.name() {
            what.push(format!("name {} → {}", base.name(), head.name()));
        }

        let mut via = via.to_vec();
        if what.is_empty() && !is_other_package {
            // Its inputs explain it: the fixed outputs among them are causes like others.
            via.push(name);
            for (base, head) in inputs.differ.into_iter().chain(sources) {
                self.push(base, head, &via);
            }
            return Ok(());
        }
        if name != head_name {
            what.insert(0, format!("it was {name}, it is {head_name}"));
        }
        what.extend(self.changed_sources(&sources)?);
        let versions = base_version.zip(head_version).filter(|(base, head)| base != head);
        let cause = Cause { name: head_name, versions, what, via: via.clone() };
        let is_known = |known: &Cause| {
            (&known.name, &known.versions, &known.what) == (&cause.name, &cause.versions, &cause.what)
        };
        let is_top = via.is_empty();
        via.push(name);
        if !self.causes.iter().any(is_known) {
            self.causes.push(cause);
        }
        if is_top || !is_other_package {
            for (base, head) in inputs.differ {
                self.push(base, head, &via);
            }
        }
        Ok(())
    }

    /// Parts what was fetched (fixed outputs) from what was built, and drops fixed outputs that are the same.
    fn split(&mut self, inputs: Pairs) -> Result<(Vec<(StorePath, StorePath)>, Pairs)> {
        let (mut sources, mut built) = (Vec::new(), Vec::new());
        for (base_path, head_path) in inputs.differ {
            let (base, head) = (self.base.read(&base_path)?, self.head.read(&head_path)?);
            if has_same_outputs(&base, &head)? {
                continue;
            }
            let is_fetched = base.is_fixed_output()? && head.is_fixed_output()?;
            if is_fetched { &mut sources } else { &mut built }.push((base_path, head_path));
        }
        Ok((sources, Pairs { differ: built, ..inputs }))
    }

    fn changed_sources(&mut self, sources: &[(StorePath, StorePath)]) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for (base, head) in sources {
            let (base, head) = (self.base.read(base)?, self.head.read(head)?);
            lines.push(other(&format!("source {}", base.name()), base.name(), head.name()));
        }
        Ok(lines)
    }

    /// What differs, apart from the paths of inputs and outputs.
    fn own_differences(
        &mut self,
        base: &Derivation,
        head: &Derivation,
        inputs: &Pairs,
        sources: &[(StorePath, StorePath)],
    ) -> Result<Vec<String>> {
        let files = Pairs::of(base.input_sources().iter(), head.input_sources().iter());
        let (mut base_names, mut head_names) = (Names::default(), Names::default());
        name_outputs(&mut base_names, base, "itself")?;
        name_outputs(&mut head_names, head, "itself")?;
        for (index, (base, head)) in inputs.differ.iter().chain(sources).enumerate() {
            let input = format!("input {index}");
            name_outputs(&mut base_names, &*self.base.read(base)?, &input)?;
            name_outputs(&mut head_names, &*self.head.read(head)?, &input)?;
            base_names.insert(base, input.clone());
            head_names.insert(head, input);
        }
        for (index, (base, head)) in files.differ.iter().enumerate() {
            base_names.insert(base, format!("file {index}"));
            head_names.insert(head, format!("file {index}"));
        }

        let mut what = Vec::new();
        let list = |paths: &[StorePath], verb: &str, kind: &str| -> Vec<String> {
            paths
                .iter()
                .map(|path| format!("{kind} {} {verb}", path.name().trim_end_matches(".drv")))
                .collect()
        };
        what.extend(
            files
                .differ
                .iter()
                .map(|(base, head)| other(&format!("file {}", base.name()), base.name(), head.name())),
        );
        what.extend(list(&files.removed, "removed", "file"));
        what.extend(list(&files.added, "added", "file"));
        what.extend(fixed_hash(base, head)?);
        if base.outputs().keys().ne(head.outputs().keys()) {
            what.push("other outputs".to_owned());
        }
        for (field, base, head) in
            [("system", base.system(), head.system()), ("builder", base.builder(), head.builder())]
        {
            if base_names.apply(base.as_bytes()) != head_names.apply(head.as_bytes()) {
                what.push(format!("{field} {base} → {head}"));
            }
        }
        let arguments = |derivation: &Derivation, names: &Names| -> Vec<Vec<u8>> {
            derivation.arguments().iter().map(|argument| names.apply(argument.as_bytes())).collect()
        };
        if arguments(base, &base_names) != arguments(head, &head_names) {
            what.push("the builder's arguments".to_owned());
        }
        what.extend(attribute_differences(base, head, &base_names, &head_names));
        what.extend(other_outputs(base, head));
        what.extend(list(&inputs.removed, "removed", "input"));
        what.extend(list(&inputs.added, "added", "input"));
        Ok(what)
    }
}

/// Something has another name, or another content under the same name.
fn other(what: &str, base: &str, head: &str) -> String {
    if base == head { format!("{what} has other contents") } else { format!("{what} → {head}") }
}

fn name_outputs(names: &mut Names, derivation: &Derivation, what: &str) -> Result<()> {
    for (output, resolved) in derivation.resolved_outputs()? {
        if let Some(path) = resolved.path {
            names.insert(&path, format!("{output} of {what}"));
        }
    }
    Ok(())
}

/// Inputs of both, of which each uses other outputs.
fn other_outputs(base: &Derivation, head: &Derivation) -> Vec<String> {
    let inputs = base.input_derivations().iter();
    let inputs =
        inputs.filter(|(path, used)| head.input_derivations().get(*path).is_some_and(|other| other != *used));
    inputs
        .map(|(path, _)| format!("other outputs of input {}", path.name().trim_end_matches(".drv")))
        .collect()
}

/// Then nothing that depends on them notices: a file fetched from elsewhere, for example.
fn has_same_outputs(base: &Derivation, head: &Derivation) -> Result<bool> {
    let (base, head) = (base.resolved_outputs()?, head.resolved_outputs()?);
    Ok(base == head && base.values().all(|output| output.path.is_some()))
}

fn fixed_hash(base: &Derivation, head: &Derivation) -> Result<Option<String>> {
    if !(base.is_fixed_output()? && head.is_fixed_output()?) {
        return Ok(None);
    }
    let hash = |derivation: &Derivation| -> Vec<String> {
        let outputs = derivation.outputs().values();
        outputs
            .filter_map(|output| output.fixed_content_address())
            .map(|ca| ca.hash().to_sri_string())
            .collect()
    };
    let (base, head) = (hash(base).concat(), hash(head).concat());
    Ok((base != head).then(|| format!("hash {base} → {head}")))
}

/// Name without version, and version.
fn identity(derivation: &Derivation) -> (String, Option<String>) {
    let version = attribute(derivation, "version").filter(|version| !version.is_empty());
    let name = derivation.name();
    let without_version =
        version.as_deref().and_then(|version| name.strip_suffix(version)?.strip_suffix('-'));
    let name = attribute(derivation, "pname").or_else(|| without_version.map(str::to_owned));
    (name.unwrap_or_else(|| derivation.name().to_owned()), version)
}

fn attribute_differences(
    base: &Derivation,
    head: &Derivation,
    base_names: &Names,
    head_names: &Names,
) -> Vec<String> {
    // Fields of the derivation say these already; and structured attributes are compared one by one.
    let is_said = |name: &str| {
        ["name", "pname", "version", "system", "builder", "outputHash", "__json"].contains(&name)
    };
    let (base, head) = (attributes(base), attributes(head));
    let names: std::collections::BTreeSet<&String> = base.keys().chain(head.keys()).collect();
    let mut what = Vec::new();
    for name in names.into_iter().filter(|name| !is_said(name)) {
        let before = base.get(name).map(|value| base_names.apply(value));
        let after = head.get(name).map(|value| head_names.apply(value));
        if before == after {
            continue;
        }
        what.push(match (short(base.get(name)), short(head.get(name))) {
            (Some(before), Some(after)) => format!("{name}: {before} → {after}"),
            _ => format!("{name} differs"),
        });
    }
    what
}

/// One short line, or nothing.
fn short(value: Option<&Vec<u8>>) -> Option<String> {
    let Some(value) = value else { return Some("(none)".to_owned()) };
    let text = std::str::from_utf8(value).ok()?;
    let is_short = text.chars().count() <= SHORT && !text.chars().any(char::is_control);
    is_short.then(|| if text.is_empty() { "(empty)".to_owned() } else { text.to_owned() })
}
