//! The log groups of this account and region and their streams, in memory only.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    batch::{self, Judged},
    error::ServiceError,
    record::Record,
    request::InputLogEvent,
};

const GROUP: &str = "log group";
const STREAM: &str = "log stream";

/// An event as it is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    /// When it was accepted, in milliseconds since 1970.
    pub(crate) ingestion_time: i64,
    pub(crate) message: String,
}

#[derive(Default)]
struct Group {
    /// Days, or for ever.
    retention: Option<u32>,
    streams: BTreeMap<String, Vec<Event>>,
}

struct State {
    groups: BTreeMap<String, Group>,
    record: Record,
}

pub(crate) struct Store(Mutex<State>);

impl Store {
    /// Without any group.
    pub(crate) fn new(record: Record) -> Self {
        Self(Mutex::new(State { groups: BTreeMap::new(), record }))
    }

    pub(crate) fn create_group(&self, group: &str) -> Result<(), ServiceError> {
        create(&mut self.lock().groups, group, GROUP)
    }

    pub(crate) fn create_stream(&self, group: &str, stream: &str) -> Result<(), ServiceError> {
        create(&mut self.lock().group(group)?.streams, stream, STREAM)
    }

    pub(crate) fn set_retention(&self, group: &str, days: u32) -> Result<(), ServiceError> {
        self.lock().group(group)?.retention = Some(days);
        Ok(())
    }

    /// Takes those events of a batch that are neither too old nor too new. `now` is in milliseconds since 1970.
    pub(crate) fn put(
        &self,
        group: &str,
        stream: &str,
        events: &[InputLogEvent],
        now: i64,
    ) -> Result<Judged, ServiceError> {
        let mut state = self.lock();
        let State { groups, record } = &mut *state;
        let found = groups.get_mut(group).ok_or_else(|| ServiceError::resource_not_found(GROUP))?;
        let kept = found.streams.get_mut(stream).ok_or_else(|| ServiceError::resource_not_found(STREAM))?;
        let judged = batch::judge(events, now, found.retention)?;
        let taken = &events[judged.taken.clone()];
        record.append(group, stream, taken)?;
        kept.extend(taken.iter().map(|event| Event {
            timestamp: event.timestamp,
            ingestion_time: now,
            message: event.message.clone(),
        }));
        kept.sort_by_key(|event| event.timestamp);
        Ok(judged)
    }

    /// All events of a stream, in chronological order.
    pub(crate) fn events(&self, group: &str, stream: &str) -> Result<Vec<Event>, ServiceError> {
        let mut state = self.lock();
        let events = state.group(group)?.streams.get(stream);
        events.cloned().ok_or_else(|| ServiceError::resource_not_found(STREAM))
    }

    /// A panic in another thread leaves all groups whole, at worst with an event in the record only.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn group(&mut self, name: &str) -> Result<&mut Group, ServiceError> {
        self.groups.get_mut(name).ok_or_else(|| ServiceError::resource_not_found(GROUP))
    }
}

fn create<T: Default>(all: &mut BTreeMap<String, T>, name: &str, what: &str) -> Result<(), ServiceError> {
    match all.entry(name.to_owned()) {
        Entry::Occupied(_) => Err(ServiceError::resource_exists(what)),
        Entry::Vacant(place) => {
            place.insert(T::default());
            Ok(())
        }
    }
}
