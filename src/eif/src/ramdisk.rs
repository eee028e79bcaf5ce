use std::{
    collections::BTreeMap,
    io::{self, Read, Write as _},
};

use aws_lc_rs::digest;
use cpio::newc;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
/// Behind an archive, bytes; other programs fill blocks of 512.
const MAX_PADDING: u64 = 512;
/// A directory that nobody added.
const ABOVE: Entry = Entry { mode: 0o755, kind: EntryKind::Directory };

/// A part of the initramfs: a gzipped cpio archive (`newc`) whose bytes depend on its entries only. Entries are ordered by
/// path; owner and group are 0, times are 0.
#[derive(Debug, Clone, Default)]
pub struct Ramdisk {
    entries: BTreeMap<String, Entry>,
}

/// One entry of a ramdisk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Permission bits, for example `0o755`.
    pub mode: u32,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file and its contents.
    File(Vec<u8>),
}

/// Why a ramdisk cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RamdiskError {
    /// Paths start with `/` and have no empty, `.` or `..` part.
    #[error("{0:?} is not an absolute path without empty, '.' or '..' parts")]
    Path(String),
    /// The same path twice.
    #[error("{0} is in the ramdisk twice")]
    Twice(String),
    /// Something is to be below a path that is a file.
    #[error("{0} is a file in the ramdisk, and the directory of another entry")]
    NoDirectory(String),
    /// The ramdisks are unpacked over each other: the second would replace a file of the first, or the other way round.
    #[error("{0} is in both ramdisks, and is a file in one; the second would replace what PCR1 names")]
    Both(String),
    /// Only the twelve permission bits.
    #[error("{path}: mode {mode:o} is not a permission")]
    Mode {
        /// The entry's path.
        path: String,
        /// The mode asked for.
        mode: u32,
    },
    /// `newc` has 32-bit sizes.
    #[error("{0} is larger than 4 GiB")]
    TooLarge(String),
    /// Cannot happen in memory.
    #[error("writing the archive failed: {0}")]
    Io(#[from] io::Error),
}

/// What a ramdisk has at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Absolute; that of a directory ends in a slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Of a file: how many bytes it has, and their SHA-256.
    pub contents: Option<(u64, [u8; 32])>,
}

/// Lists a ramdisk that [`Ramdisk::to_gzip`] packed. One with anything but files and directories is an error, and so is a
/// second archive behind the first: the kernel would unpack that, too.
pub fn unpack(gzip: &[u8]) -> io::Result<Vec<Packed>> {
    let mut packed = Vec::new();
    let mut rest = flate2::bufread::GzDecoder::new(gzip);
    loop {
        let mut entry = newc::Reader::new(rest)?;
        if entry.entry().is_trailer() {
            rest = entry.finish()?;
            break;
        }
        let (mut path, mode) = (format!("/{}", entry.entry().name()), entry.entry().mode());
        let contents = match mode & !0o7777 {
            DIRECTORY => {
                path.push('/');
                None
            }
            // With more links a file may have the contents of another.
            FILE if entry.entry().nlink() == 1 => Some(hash(&mut entry)?),
            _ => {
                return Err(io::Error::other(format!(
                    "{path} is neither a file with one name nor a directory"
                )));
            }
        };
        packed.push(Packed { path, mode: mode & 0o7777, contents });
        rest = entry.finish()?;
    }
    let mut padding = Vec::new();
    rest.by_ref().take(MAX_PADDING + 1).read_to_end(&mut padding)?;
    if padding.len() as u64 > MAX_PADDING
        || padding.iter().any(|&byte| byte != 0)
        || !rest.get_ref().is_empty()
    {
        return Err(io::Error::other("there is something behind the archive"));
    }
    Ok(packed)
}

fn hash(contents: &mut impl Read) -> io::Result<(u64, [u8; 32])> {
    let (mut hash, mut bytes, mut buffer) = (digest::Context::new(&digest::SHA256), 0, vec![0; 64 << 10]);
    loop {
        let read = contents.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hash.finish().as_ref());
    Ok((bytes, sha256))
}

impl Ramdisk {
    /// Adds an entry. The directories above it (mode 0755) come with it where nobody adds them.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<(), RamdiskError> {
        let relative = path.strip_prefix('/').ok_or_else(|| RamdiskError::Path(path.to_owned()))?;
        if relative.split('/').any(|part| matches!(part, "" | "." | "..")) || relative.contains('\0') {
            return Err(RamdiskError::Path(path.to_owned()));
        }
        if entry.mode & !0o7777 != 0 {
            return Err(RamdiskError::Mode { path: path.to_owned(), mode: entry.mode });
        }
        if self.entries.contains_key(relative) {
            return Err(RamdiskError::Twice(path.to_owned()));
        }
        self.entries.insert(relative.to_owned(), entry);
        Ok(())
    }

    /// Refuses two ramdisks of one image if a file of one has the path of anything in the other.
    pub fn must_not_replace(&self, other: &Self) -> Result<(), RamdiskError> {
        let others = other.with_directories()?;
        for (path, entry) in self.with_directories()? {
            let is_directory = |entry: &Entry| entry.kind == EntryKind::Directory;
            if others.get(path).is_some_and(|other| !is_directory(entry) || !is_directory(other)) {
                return Err(RamdiskError::Both(format!("/{path}")));
            }
        }
        Ok(())
    }

    /// All entries, with the directories above them where they are missing.
    fn with_directories(&self) -> Result<BTreeMap<&str, &Entry>, RamdiskError> {
        let mut all: BTreeMap<_, _> =
            self.entries.iter().map(|(path, entry)| (path.as_str(), entry)).collect();
        for path in self.entries.keys() {
            for (end, _) in path.match_indices('/') {
                let above = all.entry(&path[..end]).or_insert(&ABOVE);
                if above.kind != EntryKind::Directory {
                    return Err(RamdiskError::NoDirectory(format!("/{}", &path[..end])));
                }
            }
        }
        Ok(all)
    }

    /// The archive, compressed.
    pub fn to_gzip(&self) -> Result<Vec<u8>, RamdiskError> {
        let mut archive = Vec::new();
        for (number, (path, entry)) in (1..).zip(self.with_directories()?) {
            let (kind, links, contents) = match &entry.kind {
                EntryKind::Directory => (DIRECTORY, 2, &[][..]),
                EntryKind::File(contents) => (FILE, 1, &contents[..]),
            };
            let size = u32::try_from(contents.len()).map_err(|_| RamdiskError::TooLarge(path.to_owned()))?;
            let mut writer = newc::Builder::new(path)
                .ino(number)
                .mode(kind | entry.mode)
                .nlink(links)
                .write(&mut archive, size);
            writer.write_all(contents)?;
            writer.finish()?;
        }
        newc::trailer(&mut archive)?;
        // The kernel reads the ramdisks one behind the other; each starts on a word boundary.
        archive.resize(archive.len().next_multiple_of(4), 0);
        // No name, no time: nothing in the gzip header depends on where or when.
        let mut gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
        gzip.write_all(&archive)?;
        Ok(gzip.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(ramdisk: &Ramdisk) -> Vec<Packed> {
        unpack(&ramdisk.to_gzip().unwrap()).unwrap()
    }

    fn file(contents: &[u8]) -> Entry {
        Entry { mode: 0o755, kind: EntryKind::File(contents.to_vec()) }
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut ramdisk = Ramdisk::default();
        ramdisk.add("/etc/nitro-sign/enclave.toml", file(b"x")).unwrap();
        ramdisk.add("/bin/sign-service", file(b"elf")).unwrap();
        let paths: Vec<_> = unpacked(&ramdisk).into_iter().map(|packed| packed.path).collect();
        let expected =
            ["/bin/", "/bin/sign-service", "/etc/", "/etc/nitro-sign/", "/etc/nitro-sign/enclave.toml"];
        assert_eq!(paths, expected);
    }

    #[test]
    fn contents_and_modes_are_kept() {
        let mut ramdisk = Ramdisk::default();
        ramdisk.add("/init", file(b"program")).unwrap();
        let sha256 = digest::digest(&digest::SHA256, b"program").as_ref().try_into().unwrap();
        let expected = Packed { path: "/init".to_owned(), mode: 0o755, contents: Some((7, sha256)) };
        assert_eq!(unpacked(&ramdisk), [expected]);
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let (mut one, mut other) = (Ramdisk::default(), Ramdisk::default());
        one.add("/a", file(b"1")).unwrap();
        one.add("/b", file(b"2")).unwrap();
        other.add("/b", file(b"2")).unwrap();
        other.add("/a", file(b"1")).unwrap();
        assert_eq!(one.to_gzip().unwrap(), other.to_gzip().unwrap());
    }

    #[test]
    fn what_is_no_archive_of_files_and_directories_is_an_error() {
        let gzip = |archive: &[u8]| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(archive).unwrap();
            gzip.finish().unwrap()
        };
        let mut link = newc::Builder::new("link").mode(0o120_777).write(Vec::new(), 4);
        link.write_all(b"init").unwrap();
        let link = newc::trailer(link.finish().unwrap()).unwrap();
        assert!(unpack(&gzip(&link)).unwrap_err().to_string().contains("/link is neither"));
        let mut ramdisk = Ramdisk::default();
        ramdisk.add("/init", file(b"program")).unwrap();
        let whole = ramdisk.to_gzip().unwrap();
        for bad in [&whole[..whole.len() / 2], &gzip(b"no archive"), b"no gzip"] {
            unpack(bad).unwrap_err();
        }
    }

    #[test]
    fn the_gzip_header_holds_no_time_and_no_name() {
        let mut ramdisk = Ramdisk::default();
        ramdisk.add("/a", file(b"1")).unwrap();
        let gzip = ramdisk.to_gzip().unwrap();
        assert_eq!(gzip[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_directory_may_be_added_behind_what_is_in_it() {
        let private = || Entry { mode: 0o700, kind: EntryKind::Directory };
        let (mut one, mut other) = (Ramdisk::default(), Ramdisk::default());
        one.add("/etc", private()).unwrap();
        one.add("/etc/own.conf", file(b"x")).unwrap();
        other.add("/etc/own.conf", file(b"x")).unwrap();
        other.add("/etc", private()).unwrap();
        assert_eq!(unpacked(&other)[0], Packed { path: "/etc/".to_owned(), mode: 0o700, contents: None });
        assert_eq!(one.to_gzip().unwrap(), other.to_gzip().unwrap());
    }

    #[test]
    fn what_the_kernel_would_unpack_and_the_list_not_name_is_refused() {
        let ramdisk = |path| {
            let mut ramdisk = Ramdisk::default();
            ramdisk.add(path, file(b"x")).unwrap();
            ramdisk.to_gzip().unwrap()
        };
        let (one, other) = (ramdisk("/init"), ramdisk("/hidden"));
        let packed = |archive: &[u8]| {
            let mut gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::fast());
            gzip.write_all(archive).unwrap();
            gzip.finish().unwrap()
        };
        let archive = |gzip: &[u8]| {
            let mut archive = Vec::new();
            flate2::read::GzDecoder::new(gzip).read_to_end(&mut archive).unwrap();
            archive
        };
        unpack(&packed(&[&archive(&one)[..], &[0; 512]].concat())).unwrap();
        let second_archive = packed(&[archive(&one), archive(&other)].concat());
        let second_gzip = [one, other].concat();
        let mut link = Vec::new();
        let entry = newc::Builder::new("link").ino(1).mode(FILE | 0o755).nlink(2);
        entry.write(&mut link, 0).finish().unwrap();
        newc::trailer(&mut link).unwrap();
        for gzip in [second_archive, second_gzip, packed(&link)] {
            assert!(unpack(&gzip).is_err());
        }
    }

    #[test]
    fn nothing_is_below_a_file() {
        for paths in [["/a", "/a/b/c"], ["/a/b/c", "/a"], ["/a/b", "/a/b/c"]] {
            let mut ramdisk = Ramdisk::default();
            for path in paths {
                ramdisk.add(path, file(b"x")).unwrap();
            }
            let error = ramdisk.to_gzip().unwrap_err();
            assert!(
                matches!(&error, RamdiskError::NoDirectory(path) if paths.contains(&&path[..])),
                "{error}"
            );
        }
    }

    #[test]
    fn two_ramdisks_share_directories_and_nothing_else() {
        let ramdisk = |path| {
            let mut ramdisk = Ramdisk::default();
            ramdisk.add(path, file(b"x")).unwrap();
            ramdisk
        };
        ramdisk("/etc/a").must_not_replace(&ramdisk("/etc/b")).unwrap();
        for (one, other) in [("/init", "/init"), ("/a", "/a/b"), ("/a/b", "/a")] {
            let error = ramdisk(one).must_not_replace(&ramdisk(other)).unwrap_err();
            assert!(matches!(error, RamdiskError::Both(_)), "{one} {other}: {error}");
        }
    }

    #[test]
    fn bad_paths_and_repeated_paths_are_refused() {
        let mut ramdisk = Ramdisk::default();
        for path in ["init", "/a/../b", "/a//b", "/", "/a/."] {
            assert!(matches!(ramdisk.add(path, file(b"")), Err(RamdiskError::Path(_))), "{path}");
        }
        ramdisk.add("/init", file(b"")).unwrap();
        assert!(matches!(ramdisk.add("/init", file(b"")), Err(RamdiskError::Twice(_))));
        let setuid = Entry { mode: 0o104_755, kind: EntryKind::Directory };
        assert!(matches!(ramdisk.add("/x", setuid), Err(RamdiskError::Mode { .. })));
    }
}
