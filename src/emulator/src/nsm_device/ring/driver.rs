//! The driver's side of a ring, for tests (those of the whole program too).

use std::sync::atomic::Ordering;

use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::{AvailRing, DescriptorTable, UsedRing};
use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

pub(super) const TABLE: u64 = 0x1000;
pub(super) const AVAILABLE: u64 = 0x2000;
pub(super) const USED: u64 = 0x3000;
/// Where the data of the chains is.
const DATA: u64 = 0x1_0000;
pub(super) const MEMORY_SIZE: usize = 0x10_0000;
pub(super) const QUEUE_SIZE: u16 = 16;

/// One descriptor of a chain.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) address: u64,
    pub(super) size: u32,
    pub(super) written: bool,
}

pub(super) struct Driver<'a> {
    memory: &'a GuestMemoryMmap,
    table: DescriptorTable<'a, GuestMemoryMmap>,
    available: AvailRing<'a, GuestMemoryMmap>,
    used: UsedRing<'a, GuestMemoryMmap>,
    first_index: u16,
    next_descriptor: u16,
    next_data: u64,
}

/// How many chains the device has returned, as the driver sees it.
pub(super) fn used_index(memory: &GuestMemoryMmap) -> u16 {
    memory.load(GuestAddress(USED + 2), Ordering::Acquire).unwrap()
}

impl<'a> Driver<'a> {
    pub(super) fn new(memory: &'a GuestMemoryMmap) -> Self {
        Self::starting_at(memory, 0)
    }

    /// A driver that has used the ring `index` times already.
    pub(super) fn starting_at(memory: &'a GuestMemoryMmap, index: u16) -> Self {
        let driver = Self {
            memory,
            table: DescriptorTable::new(memory, GuestAddress(TABLE), QUEUE_SIZE),
            available: AvailRing::new(memory, GuestAddress(AVAILABLE), QUEUE_SIZE),
            used: UsedRing::new(memory, GuestAddress(USED), QUEUE_SIZE),
            first_index: index,
            next_descriptor: 0,
            next_data: DATA,
        };
        driver.available.idx().store(index);
        driver.used.idx().store(index);
        driver
    }

    /// The ring as the device sees it.
    pub(super) fn queue(&self) -> Queue {
        let mut queue = Queue::new(QUEUE_SIZE).unwrap();
        queue.try_set_desc_table_address(GuestAddress(TABLE)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(AVAILABLE)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
        queue.set_next_avail(self.first_index);
        queue.set_next_used(self.first_index);
        queue.set_ready(true);
        queue
    }

    /// Puts a chain into the ring and gives its head.
    pub(super) fn chain(&mut self, parts: &[Part]) -> u16 {
        let head = self.next_descriptor;
        for (number, part) in (1..).zip(parts) {
            let last = number == parts.len();
            let mut flags = if part.written { VRING_DESC_F_WRITE } else { 0 };
            if !last {
                flags |= VRING_DESC_F_NEXT;
            }
            let next = self.next_descriptor + 1;
            self.descriptor(self.next_descriptor, part, u16::try_from(flags).unwrap(), next);
            self.next_descriptor = next;
        }
        self.offer(head);
        head
    }

    pub(super) fn descriptor(&self, index: u16, part: &Part, flags: u16, next: u16) {
        let descriptor = Descriptor::new(part.address, part.size, flags, next);
        self.table.store(index, RawDescriptor::from(descriptor)).unwrap();
    }

    /// Puts a chain that is in the table into the ring.
    pub(super) fn offer(&self, head: u16) {
        let index = self.available.idx().load();
        self.available.ring().ref_at(usize::from(index % QUEUE_SIZE)).unwrap().store(head);
        self.set_available(index.wrapping_add(1));
    }

    pub(super) fn set_available(&self, index: u16) {
        self.memory.store(index, GuestAddress(AVAILABLE + 2), Ordering::Release).unwrap();
    }

    /// A piece of memory with these bytes, for the device to read.
    pub(super) fn readable(&mut self, bytes: &[u8]) -> Part {
        let part = self.space(bytes.len());
        self.memory.write_slice(bytes, GuestAddress(part.address)).unwrap();
        part
    }

    /// A piece of memory for the device to write.
    pub(super) fn writable(&mut self, size: usize) -> Part {
        Part { written: true, ..self.space(size) }
    }

    fn space(&mut self, size: usize) -> Part {
        let address = self.next_data;
        self.next_data += size as u64;
        Part { address, size: u32::try_from(size).unwrap(), written: false }
    }

    /// A request and the buffer for its answer, as the kernel's driver queues them.
    pub(super) fn request(&mut self, bytes: &[u8], room: usize) -> (u16, u16, Part) {
        let (request, buffer) = (self.readable(bytes), self.writable(room));
        (self.chain(&[request]), self.chain(&[buffer]), buffer)
    }

    pub(super) fn contents(&self, part: Part, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.memory.read_slice(&mut bytes, GuestAddress(part.address)).unwrap();
        bytes
    }

    /// The chains that the device has returned: head, bytes written.
    pub(super) fn returned(&self) -> Vec<(u16, u32)> {
        let count = used_index(self.memory).wrapping_sub(self.first_index);
        (0..count)
            .map(|number| {
                let slot = self.first_index.wrapping_add(number) % QUEUE_SIZE;
                let element = self.used.ring().ref_at(usize::from(slot)).unwrap().load();
                (u16::try_from(element.id()).unwrap(), element.len())
            })
            .collect()
    }
}
