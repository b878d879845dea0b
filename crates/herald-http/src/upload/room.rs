//! The memory that the bodies of all requests share.
//!
//! A body takes room for its next step before that is read, and gives all of it back when its request has been answered.
//! When there is none left, who waits is waited for, but not for ever: the bodies that have had their room the longest,
//! and whose senders have still not sent all, give way. So whoever declares much and sends little takes the room away
//! from nobody, and two bodies that are half read never wait for each other: the older one gives way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{Gauge, gauge};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{limited::Limit, metrics::UPLOAD_BYTES, problem::Error};

/// How much memory the bodies of requests may have together, usually: sixteen of the largest.
pub const UPLOADS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a body waits for room before its request is refused.
pub const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);
/// For how long a body keeps its room whoever waits: shorter than others wait, so that they get some.
pub const ROOM_KEPT_MIN: Duration = Duration::from_secs(3);
/// How much is taken at once.
pub(super) const STEP_BYTES: usize = 64 * 1024;

/// The room of one server. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Rooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes_max: usize,
    // A plain mutex: held for a few additions, or for one pass over the bodies while one waits.
    state: Mutex<State>,
    freed: Notify,
    used: Gauge,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    next_number: u64,
    // In the order in which they began.
    bodies: BTreeMap<u64, Body>,
}

#[derive(Debug)]
struct Body {
    bytes: usize,
    began: Instant,
    gives_way: Arc<GivesWay>,
    is_told: bool,
}

/// Says that a body must give way.
pub(super) type GivesWay = Notify;

/// What one body has.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Rooms,
    number: u64,
    bytes: usize,
}

impl Rooms {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let used = gauge!(UPLOAD_BYTES);
        used.set(0.0);
        Self(Arc::new(Inner { bytes_max, state: Mutex::default(), freed: Notify::new(), used }))
    }

    /// Room for one body, of which it has none yet; with what tells it to give way.
    pub(super) fn enter(&self) -> (Room, Arc<GivesWay>) {
        let mut state = self.state();
        let number = state.next_number;
        state.next_number += 1;
        let gives_way = Arc::new(GivesWay::new());
        let (began, told) = (Instant::now(), Arc::clone(&gives_way));
        state.bodies.insert(number, Body { bytes: 0, began, gives_way: told, is_told: false });
        (Room { rooms: self.clone(), number, bytes: 0 }, gives_way)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, used: usize) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact to 2^53")]
        self.0.used.set(used as f64);
    }
}

impl Room {
    /// How much it has.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes as much as is missing to `bytes`, waiting for it where it must.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is none within [`ROOM_WAIT_MAX`].
    pub(super) async fn have(&mut self, bytes: usize) -> Result<(), Error> {
        let Some(missing) = bytes.checked_sub(self.bytes).filter(|missing| *missing > 0) else {
            return Ok(());
        };
        let give_up_at = Instant::now() + ROOM_WAIT_MAX;
        let rooms = self.rooms.clone();
        loop {
            // Before looking, so that what is freed in between is noticed.
            let freed = rooms.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let Err(look_at) = self.try_take(missing) else { return Ok(()) };
            // Either way it looks again, and for the last time when it gives up.
            let _ = timeout_at(look_at.min(give_up_at), freed).await;
            if Instant::now() >= give_up_at {
                return self.try_take(missing).map_err(|_| busy());
            }
        }
    }

    /// Takes `bytes` more if they are there; else tells others to give way, and says when the next one may be told.
    fn try_take(&mut self, bytes: usize) -> Result<(), Instant> {
        let mut state = self.rooms.state();
        let wanted = state.used + bytes;
        if wanted <= self.rooms.0.bytes_max {
            state.used = wanted;
            self.rooms.show(wanted);
            self.bytes += bytes;
            let body = state.bodies.get_mut(&self.number).expect("it is here until it is dropped");
            body.bytes = self.bytes;
            return Ok(());
        }
        let now = Instant::now();
        let mut short = wanted - self.rooms.0.bytes_max;
        for (number, body) in &mut state.bodies {
            if short == 0 {
                break;
            }
            if *number == self.number || body.bytes == 0 {
                continue;
            }
            let kept_until = body.began + ROOM_KEPT_MIN;
            if kept_until > now {
                return Err(kept_until);
            }
            if !body.is_told {
                body.is_told = true;
                body.gives_way.notify_one();
            }
            short = short.saturating_sub(body.bytes);
        }
        Err(now + ROOM_WAIT_MAX)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.rooms.state();
        state.bodies.remove(&self.number);
        state.used -= self.bytes;
        self.rooms.show(state.used);
        drop(state);
        if self.bytes > 0 {
            self.rooms.0.freed.notify_waiters();
        }
    }
}

pub(super) fn busy() -> Error {
    Limit::Uploads.met();
    Error::Busy
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const MAX: usize = 4 * STEP_BYTES;
    const TICK: Duration = Duration::from_millis(1);

    async fn body(rooms: &Rooms, bytes: usize) -> (Room, Arc<GivesWay>) {
        let (mut room, gives_way) = rooms.enter();
        room.have(bytes).await.unwrap();
        (room, gives_way)
    }

    async fn is_told(gives_way: &GivesWay) -> bool {
        timeout(Duration::ZERO, gives_way.notified()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_byte_is_given_and_the_next_one_is_not() {
        let rooms = Rooms::new(MAX);
        let (mut room, _) = body(&rooms, MAX).await;
        room.have(MAX).await.unwrap();
        let (mut other, _) = rooms.enter();
        let began = Instant::now();
        assert!(matches!(other.have(1).await, Err(Error::Busy)));
        assert_eq!(began.elapsed(), ROOM_WAIT_MAX);
        drop(room);
        other.have(MAX).await.unwrap();
        drop(other);
        assert_eq!(rooms.state().used, 0);
        assert!(rooms.state().bodies.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_is_given_back_goes_to_who_waits_at_once() {
        let rooms = Rooms::new(MAX);
        let (first, _) = body(&rooms, MAX).await;
        let began = Instant::now();
        let waiting = tokio::spawn({
            let rooms = rooms.clone();
            async move { body(&rooms, STEP_BYTES).await }
        });
        advance(TICK).await;
        drop(first);
        waiting.await.unwrap();
        assert_eq!(began.elapsed(), TICK);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_had_room_the_longest_gives_way_and_only_as_many_as_it_takes() {
        let rooms = Rooms::new(MAX);
        let (oldest, oldest_told) = body(&rooms, STEP_BYTES).await;
        advance(TICK).await;
        let (_second, second_told) = body(&rooms, 2 * STEP_BYTES).await;
        let (_third, third_told) = body(&rooms, STEP_BYTES).await;
        let began = Instant::now();
        let (mut waiting, _) = rooms.enter();
        let waiting = tokio::spawn(async move { waiting.have(STEP_BYTES).await.map(|()| waiting) });
        // It may keep its room for a while.
        tokio::task::yield_now().await;
        advance(ROOM_KEPT_MIN - TICK * 2).await;
        assert!(!is_told(&oldest_told).await);
        oldest_told.notified().await;
        assert_eq!(began.elapsed(), ROOM_KEPT_MIN - TICK);
        drop(oldest);
        let waiting = waiting.await.unwrap().unwrap();
        assert!(!is_told(&second_told).await && !is_told(&third_told).await);
        drop(waiting);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_wait_for_each_other_the_older_one_gives_way() {
        let rooms = Rooms::new(MAX);
        let (mut first, first_told) = body(&rooms, 2 * STEP_BYTES).await;
        let (mut second, second_told) = body(&rooms, 2 * STEP_BYTES).await;
        let first = tokio::spawn(async move {
            tokio::select! {
                had = first.have(MAX) => had.is_ok(),
                () = first_told.notified() => false,
            }
        });
        let second = tokio::spawn(async move {
            tokio::select! {
                had = second.have(MAX) => had.is_ok(),
                () = second_told.notified() => false,
            }
        });
        let had = (first.await.unwrap(), second.await.unwrap());
        assert!(!(had.0 && had.1), "there is not room for both");
        assert_eq!(rooms.state().used, 0);
        // Whoever comes next has all of it.
        body(&rooms, MAX).await;
    }
}
