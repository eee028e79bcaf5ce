use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use aws_lc_rs::digest;
use eif::{Architecture, Entry, EntryKind, Image, MeasuredSection, Metadata, Ramdisk};
use serde_json::{Value, json};

/// Of provenance.json. It changes when a field changes its meaning or goes away.
const FORMAT: u64 = 1;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// bzImage (x86_64) or Image (aarch64).
    #[arg(long)]
    kernel: PathBuf,
    /// The kernel's version, for the metadata.
    #[arg(long)]
    kernel_version: String,
    /// The kernel's command line.
    #[arg(long)]
    command_line: String,
    /// Part of the first ramdisk (PCR1): DEST=FILE, DEST=FILE:MODE (octal, default 755), or DEST/ for a directory.
    #[arg(long, required = true, value_name = "ENTRY")]
    runtime: Vec<String>,
    /// Part of the second ramdisk (PCR2), written like --runtime.
    #[arg(long, required = true, value_name = "ENTRY")]
    application: Vec<String>,
    /// Name of the image, for the metadata.
    #[arg(long, default_value = "nitro-sign")]
    name: String,
    /// Version of the image, for the metadata.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    image_version: String,
    /// Recorded in provenance.json only: what made an input, and its version.
    #[arg(long, value_name = "NAME=VERSION")]
    built_with: Vec<String>,
    /// The image is for aarch64.
    #[arg(long)]
    aarch64: bool,
    /// Where the three files go; made if it is missing.
    #[arg(long)]
    out: PathBuf,
}

/// Builds the image, writes it with its PCRs and its provenance, and returns the PCRs.
pub(crate) fn build(arguments: &Arguments) -> Result<Value> {
    let mut inputs = Vec::new();
    let kernel = read(&arguments.kernel)?;
    inputs.push(file("kernel", Some(&arguments.kernel), &kernel));
    inputs.push(file("command line", None, arguments.command_line.as_bytes()));
    let runtime = ramdisk(&arguments.runtime, "ramdisk 1 (runtime)", &mut inputs)?;
    let application = ramdisk(&arguments.application, "ramdisk 2 (application)", &mut inputs)?;

    // Each by itself first, so that the error names the option that is wrong.
    let ramdisks =
        vec![runtime.to_gzip().context("--runtime")?, application.to_gzip().context("--application")?];
    runtime.must_not_replace(&application).context("--application")?;

    let image = Image {
        architecture: if arguments.aarch64 { Architecture::Aarch64 } else { Architecture::X86_64 },
        kernel,
        command_line: arguments.command_line.clone(),
        ramdisks,
        metadata: Metadata::new(&arguments.name, &arguments.image_version, &arguments.kernel_version),
    };
    let mut bytes = Vec::new();
    image.write(&mut bytes)?;
    // Read back: what is said about the image is said about these bytes.
    let summary = eif::scan(&bytes[..], |_, _, _| Ok(()))?;
    let pcrs = serde_json::to_value(summary.measurements)?;
    let sections = summary.measured_sections();
    for input in &mut inputs {
        let section = sections.iter().find(|section| input["section"] == section.name);
        input["pcrs"] = json!(section.map(|section| section.pcrs));
    }
    let provenance = json!({
        "format": FORMAT,
        "image_sha256": sha256(&bytes),
        "image_bytes": bytes.len(),
        "pcrs": pcrs,
        "sections": sections.iter().map(section).collect::<Vec<_>>(),
        "inputs": inputs,
        "built_with": built_with(&arguments.built_with)?,
    });

    let out = &arguments.out;
    fs::create_dir_all(out).with_context(|| format!("cannot make the directory {}", out.display()))?;
    write(&out.join("image.eif"), &bytes)?;
    write(&out.join("pcrs.json"), &pretty(&pcrs)?)?;
    write(&out.join("provenance.json"), &pretty(&provenance)?)?;
    Ok(pcrs)
}

/// Makes a ramdisk of its entries as the command line names them.
fn ramdisk(entries: &[String], section: &str, inputs: &mut Vec<Value>) -> Result<Ramdisk> {
    let mut ramdisk = Ramdisk::default();
    for entry in entries {
        if let Some(directory) = entry.strip_suffix('/') {
            ramdisk.add(directory, Entry { mode: 0o755, kind: EntryKind::Directory })?;
            inputs.push(json!({ "section": section, "path": entry, "mode": "755" }));
            continue;
        }
        let Some((destination, source)) = entry.split_once('=') else {
            bail!("{entry:?} is neither DEST=FILE, DEST=FILE:MODE nor DEST/")
        };
        let (source, mode) = match source.rsplit_once(':') {
            Some((source, mode)) => {
                let mode = u32::from_str_radix(mode, 8)
                    .with_context(|| format!("{entry:?}: {mode:?} is not an octal mode"))?;
                (source, mode)
            }
            None => (source, 0o755),
        };
        let source = Path::new(source);
        let contents = read(source)?;
        let mut input = file(section, Some(source), &contents);
        input["path"] = json!(destination);
        input["mode"] = json!(format!("{mode:o}"));
        inputs.push(input);
        ramdisk.add(destination, Entry { mode, kind: EntryKind::File(contents) })?;
    }
    Ok(ramdisk)
}

fn built_with(pairs: &[String]) -> Result<BTreeMap<&str, &str>> {
    let mut all = BTreeMap::new();
    for text in pairs {
        let (name, version) =
            text.split_once('=').with_context(|| format!("--built-with {text:?} is not NAME=VERSION"))?;
        ensure!(all.insert(name, version).is_none(), "--built-with names {name} twice");
    }
    Ok(all)
}

fn file(section: &str, source: Option<&Path>, contents: &[u8]) -> Value {
    json!({ "section": section, "source": source, "sha256": sha256(contents), "bytes": contents.len() })
}

fn section(section: &MeasuredSection) -> Value {
    json!({
        "section": section.name,
        "sha384": hex::encode(section.sha384),
        "bytes": section.bytes,
        "pcrs": section.pcrs,
    })
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, contents: &[u8]) -> Result<()> {
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}
