use tokio::{
    task::{JoinHandle, yield_now},
    time::{advance, sleep, timeout},
};

use super::*;

const MAX: usize = 4 * STEP_BYTES;
/// The least that a server may have.
const LEAST: usize = 32 * 1024 * 1024;
const TICK: Duration = Duration::from_millis(1);

fn sender(name: &str) -> Sender {
    Sender::Client(name.into())
}

async fn body(rooms: &Rooms, name: &str, bytes: usize) -> (Room, Arc<GivesWay>) {
    let (mut room, gives_way) = rooms.enter(sender(name));
    room.have(bytes).await.unwrap();
    room.heard();
    (room, gives_way)
}

async fn is_told(gives_way: &GivesWay) -> bool {
    timeout(Duration::ZERO, gives_way.notified()).await.is_ok()
}

/// Takes room for `bytes`, unless it gives way.
fn taking(rooms: &Rooms, name: &str, bytes: usize) -> JoinHandle<Option<Room>> {
    let (mut room, gives_way) = rooms.enter(sender(name));
    tokio::spawn(async move {
        tokio::select! {
            biased;
            had = room.have(bytes) => had.ok().map(|()| room),
            () = gives_way.notified() => None,
        }
    })
}

/// What `used` and `told` must be, and that nothing is left of who has gone.
fn check(rooms: &Rooms) {
    let state = rooms.state();
    assert!(state.used <= state.bytes_max);
    assert_eq!(state.used, state.bodies.values().map(|body| body.bytes).sum::<usize>());
    let told = state.bodies.values().filter(|body| body.is_told);
    assert_eq!(state.told, told.map(|body| body.bytes).sum::<usize>());
    for (sender, account) in &state.senders {
        let of_it = account.bodies.iter().map(|number| &state.bodies[number]);
        assert_eq!(account.bytes, of_it.map(|body| body.bytes).sum::<usize>());
        assert!(account.bytes > 0 || !account.tickets.is_empty());
        let turn = account.tickets.first().map(|ticket| state.turns.get(ticket) == Some(sender));
        assert_ne!(turn, Some(false));
    }
    let waiting = state.senders.values().filter(|account| !account.tickets.is_empty());
    assert_eq!(state.turns.len(), waiting.count());
}

#[tokio::test(start_paused = true)]
async fn the_last_byte_is_given_and_the_next_one_is_not() {
    let rooms = Rooms::new(MAX);
    let (mut room, _) = body(&rooms, "one", MAX).await;
    room.have(MAX).await.unwrap();
    room.all_read();
    let (mut other, _) = rooms.enter(sender("other"));
    let began = Instant::now();
    assert!(matches!(other.have(1).await, Err(Error::Busy)));
    assert_eq!(began.elapsed(), ROOM_WAIT_MAX);
    check(&rooms);
    drop(room);
    other.have(MAX).await.unwrap();
    drop(other);
    check(&rooms);
    assert!(rooms.state().bodies.is_empty() && rooms.state().senders.is_empty());
}

#[tokio::test(start_paused = true)]
async fn room_that_is_given_back_goes_to_who_waits_at_once() {
    let rooms = Rooms::new(MAX);
    let (first, _) = body(&rooms, "one", MAX).await;
    let began = Instant::now();
    let waiting = taking(&rooms, "one", STEP_BYTES);
    yield_now().await;
    advance(TICK).await;
    drop(first);
    assert!(waiting.await.unwrap().is_some());
    assert_eq!(began.elapsed(), TICK);
}

#[tokio::test(start_paused = true)]
async fn of_one_sender_the_quietest_gives_way_after_3_s_and_only_as_many_as_it_takes() {
    let rooms = Rooms::new(MAX);
    let (quiet, quiet_told) = body(&rooms, "one", STEP_BYTES).await;
    advance(TICK).await;
    let (_second, second_told) = body(&rooms, "one", 2 * STEP_BYTES).await;
    let (_third, third_told) = body(&rooms, "one", STEP_BYTES).await;
    let began = Instant::now();
    let waiting = taking(&rooms, "one", STEP_BYTES);
    quiet_told.notified().await;
    assert_eq!(began.elapsed(), ROOM_KEPT_MIN);
    drop(quiet);
    assert!(waiting.await.unwrap().is_some());
    assert!(!is_told(&second_told).await && !is_told(&third_told).await);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_wait_for_each_other_the_newer_one_gives_way() {
    for names in [["one", "one"], ["one", "other"]] {
        let rooms = Rooms::new(MAX);
        let (mut tasks, mut bodies) = (Vec::new(), Vec::new());
        for name in names {
            bodies.push(body(&rooms, name, 2 * STEP_BYTES).await);
        }
        for (mut room, gives_way) in bodies {
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    biased;
                    had = room.have(MAX) => had.is_ok(),
                    () = gives_way.notified() => false,
                }
            }));
            yield_now().await;
        }
        let [first, second] = tasks.try_into().ok().unwrap();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (true, false));
        check(&rooms);
        // Whoever comes next has all of it.
        body(&rooms, "next", MAX).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_read_gives_way_to_nobody_and_another_one_is_told_instead() {
    let rooms = Rooms::new(MAX);
    let (read, read_told) = body(&rooms, "one", 2 * STEP_BYTES).await;
    let (other, other_told) = body(&rooms, "one", 2 * STEP_BYTES).await;
    let waiting = taking(&rooms, "two", STEP_BYTES);
    sleep(SHARE_WAIT).await;
    read_told.notified().await;
    assert!(!is_told(&other_told).await);
    read.all_read();
    assert!(is_told(&other_told).await);
    check(&rooms);
    drop(other);
    assert!(waiting.await.unwrap().is_some());
}

/// 700 uploads of one byte by one sender, and as many again for each that ends.
fn flood(rooms: &Rooms) -> Vec<JoinHandle<()>> {
    let one = |rooms: Rooms| async move {
        loop {
            let (mut room, gives_way) = rooms.enter(sender("flood"));
            tokio::select! {
                biased;
                () = gives_way.notified() => {}
                had = room.have(STEP_BYTES) => if had.is_ok() {
                    room.heard();
                    gives_way.notified().await;
                }
            }
        }
    };
    (0..700).map(|_| tokio::spawn(one(rooms.clone()))).collect()
}

#[tokio::test(start_paused = true)]
async fn many_uploads_of_one_sender_keep_out_neither_a_small_one_nor_a_slow_one_of_another() {
    const MIB: usize = 1024 * 1024;
    let rooms = Rooms::new(LEAST);
    let flood = flood(&rooms);
    sleep(Duration::from_secs(10)).await;
    let free = {
        let state = rooms.state();
        state.common_max - state.used
    };
    assert_eq!(free, 0, "a sender alone may have all");
    let began = Instant::now();
    drop(body(&rooms, "small", STEP_BYTES).await);
    assert_eq!(began.elapsed(), Duration::ZERO);
    // 8 MiB in 32 s, while it goes on.
    let (mut slow, gives_way) = rooms.enter(sender("slow"));
    for step in 1..=8 * MIB / STEP_BYTES {
        slow.have(step * STEP_BYTES).await.unwrap();
        slow.heard();
        sleep(SHARE_WAIT).await;
        assert!(!is_told(&gives_way).await, "after {step} steps");
        check(&rooms);
    }
    // And a small one of the same sender.
    let began = Instant::now();
    drop(body(&rooms, "slow", STEP_BYTES).await);
    assert!(began.elapsed() <= SHARE_WAIT);
    flood.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn the_largest_body_fits_into_the_least_room_whatever_another_sender_does() {
    for bytes_max in [LEAST, UPLOADS_BYTES_MAX] {
        let rooms = Rooms::new(bytes_max);
        let flood = flood(&rooms);
        sleep(Duration::from_secs(10)).await;
        let (mut large, gives_way) = rooms.enter(sender("large"));
        let mut bytes = STEP_BYTES;
        while bytes < JSON_BYTES_MAX {
            large.have(bytes).await.unwrap();
            large.heard();
            bytes = (bytes + (bytes / 4).max(STEP_BYTES)).min(JSON_BYTES_MAX);
        }
        large.have(JSON_BYTES_MAX).await.unwrap();
        assert!(!is_told(&gives_way).await, "{bytes_max}");
        check(&rooms);
        flood.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_served_in_order_but_behind_those_who_have_less_than_their_share() {
    let rooms = Rooms::new(MAX);
    let (first, _) = body(&rooms, "rich", 2 * STEP_BYTES).await;
    let (second, _) = body(&rooms, "rich", 2 * STEP_BYTES).await;
    let rich = taking(&rooms, "rich", 2 * STEP_BYTES);
    yield_now().await;
    let poor = [taking(&rooms, "poor", STEP_BYTES), taking(&rooms, "poor too", STEP_BYTES)];
    yield_now().await;
    drop(first);
    for poor in poor {
        assert!(poor.is_finished() || !rich.is_finished());
        drop(poor.await.unwrap().unwrap());
    }
    drop(second);
    assert!(rich.await.unwrap().is_some());
}
