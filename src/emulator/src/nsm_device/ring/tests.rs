use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use virtio_bindings::bindings::virtio_ring::VRING_DESC_F_NEXT;

use super::driver::{Driver, MEMORY_SIZE, Part, QUEUE_SIZE, used_index};
use super::*;

const NEXT: u16 = 1;
const _: () = assert!(NEXT as u32 == VRING_DESC_F_NEXT);
const OUTSIDE: u64 = MEMORY_SIZE as u64 + 0x1000;

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_SIZE)]).unwrap()
}

/// Answers with the request, turned around.
fn turn_around(request: &[u8], room: usize) -> Vec<u8> {
    request.iter().rev().copied().take(room).collect()
}

#[test]
fn a_request_is_answered_and_both_chains_return_in_the_drivers_order() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let (request, response, buffer) = driver.request(b"abc", 0x3000);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 2);
    assert_eq!(driver.returned(), [(request, 0), (response, 3)]);
    assert_eq!(driver.contents(buffer, 4), b"cba\0");
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 0);
}

#[test]
fn a_request_waits_in_the_ring_until_there_is_a_buffer_for_its_answer() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let bytes = driver.readable(b"abc");
    let request = driver.chain(&[bytes]);
    for _ in 0..3 {
        assert_eq!(serve(&mut queue, &memory, |_, _| panic!("too early")).unwrap(), 0);
        assert_eq!((used_index(&memory), queue.next_avail()), (0, 0));
    }
    let buffer = driver.writable(16);
    let response = driver.chain(&[buffer]);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 2);
    assert_eq!(driver.returned(), [(request, 0), (response, 3)]);
    assert_eq!(driver.contents(buffer, 3), b"cba");
}

#[test]
fn a_driver_that_starts_anew_is_not_answered_to_what_it_asked_before() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let bytes = driver.readable(b"before");
    driver.chain(&[bytes]);
    assert_eq!(serve(&mut driver.queue(), &memory, turn_around).unwrap(), 0);

    let mut driver = Driver::new(&memory);
    let (request, response, buffer) = driver.request(b"after", 16);
    assert_eq!(serve(&mut driver.queue(), &memory, turn_around).unwrap(), 2);
    assert_eq!(driver.returned(), [(request, 0), (response, 5)]);
    assert_eq!(driver.contents(buffer, 5), b"retfa");
}

#[test]
fn several_requests_are_answered_in_their_order() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let first = driver.request(b"12", 16);
    let second = driver.request(b"345", 16);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 4);
    assert_eq!(driver.returned(), [(first.0, 0), (first.1, 2), (second.0, 0), (second.1, 3)]);
    assert_eq!(driver.contents(second.2, 3), b"543");
}

#[test]
fn chains_of_several_descriptors_are_read_and_written_in_one_piece() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let parts = [driver.readable(b"ab"), driver.readable(b"cdef")];
    let request = driver.chain(&parts);
    let parts = [driver.writable(1), driver.writable(64)];
    let response = driver.chain(&parts);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 2);
    assert_eq!(driver.returned(), [(request, 0), (response, 6)]);
    assert_eq!(driver.contents(parts[0], 1), b"f");
    assert_eq!(driver.contents(parts[1], 5), b"edcba");
}

#[test]
fn the_device_is_told_the_room_and_one_byte_more_than_it_takes() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    driver.request(&vec![1; MAX_REQUEST + 500], 100);
    let mut seen = None;
    serve(&mut queue, &memory, |request, room| {
        seen = Some((request.len(), room));
        Vec::new()
    })
    .unwrap();
    assert_eq!(seen, Some((MAX_REQUEST + 1, 100)));
}

#[test]
fn a_buffer_where_a_request_belongs_returns_empty_and_the_next_request_is_answered() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let stray = driver.writable(16);
    let stray = driver.chain(&[stray]);
    let (request, response, _) = driver.request(b"abc", 16);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 3);
    assert_eq!(driver.returned(), [(stray, 0), (request, 0), (response, 3)]);
}

#[test]
fn a_request_behind_a_request_returns_the_first_and_is_answered() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let lonely = driver.readable(b"lonely");
    let lonely = driver.chain(&[lonely]);
    let (request, response, buffer) = driver.request(b"abc", 16);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 3);
    assert_eq!(driver.returned(), [(lonely, 0), (request, 0), (response, 3)]);
    assert_eq!(driver.contents(buffer, 3), b"cba");
}

#[test]
fn a_chain_to_read_and_to_write_is_neither_request_nor_buffer() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let both = [driver.readable(b"abc"), driver.writable(16)];
    let first = driver.chain(&both);
    let request = driver.readable(b"abc");
    let second = driver.chain(&[request]);
    let third = driver.chain(&both);
    let never = |_: &[u8], _| panic!("there is no whole request");
    assert_eq!(serve(&mut queue, &memory, never).unwrap(), 3);
    assert_eq!(driver.returned(), [(first, 0), (second, 0), (third, 0)]);
}

#[test]
fn a_request_outside_of_memory_is_answered_as_an_empty_one() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let request = driver.chain(&[Part { address: OUTSIDE, size: 16, written: false }]);
    let buffer = driver.writable(16);
    let response = driver.chain(&[buffer]);
    let answer = |request: &[u8], _| format!("{} bytes", request.len()).into_bytes();
    assert_eq!(serve(&mut queue, &memory, answer).unwrap(), 2);
    assert_eq!(driver.returned(), [(request, 0), (response, 7)]);
    assert_eq!(driver.contents(buffer, 7), b"0 bytes");
}

#[test]
fn a_buffer_outside_of_memory_returns_empty() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    for address in [OUTSIDE, u64::MAX - 8, MEMORY_SIZE as u64 - 8] {
        let request = driver.readable(b"abc");
        driver.chain(&[request]);
        driver.chain(&[Part { address, size: 16, written: true }]);
    }
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 6);
    assert!(driver.returned().iter().all(|(_, written)| *written == 0));
}

#[test]
fn a_chain_that_is_not_in_the_table_is_passed_over() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    driver.offer(QUEUE_SIZE);
    driver.offer(u16::MAX);
    let (request, response, _) = driver.request(b"abc", 16);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 2);
    assert_eq!(driver.returned(), [(request, 0), (response, 3)]);
}

#[test]
fn a_chain_that_bites_its_tail_ends_all_the_same() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let bytes = driver.readable(b"a");
    driver.descriptor(15, &bytes, NEXT, 15);
    driver.offer(15);
    let buffer = driver.writable(64);
    let response = driver.chain(&[buffer]);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 2);
    assert_eq!(driver.returned(), [(15, 0), (response, u32::from(QUEUE_SIZE))]);
}

#[test]
fn an_index_that_runs_ahead_of_the_ring_is_an_error_until_it_is_right_again() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    driver.set_available(QUEUE_SIZE + 1);
    for _ in 0..2 {
        let error = serve(&mut queue, &memory, turn_around).unwrap_err();
        assert!(matches!(error, Error::InvalidAvailRingIndex));
    }
    driver.set_available(0);
    driver.request(b"abc", 16);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 2);
}

#[test]
fn a_ring_outside_of_memory_is_an_error() {
    let memory = memory();
    let mut queue = Driver::new(&memory).queue();
    queue.try_set_avail_ring_address(GuestAddress(OUTSIDE)).unwrap();
    assert!(matches!(serve(&mut queue, &memory, turn_around), Err(Error::GuestMemory(_))));
    let mut driver = Driver::new(&memory);
    for address in [OUTSIDE, !3] {
        let mut queue = driver.queue();
        queue.try_set_used_ring_address(GuestAddress(address)).unwrap();
        driver.request(b"abc", 16);
        assert!(serve(&mut queue, &memory, turn_around).is_err());
    }
}

#[test]
fn the_indexes_run_over_their_end() {
    let memory = memory();
    let mut driver = Driver::starting_at(&memory, u16::MAX - 2);
    let mut queue = driver.queue();
    let first = driver.request(b"12", 16);
    let second = driver.request(b"345", 16);
    assert_eq!(serve(&mut queue, &memory, turn_around).unwrap(), 4);
    assert_eq!(used_index(&memory), 1);
    assert_eq!(driver.returned(), [(first.0, 0), (first.1, 2), (second.0, 0), (second.1, 3)]);
}

#[test]
fn the_driver_never_finds_a_request_returned_without_its_answer() {
    let memory = memory();
    let mut driver = Driver::new(&memory);
    let mut queue = driver.queue();
    let (request, response, _) = driver.request(b"abc", 16);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let seen = used_index(&memory);
                assert!(seen.is_multiple_of(2), "index {seen}");
            }
        });
        for _ in 0..20_000 {
            serve(&mut queue, &memory, |_, _| Vec::new()).unwrap();
            driver.offer(request);
            driver.offer(response);
        }
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap();
    });
}

proptest! {
    #[test]
    fn no_contents_of_the_ring_make_the_device_fail(
        table in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u16>(), any::<u16>()), 16),
        heads in proptest::collection::vec(0u16..20, 0..17),
    ) {
        let memory = memory();
        let driver = Driver::new(&memory);
        let mut queue = driver.queue();
        for (index, (address, size, flags, next)) in (0..).zip(table) {
            // Mostly within the memory, mostly small, or nothing but the first check would be seen.
            let address = if address % 5 == 0 { address } else { address % (MEMORY_SIZE as u64 * 2) };
            let size = if size % 5 == 0 { size } else { size % 0x4000 };
            driver.descriptor(index, &Part { address, size, written: false }, flags % 8, next % 18);
        }
        for head in &heads {
            driver.offer(*head);
        }
        let returned = serve(&mut queue, &memory, turn_around);
        prop_assert!(returned.is_err() || returned.is_ok_and(|count| count <= heads.len()));
    }
}
