//! `pcr compare` and `pcr check`: what changed the PCRs of an image. Exit codes are those of `diff`.

mod compare;
mod derivations;
mod graph;
mod image;
mod report;

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use attestation::Measurements;

use self::{compare::Comparison, image::Image, report::Packages};
use crate::{
    args::{PcrCheck, PcrCommand, PcrCompare},
    print, print_json, say,
};

const SAME: u8 = 0;
const DIFFERENT: u8 = 1;
const TROUBLE: u8 = 2;

/// Runs `pcr compare` or `pcr check`, and prints its errors.
pub(crate) fn run(command: &PcrCommand) -> ExitCode {
    let is_same = match command {
        PcrCommand::Compare(args) => compare(args),
        PcrCommand::Check(args) => check(args),
    };
    ExitCode::from(match is_same {
        Ok(true) => SAME,
        Ok(false) => DIFFERENT,
        Err(error) => {
            say(format_args!("nitro-sign: {error:#}"));
            TROUBLE
        }
    })
}

fn compare(args: &PcrCompare) -> Result<bool> {
    let (base, head) = (Image::read(&args.base)?, Image::read(&args.head)?);
    let comparison = Comparison::of(&base, &head)?;
    let store = args.store.as_deref();
    let packages = match &args.derivations[..] {
        [of_base, of_head] => {
            let base_is_matched = derivations::must_have_made(&base, of_base, store)?;
            let head_is_matched = derivations::must_have_made(&head, of_head, store)?;
            let causes = derivations::compare(of_base, of_head, store)?;
            Some(Packages { causes, are_matched: base_is_matched && head_is_matched })
        }
        _ => None,
    };
    if args.markdown {
        print(&report::markdown(&comparison, packages.as_ref()))?;
    } else {
        print_json(&report::json(&comparison, packages.as_ref()))?;
        say(report::text(&comparison, packages.as_ref()).trim_end());
    }
    Ok(comparison.is_same())
}

fn check(args: &PcrCheck) -> Result<bool> {
    let image = Image::read(&args.image)?;
    let release = &args.release;
    if !release.try_exists().with_context(|| format!("cannot look for {}", release.display()))? {
        say(format_args!(
            "nothing to check: {} does not exist, so no PCRs of a release are committed; the release workflow makes them",
            release.display()
        ));
        return Ok(true);
    }
    let Image { provenance: None, sections: None, pcrs: expected, .. } = Image::read(release)? else {
        bail!("{} is not a pcrs.json: give the PCRs that the release workflow wrote", release.display())
    };
    ensure!(
        image.is_measured,
        "{} only says which PCRs an image has: give the image, or the directory that it is in",
        args.image.display()
    );
    let different = different(&expected, &image.pcrs);
    for (name, expected, actual) in &different {
        say(format_args!("{name} is {actual}, but {} says {expected}", release.display()));
    }
    if different.is_empty() {
        say(format_args!("{} has the PCRs of {}", args.image.display(), release.display()));
    } else {
        say(format_args!(
            "the image is not the release's: if that is intended, remove {} in the same change",
            release.display()
        ));
    }
    print_json(
        &serde_json::json!({ "release": expected, "image": image.pcrs, "same": different.is_empty() }),
    )?;
    Ok(different.is_empty())
}

/// The PCRs of an image by number, with their names.
fn by_number(pcrs: &Measurements) -> [(&'static str, attestation::Pcr); 3] {
    [("PCR0", pcrs.pcr0), ("PCR1", pcrs.pcr1), ("PCR2", pcrs.pcr2)]
}

/// Name and both values of each PCR that is not the same.
fn different(
    base: &Measurements,
    head: &Measurements,
) -> Vec<(&'static str, attestation::Pcr, attestation::Pcr)> {
    by_number(base)
        .into_iter()
        .zip(by_number(head))
        .filter(|((_, base), (_, head))| base != head)
        .map(|((name, base), (_, head))| (name, base, head))
        .collect()
}

/// For errors: a path as it was given.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
