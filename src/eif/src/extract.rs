use std::{
    fs::{self, File},
    io::{self, BufReader, Write as _},
    path::Path,
};

use crate::{EifError, SectionKind, Summary, scan};

/// Writes an image's parts into a directory: `kernel`, `cmdline`, `metadata.json`, `ramdisk-1`, `ramdisk-2`, …,
/// `signature` and `initrd`, which is all ramdisks one behind the other, as the Nitro hypervisor gives them to the
/// kernel.
pub fn extract(image: &Path, directory: &Path) -> Result<Summary, EifError> {
    // Checked whole before anything is written.
    scan(open(image)?, |_, _, _| Ok(()))?;
    fs::create_dir_all(directory).map_err(|error| named(directory, &error))?;
    let create = |name: &str| {
        let path = directory.join(name);
        File::create(&path).map_err(|error| named(&path, &error))
    };
    let mut initrd = create("initrd")?;
    let mut current: Option<(usize, File)> = None;
    let mut ramdisks = 0;
    scan(open(image)?, |index, kind, piece| {
        if current.as_ref().is_none_or(|(open, _)| *open != index) {
            let file = match kind {
                SectionKind::Kernel => create("kernel")?,
                SectionKind::CommandLine => create("cmdline")?,
                SectionKind::Metadata => create("metadata.json")?,
                SectionKind::Signature => create("signature")?,
                SectionKind::Ramdisk => {
                    ramdisks += 1;
                    create(&format!("ramdisk-{ramdisks}"))?
                }
            };
            current = Some((index, file));
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

fn open(image: &Path) -> Result<BufReader<File>, EifError> {
    Ok(BufReader::new(File::open(image).map_err(|error| named(image, &error))?))
}

/// The operating system's errors name no file.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
