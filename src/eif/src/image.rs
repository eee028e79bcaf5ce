use std::io::Write;

use attestation::Measurements;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    EifError,
    format::{
        Architecture, HEADER_BYTES, Header, MAX_COMMAND_LINE_BYTES, MAX_METADATA_BYTES, MAX_SECTION_BYTES,
        MAX_SECTIONS, SECTION_HEADER_BYTES, SectionKind, section_header,
    },
};

/// What AWS's tools write when nobody says otherwise.
const DEFAULT_MEMORY: u64 = 1 << 30;
const DEFAULT_CPUS: u64 = 2;
/// PCR0 does not cover the metadata, but the file's hash does: the build's time is a constant.
const BUILD_TIME: &str = "1970-01-01T00:00:00Z";

/// An image in memory, ready to be measured and written.
#[derive(Debug, Clone)]
pub struct Image {
    /// The processor it is for.
    pub architecture: Architecture,
    /// bzImage or Image.
    pub kernel: Vec<u8>,
    /// The kernel's command line.
    pub command_line: String,
    /// The first is the runtime (PCR1), the others the application (PCR2); together they are the initramfs.
    pub ramdisks: Vec<Vec<u8>>,
    /// In no PCR.
    pub metadata: Metadata,
}

/// The metadata section, with the names that AWS's tools use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// Name of the image.
    pub image_name: String,
    /// Version of the image.
    pub image_version: String,
    /// How it was built.
    pub build_metadata: BuildMetadata,
    /// Empty: there is no container in this image.
    pub docker_info: serde_json::Value,
    /// Free.
    pub custom_metadata: serde_json::Value,
}

/// Part of [`Metadata`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildMetadata {
    /// RFC 3339. A constant, or the file's bytes would differ in each build.
    pub build_time: String,
    /// Name of the tool.
    pub build_tool: String,
    /// Version of the tool.
    pub build_tool_version: String,
    /// Of the image.
    pub operating_system: String,
    /// Version of the kernel.
    pub kernel_version: String,
}

impl Metadata {
    /// Of an image that this crate builds: the same for the same arguments.
    pub fn new(image_name: &str, image_version: &str, kernel_version: &str) -> Self {
        Self {
            image_name: image_name.to_owned(),
            image_version: image_version.to_owned(),
            build_metadata: BuildMetadata {
                build_time: BUILD_TIME.to_owned(),
                build_tool: "nitro-sign eif".to_owned(),
                build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
                operating_system: "Linux".to_owned(),
                kernel_version: kernel_version.to_owned(),
            },
            docker_info: json!({}),
            custom_metadata: json!({}),
        }
    }
}

impl Image {
    /// PCR0, PCR1 and PCR2 of this image.
    pub fn measurements(&self) -> Measurements {
        let boot = [&self.kernel[..], self.command_line.as_bytes()];
        let ramdisks: Vec<_> = self.ramdisks.iter().map(Vec::as_slice).collect();
        let (runtime, application) = ramdisks.split_at(ramdisks.len().min(1));
        Measurements::of_parts(&boot, runtime, application)
    }

    /// Writes the image. The same image always gives the same bytes.
    pub fn write(&self, mut out: impl Write) -> Result<(), EifError> {
        let metadata = serde_json::to_vec(&self.metadata).map_err(EifError::Metadata)?;
        let mut sections = vec![
            (SectionKind::Kernel, &self.kernel[..], MAX_SECTION_BYTES),
            (SectionKind::CommandLine, self.command_line.as_bytes(), MAX_COMMAND_LINE_BYTES),
            (SectionKind::Metadata, &metadata[..], MAX_METADATA_BYTES),
        ];
        sections.extend(self.ramdisks.iter().map(|r| (SectionKind::Ramdisk, &r[..], MAX_SECTION_BYTES)));
        if self.ramdisks.is_empty() {
            return Err(EifError::NoRamdisk);
        }
        if sections.len() > MAX_SECTIONS {
            return Err(EifError::SectionCount(u16::try_from(sections.len()).unwrap_or(u16::MAX)));
        }

        let mut header = Header {
            architecture: self.architecture,
            default_memory: DEFAULT_MEMORY,
            default_cpus: DEFAULT_CPUS,
            offsets: Vec::new(),
            sizes: Vec::new(),
            crc32: 0,
        };
        let mut offset = HEADER_BYTES as u64;
        for (index, (kind, contents, limit)) in sections.iter().enumerate() {
            let size = contents.len() as u64;
            if size == 0 || size > *limit {
                return Err(EifError::Size {
                    index,
                    kind: *kind,
                    expected: format!("1 to {limit}"),
                    actual: size,
                });
            }
            header.offsets.push(offset);
            header.sizes.push(size);
            offset += SECTION_HEADER_BYTES as u64 + size;
        }

        let mut crc = crc32fast::Hasher::new();
        crc.update(&header.to_bytes()[..HEADER_BYTES - 4]);
        for (kind, contents, _) in &sections {
            crc.update(&section_header(*kind, contents.len() as u64));
            crc.update(contents);
        }
        header.crc32 = crc.finalize();

        out.write_all(&header.to_bytes())?;
        for (kind, contents, _) in &sections {
            out.write_all(&section_header(*kind, contents.len() as u64))?;
            out.write_all(contents)?;
        }
        out.flush()?;
        Ok(())
    }
}
