//! The memory that the bodies of all requests share.
//!
//! A body takes room before what it is for is read, and gives all of it back when its request has been answered. Room
//! is accounted by sender. When there is none left, requests wait, first come first served, but who has more than its
//! fair share waits behind all who have not; and after a moment the sender that has the most gives way with the body
//! that has been quiet the longest; later one of the waiting sender itself, or one of others that has been quiet for as
//! long. So a sender alone may have all of it, and many bodies of one sender keep nobody
//! else out. A part is for the first step of senders that have nothing: one small request is not even delayed.
//!
//! Invariants, whenever the mutex is free: `used` is the sum of what the bodies have and at most `bytes_max`; a sender's
//! `bytes` is the sum of its bodies', and `told` that of those that were told to give way. A sender is known while it
//! has room or waits, and has its earliest ticket in `turns` exactly while it waits. Nothing waits for ever: whoever
//! waits is served, told to give way, or leaves after [`ROOM_WAIT_MAX`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Gauge, gauge};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{api::JSON_BYTES_MAX, limited::Limit, metrics::UPLOAD_BYTES, problem::Error};

/// How much memory the bodies of requests may have together, usually: sixteen of the largest.
pub const UPLOADS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a body waits for room before its request is refused.
pub const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a body waits before its sender's others give way, and those of others that were quiet for as long: shorter than it waits in all.
pub const ROOM_KEPT_MIN: Duration = Duration::from_secs(3);
/// How long a body waits before those give way that have more than their share; most of them end by themselves first.
const SHARE_WAIT: Duration = Duration::from_millis(250);
/// How much is taken at once.
pub(super) const STEP_BYTES: usize = 64 * 1024;
/// Which part of the room is for the first step of senders that have none.
const FIRST_STEPS_PART: usize = 16;

/// Whose room it is: a client where tokens say who it is, else an address, of IPv6 the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sender {
    Client(Arc<str>),
    Address(IpAddr),
}

/// The room of one server. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Rooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // What times are measured from, so that one fits into an atomic.
    epoch: Instant,
    // A plain mutex: held for a few lookups, or for a look at what there is when somebody must give way.
    state: Mutex<State>,
    shown: Gauge,
}

#[derive(Debug)]
struct State {
    epoch: Instant,
    bytes_max: usize,
    // For all but first steps; the largest body fits.
    common_max: usize,
    used: usize,
    told: usize,
    next_number: u64,
    // Those that have room.
    bodies: BTreeMap<u64, Body>,
    // By ticket.
    waiters: BTreeMap<u64, Waiter>,
    senders: HashMap<Sender, Account>,
    // The earliest ticket of each sender that waits.
    turns: BTreeMap<u64, Sender>,
}

#[derive(Debug)]
struct Body {
    sender: Sender,
    bytes: usize,
    ticket: Option<u64>,
    is_told: bool,
    // No more of it comes, so it needs not give way: it is being answered.
    is_read: bool,
    told: Arc<Told>,
}

#[derive(Debug)]
struct Waiter {
    body: u64,
    sender: Sender,
    missing: usize,
    since: Instant,
    told: Arc<Told>,
}

#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    told: usize,
    bodies: BTreeSet<u64>,
    tickets: BTreeSet<u64>,
}

/// What a body and the room say to each other.
#[derive(Debug, Default)]
struct Told {
    gives_way: Arc<GivesWay>,
    served: Notify,
    // When something of it came last, in milliseconds.
    heard: AtomicU64,
}

impl Told {
    fn heard(&self, epoch: Instant) {
        let at = u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Relaxed: it only helps to choose.
        self.heard.store(at, Ordering::Relaxed);
    }
}

/// Says that a body must give way.
pub(super) type GivesWay = Notify;

/// What one body has.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Rooms,
    sender: Sender,
    number: u64,
    bytes: usize,
    told: Arc<Told>,
}

impl Rooms {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let first_steps =
            (bytes_max / FIRST_STEPS_PART).min(bytes_max.saturating_sub(JSON_BYTES_MAX));
        let shown = gauge!(UPLOAD_BYTES);
        shown.set(0.0);
        let epoch = Instant::now();
        let state = State {
            epoch,
            bytes_max,
            common_max: bytes_max - first_steps,
            used: 0,
            told: 0,
            next_number: 0,
            bodies: BTreeMap::new(),
            waiters: BTreeMap::new(),
            senders: HashMap::new(),
            turns: BTreeMap::new(),
        };
        Self(Arc::new(Inner { epoch, state: Mutex::new(state), shown }))
    }

    /// Room for one body, of which it has none yet; with what tells it to give way.
    pub(super) fn enter(&self, sender: Sender) -> (Room, Arc<GivesWay>) {
        let number = self.state().number();
        let told = Arc::new(Told::default());
        let gives_way = Arc::clone(&told.gives_way);
        (Room { rooms: self.clone(), sender, number, bytes: 0, told }, gives_way)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: &State) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact to 2^53")]
        self.0.shown.set(state.used as f64);
    }
}

impl Room {
    /// How much it has.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Something of it has come.
    pub(super) fn heard(&self) {
        self.told.heard(self.rooms.0.epoch);
    }

    /// All of it has come.
    pub(super) fn all_read(&self) {
        let mut state = self.rooms.state();
        if state.all_read(self.number) {
            // It will not give way: somebody else has to.
            state.serve();
            self.rooms.show(&state);
        }
    }

    /// Takes as much as is missing to `bytes`, waiting for it where it must.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is none within [`ROOM_WAIT_MAX`], or when it gives way meanwhile.
    pub(super) async fn have(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let since = Instant::now();
        let ticket = {
            let mut state = self.rooms.state();
            let body = state.bodies.get(&self.number);
            if body.is_some_and(|body| body.is_told) {
                return Err(busy());
            }
            let had = body.map_or(0, |body| body.bytes);
            let ticket = state.wait(self, bytes.saturating_sub(had), since);
            if state.head() == Some(ticket) {
                state.serve();
            } else if let Some(ticket) = state.first_step() {
                state.grant(ticket);
            }
            self.rooms.show(&state);
            ticket
        };
        let waiting = Waiting { rooms: &self.rooms, ticket };
        for wait in [SHARE_WAIT, ROOM_KEPT_MIN, ROOM_WAIT_MAX] {
            while self.rooms.state().waiters.contains_key(&ticket) {
                let served = timeout_at(since + wait, self.told.served.notified()).await;
                // A notice may be an earlier one's.
                if served.is_err() {
                    let mut state = self.rooms.state();
                    // Only whose turn it is makes others give way.
                    if state.head() == Some(ticket) {
                        state.serve();
                        self.rooms.show(&state);
                    }
                    break;
                }
            }
        }
        drop(waiting);
        self.bytes = self.rooms.state().bodies.get(&self.number).map_or(0, |body| body.bytes);
        if self.bytes >= bytes { Ok(()) } else { Err(busy()) }
    }
}

/// Leaves the queue, whether it was served or given up.
struct Waiting<'a> {
    rooms: &'a Rooms,
    ticket: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.rooms.state();
        let was_head = state.head() == Some(self.ticket);
        if state.leave(self.ticket).is_some() && was_head {
            state.serve();
            self.rooms.show(&state);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.rooms.state();
        if state.give_back(self.number) {
            state.serve();
            self.rooms.show(&state);
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Puts `room` at the end of the queue; returns its ticket.
    fn wait(&mut self, room: &Room, missing: usize, since: Instant) -> u64 {
        let ticket = self.number();
        let (sender, told) = (room.sender.clone(), Arc::clone(&room.told));
        let account = self.senders.entry(sender.clone()).or_default();
        if account.tickets.is_empty() {
            self.turns.insert(ticket, sender.clone());
        }
        account.tickets.insert(ticket);
        if let Some(body) = self.bodies.get_mut(&room.number) {
            body.ticket = Some(ticket);
        }
        self.waiters.insert(ticket, Waiter { body: room.number, sender, missing, since, told });
        ticket
    }

    fn leave(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        if let Some(body) = self.bodies.get_mut(&waiter.body) {
            body.ticket = None;
        }
        let account = self.senders.get_mut(&waiter.sender).expect("it is known while it waits");
        account.tickets.remove(&ticket);
        if self.turns.remove(&ticket).is_some()
            && let Some(next) = account.tickets.first()
        {
            self.turns.insert(*next, waiter.sender.clone());
        }
        self.forget(&waiter.sender);
        Some(waiter)
    }

    fn forget(&mut self, sender: &Sender) {
        let is_gone = |account: &Account| account.bytes == 0 && account.tickets.is_empty();
        if self.senders.get(sender).is_some_and(is_gone) {
            self.senders.remove(sender);
        }
    }

    /// What each sender may have while others wait.
    fn share(&self) -> usize {
        self.bytes_max / self.senders.len().max(1)
    }

    /// Whose turn it is: the first whose sender stays within its share, or else the first.
    fn head(&self) -> Option<u64> {
        let share = self.share();
        let is_fair = |(ticket, sender): &(&u64, &Sender)| {
            self.senders[*sender].bytes + self.waiters[*ticket].missing <= share
        };
        // With more senders than there are steps nobody does, and looking at all of them would be for nothing.
        let fair = if share < STEP_BYTES { None } else { self.turns.iter().find(is_fair) };
        fair.or_else(|| self.turns.first_key_value()).map(|(ticket, _)| *ticket)
    }

    /// Up to how much may be used when `waiter` is served.
    fn limit(&self, waiter: &Waiter) -> usize {
        let had = self.senders[&waiter.sender].bytes;
        let is_first_step = had == 0 && waiter.missing <= STEP_BYTES;
        // In the end a share goes before what is kept for senders that have not come.
        let is_owed = self.senders.len() > 1
            && had + waiter.missing <= self.share()
            && waiter.since.elapsed() >= ROOM_KEPT_MIN;
        if is_first_step || is_owed { self.bytes_max } else { self.common_max }
    }

    /// Gives room to those whose turn it is, and makes others give way where it is time.
    fn serve(&mut self) {
        while let Some(head) = self.head() {
            let waiter = &self.waiters[&head];
            let fits = self.used + waiter.missing <= self.limit(waiter);
            match if fits { Some(head) } else { self.first_step() } {
                Some(ticket) => self.grant(ticket),
                None => return self.press(head),
            }
        }
    }

    /// The first waiter whose sender has nothing, if there is room for its first step.
    fn first_step(&self) -> Option<u64> {
        let free = (self.bytes_max - self.used).min(STEP_BYTES);
        if free == 0 {
            return None;
        }
        let has_nothing = |(ticket, sender): &(&u64, &Sender)| {
            self.senders[*sender].bytes == 0 && self.waiters[*ticket].missing <= free
        };
        self.turns.iter().find(has_nothing).map(|(ticket, _)| *ticket)
    }

    fn grant(&mut self, ticket: u64) {
        let Some(Waiter { body: number, sender, missing, told, .. }) = self.waiters.get(&ticket)
        else {
            return;
        };
        let (number, missing, told) = (*number, *missing, Arc::clone(told));
        let account = self.senders.get_mut(sender).expect("it is known while it waits");
        account.bytes += missing;
        account.bodies.insert(number);
        self.used += missing;
        let body = self.bodies.entry(number).or_insert_with(|| Body {
            sender: sender.clone(),
            bytes: 0,
            ticket: None,
            is_told: false,
            is_read: false,
            told: Arc::clone(&told),
        });
        body.bytes += missing;
        // It has just got what it waited for, and was not quiet meanwhile.
        told.heard(self.epoch);
        self.leave(ticket);
        told.served.notify_one();
    }

    /// Makes as many bodies give way as `head` needs, if it has waited long enough.
    fn press(&mut self, head: u64) {
        let waiter = &self.waiters[&head];
        let (body, missing, waited) = (waiter.body, waiter.missing, waiter.since.elapsed());
        if waited < SHARE_WAIT {
            return;
        }
        let (limit, sender) = (self.limit(waiter), waiter.sender.clone());
        while self.used + missing > limit + self.told {
            let would_have = self.senders[&sender].bytes + missing;
            let Some(number) = self.victim(body, &sender, would_have, waited >= ROOM_KEPT_MIN)
            else {
                return;
            };
            self.tell(number);
        }
    }

    /// The body that gives way next: of the sender that keeps the most, the one that has been quiet the longest; of those
    /// that only wait for room themselves, which are not quiet, the newest.
    fn victim(&self, head: u64, by: &Sender, would_have: usize, is_last: bool) -> Option<u64> {
        let share = self.share();
        let is_fair = would_have <= share;
        let wants_too_much = |body: &Body| {
            let had = self.senders[&body.sender].bytes;
            body.ticket.is_some_and(|ticket| had + self.waiters[&ticket].missing > share)
        };
        let quiet_before = self.epoch.elapsed().saturating_sub(ROOM_KEPT_MIN).as_millis();
        let is_quiet = |body: &Body| {
            let heard = u128::from(body.told.heard.load(Ordering::Relaxed));
            body.ticket.is_none() && heard <= quiet_before
        };
        let may = |number: &&u64| {
            let body = &self.bodies[*number];
            // Of another sender within its share only what is quiet gives way, and only to who is within its own: else the
            // other one would come again and be served before it.
            let is_lesser = body.sender == *by
                || self.senders[&body.sender].bytes > share
                || wants_too_much(body)
                || (is_fair && is_quiet(body));
            **number != head && !body.is_told && !body.is_read && is_lesser
        };
        let keeps = |account: &Account| account.bytes - account.told;
        let is_over = |sender: &Sender, account: &Account| {
            sender != by && keeps(account) > share && keeps(account) > would_have
        };
        let accounts = self.senders.iter();
        let (_, most) = accounts
            .filter(|(sender, account)| is_last || is_over(sender, account))
            .filter(|(_, account)| account.bodies.iter().any(|number| may(&number)))
            .max_by_key(|(_, account)| keeps(account))?;
        let bodies = most.bodies.iter().filter(may);
        let newest_of_waiting = |number: u64| (true, 0, u64::MAX - number);
        bodies.copied().min_by_key(|number| {
            let body = &self.bodies[number];
            match body.ticket {
                None => (false, body.told.heard.load(Ordering::Relaxed), *number),
                Some(_) => newest_of_waiting(*number),
            }
        })
    }

    fn tell(&mut self, number: u64) {
        let Some(body) = self.bodies.get_mut(&number) else { return };
        body.is_told = true;
        self.told += body.bytes;
        if let Some(account) = self.senders.get_mut(&body.sender) {
            account.told += body.bytes;
        }
        body.told.gives_way.notify_one();
        // It gets nothing more, or it would have to be told again.
        if let Some(ticket) = body.ticket {
            self.leave(ticket);
        }
    }

    /// Whether it had been told to give way.
    fn all_read(&mut self, number: u64) -> bool {
        let Some(body) = self.bodies.get_mut(&number) else { return false };
        body.is_read = true;
        let was_told = std::mem::take(&mut body.is_told);
        if was_told {
            self.told -= body.bytes;
            if let Some(account) = self.senders.get_mut(&body.sender) {
                account.told -= body.bytes;
            }
        }
        was_told
    }

    /// Whether there was anything to give back.
    fn give_back(&mut self, number: u64) -> bool {
        self.all_read(number);
        let Some(body) = self.bodies.remove(&number) else { return false };
        self.used -= body.bytes;
        if let Some(account) = self.senders.get_mut(&body.sender) {
            account.bytes -= body.bytes;
            account.bodies.remove(&number);
        }
        self.forget(&body.sender);
        true
    }
}

pub(super) fn busy() -> Error {
    Limit::Uploads.met();
    Error::Busy
}

#[cfg(test)]
mod tests;
