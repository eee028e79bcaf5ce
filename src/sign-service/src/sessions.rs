use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// 32 bytes chosen by the client.
pub(crate) type SessionId = [u8; 32];

/// Ended sessions whose ids are remembered, so that a repeated one is refused. 16384 ids take about 1.5 MiB.
///
/// This catches a client's mistake; what keeps a session safe is that its nonces exist once, whatever its id.
const REMEMBERED: usize = 16_384;

/// The sessions that run and ran, and the cap on them.
pub(crate) struct Sessions {
    max: usize,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    active: HashSet<SessionId>,
    remembered: HashSet<SessionId>,
    /// `remembered`, oldest first.
    order: VecDeque<SessionId>,
    is_draining: bool,
    completed: u64,
    failed: u64,
}

/// Why a session may not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the service is draining; ask another node")]
    Draining,
    #[error("session cap reached: {max} sessions at the same time")]
    CapReached { max: usize },
    #[error("a session with this id is active; use a fresh random id for each session")]
    IdInUse,
    #[error("a session with this id was used before; use a fresh random id for each session")]
    IdUsed,
}

/// The figures of `GetStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) active: usize,
    pub(crate) max: usize,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

impl Sessions {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, state: Mutex::default(), ended: Notify::new() })
    }

    /// Takes a place for session `id`; it is given back when the [`Place`] is dropped.
    pub(crate) fn begin(self: &Arc<Self>, id: SessionId) -> Result<Place, Refusal> {
        let mut state = self.lock();
        if state.is_draining {
            return Err(Refusal::Draining);
        }
        if state.active.contains(&id) {
            return Err(Refusal::IdInUse);
        }
        if state.remembered.contains(&id) {
            return Err(Refusal::IdUsed);
        }
        if state.active.len() >= self.max {
            return Err(Refusal::CapReached { max: self.max });
        }
        state.active.insert(id);
        Ok(Place { sessions: Arc::clone(self), id, is_complete: false })
    }

    pub(crate) fn figures(&self) -> Figures {
        let state = self.lock();
        Figures {
            active: state.active.len(),
            max: self.max,
            completed: state.completed,
            failed: state.failed,
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.lock().is_draining
    }

    /// Lets no more sessions begin.
    pub(crate) fn close(&self) {
        self.lock().is_draining = true;
    }

    /// Returns when no session is active.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.lock().active.is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one active session.
pub(crate) struct Place {
    sessions: Arc<Sessions>,
    id: SessionId,
    is_complete: bool,
}

impl Place {
    /// Gives the place back, counting the session as completed; when just dropped, it counts as failed.
    pub(crate) fn complete(mut self) {
        self.is_complete = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.sessions.lock();
        state.active.remove(&self.id);
        state.remember(self.id);
        if self.is_complete {
            state.completed += 1;
        } else {
            state.failed += 1;
        }
        drop(state);
        self.sessions.ended.notify_waiters();
    }
}

impl State {
    fn remember(&mut self, id: SessionId) {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.remembered.remove(&oldest);
        }
        self.remembered.insert(id);
        self.order.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn id(number: usize) -> SessionId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    #[test]
    fn the_cap_is_kept_and_an_ended_session_makes_room() {
        let sessions = Sessions::new(2);
        let first = sessions.begin(id(1)).unwrap();
        let _second = sessions.begin(id(2)).unwrap();
        let refusal = sessions.begin(id(3)).err().unwrap();
        assert_eq!(refusal.to_string(), "session cap reached: 2 sessions at the same time");
        drop(first);
        assert!(sessions.begin(id(3)).is_ok());
    }

    #[test]
    fn an_id_is_refused_while_its_session_is_active_and_after() {
        let sessions = Sessions::new(2);
        let place = sessions.begin(id(1)).unwrap();
        assert_eq!(sessions.begin(id(1)).err(), Some(Refusal::IdInUse));
        place.complete();
        assert_eq!(sessions.begin(id(1)).err(), Some(Refusal::IdUsed));
    }

    #[test]
    fn only_so_many_ids_are_remembered() {
        let sessions = Sessions::new(1);
        for number in 0..=REMEMBERED {
            sessions.begin(id(number)).unwrap().complete();
        }
        assert_eq!(sessions.lock().remembered.len(), REMEMBERED);
        assert_eq!(sessions.begin(id(1)).err(), Some(Refusal::IdUsed));
        assert!(sessions.begin(id(0)).is_ok(), "the oldest is forgotten");
    }

    #[test]
    fn figures_tell_completed_from_failed() {
        let sessions = Sessions::new(5);
        sessions.begin(id(1)).unwrap().complete();
        drop(sessions.begin(id(2)).unwrap());
        let _active = sessions.begin(id(3)).unwrap();
        assert_eq!(sessions.figures(), Figures { active: 1, max: 5, completed: 1, failed: 1 });
    }

    #[tokio::test]
    async fn draining_waits_for_the_active_and_refuses_the_new() {
        let sessions = Sessions::new(5);
        let active = sessions.begin(id(1)).unwrap();
        sessions.close();
        timeout(Duration::from_millis(20), sessions.ended()).await.unwrap_err();
        assert_eq!(sessions.begin(id(2)).err(), Some(Refusal::Draining));
        let (drained, ()) =
            tokio::join!(timeout(Duration::from_secs(5), sessions.ended()), async { drop(active) });
        drained.unwrap();
    }
}
