//! Enclave images (EIF): a writer whose output depends on nothing but its input, and a reader that refuses what is not
//! well formed.
//!
//! The format is AWS's (`aws-nitro-enclaves-image-format`, version 4): a header of 548 bytes with a table of at most 32
//! sections and a CRC-32, then the sections, each with a header of 12 bytes. All numbers are big endian. PCR0, PCR1 and
//! PCR2 cover the contents of the kernel, command line and ramdisk sections; the metadata section is in none of them.

mod error;
mod extract;
mod format;
mod image;
mod ramdisk;
mod reader;

pub use error::EifError;
pub use extract::extract;
pub use format::{Architecture, SectionKind};
pub use image::{BuildMetadata, Image, Metadata};
pub use ramdisk::{Entry, EntryKind, Packed, Ramdisk, RamdiskError, unpack};
pub use reader::{MeasuredSection, Section, Summary, scan};
