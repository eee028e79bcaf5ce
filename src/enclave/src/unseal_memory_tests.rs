//! What is left of the identity in this process after a bundle was opened with it.

use std::{fs, io::Read as _, os::unix::fs::FileExt as _};

use secrecy::ExposeSecret as _;

use super::{
    tests::{plaintext, sealed},
    *,
};

/// Keeps what is searched for from being found where it is kept.
const MASK: u8 = 0x55;

/// Pieces of the identity that would give it away, masked.
struct Needles(Vec<Vec<u8>>);

impl Needles {
    fn of(text: &str) -> Self {
        let (_, data) = text.trim().split_once("KEY-1").unwrap();
        let scalar = Zeroizing::new(scalar(data));
        let lower = Zeroizing::new(data.to_lowercase());
        let pieces = [
            &data.as_bytes()[..20],
            &data.as_bytes()[20..40],
            &lower.as_bytes()[..20],
            &scalar[..16],
            &scalar[16..],
        ];
        Self(pieces.iter().map(|piece| piece.iter().map(|byte| byte ^ MASK).collect()).collect())
    }

    /// How many of them are somewhere in this process's memory.
    fn found(&self) -> usize {
        let memory = fs::File::open("/proc/self/mem").unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mut found = vec![false; self.0.len()];
        for region in maps.lines().filter(|line| line.contains(" rw")).map(addresses) {
            let mut content = vec![0; region.len()];
            // Some special mappings cannot be read.
            if memory.read_exact_at(&mut content, region.start as u64).is_ok() {
                for (found, needle) in found.iter_mut().zip(&self.0) {
                    *found |= holds(&content, needle);
                }
            }
        }
        found.into_iter().filter(|found| *found).count()
    }
}

fn addresses(line: &str) -> std::ops::Range<usize> {
    let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap()
}

fn holds(content: &[u8], masked: &[u8]) -> bool {
    let first = masked[0] ^ MASK;
    content.windows(masked.len()).any(|window| {
        window[0] == first && window.iter().zip(masked).all(|(byte, masked)| byte ^ MASK == *masked)
    })
}

/// The 32 bytes that Bech32 digits stand for, five bits each.
fn scalar(digits: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L";
    let bits = digits.bytes().flat_map(|digit| {
        let value = DIGITS.iter().position(|known| *known == digit).unwrap();
        (0..5).rev().map(move |bit| u8::from(value >> bit & 1 == 1))
    });
    let bits = Zeroizing::new(bits.take(256).collect::<Vec<_>>());
    bits.chunks(8).map(|byte| byte.iter().fold(0, |value, bit| value << 1 | bit)).collect()
}

#[test]
fn nothing_of_the_identity_is_left_after_the_bundle_is_open() {
    let work_dir = tempfile::tempdir().unwrap();
    // As KMS's answer would bring it: masked here, since this test is in the same process.
    let (needles, masked_text, bundle) = on_wiped_stack(|| {
        let identity = Identity::generate();
        let text = identity.to_text();
        let text = text.expose_secret();
        let masked: Vec<u8> = text.bytes().map(|byte| byte ^ MASK).collect();
        (Needles::of(text), masked, keyshares::seal(&vec![b'x'; 300_000], &identity.recipient()).unwrap())
    })
    .unwrap();
    let sealed = sealed(&bundle, work_dir.path());

    let (while_open, key_file) = on_wiped_stack(|| {
        let text = Zeroizing::new(masked_text.iter().map(|byte| byte ^ MASK).collect::<Vec<_>>());
        let identity = Identity::parse(&text).unwrap();
        let while_open = needles.found();
        (while_open, open_with(&identity, &sealed, &plaintext(&work_dir)).unwrap().0)
    })
    .unwrap();

    // Nothing writes it in lower case, but a decoder might.
    assert_eq!(while_open, needles.0.len() - 1, "the search does not find what is there");
    assert_eq!(needles.found(), 0, "pieces of the identity are still in memory");
    let mut content = Vec::new();
    fs::File::open(key_file.path()).unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content.len(), 300_000);
}
