use std::{fs, io::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use serde::{Deserialize, Serialize};

/// The most that the image is meant to have, bytes.
pub(crate) const AIM: u64 = 9_000_000;

/// Where the image's bytes are.
#[derive(Serialize)]
pub(crate) struct Sizes {
    pub(crate) bytes: u64,
    pub(crate) of_aim: f64,
    pub(crate) of_kernel: f64,
    pub(crate) sections: Vec<Section>,
    pub(crate) files: Vec<File>,
}

#[derive(Serialize)]
pub(crate) struct Section {
    pub(crate) kind: String,
    pub(crate) bytes: u64,
}

/// A file of a ramdisk.
#[derive(Serialize)]
pub(crate) struct File {
    pub(crate) section: String,
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Compressed alone, as its ramdisk is.
    pub(crate) compressed_bytes: u64,
}

#[derive(Deserialize)]
struct Inspected {
    file_bytes: u64,
    sections: Vec<InspectedSection>,
}

#[derive(Deserialize)]
struct InspectedSection {
    kind: String,
    size: u64,
}

#[derive(Deserialize)]
struct Provenance {
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    section: String,
    path: Option<String>,
    source: Option<String>,
}

impl Sizes {
    /// Of the image in a directory that `cargo xtask image` made.
    pub(crate) fn measure(image: &Path) -> Result<Self> {
        let mut eif = Command::new(harness::binary("eif")?);
        let output = eif.arg("inspect").arg(image.join("image.eif")).output().context("cannot start eif")?;
        ensure!(output.status.success(), "eif: {}", String::from_utf8_lossy(&output.stderr));
        let inspected: Inspected = serde_json::from_slice(&output.stdout)?;
        let sections: Vec<_> = inspected
            .sections
            .into_iter()
            .map(|section| Section { kind: section.kind, bytes: section.size })
            .collect();
        let kernel = sections.first().context("no kernel")?.bytes;
        Ok(Self {
            bytes: inspected.file_bytes,
            of_aim: ratio(inspected.file_bytes, AIM),
            of_kernel: ratio(inspected.file_bytes, kernel),
            sections,
            files: files(image)?,
        })
    }
}

fn files(image: &Path) -> Result<Vec<File>> {
    let path = image.join("provenance.json");
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let provenance: Provenance = serde_json::from_slice(&text)?;
    let mut files = Vec::new();
    for input in provenance.inputs {
        let (Some(path), Some(source)) = (input.path, input.source) else { continue };
        let contents = fs::read(image.join(&source)).with_context(|| format!("cannot read {source}"))?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&contents)?;
        files.push(File {
            section: input.section,
            path,
            bytes: contents.len() as u64,
            compressed_bytes: gzip.finish()?.len() as u64,
        });
    }
    Ok(files)
}

#[allow(clippy::cast_precision_loss, reason = "sizes of files")]
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
