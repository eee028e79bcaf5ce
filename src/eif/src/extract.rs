use std::{
    fs::{self, File},
    io::{BufReader, Write as _},
    path::Path,
};

use crate::{EifError, SectionKind, Summary, scan};

/// Writes an image's parts into a directory: `kernel`, `cmdline`, `metadata.json`, `ramdisk-1`, `ramdisk-2`, …,
/// `signature` and `initrd`, which is all ramdisks one behind the other, as the Nitro hypervisor gives them to the
/// kernel.
pub fn extract(image: &Path, directory: &Path) -> Result<Summary, EifError> {
    fs::create_dir_all(directory)?;
    // Checked whole before anything is written.
    scan(BufReader::new(File::open(image)?), |_, _, _| Ok(()))?;
    let mut initrd = File::create(directory.join("initrd"))?;
    let mut current: Option<(usize, File)> = None;
    let mut ramdisks = 0;
    scan(BufReader::new(File::open(image)?), |index, kind, piece| {
        if current.as_ref().is_none_or(|(open, _)| *open != index) {
            let name = match kind {
                SectionKind::Kernel => "kernel".to_owned(),
                SectionKind::CommandLine => "cmdline".to_owned(),
                SectionKind::Metadata => "metadata.json".to_owned(),
                SectionKind::Signature => "signature".to_owned(),
                SectionKind::Ramdisk => {
                    ramdisks += 1;
                    format!("ramdisk-{ramdisks}")
                }
            };
            current = Some((index, File::create(directory.join(name))?));
        }
        if kind == SectionKind::Ramdisk {
            initrd.write_all(piece)?;
        }
        match &mut current {
            Some((_, file)) => file.write_all(piece),
            None => Ok(()),
        }
    })
}
