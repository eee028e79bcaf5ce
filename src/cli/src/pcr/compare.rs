//! Two images: which PCRs differ, and which sections, inputs and tools. What cannot be true is an error.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use attestation::{Measurements, Pcr};

use super::{
    different,
    image::{Content, Image, Input, Section},
};

/// What differs between two images.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) base: Measurements,
    pub(super) head: Measurements,
    /// Name and both values.
    pub(super) changed: Vec<(&'static str, Pcr, Pcr)>,
    /// Those that differ, in the image's order.
    pub(super) sections: Vec<SectionChange>,
    /// Do both images say which sections they have?
    pub(super) sections_are_known: bool,
    /// Do both images say what they were made of?
    pub(super) inputs_are_known: bool,
    /// Compilers and sources whose version differs: name and both versions.
    pub(super) built_with: Vec<(String, Option<String>, Option<String>)>,
}

/// A section that differs; a side that has none is `None`.
#[derive(Debug)]
pub(super) struct SectionChange {
    pub(super) name: String,
    pub(super) pcrs: Vec<u8>,
    pub(super) base: Option<Section>,
    pub(super) head: Option<Section>,
    /// None of them in a ramdisk whose files are the same: then it was packed in another way.
    pub(super) inputs: Vec<InputChange>,
}

/// An input that differs; a side that has none is `None`.
#[derive(Debug)]
pub(super) struct InputChange {
    /// Path in the ramdisk; the section's name if it is one file.
    pub(super) name: String,
    pub(super) base: Option<Side>,
    pub(super) head: Option<Side>,
}

/// An input in one of the images.
#[derive(Debug, serde::Serialize)]
pub(super) struct Side {
    #[serde(flatten)]
    pub(super) content: Content,
    /// Where it came from.
    pub(super) source: Option<String>,
}

impl Comparison {
    /// Compares two images, and checks that what differs explains the PCRs that differ.
    pub(super) fn of(base: &Image, head: &Image) -> Result<Self> {
        let mut comparison = Self {
            base: base.pcrs,
            head: head.pcrs,
            changed: different(&base.pcrs, &head.pcrs),
            sections: Vec::new(),
            sections_are_known: false,
            inputs_are_known: false,
            built_with: Vec::new(),
        };
        if let (Some(base), Some(head)) = (&base.sections, &head.sections) {
            comparison.sections_are_known = true;
            comparison.sections = sections(base, head);
        }
        let mut inputs = BTreeMap::new();
        if let (Some(base), Some(head)) = (&base.provenance, &head.provenance) {
            comparison.inputs_are_known = true;
            inputs = changed_inputs(&base.inputs, &head.inputs);
            comparison.built_with = union(&base.built_with, &head.built_with)
                .filter(|(_, base, head)| base != head)
                .map(|(name, base, head)| (name.clone(), base.cloned(), head.cloned()))
                .collect();
        }
        for section in &mut comparison.sections {
            section.inputs = inputs.remove(&section.name).unwrap_or_default();
        }
        comparison.must_be_consistent(&inputs).map_err(|what| {
            anyhow::anyhow!(
                "{} and {} contradict each other or themselves: {what}; build both images again, and compare the directories",
                base.path.display(),
                head.path.display()
            )
        })?;
        Ok(comparison)
    }

    /// Are the PCRs the same?
    pub(super) fn is_same(&self) -> bool {
        self.changed.is_empty()
    }

    /// `unexplained` are inputs that differ in sections that do not.
    fn must_be_consistent(&self, unexplained: &BTreeMap<String, Vec<InputChange>>) -> Result<()> {
        if !self.sections_are_known {
            return Ok(());
        }
        if let Some((section, inputs)) = unexplained.iter().next() {
            let input = inputs.first().map_or("an input", |input| &input.name);
            bail!("{input} differs, but section {section:?}, which it is in, is the same");
        }
        for (number, name) in ["PCR0", "PCR1", "PCR2"].into_iter().enumerate() {
            let has_changed = self.changed.iter().any(|(changed, ..)| *changed == name);
            let covers =
                |section: &&SectionChange| section.pcrs.iter().any(|&pcr| usize::from(pcr) == number);
            match (has_changed, self.sections.iter().find(covers)) {
                (true, None) => bail!("{name} differs, but no section that it covers does"),
                (false, Some(section)) => {
                    bail!("section {:?} differs, but {name}, which covers it, is the same", section.name)
                }
                _ => {}
            }
        }
        // Archives may be packed in another way; kernel and command line are their input.
        let is_ramdisk = |section: &&SectionChange| section.name.starts_with("ramdisk");
        let mut without_inputs = self.sections.iter().filter(|section| section.inputs.is_empty());
        match without_inputs.find(|section| self.inputs_are_known && !is_ramdisk(section)) {
            Some(section) => bail!("section {:?} differs, but its input does not", section.name),
            None => Ok(()),
        }
    }
}

fn sections(base: &[Section], head: &[Section]) -> Vec<SectionChange> {
    let mut seen = BTreeSet::new();
    let names = base.iter().chain(head).map(|section| &section.name).filter(|name| seen.insert(*name));
    names
        .filter_map(|name| {
            let find = |sections: &[Section]| sections.iter().find(|section| section.name == *name).cloned();
            let (base, head) = (find(base), find(head));
            let pcrs = base.as_ref().or(head.as_ref())?.pcrs.clone();
            let changed = SectionChange { name: name.clone(), pcrs, base, head, inputs: Vec::new() };
            (changed.base != changed.head).then_some(changed)
        })
        .collect()
}

/// By section.
fn changed_inputs(base: &[Input], head: &[Input]) -> BTreeMap<String, Vec<InputChange>> {
    let by_place = |inputs: &[Input]| -> BTreeMap<(String, Option<String>), Input> {
        inputs.iter().map(|input| ((input.section.clone(), input.path.clone()), input.clone())).collect()
    };
    let side = |input: &Input| Side { content: input.content.clone(), source: input.source.clone() };
    let mut changes = BTreeMap::<_, Vec<_>>::new();
    for ((section, path), base, head) in union(&by_place(base), &by_place(head)) {
        if base.map(|input| &input.content) != head.map(|input| &input.content) {
            let name = path.clone().unwrap_or_else(|| section.clone());
            let change = InputChange { name, base: base.map(side), head: head.map(side) };
            changes.entry(section.clone()).or_default().push(change);
        }
    }
    changes
}

/// Each key of either map, with both values.
fn union<'a, K: Ord, V>(
    base: &'a BTreeMap<K, V>,
    head: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let keys: BTreeSet<&K> = base.keys().chain(head.keys()).collect();
    keys.into_iter().map(|key| (key, base.get(key), head.get(key)))
}
