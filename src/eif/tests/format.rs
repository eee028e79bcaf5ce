//! What the writer writes, the reader reads; and what is damaged in any way is refused.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use attestation::Pcr;
use eif::{Architecture, EifError, Image, Metadata, SectionKind, Summary, scan};
use proptest::prelude::*;

const HEADER: usize = 548;

fn image() -> Image {
    Image {
        architecture: Architecture::X86_64,
        kernel: vec![0x4b; 5000],
        command_line: "console=ttyS0".to_owned(),
        ramdisks: vec![vec![1; 300], vec![2; 200], vec![3; 100]],
        metadata: Metadata::new("test", "1", "6.12"),
    }
}

fn bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    image().write(&mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<Summary, EifError> {
    scan(bytes, |_, _, _| Ok(()))
}

/// Changes the file and then makes its CRC right again, so that other checks are reached.
fn with_crc(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = bytes();
    change(&mut bytes);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..HEADER - 4]);
    crc.update(&bytes[HEADER..]);
    bytes[HEADER - 4..HEADER].copy_from_slice(&crc.finalize().to_be_bytes());
    bytes
}

#[test]
fn what_is_written_is_read_again() {
    let summary = read(&bytes()).unwrap();
    assert_eq!(summary.command_line, "console=ttyS0");
    assert_eq!(summary.metadata, image().metadata);
    assert_eq!(summary.file_bytes, bytes().len() as u64);
    let kinds: Vec<_> = summary.sections.iter().map(|section| section.kind).collect();
    let ramdisk = SectionKind::Ramdisk;
    let first = [SectionKind::Kernel, SectionKind::CommandLine, SectionKind::Metadata];
    assert_eq!(kinds, [&first[..], &[ramdisk; 3]].concat());
}

#[test]
fn contents_reach_the_sink_whole() {
    let mut kernel = Vec::new();
    scan(&bytes()[..], |_, kind, piece| {
        if kind == SectionKind::Kernel {
            kernel.extend_from_slice(piece);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(kernel, image().kernel);
}

#[test]
fn pcrs_cover_kernel_command_line_and_ramdisks() {
    let image = image();
    let summary = read(&bytes()).unwrap();
    assert_eq!(summary.measurements, image.measurements());
    let [first, second, third] = &image.ramdisks[..] else { panic!("three ramdisks") };
    let boot = [&image.kernel[..], image.command_line.as_bytes()];
    assert_eq!(summary.measurements.pcr0, Pcr::measure(&[boot[0], boot[1], first, second, third]));
    assert_eq!(summary.measurements.pcr1, Pcr::measure(&[boot[0], boot[1], first]));
    assert_eq!(summary.measurements.pcr2, Pcr::measure(&[second, third]));
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    assert_eq!(bytes(), bytes());
}

#[test]
fn each_byte_counts() {
    let bytes = bytes();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        // The default memory and CPU counts are covered by the CRC as everything else is.
        assert!(read(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn a_truncated_image_is_refused_wherever_it_ends() {
    let bytes = bytes();
    for length in 0..bytes.len() {
        assert!(matches!(read(&bytes[..length]), Err(EifError::Truncated(_))), "{length} bytes");
    }
}

#[test]
fn bytes_behind_the_last_section_are_refused() {
    let longer = with_crc(|bytes| bytes.push(0));
    assert!(matches!(read(&longer), Err(EifError::TrailingBytes(_))));
}

#[test]
fn another_magic_or_version_is_named() {
    assert!(matches!(read(&with_crc(|b| b[0] = b'x')), Err(EifError::Magic { .. })));
    assert!(matches!(read(&with_crc(|b| b[5] = 3)), Err(EifError::Version { actual: 3, .. })));
}

#[test]
fn an_overlap_or_a_gap_is_refused() {
    // Offset of the second section: entry 1 of the table behind 28 bytes.
    let at = 28 + 8 + 7;
    assert!(matches!(read(&with_crc(|b| b[at] ^= 1)), Err(EifError::Offset { index: 1, .. })));
}

#[test]
fn a_size_that_differs_from_the_section_header_is_refused() {
    let at = 28 + 32 * 8 + 7;
    assert!(matches!(read(&with_crc(|b| b[at] ^= 1)), Err(EifError::Size { index: 0, .. })));
}

#[test]
fn sections_in_another_order_are_refused() {
    let swapped = with_crc(|b| b[HEADER + 1] = 3);
    assert!(matches!(read(&swapped), Err(EifError::Order { index: 0, actual: SectionKind::Ramdisk, .. })));
    let unknown = with_crc(|b| b[HEADER + 1] = 9);
    assert!(matches!(read(&unknown), Err(EifError::UnknownSection { index: 0, actual: 9 })));
}

#[test]
fn too_few_or_too_many_sections_are_refused() {
    assert!(matches!(read(&with_crc(|b| b[27] = 3)), Err(EifError::SectionCount(3))));
    assert!(matches!(read(&with_crc(|b| b[27] = 33)), Err(EifError::SectionCount(33))));
    let mut none = image();
    none.ramdisks.clear();
    assert!(matches!(none.write(Vec::new()), Err(EifError::NoRamdisk)));
    let mut many = image();
    many.ramdisks = vec![vec![1]; 30];
    assert!(matches!(many.write(Vec::new()), Err(EifError::SectionCount(33))));
}

#[test]
fn a_command_line_that_the_kernel_would_cut_is_refused() {
    let mut long = image();
    long.command_line = "x".repeat(2049);
    assert!(matches!(long.write(Vec::new()), Err(EifError::Size { index: 1, .. })));
}

proptest! {
    #[test]
    fn no_input_makes_the_reader_panic(mut noise in proptest::collection::vec(any::<u8>(), 0..2000), keep in 0usize..600) {
        let valid = bytes();
        let keep = keep.min(noise.len());
        noise[..keep].copy_from_slice(&valid[..keep]);
        prop_assert!(read(&noise).is_err());
    }
}
