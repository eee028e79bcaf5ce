use std::io::Read;

use attestation::{Measurements, Pcr};
use aws_lc_rs::digest;

use crate::{
    EifError, Metadata,
    format::{
        Architecture, HEADER_BYTES, Header, MAX_COMMAND_LINE_BYTES, MAX_METADATA_BYTES, MAX_SECTION_BYTES,
        SECTION_HEADER_BYTES, SectionKind, parse_section_header,
    },
};

const CHUNK: usize = 64 * 1024;

/// A well-formed image, without its large parts.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The processor it is for.
    pub architecture: Architecture,
    /// Memory an enclave gets if nobody says otherwise, bytes.
    pub default_memory: u64,
    /// CPUs an enclave gets if nobody says otherwise.
    pub default_cpus: u64,
    /// The kernel's command line.
    pub command_line: String,
    /// The metadata section.
    pub metadata: Metadata,
    /// All sections in the file's order.
    pub sections: Vec<Section>,
    /// PCR0, PCR1 and PCR2 by the contents.
    pub measurements: Measurements,
    /// Of the whole file, bytes.
    pub file_bytes: u64,
}

/// One section of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Where its header starts, bytes from the start of the file.
    pub offset: u64,
    /// Size of its contents, bytes.
    pub size: u64,
    /// SHA-384 of its contents.
    pub sha384: [u8; 48],
}

/// A section that PCRs cover, as `provenance.json` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredSection {
    /// "kernel", "command line", "ramdisk 1 (runtime)", "ramdisk 2 (application)", "ramdisk 3 (application)" and so on.
    pub name: String,
    /// The PCRs that cover it.
    pub pcrs: &'static [u8],
    /// SHA-384 of its contents.
    pub sha384: [u8; 48],
    /// Size of its contents, bytes.
    pub bytes: u64,
}

impl Summary {
    /// The sections that PCRs cover, in the file's order.
    pub fn measured_sections(&self) -> Vec<MeasuredSection> {
        let mut ramdisks = 0;
        let mut measured = Vec::new();
        for section in &self.sections {
            let pcrs = registers(section.kind, ramdisks);
            let name = match section.kind {
                SectionKind::Ramdisk => {
                    ramdisks += 1;
                    let part = if ramdisks == 1 { "runtime" } else { "application" };
                    format!("ramdisk {ramdisks} ({part})")
                }
                kind => kind.to_string(),
            };
            if !pcrs.is_empty() {
                measured.push(MeasuredSection { name, pcrs, sha384: section.sha384, bytes: section.size });
            }
        }
        measured
    }
}

/// The PCRs that cover a section with `ramdisks` ramdisks before it.
fn registers(kind: SectionKind, ramdisks: usize) -> &'static [u8] {
    match kind {
        SectionKind::Kernel | SectionKind::CommandLine => &[0, 1],
        SectionKind::Ramdisk if ramdisks == 0 => &[0, 1],
        SectionKind::Ramdisk => &[0, 2],
        SectionKind::Metadata | SectionKind::Signature => &[],
    }
}

/// Reads an image from its start to its end in constant memory, handing each piece of a section's contents to `sink`
/// (index of the section, its kind, the bytes).
///
/// Nothing that `sink` was given may be trusted before this returns `Ok`: the CRC is known at the end only.
pub fn scan(
    mut input: impl Read,
    mut sink: impl FnMut(usize, SectionKind, &[u8]) -> std::io::Result<()>,
) -> Result<Summary, EifError> {
    let mut bytes = [0; HEADER_BYTES];
    fill(&mut input, &mut bytes, || "the file header".to_owned())?;
    let header = Header::from_bytes(&bytes)?;
    let mut state = Scan::new(&bytes[..HEADER_BYTES - 4]);
    let mut position = HEADER_BYTES as u64;
    for (index, (&offset, &size)) in header.offsets.iter().zip(&header.sizes).enumerate() {
        if offset != position {
            return Err(EifError::Offset { index, expected: position, actual: offset });
        }
        let section = state.section(&mut input, index, offset, size, &mut sink)?;
        position += SECTION_HEADER_BYTES as u64 + section.size;
    }
    let mut one = [0];
    if input.read(&mut one)? != 0 {
        return Err(EifError::TrailingBytes(position));
    }
    state.finish(&header, position)
}

/// What has been seen so far.
struct Scan {
    crc: crc32fast::Hasher,
    pcr: [digest::Context; 3],
    sections: Vec<Section>,
    command_line: Vec<u8>,
    metadata: Vec<u8>,
    ramdisks: usize,
}

impl Scan {
    fn new(header_without_crc: &[u8]) -> Self {
        let mut crc = crc32fast::Hasher::new();
        crc.update(header_without_crc);
        Self {
            crc,
            pcr: std::array::from_fn(|_| digest::Context::new(&digest::SHA384)),
            sections: Vec::new(),
            command_line: Vec::new(),
            metadata: Vec::new(),
            ramdisks: 0,
        }
    }

    fn section(
        &mut self,
        input: &mut impl Read,
        index: usize,
        offset: u64,
        table_size: u64,
        sink: &mut impl FnMut(usize, SectionKind, &[u8]) -> std::io::Result<()>,
    ) -> Result<Section, EifError> {
        let mut bytes = [0; SECTION_HEADER_BYTES];
        fill(input, &mut bytes, || format!("the header of section {index}"))?;
        self.crc.update(&bytes);
        let (kind, size) = parse_section_header(index, &bytes)?;
        self.check_order(index, kind)?;
        if size != table_size {
            let expected = format!("{table_size}, as the file header says");
            return Err(EifError::Size { index, kind, expected, actual: size });
        }
        let limit = limit(kind);
        if size == 0 || size > limit {
            return Err(EifError::Size { index, kind, expected: format!("1 to {limit}"), actual: size });
        }

        let mut hash = digest::Context::new(&digest::SHA384);
        let mut buffer = vec![0; CHUNK];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let piece = &mut buffer[..want];
            fill(input, piece, || format!("section {index}, the {kind}"))?;
            self.crc.update(piece);
            hash.update(piece);
            self.measure(kind, piece);
            sink(index, kind, piece)?;
            left -= want as u64;
        }
        if kind == SectionKind::Ramdisk {
            self.ramdisks += 1;
        }
        let section = Section { kind, offset, size, sha384: bytes_of(hash) };
        self.sections.push(section);
        Ok(section)
    }

    /// Kernel, command line, metadata, ramdisks, signature: the order of version 4, the one that AWS's tools write.
    fn check_order(&self, index: usize, kind: SectionKind) -> Result<(), EifError> {
        use SectionKind::{CommandLine, Kernel, Metadata, Ramdisk, Signature};
        let last = self.sections.last().map(|section| section.kind);
        let (allowed, expected): (&[SectionKind], _) = match last {
            None => (&[Kernel], "the kernel"),
            Some(Kernel) => (&[CommandLine], "the command line"),
            Some(CommandLine) => (&[Metadata], "the metadata"),
            Some(Metadata) => (&[Ramdisk], "a ramdisk"),
            Some(Ramdisk) => (&[Ramdisk, Signature], "a ramdisk or the signature"),
            Some(Signature) => (&[], "nothing: the signature is the last"),
        };
        if allowed.contains(&kind) {
            return Ok(());
        }
        Err(EifError::Order { index, expected, actual: kind })
    }

    fn measure(&mut self, kind: SectionKind, piece: &[u8]) {
        match kind {
            SectionKind::CommandLine => self.command_line.extend_from_slice(piece),
            SectionKind::Metadata => self.metadata.extend_from_slice(piece),
            _ => {}
        }
        for &register in registers(kind, self.ramdisks) {
            self.pcr[usize::from(register)].update(piece);
        }
    }

    fn finish(self, header: &Header, file_bytes: u64) -> Result<Summary, EifError> {
        if self.ramdisks == 0 {
            return Err(EifError::NoRamdisk);
        }
        let crc = self.crc.finalize();
        if crc != header.crc32 {
            return Err(EifError::Crc { expected: header.crc32, actual: crc });
        }
        let [pcr0, pcr1, pcr2] = self.pcr.map(|hash| Pcr::of_digests(&[bytes_of(hash)]));
        Ok(Summary {
            architecture: header.architecture,
            default_memory: header.default_memory,
            default_cpus: header.default_cpus,
            command_line: String::from_utf8(self.command_line).map_err(|_| EifError::CommandLine)?,
            metadata: serde_json::from_slice(&self.metadata).map_err(EifError::Metadata)?,
            sections: self.sections,
            measurements: Measurements { pcr0, pcr1, pcr2 },
            file_bytes,
        })
    }
}

fn limit(kind: SectionKind) -> u64 {
    match kind {
        SectionKind::CommandLine => MAX_COMMAND_LINE_BYTES,
        SectionKind::Metadata | SectionKind::Signature => MAX_METADATA_BYTES,
        SectionKind::Kernel | SectionKind::Ramdisk => MAX_SECTION_BYTES,
    }
}

fn bytes_of(hash: digest::Context) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}

fn fill(input: &mut impl Read, buffer: &mut [u8], place: impl FnOnce() -> String) -> Result<(), EifError> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => EifError::Truncated(place()),
        _ => EifError::Io(error),
    })
}
