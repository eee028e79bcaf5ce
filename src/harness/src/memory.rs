//! Looks for bytes in the memory of a running process (`/proc/<pid>/mem`), to show that a secret is gone.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

use anyhow::{Context as _, Result, ensure};

const WINDOW: usize = 1 << 20;

/// How often each needle occurs in the readable memory of the process.
///
/// Needs the right to trace the process (its own user with the kernel's permission, or root). Regions that the kernel
/// refuses to show (`[vvar]`, device mappings) are passed over; a process of which nothing could be read is an error.
pub fn occurrences(pid: u32, needles: &[&[u8]]) -> Result<Vec<usize>> {
    ensure!(needles.iter().all(|n| n.len() >= 8), "a needle under 8 bytes is found by chance");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))
        .with_context(|| format!("cannot list the memory of process {pid}"))?;
    let mut memory = File::open(format!("/proc/{pid}/mem"))
        .with_context(|| format!("cannot open the memory of process {pid}; run as its user or as root"))?;
    let overlap = needles.iter().map(|n| n.len()).max().unwrap_or(1) - 1;
    let mut found = vec![0; needles.len()];
    let mut seen: u64 = 0;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(permissions)) = (fields.next(), fields.next()) else { continue };
        if !permissions.starts_with('r') {
            continue;
        }
        let (start, end) = range.split_once('-').context("unknown format of /proc/<pid>/maps")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        seen += scan(&mut memory, start, end, overlap, needles, &mut found);
    }
    ensure!(seen > 0, "nothing of the memory of process {pid} could be read");
    Ok(found)
}

/// Scans one region in windows that overlap, so that a needle across two of them is found once.
fn scan(
    memory: &mut File,
    start: u64,
    end: u64,
    overlap: usize,
    needles: &[&[u8]],
    found: &mut [usize],
) -> u64 {
    let mut buffer = Vec::with_capacity(WINDOW + overlap);
    let mut position = start;
    while position < end {
        let want = (end - position).min(WINDOW as u64);
        if memory.seek(SeekFrom::Start(position)).is_err() {
            break;
        }
        let kept = buffer.len();
        if memory.take(want).read_to_end(&mut buffer).is_err() || buffer.len() == kept {
            break;
        }
        position += (buffer.len() - kept) as u64;
        for (needle, count) in needles.iter().zip(found.iter_mut()) {
            // What lies wholly in the kept part was counted with the window before.
            let from = kept.saturating_sub(needle.len() - 1);
            *count += memchr::memmem::find_iter(&buffer[from..], needle).count();
        }
        buffer.drain(..buffer.len() - overlap.min(buffer.len()));
    }
    position - start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_held_in_memory_is_found_and_an_absent_one_is_not() {
        let mut held = vec![0u8; 3 * WINDOW];
        let needle: Vec<u8> = (0..32).map(|i: u8| i.wrapping_mul(37) ^ 0x5a).collect();
        let absent: Vec<u8> = needle.iter().map(|b| b ^ 0xff).rev().collect();
        held[WINDOW - 7..WINDOW + 25].copy_from_slice(&needle);
        let absent_inverted: Vec<u8> = absent.iter().rev().map(|b| b ^ 0xff).collect();
        assert_eq!(absent_inverted, needle);
        let found = occurrences(std::process::id(), &[&needle]).unwrap();
        assert!(found[0] >= 2, "the vector and the needle itself: {found:?}");
        std::hint::black_box(&held);
    }

    #[test]
    fn short_needles_are_refused() {
        assert!(occurrences(std::process::id(), &[b"short"]).is_err());
    }
}
