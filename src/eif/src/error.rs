use crate::format::SectionKind;

/// Why a file is not an enclave image, or why an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EifError {
    /// Reading or writing failed.
    #[error("reading or writing the image failed: {0}")]
    Io(#[from] std::io::Error),
    /// The file ends inside the header or a section.
    #[error("the image is truncated: it ends inside {0}")]
    Truncated(String),
    /// The first four bytes are not `.eif`.
    #[error("not an enclave image: it starts with {actual:02x?}, expected \".eif\"")]
    Magic {
        /// What is there instead.
        actual: [u8; 4],
    },
    /// A version without CRC or metadata, or a future one.
    #[error("EIF version {actual} is not supported, expected {expected}")]
    Version {
        /// The version that is supported.
        expected: u16,
        /// The version in the header.
        actual: u16,
    },
    /// A field that has to be zero is not, or an unknown flag is set.
    #[error("the header's field {field} is {actual:#x}, expected {expected}")]
    Header {
        /// The field's name.
        field: &'static str,
        /// What is expected, in words.
        expected: &'static str,
        /// Its value.
        actual: u64,
    },
    /// The section table names no section, or more than fit.
    #[error("the header names {0} sections, expected 4 to 32")]
    SectionCount(u16),
    /// A section does not start where the section before it ends: a gap or an overlap.
    #[error("section {index} starts at byte {actual}, expected {expected}: sections must follow each other")]
    Offset {
        /// Place in the table, from 0.
        index: usize,
        /// Where the section before it ends.
        expected: u64,
        /// Where the table says that it starts.
        actual: u64,
    },
    /// The section's own header and the table disagree, or the section is larger than allowed.
    #[error("section {index}, the {kind}, has {actual} bytes, expected {expected}")]
    Size {
        /// Place in the table, from 0.
        index: usize,
        /// What the section is.
        kind: SectionKind,
        /// What is expected, in words.
        expected: String,
        /// The size in the section's header.
        actual: u64,
    },
    /// The type of a section is not one of the format's.
    #[error("section {index} has the unknown type {actual}")]
    UnknownSection {
        /// Place in the table, from 0.
        index: usize,
        /// The type in the section's header.
        actual: u16,
    },
    /// Sections come in the order kernel, command line, metadata, ramdisks, signature.
    #[error("section {index} is a {actual}, expected {expected}")]
    Order {
        /// Place in the table, from 0.
        index: usize,
        /// What may stand there, in words.
        expected: &'static str,
        /// What stands there.
        actual: SectionKind,
    },
    /// There has to be at least one ramdisk.
    #[error("the image has no ramdisk")]
    NoRamdisk,
    /// The CRC-32 over everything but itself is another.
    #[error("the image is damaged: its CRC is {actual:08x}, the header says {expected:08x}")]
    Crc {
        /// What the header says.
        expected: u32,
        /// What the file has.
        actual: u32,
    },
    /// There are bytes behind the last section.
    #[error("there are bytes behind the last section, from byte {0}")]
    TrailingBytes(u64),
    /// The command line is not text.
    #[error("the kernel command line is not UTF-8 text")]
    CommandLine,
    /// The metadata is not the JSON that the format asks for.
    #[error("the metadata section is not valid: {0}")]
    Metadata(serde_json::Error),
}
