//! Producers and readers.

use std::sync::Arc;
use std::time::Duration;

use herald_types::{Draft, Grant, HerId, HerIds, NotificationType, Offset, PageLimit, Receivers};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    World,
    judge::{Attempt, Shown, Told},
    replica::{Replica, Running},
};
use crate::{AppendError, PageBounds, Record};

/// Receivers 1 to this many get notifications; the model reads as many.
pub(super) const RECEIVERS: u32 = 5;
/// The contract's time for the answer to an append.
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub(super) fn receivers(numbers: impl IntoIterator<Item = u32>) -> Receivers {
    let her_ids = numbers.into_iter().map(|number| HerId::new(number).unwrap());
    Grant::everything().narrow(HerIds::new(her_ids).unwrap()).unwrap()
}

/// The draft of an id, in one of its versions.
fn draft(id: u64, version: u64) -> Draft {
    Draft {
        notification_id: Some(Uuid::from_u128(u128::from(id) << 64 | 7)),
        related_message_id: Uuid::from_u128(u128::from(version)),
        kind: NotificationType::NewMessage,
        receiver: HerId::new(1 + u32::try_from(id).unwrap() % RECEIVERS).unwrap(),
        triggered_by: None,
        description: Some("x".repeat(usize::try_from(id * 7 % 200).unwrap())),
    }
}

/// One to four drafts: new ones, and some of those that everybody uses.
fn request(world: &World) -> Vec<Draft> {
    let count = world.below(4) + 1;
    (0..count)
        .map(|_| {
            let newest = &mut world.judge().newest_id;
            let is_new = world.is(0.6) || *newest == 0;
            *newest += u64::from(is_new);
            let back = if is_new { 0 } else { world.between(0..20).min(*newest - 1) };
            draft(*newest - back, u64::from(world.is(0.1)))
        })
        .collect()
}

/// A request of an id that nobody has used.
pub(super) fn new_drafts(world: &World) -> Vec<Draft> {
    let newest = &mut world.judge().newest_id;
    *newest += 1;
    vec![draft(*newest, 0)]
}

/// Asks one replica to append, and tells the judge.
pub(super) async fn append(world: &World, replica: &Replica, drafts: Vec<Draft>) -> Told {
    let number = world.judge().begins(drafts.clone(), replica.engine.log.time_ms());
    let now = Timestamp::from_millisecond(number).unwrap();
    let began = Instant::now();
    let told = match replica.running() {
        None => Told::Refused("it is not there".into()),
        Some(running) => {
            let log = running.log.clone();
            match running.ask(log.append(drafts.clone(), now)).await {
                None => Told::Unknown,
                Some(Ok(appended)) => {
                    let newest = appended.iter().map(|one| one.offset).max().unwrap();
                    let tail = running.log.tail();
                    assert!(tail >= newest, "answered with {newest}, and the tail is {tail}");
                    Told::Stored(appended)
                }
                Some(Err(AppendError::ContentDiffers { drafts })) => Told::Differs(drafts),
                Some(Err(error)) if error.is_refused() => Told::Refused(error.to_string()),
                Some(Err(_)) => Told::Unknown,
            }
        }
    };
    let took = began.elapsed();
    world.tell(|| {
        let ids: Vec<_> =
            drafts.iter().map(|draft| draft.notification_id.unwrap().as_u128() >> 64).collect();
        format!("append {number} of {ids:?} at replica {}: {told} after {took:?}", replica.number)
    });
    assert!(took <= ANSWER_MAX, "append {number} was answered after {took:?}");
    world.judge().ends(Attempt { number, drafts, told: told.clone() });
    told
}

/// Appends until it is calm. What was not stored for sure is mostly repeated, here or elsewhere.
pub(super) async fn produce(world: Arc<World>, replicas: Vec<Arc<Replica>>) {
    let pause = [5, 100, 500, 2000][world.below(4)];
    while !world.is_calm() {
        sleep(world.millis(0..pause)).await;
        let drafts = request(&world);
        if world.is(0.1) {
            // At several replicas at once.
            let asked = replicas.iter().map(|replica| append(&world, replica, drafts.clone()));
            futures_util::future::join_all(asked).await;
        }
        for _ in 0..world.below(5) + 1 {
            let replica = &replicas[world.below(replicas.len())];
            match append(&world, replica, drafts.clone()).await {
                Told::Stored(_) | Told::Differs(_) => break,
                Told::Refused(_) | Told::Unknown => sleep(world.millis(0..1000)).await,
            }
        }
    }
}

fn bounds(records: usize) -> PageBounds {
    PageBounds {
        records: PageLimit::new(u16::try_from(records).unwrap()).unwrap(),
        bytes: usize::MAX,
    }
}

fn some_receivers(world: &World) -> Receivers {
    let first = u32::try_from(world.below(5)).unwrap();
    let count = u32::try_from(world.below(5)).unwrap();
    receivers((first..=first + count).map(|number| 1 + number % RECEIVERS))
}

/// Reads one page and tells the judge. Nothing where the replica is gone.
async fn page(
    world: &World,
    replica: &Replica,
    running: &Running,
    receivers: &Receivers,
    after: Offset,
    most: usize,
) -> Option<(crate::Page, Vec<Record>)> {
    let log = running.log.clone();
    let read = running.ask(log.read::<Vec<Record>>(receivers, after, bounds(most))).await?;
    let (page, records) = read.expect("what is stored can be read");
    let trim_point = running.log.trim_point().get();
    world.judge().shown(Shown {
        replica: replica.number,
        lineage: running.lineage,
        receivers: receivers.clone(),
        after: after.get(),
        until: page.until().get(),
        records: records.clone(),
        trim_point,
        time_ms: replica.engine.log.time_ms(),
    });
    world.tell(|| {
        let offsets: Vec<_> = records.iter().map(|record| record.offset.get()).collect();
        format!("page of {} after {after}: {offsets:?}, until {}", replica.number, page.until())
    });
    Some((page, records))
}

/// Polls now here, now there, as a client does: from the last notification that it has.
pub(super) async fn poll(world: Arc<World>, replicas: Vec<Arc<Replica>>) {
    let (receivers, most, pause) =
        (some_receivers(&world), world.below(9) + 1, world.between(50..3000));
    let (mut after, mut at) = (Offset::ZERO, 0);
    while !world.is_calm() {
        sleep(world.millis(0..pause)).await;
        if world.is(0.3) {
            at = world.below(replicas.len());
        }
        if let Some(running) = replicas[at].running()
            && let Some((_, records)) =
                page(&world, &replicas[at], &running, &receivers, after, most).await
        {
            after = records.last().map_or(after, |record| record.offset);
        } else {
            at = world.below(replicas.len());
        }
        if world.is(0.02) {
            after = Offset::ZERO;
        }
    }
}

/// Streams: registers, reads, waits to be woken, and only for that; goes elsewhere when its replica ends.
pub(super) async fn stream(world: Arc<World>, replicas: Vec<Arc<Replica>>) {
    let (receivers, most) = (some_receivers(&world), world.below(20) + 1);
    let number = world.judge().stream_begins(receivers.clone());
    let mut after = Offset::ZERO;
    loop {
        let replica = &replicas[world.below(replicas.len())];
        let Some(running) = replica.running() else {
            sleep(world.millis(1..1000)).await;
            continue;
        };
        // Streams end in between, too; not any more once it is calm.
        let ends_at = Instant::now() + world.millis(1000..30_000);
        let watch = running.log.watch(&receivers);
        while let Some((page, _)) = page(&world, replica, &running, &receivers, after, most).await {
            after = page.until();
            world.judge().stream_is_at(number, after.get());
            if page.is_full() {
                continue;
            }
            tokio::select! {
                biased;
                woken = running.ask(watch.woken()) => if woken.is_none() { break },
                () = tokio::time::sleep_until(ends_at), if !world.is_calm() => break,
            }
        }
    }
}

/// All that a replica shows.
pub(super) async fn read_all(world: &World, replica: &Replica) -> Vec<Record> {
    let everyone = receivers(1..=RECEIVERS);
    let (mut after, mut all) = (Offset::ZERO, Vec::new());
    loop {
        let running = replica.running().expect("it runs");
        let read = page(world, replica, &running, &everyone, after, 50).await;
        let (page, records) = read.expect("it does not end");
        after = page.until();
        all.extend(records);
        if !page.is_full() {
            return all;
        }
    }
}
