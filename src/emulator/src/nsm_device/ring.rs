//! The ring that the driver shares with the device (virtio 1.2, section 2.7, split virtqueue). Each request is one chain
//! of descriptors that the device reads, and behind it in the ring one chain that it writes the answer to.
//!
//! Nothing is remembered between two looks at the ring: a request whose buffer for the answer is not there yet stays in
//! the ring. So a guest that resets its driver leaves nothing behind.

use std::io::{Read as _, Write as _};

use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::exchange::MAX_REQUEST;

/// `struct virtq_used`: le16 flags and le16 idx, then one `struct virtq_used_elem` (le32 id, le32 len) a slot.
const USED_HEADER_SIZE: u64 = 4;
const USED_ELEMENT_SIZE: usize = 8;

type Chain<'a> = DescriptorChain<&'a GuestMemoryMmap>;

/// Answers what is in the ring. `answer` gets the bytes of a request, never more than one too many, and how many bytes its
/// answer may have.
///
/// Returns how many chains went back to the driver, which has to be told if there were any. An error means that the ring
/// itself makes no sense or is not in the guest's memory; looking at it again does no harm.
pub(super) fn serve(
    queue: &mut Queue,
    memory: &GuestMemoryMmap,
    mut answer: impl FnMut(&[u8], usize) -> Vec<u8>,
) -> Result<usize, Error> {
    let mut returned = 0;
    // At most once around, so that a driver that never stops does not keep QEMU waiting for the ring.
    for _ in 0..queue.size() {
        let Some(request) = next(queue, memory)? else { break };
        if direction(&request) != Some(Direction::Read) {
            tracing::warn!("a chain that is no request where one belongs: returned");
            returned += usize::from(give_back(queue, memory, &request)?);
            continue;
        }
        let Some(response) = next(queue, memory)? else {
            queue.go_to_previous_position();
            break;
        };
        if direction(&response) != Some(Direction::Write) {
            tracing::warn!("a request without a buffer for its answer: returned unanswered");
            // The second chain may be a request of its own.
            queue.go_to_previous_position();
            returned += usize::from(give_back(queue, memory, &request)?);
            continue;
        }
        let heads = [request.head_index(), response.head_index()];
        let written = exchange(memory, request, response, &mut answer);
        add_used_pair(queue, memory, [(heads[0], 0), (heads[1], written)])?;
        returned += 2;
    }
    Ok(returned)
}

fn next<'a>(queue: &mut Queue, memory: &'a GuestMemoryMmap) -> Result<Option<Chain<'a>>, Error> {
    Ok(queue.iter(memory)?.next())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// Whether the device is to read the chain or to write it. None for one that is both, or has no descriptor at all.
fn direction(chain: &Chain<'_>) -> Option<Direction> {
    let mut directions =
        chain.clone().map(|part| if part.is_write_only() { Direction::Write } else { Direction::Read });
    let first = directions.next()?;
    directions.all(|other| other == first).then_some(first)
}

/// Reads the request, writes the answer, and returns the size of the answer.
fn exchange(
    memory: &GuestMemoryMmap,
    request: Chain<'_>,
    response: Chain<'_>,
    answer: &mut impl FnMut(&[u8], usize) -> Vec<u8>,
) -> u32 {
    let mut bytes = Vec::new();
    // One byte over the limit is enough to see that there are too many.
    let read =
        request.reader(memory).map(|reader| reader.take(MAX_REQUEST as u64 + 1).read_to_end(&mut bytes));
    if !matches!(read, Ok(Ok(_))) {
        tracing::warn!("a request outside of the guest's memory");
        bytes.clear();
    }
    let Ok(mut writer) = response.writer(memory) else {
        tracing::warn!("a buffer for an answer outside of the guest's memory: returned empty");
        return 0;
    };
    let answer = answer(&bytes, writer.available_bytes());
    match writer.write_all(&answer) {
        Ok(()) => u32::try_from(answer.len()).unwrap_or(0),
        Err(error) => {
            tracing::warn!(%error, "an answer could not be written");
            0
        }
    }
}

/// Returns a chain that nothing was done with. One that is not in the table of descriptors cannot be returned.
fn give_back(queue: &mut Queue, memory: &GuestMemoryMmap, chain: &Chain<'_>) -> Result<bool, Error> {
    match queue.add_used(memory, chain.head_index(), 0) {
        Ok(()) => Ok(true),
        Err(Error::InvalidDescriptorIndex) => {
            tracing::warn!(head = chain.head_index(), "a chain that starts outside of the table: ignored");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Returns two chains, each with the number of bytes written to it, in one step: the driver's interrupt handler takes the
/// request and the answer at once, and gives up with "wrong response buffer" if it finds the first alone.
fn add_used_pair(
    queue: &mut Queue,
    memory: &GuestMemoryMmap,
    [(head, written), second]: [(u16, u32); 2],
) -> Result<(), Error> {
    let slot = u64::from(queue.next_used() % queue.size());
    let offset = USED_HEADER_SIZE + slot * USED_ELEMENT_SIZE as u64;
    let address = queue.used_ring().checked_add(offset).ok_or(Error::AddressOverflow)?;
    let mut element = [0; USED_ELEMENT_SIZE];
    element[..4].copy_from_slice(&u32::from(head).to_le_bytes());
    element[4..].copy_from_slice(&written.to_le_bytes());
    memory.write_slice(&element, GuestAddress(address)).map_err(Error::GuestMemory)?;
    // The driver sees neither before the second moves the ring's index, over both.
    queue.set_next_used(queue.next_used().wrapping_add(1));
    queue.add_used(memory, second.0, second.1)
}

#[cfg(test)]
mod driver;
#[cfg(test)]
mod tests;
