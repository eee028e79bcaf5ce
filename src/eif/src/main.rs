//! `eif`: builds, measures and takes apart enclave images.

mod build;

use std::{
    fs::File,
    io::{BufReader, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use eif::{SectionKind, Summary, scan};
use serde_json::json;

#[derive(Parser)]
#[command(version, about = "Build, measure and take apart enclave images (EIF)")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an image: DIR/image.eif, DIR/pcrs.json and DIR/provenance.json.
    Build(build::Arguments),
    /// Print PCR0, PCR1 and PCR2 of an image as JSON.
    Measure {
        /// The image.
        image: PathBuf,
    },
    /// Print everything about an image as JSON.
    Inspect {
        /// The image.
        image: PathBuf,
    },
    /// Write kernel, command line, metadata, ramdisks and the whole initrd of an image into a directory.
    Extract {
        /// The image.
        image: PathBuf,
        /// Where to; made if it is missing.
        directory: PathBuf,
    },
}

fn main() -> Result<()> {
    let answer = match Arguments::parse().command {
        Command::Build(arguments) => build::build(&arguments)?,
        Command::Measure { image } => serde_json::to_value(read(&image)?.measurements)?,
        Command::Inspect { image } => inspect(&read(&image)?),
        Command::Extract { image, directory } => {
            let summary = eif::extract(&image, &directory)?;
            inspect(&summary)
        }
    };
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &answer)?;
    writeln!(out)?;
    Ok(())
}

fn read(path: &Path) -> Result<Summary> {
    let file = File::open(path).with_context(|| format!("cannot open the image {}", path.display()))?;
    scan(BufReader::new(file), |_, _, _| Ok(())).with_context(|| path.display().to_string())
}

fn inspect(summary: &Summary) -> serde_json::Value {
    let measured = summary.measured_sections();
    let mut measured = measured.iter();
    let sections: Vec<_> = summary
        .sections
        .iter()
        .map(|section| {
            let pcrs: &[u8] = match section.kind {
                SectionKind::Metadata | SectionKind::Signature => &[],
                _ => measured.next().map_or(&[], |section| section.pcrs),
            };
            json!({
                "kind": section.kind.to_string(),
                "offset": section.offset,
                "size": section.size,
                "sha384": hex::encode(section.sha384),
                "pcrs": pcrs,
            })
        })
        .collect();
    json!({
        "architecture": format!("{:?}", summary.architecture).to_lowercase(),
        "measurements": summary.measurements,
        "command_line": summary.command_line,
        "metadata": summary.metadata,
        "file_bytes": summary.file_bytes,
        "sections": sections,
    })
}
