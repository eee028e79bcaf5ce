//! A comparison as JSON, as text, and as the comment of a pull request.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    by_number,
    compare::{Comparison, InputChange, SectionChange, Side},
    derivations::Cause,
};

/// By this the workflow finds its comment. It is not shown.
const MARKER: &str = "<!-- nitro-sign pcr compare -->";
/// So many packages are shown; JSON has all.
const SHOWN_CAUSES: usize = 20;
/// In the headline, so many packages.
const HEADLINE_CAUSES: usize = 3;
/// Of one package, so many differences are shown.
const SHOWN_DIFFERENCES: usize = 6;
/// Of the way to one package, so many at each end are shown: a comment has 65536 characters, and ways can have hundreds.
const SHOWN_VIA: usize = 2;

/// The first packages that differ between two derivations.
pub(super) struct Packages {
    pub(super) causes: Vec<Cause>,
    /// Do both images say that these derivations made them?
    pub(super) are_matched: bool,
}

const NOT_MATCHED: &str = "The derivations were not matched with the images: one of these does not name the store paths that \
                           it was made of. So the packages need not be why the PCRs differ.";

/// Everything, for programs.
pub(super) fn json(comparison: &Comparison, packages: Option<&Packages>) -> Value {
    let sections = comparison.sections.iter().map(|section| {
        let inputs: Vec<_> = section
            .inputs
            .iter()
            .map(|input| json!({ "input": input.name, "base": input.base, "head": input.head }))
            .collect();
        json!({
            "section": section.name, "pcrs": section.pcrs, "base": section.base, "head": section.head, "inputs": inputs,
        })
    });
    let built_with: Vec<_> = comparison
        .built_with
        .iter()
        .map(|(name, base, head)| json!({ "name": name, "base": base, "head": head }))
        .collect();
    json!({
        "same": comparison.is_same(),
        "base": comparison.base,
        "head": comparison.head,
        "changed": comparison.changed.iter().map(|(name, ..)| name).collect::<Vec<_>>(),
        "sections": comparison.sections_are_known.then(|| sections.collect::<Vec<_>>()),
        "built_with": comparison.inputs_are_known.then_some(built_with),
        "packages": packages.map(|packages| &packages.causes),
        "packages_are_matched": packages.map(|packages| packages.are_matched),
    })
}

/// For people at a terminal.
pub(super) fn text(comparison: &Comparison, packages: Option<&Packages>) -> String {
    let mut lines = vec![headline(comparison, packages)];
    for (name, base, head) in &comparison.changed {
        lines.push(format!("  {name}  {base}\n     →  {head}"));
    }
    for section in &comparison.sections {
        lines.push(format!("section {}, in {}:", section.name, pcr_names(&section.pcrs)));
        lines.extend(
            section.inputs.iter().map(|input| format!("  {}: {}", input.name, input_change(input, &plain))),
        );
        lines.extend(without_inputs(comparison, section).map(|line| format!("  {line}")));
    }
    lines.extend(unknown(comparison).map(str::to_owned));
    if !comparison.built_with.is_empty() {
        lines.push("built with other versions:".to_owned());
        for (name, base, head) in &comparison.built_with {
            lines.push(format!("  {name}: {} → {}", version(base.as_ref()), version(head.as_ref())));
        }
    }
    if let Some(packages) = packages {
        lines.push("first packages that differ:".to_owned());
        let causes = cause_lines(&packages.causes, comparison.is_same(), &plain);
        lines.extend(causes.into_iter().map(|line| format!("  {line}")));
        lines.extend((!packages.are_matched).then(|| NOT_MATCHED.to_owned()));
    }
    lines.join("\n") + "\n"
}

/// The comment of a pull request.
pub(super) fn markdown(comparison: &Comparison, packages: Option<&Packages>) -> String {
    let mut out = format!("{MARKER}\n### {}\n", escaped(&headline(comparison, packages)));
    out.push_str("\n| | base | head |\n|---|---|---|\n");
    for ((name, base), (_, head)) in by_number(&comparison.base).into_iter().zip(by_number(&comparison.head))
    {
        let _ = if base == head {
            writeln!(out, "| {name} | `{base}` | the same |")
        } else {
            writeln!(out, "| **{name}** | `{base}` | `{head}` |")
        };
    }
    if !comparison.sections.is_empty() {
        out.push_str("\n| section | PCRs | input | change |\n|---|---|---|---|\n");
    }
    for section in &comparison.sections {
        let (name, pcrs) = (escaped(&section.name), pcr_names(&section.pcrs));
        for input in &section.inputs {
            let _ =
                writeln!(out, "| {name} | {pcrs} | {} | {} |", cell(&input.name), input_change(input, &cell));
        }
        if let Some(line) = without_inputs(comparison, section) {
            let _ = writeln!(out, "| {name} | {pcrs} | | {} |", escaped(line));
        }
    }
    if let Some(line) = unknown(comparison) {
        let _ = writeln!(out, "\n{}", escaped(line));
    }
    if !comparison.built_with.is_empty() {
        out.push_str("\n| built with | base | head |\n|---|---|---|\n");
        for (name, base, head) in &comparison.built_with {
            let (base, head) = (cell(version(base.as_ref())), cell(version(head.as_ref())));
            let _ = writeln!(out, "| {} | {base} | {head} |", escaped(name));
        }
    }
    if let Some(packages) = packages {
        out.push_str("\nFirst packages that differ:\n\n");
        for line in cause_lines(&packages.causes, comparison.is_same(), &code) {
            let _ = writeln!(out, "- {line}");
        }
        if !packages.are_matched {
            let _ = writeln!(out, "\n{NOT_MATCHED}");
        }
    }
    if !comparison.is_same() {
        out.push_str("\nAfter a release, the KMS key policy has to allow the new PCR0 before the new image can unseal.\n");
    }
    out
}

fn headline(comparison: &Comparison, packages: Option<&Packages>) -> String {
    if comparison.is_same() {
        return "Nothing changed: PCR0, PCR1 and PCR2 are the same".to_owned();
    }
    let names: Vec<_> = comparison.changed.iter().map(|(name, ..)| *name).collect();
    let mut line = format!("{} changed", all_of(&names));
    let (mut because, mut others) = (Vec::new(), 0);
    let matched = packages.filter(|packages| packages.are_matched);
    for cause in matched.into_iter().flat_map(|packages| &packages.causes) {
        match &cause.versions {
            Some((base, head)) if because.len() < HEADLINE_CAUSES => {
                because.push(format!("{} went {base} → {head}", cause.name));
            }
            _ => others += 1,
        }
    }
    match (because.len(), others) {
        (0, _) => because = comparison.sections.iter().map(because_of).collect(),
        (_, 0) => {}
        (_, 1) => because.push("1 other package differs".to_owned()),
        (_, others) => because.push(format!("{others} other packages differ")),
    }
    if !because.is_empty() {
        let _ = write!(line, " because {}", all_of(&because));
    }
    line
}

fn because_of(section: &SectionChange) -> String {
    match &section.inputs[..] {
        [] => format!("the {} differs", section.name),
        [input] if input.name == section.name => format!("the {} differs", section.name),
        [input] => format!("{} in {} differs", input.name, section.name),
        [first, rest @ ..] => {
            format!("{} and {} more in {} differ", first.name, rest.len(), section.name)
        }
    }
}

fn input_change(input: &InputChange, quoted: &dyn Fn(&str) -> String) -> String {
    let (base, head) = match (&input.base, &input.head) {
        (Some(base), Some(head)) => (base, head),
        (None, Some(head)) => return format!("added: {}", side(head, quoted)),
        (Some(base), None) => return format!("removed: {}", side(base, quoted)),
        (None, None) => return String::new(),
    };
    let mut parts = Vec::new();
    if base.content.sha256 != head.content.sha256 || base.content.bytes != head.content.bytes {
        parts.push(format!("{} → {}", side(base, quoted), side(head, quoted)));
    }
    if base.content.mode != head.content.mode {
        let mode = |side: &Side| side.content.mode.clone().unwrap_or_else(|| "none".to_owned());
        parts.push(format!("mode {} → {}", mode(base), mode(head)));
    }
    if let (Some(base), Some(head)) = (&base.source, &head.source)
        && base != head
    {
        parts.push(format!("from {} → {}", quoted(base), quoted(head)));
    }
    parts.join(", ")
}

fn side(side: &Side, quoted: &dyn Fn(&str) -> String) -> String {
    match (&side.content.sha256, side.content.bytes) {
        (Some(sha256), Some(bytes)) => format!("{bytes} bytes, SHA-256 {}", quoted(sha256)),
        _ => "a directory".to_owned(),
    }
}

/// What is said of a section that differs, but none of its inputs.
fn without_inputs(comparison: &Comparison, section: &SectionChange) -> Option<&'static str> {
    match (section.inputs.is_empty(), comparison.inputs_are_known) {
        (false, _) => None,
        (true, true) => {
            Some("by provenance.json all files in it are the same: they were packed by another `eif`")
        }
        (true, false) => Some("differs"),
    }
}

fn unknown(comparison: &Comparison) -> Option<&'static str> {
    match (comparison.sections_are_known, comparison.inputs_are_known) {
        _ if comparison.is_same() => None,
        (_, true) => None,
        (true, false) => Some("Which inputs changed is not known: one of the images has no provenance.json."),
        (false, false) => Some("Why is not known: one side is PCRs only."),
    }
}

fn cause_lines(causes: &[Cause], is_same: bool, quoted: &dyn Fn(&str) -> String) -> Vec<String> {
    if causes.is_empty() {
        let line = "none: both derivations have the same outputs";
        let but = ". The build does not repeat, or these are not the derivations of the two images";
        return vec![format!("{line}{}", if is_same { "" } else { but })];
    }
    let mut lines: Vec<_> = causes.iter().take(SHOWN_CAUSES).map(|cause| cause_line(cause, quoted)).collect();
    if causes.len() > SHOWN_CAUSES {
        lines.push(format!("and {} more", causes.len() - SHOWN_CAUSES));
    }
    lines
}

fn cause_line(cause: &Cause, quoted: &dyn Fn(&str) -> String) -> String {
    let mut line = quoted(&cause.name);
    if let Some((base, head)) = &cause.versions {
        let _ = write!(line, " {} → {}", quoted(base), quoted(head));
    }
    let mut what: Vec<_> = cause.what.iter().take(SHOWN_DIFFERENCES).map(|what| quoted(what)).collect();
    if cause.what.len() > SHOWN_DIFFERENCES {
        what.push(format!("{} more", cause.what.len() - SHOWN_DIFFERENCES));
    }
    if !what.is_empty() {
        let _ = write!(line, ": {}", what.join(", "));
    }
    if !cause.via.is_empty() {
        let mut via: Vec<_> = cause.via.iter().map(|name| quoted(name)).collect();
        let left_out = via.len().saturating_sub(2 * SHOWN_VIA);
        if left_out > 1 {
            via.splice(SHOWN_VIA..SHOWN_VIA + left_out, [format!("{left_out} more")]);
        }
        let _ = write!(line, " (input of {})", via.join(" > "));
    }
    line
}

fn pcr_names(pcrs: &[u8]) -> String {
    all_of(&pcrs.iter().map(|number| format!("PCR{number}")).collect::<Vec<_>>())
}

/// `a`, `a and b`, `a, b and c`.
fn all_of(parts: &[impl AsRef<str>]) -> String {
    let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
    match parts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => parts.concat(),
    }
}

fn version(version: Option<&String>) -> &str {
    version.map_or("(none)", String::as_str)
}

fn plain(text: &str) -> String {
    text.to_owned()
}

/// Text that Markdown and HTML show as it is. Names come from files that a stranger may have written.
fn code(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect();
    format!("`{text}`")
}

/// The same in a table, where a backslash before a pipe is the only one that is not shown as it is.
fn cell(text: &str) -> String {
    code(text).replace("\\|", " |").replace('|', "\\|")
}

/// The same for text that is not code, in a table too. `@` would notify people.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            _ if c.is_control() => out.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '!' | '~' => out.extend(['\\', c]),
            '&' => out.push_str("&amp;"),
            '@' => out.push_str("&#64;"),
            _ => out.push(c),
        }
    }
    out
}
