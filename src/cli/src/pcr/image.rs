//! What is known about an image: its PCRs, and as far as the files say it, its sections and what they were made of.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use attestation::Measurements;
use eif::SectionKind;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{different, shown};
use crate::files::{self, sha256_hex};

/// The format of provenance.json that is read here.
const FORMAT: u64 = 1;
/// An image of more is read by nobody here; ours has about 9 MB.
const MAX_BYTES: u64 = 1 << 30;

/// An image, as far as it is known.
#[derive(Debug)]
pub(super) struct Image {
    /// What was given on the command line.
    pub(super) path: PathBuf,
    pub(super) pcrs: Measurements,
    /// By the image's own bytes, and not only by what a file says about it.
    pub(super) is_measured: bool,
    /// Unknown if there is only a pcrs.json.
    pub(super) sections: Option<Vec<Section>>,
    /// Unknown if there is only an image.eif.
    pub(super) provenance: Option<Provenance>,
}

/// provenance.json, as `eif build` writes it. Fields that are not here may be added to it.
#[derive(Debug, Deserialize)]
pub(super) struct Provenance {
    image_sha256: String,
    pcrs: Measurements,
    sections: Vec<Section>,
    pub(super) inputs: Vec<Input>,
    /// What made the inputs: name and version.
    pub(super) built_with: BTreeMap<String, String>,
}

/// A section of the image that PCRs cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Section {
    #[serde(rename = "section")]
    pub(super) name: String,
    pub(super) sha384: String,
    pub(super) bytes: u64,
    pub(super) pcrs: Vec<u8>,
}

/// A file, a directory or a text that went into a section.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Input {
    pub(super) section: String,
    /// Where it is in a ramdisk; directories end in a slash.
    pub(super) path: Option<String>,
    #[serde(flatten)]
    pub(super) content: Content,
    /// Where it came from.
    pub(super) source: Option<String>,
}

/// What of an input decides the section's bytes. Directories have no hash and no size, sections that are one file no mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) sha256: Option<String>,
    pub(super) bytes: Option<u64>,
    pub(super) mode: Option<String>,
}

impl Image {
    /// Reads a directory with provenance.json and image.eif, or one file of three kinds.
    pub(super) fn read(path: &Path) -> Result<Self> {
        if path.is_dir() { Self::directory(path) } else { Self::file(path) }
    }

    /// All that a directory has about an image has to agree with the image.
    fn directory(path: &Path) -> Result<Self> {
        let there = |name| -> Result<Option<PathBuf>> {
            let file = path.join(name);
            let is_there =
                file.try_exists().with_context(|| format!("cannot look for {}", file.display()))?;
            Ok(is_there.then_some(file))
        };
        let needed = |name| {
            there(name)?.with_context(|| {
                format!(
                    "{} has no {name}: give the result of `nix build .#eif` or of `cargo xtask image`, or one file",
                    path.display()
                )
            })
        };
        let (provenance, image) = (needed("provenance.json")?, needed("image.eif")?);
        let said = Self::file(&provenance)?;
        let Some(details) = said.provenance else {
            bail!("{} is no provenance.json; build the image again", provenance.display())
        };
        let whole = Self { path: path.to_owned(), is_measured: true, provenance: Some(details), ..said };
        whole.must_describe(&provenance, &image)?;
        if let Some(pcrs) = there("pcrs.json")? {
            whole.must_have_pcrs_of(&provenance, &Self::file(&pcrs)?)?;
        }
        Ok(whole)
    }

    fn must_describe(&self, provenance: &Path, image: &Path) -> Result<()> {
        let bytes = read(image)?;
        let measured = Self::measured(image, &bytes)?;
        self.must_have_pcrs_of(provenance, &measured)?;
        let Some(details) = &self.provenance else { return Ok(()) };
        let remedy = "one of them is of another build: build the image again";
        let actual = sha256_hex(&bytes);
        ensure!(
            details.image_sha256 == actual,
            "{}: field `image_sha256` is {}, but {} has {actual}; {remedy}",
            provenance.display(),
            details.image_sha256,
            image.display()
        );
        ensure!(
            self.sections == measured.sections,
            "{}: field `sections` is not what {} has; {remedy}",
            provenance.display(),
            image.display()
        );
        let packed = packed(&bytes).with_context(|| shown(image))?;
        if let Some(name) = first_difference(&packed, &details.inputs) {
            bail!(
                "{}: field `inputs`: {name} is not what {} has; {remedy}",
                provenance.display(),
                image.display()
            );
        }
        Ok(())
    }

    fn must_have_pcrs_of(&self, provenance: &Path, other: &Self) -> Result<()> {
        if let Some((name, said, actual)) = different(&self.pcrs, &other.pcrs).first() {
            bail!(
                "{}: field `pcrs.{name}` is {said}, but {} has {actual}; one of them is of another build: build the image again",
                provenance.display(),
                other.path.display()
            );
        }
        Ok(())
    }

    fn file(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        if bytes.starts_with(b".eif") {
            return Self::measured(path, &bytes);
        }
        let json: Value = serde_json::from_slice(&bytes).with_context(|| {
            format!("{} is neither an enclave image nor JSON; give a directory with an image, or one of its files", shown(path))
        })?;
        if json.get("PCR0").is_some() {
            let pcrs = fields(path, json)?;
            return Ok(Self {
                path: path.to_owned(),
                pcrs,
                is_measured: false,
                sections: None,
                provenance: None,
            });
        }
        let format = json.get("format").with_context(|| {
            format!(
                "{}: field `format` is missing: expected a provenance.json of format {FORMAT} or a pcrs.json; build the \
                 image again with this version's tools",
                shown(path)
            )
        })?;
        ensure!(
            format.as_u64() == Some(FORMAT),
            "{}: field `format` is {format}, this nitro-sign reads {FORMAT}; use a nitro-sign of the version that built the \
             image, or build the image again",
            shown(path)
        );
        let provenance: Provenance = fields(path, json)?;
        Ok(Self {
            path: path.to_owned(),
            pcrs: provenance.pcrs,
            is_measured: false,
            sections: Some(provenance.sections.clone()),
            provenance: Some(provenance),
        })
    }

    /// By the bytes of the image alone.
    fn measured(path: &Path, bytes: &[u8]) -> Result<Self> {
        let summary = eif::scan(bytes, |_, _, _| Ok(())).with_context(|| shown(path))?;
        let section = |section: eif::MeasuredSection| Section {
            name: section.name,
            sha384: hex::encode(section.sha384),
            bytes: section.bytes,
            pcrs: section.pcrs.to_vec(),
        };
        let sections = summary.measured_sections().into_iter().map(section).collect();
        Ok(Self {
            path: path.to_owned(),
            pcrs: summary.measurements,
            is_measured: true,
            sections: Some(sections),
            provenance: None,
        })
    }
}

/// Reads the fields of a file; the error names the one that is wrong.
fn fields<T: DeserializeOwned>(path: &Path, json: Value) -> Result<T> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let file = shown(path);
        match error.path().to_string().as_str() {
            "." => anyhow!("{file}: {}; build the image again", error.inner()),
            field => anyhow!("{file}: field `{field}`: {}; build the image again", error.inner()),
        }
    })
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>> {
    files::read(path, MAX_BYTES)
}

/// Section, and path in it.
type Place = (String, Option<String>);

/// What an image has in its sections, by their bytes.
fn packed(image: &[u8]) -> Result<BTreeMap<Place, Content>> {
    let mut contents = BTreeMap::<_, Vec<u8>>::new();
    let summary = eif::scan(image, |index, kind, piece| {
        if !matches!(kind, SectionKind::Metadata | SectionKind::Signature) {
            contents.entry(index).or_default().extend_from_slice(piece);
        }
        Ok(())
    })?;
    let mut packed = BTreeMap::new();
    for (section, (index, contents)) in summary.measured_sections().into_iter().zip(contents) {
        if summary.sections[index].kind != SectionKind::Ramdisk {
            let content =
                Content { sha256: Some(sha256_hex(&contents)), bytes: Some(section.bytes), mode: None };
            packed.insert((section.name, None), content);
            continue;
        }
        for entry in eif::unpack(&contents).with_context(|| format!("cannot read {}", section.name))? {
            let (bytes, sha256) = entry.contents.unzip();
            let mode = Some(format!("{:o}", entry.mode));
            let content = Content { sha256: sha256.map(hex::encode), bytes, mode };
            packed.insert((section.name.clone(), Some(entry.path)), content);
        }
    }
    Ok(packed)
}

/// What is not as `inputs` say, or is missing in them. A directory above another entry need not be there.
fn first_difference(packed: &BTreeMap<Place, Content>, inputs: &[Input]) -> Option<String> {
    let named = |(section, path): &Place| match path {
        Some(path) => format!("{path} in {section}"),
        None => format!("the {section}"),
    };
    let mut left = packed.clone();
    for input in inputs {
        let place = (input.section.clone(), input.path.clone());
        if left.remove(&place).as_ref() != Some(&input.content) {
            return Some(named(&place));
        }
    }
    left.iter().find(|(_, content)| content.sha256.is_some()).map(|(place, _)| named(place))
}
