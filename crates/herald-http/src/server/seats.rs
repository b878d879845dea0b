//! The connections there may be: who has one, and who gives way when a new one comes and all are taken.
//!
//! A peer that opens connections and says nothing must not lock out those who have something to ask. So when a port is
//! full, the connections that have nothing running make room: first those that have never asked anything, then those
//! whose peer does not take its answer, then those that wait between two requests, each the longest idle first. Only when
//! all are busy is a new one turned away.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use super::requests::Activity;
use crate::limited::Limit;

/// Which part of all connections makes room at once: looking for the idle ones costs a look at each.
const ROOM_PART: usize = 32;
/// For how long nobody is looked for after none was found: while all are busy, a new connection must cost little.
const BARREN_PAUSE: Duration = Duration::from_millis(100);
/// Which bits of an address of IPv6 count: a network of its own is the least that a host is given.
const IPV6_NETWORK: u128 = !0 << 64;

/// The connections of one port.
#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    per_address_max: Option<usize>,
    // A plain mutex: held for a lookup or for one pass, never across a wait.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_number: u64,
    taken: HashMap<u64, Seat>,
    // Bounded by the connections there are; empty where nobody counts by address.
    by_address: HashMap<IpAddr, usize>,
    barren_until: Option<Instant>,
}

#[derive(Debug)]
struct Seat {
    activity: Arc<Activity>,
    task: Task,
    address: IpAddr,
}

#[derive(Debug)]
enum Task {
    /// Not known yet.
    Starting,
    Running(AbortHandle),
    /// Its connection is a stream: that is never idle, and the handle would keep the memory of a task that has ended.
    Stream,
}

impl Seats {
    pub(super) fn new(max: usize, per_address_max: Option<usize>) -> Self {
        Self { max, per_address_max, state: Mutex::default() }
    }

    /// Takes a place for a connection from `address`, which is canonical; gives the place's number.
    ///
    /// # Errors
    /// Which limit is met: the connection must be turned away.
    pub(super) fn take(&self, address: IpAddr, activity: Arc<Activity>) -> Result<u64, Limit> {
        let address = counted(address);
        let mut state = self.state();
        let of_address = state.by_address.get(&address).copied().unwrap_or(0);
        if self.per_address_max.is_some_and(|max| of_address >= max) {
            return Err(Limit::ConnectionsPerAddress);
        }
        if state.taken.len() >= self.max && !state.make_room(self.max.div_ceil(ROOM_PART)) {
            return Err(Limit::Connections);
        }
        let number = state.next_number;
        state.next_number += 1;
        if self.per_address_max.is_some() {
            *state.by_address.entry(address).or_default() += 1;
        }
        state.taken.insert(number, Seat { activity, task: Task::Starting, address });
        Ok(number)
    }

    /// The connection is served by this task, which may have come to its end, or to a stream, already.
    pub(super) fn is_served_by(&self, number: u64, task: AbortHandle) {
        if let Some(seat) = self.state().taken.get_mut(&number)
            && matches!(seat.task, Task::Starting)
        {
            seat.task = Task::Running(task);
        }
    }

    /// The connection is a stream from now on.
    pub(super) fn becomes_stream(&self, number: u64) {
        if let Some(seat) = self.state().taken.get_mut(&number) {
            seat.task = Task::Stream;
        }
    }

    /// The connection is gone.
    pub(super) fn leave(&self, number: u64) {
        self.state().leave(number);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Closes up to `count` idle connections; whether there was any.
    fn make_room(&mut self, count: usize) -> bool {
        let now = Instant::now();
        if self.barren_until.is_some_and(|until| now < until) {
            return false;
        }
        let mut idle: Vec<_> = self
            .taken
            .iter()
            .filter(|(_, seat)| matches!(seat.task, Task::Running(_)))
            .filter_map(|(number, seat)| Some((seat.activity.idle()?, *number)))
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
        let mut closed = 0;
        for (_, number) in idle {
            // It may have got a request since.
            if self.taken.get(&number).is_some_and(|seat| seat.activity.close_idle()) {
                // Its place is free at once, its socket a moment later: at most `count` more than there may be.
                if let Some(Seat { task: Task::Running(task), .. }) = self.leave(number) {
                    task.abort();
                }
                closed += 1;
            }
        }
        Limit::ConnectionsIdle.met_by(closed);
        self.barren_until = (closed == 0).then(|| now + BARREN_PAUSE);
        closed > 0
    }

    fn leave(&mut self, number: u64) -> Option<Seat> {
        let seat = self.taken.remove(&number)?;
        if let Some(count) = self.by_address.get_mut(&seat.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&seat.address);
            }
        }
        Some(seat)
    }
}

/// What of an address is counted: of IPv6 the network, since a host has as many addresses in it as it likes.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{task::JoinHandle, time::advance};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// A connection that does nothing until it is closed.
    struct Connection {
        number: u64,
        activity: Arc<Activity>,
        task: JoinHandle<()>,
    }

    fn connect(seats: &Seats, address: IpAddr) -> Result<Connection, Limit> {
        let activity = Arc::new(Activity::default());
        let number = seats.take(address, Arc::clone(&activity))?;
        let task = tokio::spawn(std::future::pending());
        seats.is_served_by(number, task.abort_handle());
        Ok(Connection { number, activity, task })
    }

    impl Connection {
        async fn is_closed(&self) -> bool {
            tokio::task::yield_now().await;
            self.task.is_finished()
        }
    }

    async fn tick() {
        advance(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_asked_gives_way_first_and_then_the_longest_idle() {
        let seats = Seats::new(3, None);
        let asked = connect(&seats, HERE).unwrap();
        drop(asked.activity.begin(None).unwrap());
        tick().await;
        let silent = connect(&seats, HERE).unwrap();
        tick().await;
        let asked_later = connect(&seats, HERE).unwrap();
        drop(asked_later.activity.begin(None).unwrap());
        let fourth = connect(&seats, HERE).unwrap();
        assert!(silent.is_closed().await);
        let running = fourth.activity.begin(None).unwrap();
        let fifth = connect(&seats, HERE).unwrap();
        assert!(asked.is_closed().await);
        assert!(!asked_later.is_closed().await && !fourth.is_closed().await);
        drop((running, fifth));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_its_answer_gives_way_after_a_while_and_before_who_rests() {
        let seats = Seats::new(3, None);
        let rests = connect(&seats, HERE).unwrap();
        drop(rests.activity.begin(None).unwrap());
        tick().await;
        let [unread, reads] = [connect(&seats, HERE).unwrap(), connect(&seats, HERE).unwrap()];
        for one in [&unread, &reads] {
            drop(one.activity.begin(None).unwrap());
            one.activity.set_flushed(false, true);
        }
        advance(Duration::from_secs(3)).await;
        reads.activity.set_flushed(false, true);
        let _fourth = connect(&seats, HERE).unwrap();
        assert!(unread.is_closed().await);
        let fifth = connect(&seats, HERE).unwrap();
        assert!(!rests.is_closed().await, "one that has never asked goes before it");
        let running = fifth.activity.begin(None).unwrap();
        let sixth = connect(&seats, HERE).unwrap();
        assert!(rests.is_closed().await);
        assert!(!reads.is_closed().await && !fifth.is_closed().await && !sixth.is_closed().await);
        drop(running);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_port_turns_a_new_connection_away_and_looks_again_a_little_later() {
        let seats = Seats::new(2, None);
        let busy: Vec<_> = (0..2).map(|_| connect(&seats, HERE).unwrap()).collect();
        let mut running: Vec<_> =
            busy.iter().map(|one| one.activity.begin(None).unwrap()).collect();
        assert_eq!(connect(&seats, HERE).err(), Some(Limit::Connections));
        running.pop();
        assert_eq!(connect(&seats, HERE).err(), Some(Limit::Connections));
        advance(BARREN_PAUSE).await;
        let next = connect(&seats, HERE).unwrap();
        assert!(!next.is_closed().await);
        let [first, second] = busy.try_into().ok().unwrap();
        assert!(!first.is_closed().await && second.is_closed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_closed_for_another_takes_no_request() {
        let seats = Seats::new(1, None);
        let first = connect(&seats, HERE).unwrap();
        let _second = connect(&seats, HERE).unwrap();
        assert!(first.activity.begin(None).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_gives_way_to_nobody_and_a_place_that_was_left_is_free() {
        let seats = Seats::new(1, None);
        let stream = connect(&seats, HERE).unwrap();
        seats.becomes_stream(stream.number);
        // Said late, as it may be.
        seats.is_served_by(stream.number, stream.task.abort_handle());
        assert!(connect(&seats, HERE).is_err());
        seats.leave(stream.number);
        connect(&seats, HERE).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_own_limit_and_a_network_of_ipv6_is_one_address() {
        let seats = Seats::new(100, Some(2));
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        for (first, second, third) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
            ("2001:db8::1", "2001:db8::2:0:0:1", "2001:db8::3"),
        ] {
            let first = connect(&seats, of(first)).unwrap();
            let _second = connect(&seats, of(second)).unwrap();
            assert_eq!(connect(&seats, of(third)).err(), Some(Limit::ConnectionsPerAddress));
            seats.leave(first.number);
            connect(&seats, of(third)).unwrap();
        }
        connect(&seats, of("10.0.0.2")).unwrap();
        connect(&seats, of("2001:db8:0:1::1")).unwrap();
        let last = seats.state().next_number;
        (0..last).for_each(|number| seats.leave(number));
        assert!(seats.state().by_address.is_empty());
    }
}
