//! The vhost-user side: QEMU hands over the guest's memory, the ring and the events that go with it.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use attestation::software::{SoftwareNsm, handle};
use vhost::vhost_user::{
    Error as VhostUserError, Listener, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost_user_backend::{Error as DaemonError, VhostUserBackend, VhostUserDaemon, VringRwLock, VringT as _};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::QueueT as _;
use vm_memory::{GuestAddressSpace as _, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};
use vmm_sys_util::timerfd::TimerFd;

use super::{exchange, ring};

/// More than any QEMU asks for by itself (64 to 1024); a power of two.
const MAX_QUEUE_SIZE: usize = 1024;
/// How often the ring is looked at without being asked to.
///
/// The driver registers the hardware RNG in its probe function, and the kernel's RNG thread may send a request at once:
/// before the device is marked ready (`DRIVER_OK`), when QEMU does not yet pass on that there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The timer's event. 0 is the ring's, 1 belongs to the library.
const TIMER_EVENT: u16 = 2;

/// Waits for QEMU on `listener`, and answers until QEMU hangs up.
pub(super) fn serve(nsm: SoftwareNsm, mut listener: Listener) -> anyhow::Result<()> {
    let mut timer = TimerFd::new().map_err(io::Error::from).context("making a timer")?;
    timer.reset(LOOK_EVERY, Some(LOOK_EVERY)).map_err(io::Error::from).context("starting a timer")?;
    let timer_descriptor = timer.as_raw_fd();
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let device =
        Arc::new(Device { nsm, memory: memory.clone(), timer: Mutex::new(timer), trouble: Mutex::new(None) });
    let mut daemon = VhostUserDaemon::new("nsm".to_owned(), Arc::clone(&device), memory)
        .map_err(|error| anyhow!("setting up the vhost-user device: {error}"))?;
    for handler in daemon.get_epoll_handlers() {
        handler
            .register_listener(timer_descriptor, EventSet::IN, u64::from(TIMER_EVENT))
            .context("waiting for the timer")?;
    }
    daemon.start(&mut listener).map_err(|error| anyhow!("waiting for QEMU: {error}"))?;
    // Removes the socket: there is one QEMU, and whoever comes later is to see that nobody answers.
    drop(listener);
    tracing::info!("QEMU has connected to the NSM device");
    match daemon.wait() {
        // However QEMU ends, the last that is seen of it is a connection that closed.
        Ok(())
        | Err(DaemonError::HandleRequest(VhostUserError::Disconnected | VhostUserError::PartialMessage)) => {
            tracing::info!("QEMU has disconnected from the NSM device");
            Ok(())
        }
        Err(error) => bail!("the vhost-user connection to QEMU: {error}"),
    }
}

struct Device {
    nsm: SoftwareNsm,
    /// The guest's memory, which QEMU may replace.
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    timer: Mutex<TimerFd>,
    /// What is wrong with the ring, so that it is logged once and not twenty times a second.
    trouble: Mutex<Option<String>>,
}

impl Device {
    fn look_at(&self, vring: &VringRwLock) {
        let outcome = {
            // Held until the answers are in the ring: when QEMU takes the ring back, nothing is written to it any more.
            let mut state = vring.get_mut();
            if !state.is_enabled() || !state.get_queue().ready() {
                return;
            }
            let memory = self.memory.memory();
            ring::serve(state.get_queue_mut(), &memory, |request, room| {
                exchange::answer(|request| handle(&self.nsm, request), request, room)
            })
        };
        let problem = match outcome {
            Ok(0) => None,
            Ok(_) => vring.signal_used_queue().err().map(|error| format!("telling the driver: {error}")),
            Err(error) => Some(error.to_string()),
        };
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *trouble != problem {
            if let Some(problem) = &problem {
                tracing::warn!(problem, "the ring of the NSM device cannot be served");
            }
            *trouble = problem;
        }
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        1
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        (1 << VIRTIO_F_VERSION_1) | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    /// With REPLY_ACK QEMU waits until the ring is set up before the guest goes on.
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::REPLY_ACK
    }

    /// Not offered, so never enabled.
    fn set_event_idx(&self, _enabled: bool) {}

    /// Nothing to do: `self.memory` is the very object that was replaced.
    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    /// Never fails: an error would silently end the only thread that serves the ring.
    fn handle_event(
        &self,
        event: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        if event == TIMER_EVENT {
            let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = timer.wait() {
                tracing::warn!(%error, "reading the timer of the NSM device");
            }
        }
        if let Some(vring) = vrings.first() {
            self.look_at(vring);
        }
        Ok(())
    }
}
