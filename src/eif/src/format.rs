use std::fmt;

use crate::EifError;

pub(crate) const MAGIC: [u8; 4] = *b".eif";
/// Version 4 has a CRC, a signature and a metadata section.
pub(crate) const VERSION: u16 = 4;
pub(crate) const MAX_SECTIONS: usize = 32;
/// Bytes of the file header.
pub(crate) const HEADER_BYTES: usize = 548;
/// Bytes of a section's header.
pub(crate) const SECTION_HEADER_BYTES: usize = 12;
/// Largest section that is read, bytes; far beyond any image, and small enough not to exhaust memory.
pub(crate) const MAX_SECTION_BYTES: u64 = 1 << 30;
/// Largest command line (Linux's COMMAND_LINE_SIZE on x86_64) and metadata, bytes.
pub(crate) const MAX_COMMAND_LINE_BYTES: u64 = 2048;
pub(crate) const MAX_METADATA_BYTES: u64 = 1 << 20;

const ARM64: u16 = 1;

/// The processor an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// x86_64.
    X86_64,
    /// aarch64.
    Aarch64,
}

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// The kernel: a bzImage, or an Image on aarch64.
    Kernel,
    /// The kernel's command line.
    CommandLine,
    /// A part of the initramfs.
    Ramdisk,
    /// Signatures of PCR0, CBOR.
    Signature,
    /// Build metadata, JSON; in no PCR.
    Metadata,
}

impl SectionKind {
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::Kernel => 1,
            Self::CommandLine => 2,
            Self::Ramdisk => 3,
            Self::Signature => 4,
            Self::Metadata => 5,
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        [Self::Kernel, Self::CommandLine, Self::Ramdisk, Self::Signature, Self::Metadata]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::CommandLine => "command line",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
        })
    }
}

/// The file header. `offsets` point to the sections' headers, `sizes` are those of their contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) architecture: Architecture,
    /// Memory an enclave gets if nobody says otherwise, bytes.
    pub(crate) default_memory: u64,
    pub(crate) default_cpus: u64,
    pub(crate) offsets: Vec<u64>,
    pub(crate) sizes: Vec<u64>,
    pub(crate) crc32: u32,
}

impl Header {
    pub(crate) fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let table = |values: &[u64]| {
            let mut padded = [0; MAX_SECTIONS];
            padded[..values.len()].copy_from_slice(values);
            padded.map(u64::to_be_bytes).concat()
        };
        let flags = match self.architecture {
            Architecture::X86_64 => 0,
            Architecture::Aarch64 => ARM64,
        };
        // At most MAX_SECTIONS.
        let count = u16::try_from(self.offsets.len()).unwrap_or(u16::MAX);
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_be_bytes());
        out.extend(u16::to_be_bytes(flags));
        out.extend(self.default_memory.to_be_bytes());
        out.extend(self.default_cpus.to_be_bytes());
        out.extend([0, 0]);
        out.extend(count.to_be_bytes());
        out.extend(table(&self.offsets));
        out.extend(table(&self.sizes));
        out.extend([0; 4]);
        out.extend(self.crc32.to_be_bytes());
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&out);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Self, EifError> {
        let mut fields = Fields(bytes);
        let magic = fields.take::<4>();
        if magic != MAGIC {
            return Err(EifError::Magic { actual: magic });
        }
        let version = fields.u16();
        if version != VERSION {
            return Err(EifError::Version { expected: VERSION, actual: version });
        }
        let architecture = match fields.u16() {
            0 => Architecture::X86_64,
            ARM64 => Architecture::Aarch64,
            other => return Err(header("flags", "0 (x86_64) or 1 (aarch64)", other.into())),
        };
        let (default_memory, default_cpus) = (fields.u64(), fields.u64());
        let reserved = fields.u16();
        if reserved != 0 {
            return Err(header("reserved", "0", reserved.into()));
        }
        let count = fields.u16();
        let used = usize::from(count);
        // Kernel, command line, metadata and one ramdisk at least.
        if !(4..=MAX_SECTIONS).contains(&used) {
            return Err(EifError::SectionCount(count));
        }
        let offsets = table(&mut fields, used, "section_offsets")?;
        let sizes = table(&mut fields, used, "section_sizes")?;
        let unused = fields.u32();
        if unused != 0 {
            return Err(header("unused", "0", unused.into()));
        }
        Ok(Self { architecture, default_memory, default_cpus, offsets, sizes, crc32: fields.u32() })
    }
}

/// Reads a table of 32 entries of which only the first `used` may differ from zero.
fn table(fields: &mut Fields<'_>, used: usize, name: &'static str) -> Result<Vec<u64>, EifError> {
    let mut values: Vec<u64> = (0..MAX_SECTIONS).map(|_| fields.u64()).collect();
    if let Some(&stray) = values[used..].iter().find(|&&value| value != 0) {
        return Err(header(name, "0 behind the last section", stray));
    }
    values.truncate(used);
    Ok(values)
}

fn header(field: &'static str, expected: &'static str, actual: u64) -> EifError {
    EifError::Header { field, expected, actual }
}

/// A section's header: type, flags, size of the contents.
pub(crate) fn section_header(kind: SectionKind, size: u64) -> [u8; SECTION_HEADER_BYTES] {
    let mut bytes = [0; SECTION_HEADER_BYTES];
    bytes[..2].copy_from_slice(&kind.code().to_be_bytes());
    bytes[4..].copy_from_slice(&size.to_be_bytes());
    bytes
}

pub(crate) fn parse_section_header(
    index: usize,
    bytes: &[u8; SECTION_HEADER_BYTES],
) -> Result<(SectionKind, u64), EifError> {
    let mut fields = Fields(bytes);
    let code = fields.u16();
    let kind = SectionKind::from_code(code).ok_or(EifError::UnknownSection { index, actual: code })?;
    let flags = fields.u16();
    if flags != 0 {
        return Err(header("section flags", "0", flags.into()));
    }
    Ok((kind, fields.u64()))
}

/// Takes big-endian numbers off the front of bytes whose length is known to suffice.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (front, rest) = self.0.split_at(N);
        self.0 = rest;
        let mut bytes = [0; N];
        bytes.copy_from_slice(front);
        bytes
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}
