//! An engine that breaks its promises: whoever has seen what it takes back must say so, and show nothing else.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    World,
    clients::{self, append},
    engine::Mood,
    judge::Told,
    replica::{End, Replica},
    weather::Cluster,
};
use crate::{order::Position, surroundings};

/// It is noticed by then: a look every 5 s, and four of them before the worst is believed.
const NOTICED_WITHIN: Duration = Duration::from_secs(40);

/// What the engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mischief {
    /// Takes the newest batches back.
    TakesBack,
    /// And goes on with others.
    TakesBackAndGoesOn,
    IsEmptied,
    IsAnother,
    /// Leaves one out for one who follows, or gives it other bytes.
    Skips,
    Damages,
}

impl Mischief {
    const ALL: [Self; 6] = [
        Self::TakesBack,
        Self::TakesBackAndGoesOn,
        Self::IsEmptied,
        Self::IsAnother,
        Self::Skips,
        Self::Damages,
    ];

    /// One of these is in what a replica says.
    const fn said(self) -> &'static [&'static str] {
        match self {
            Self::TakesBack => &["has lost what it had acknowledged"],
            Self::TakesBackAndGoesOn => {
                &["lost what it had acknowledged", "does not stand behind", "another batch at"]
            }
            Self::IsEmptied => &["has no log"],
            Self::IsAnother => &["keeps the log", "history"],
            Self::Skips => &["has no batch at position"],
            Self::Damages => &["is not as it was written"],
        }
    }
}

pub(super) async fn live(world: Arc<World>) {
    let cluster = Cluster::new(&world, 3 + world.below(3));
    cluster.engine.change(|state| state.mood = Mood { latency: 1..30, ..Mood::calm() });
    for replica in &cluster.replicas {
        replica.start();
    }
    cluster.heals().await;
    appends(&cluster, 2..12).await;
    cluster.heals().await;
    // This one has not seen what comes now.
    let behind = Arc::clone(&cluster.replicas[0]);
    behind.end(if world.is(0.5) { End::Kill } else { End::Wipe }).await;
    let safe = cluster.engine.state().newest();
    appends(&cluster, 1..6).await;
    let seen: Vec<_> = cluster.replicas[1..].iter().map(Arc::clone).collect();
    let newest = cluster.engine.state().newest();
    reach(&seen, newest).await;

    let mischief = Mischief::ALL[world.below(Mischief::ALL.len())];
    world.tell(|| format!("engine: {mischief:?}"));
    // Some are not there when it happens, and come back to it.
    let stopped = world.is(0.5).then(|| Arc::clone(&seen[0]));
    if let Some(stopped) = &stopped
        && !matches!(mischief, Mischief::Skips | Mischief::Damages)
    {
        stopped.end(if world.is(0.5) { End::Stop } else { End::Kill }).await;
    }
    let keeps = matches!(mischief, Mischief::Skips | Mischief::Damages);
    if !keeps && world.is(0.5) {
        // Batches of theirs are under way, and nobody has heard what became of them.
        let lossy = Mood { loses_request: 0.5, loses_answer: 0.9, ..Mood::calm() };
        cluster.engine.change(|state| state.mood = lossy);
        for replica in seen.iter().filter(|it| it.is_started()) {
            let (world, replica) = (Arc::clone(&world), Arc::clone(replica));
            tokio::spawn(async move {
                append(&world, &replica, clients::new_drafts(&world)).await;
            });
        }
        sleep(world.millis(0..12_000)).await;
        cluster.engine.change(|state| state.mood = Mood { latency: 1..30, ..Mood::calm() });
    }
    let victims = strike(&cluster, mischief, safe, &seen);
    if matches!(mischief, Mischief::TakesBackAndGoesOn) {
        behind.start();
        sleep(Duration::from_secs(2)).await;
        for _ in 0..world.below(6) + 1 {
            append(&world, &behind, clients::new_drafts(&world)).await;
        }
    }
    for replica in &victims {
        if !replica.is_started() {
            replica.start();
        }
    }
    if matches!(mischief, Mischief::Skips | Mischief::Damages) {
        for _ in 0..40 {
            append(&world, &seen[1], clients::new_drafts(&world)).await;
        }
    }
    notice(&world, &victims, mischief).await;
    for replica in &victims {
        // Reads go on, of what was there; appends do not.
        if replica.running().is_some() {
            clients::read_all(&world, replica).await;
            let told = append(&world, replica, clients::new_drafts(&world)).await;
            assert!(matches!(told, Told::Refused(_)), "{told}");
        }
    }
}

async fn appends(cluster: &Cluster, count: std::ops::Range<u64>) {
    let world = &cluster.world;
    for _ in 0..world.between(count) {
        let started: Vec<_> = cluster.replicas.iter().filter(|it| it.is_started()).collect();
        let replica = started[world.below(started.len())];
        append(world, replica, clients::new_drafts(world)).await;
        if replica.running().is_some() {
            clients::read_all(world, replica).await;
        }
    }
}

async fn reach(replicas: &[Arc<Replica>], position: Position) {
    let began = Instant::now();
    while replicas.iter().any(|it| it.running().is_none_or(|it| it.log.position() < position)) {
        let positions: Vec<_> =
            replicas.iter().map(|it| it.running().map(|it| it.log.position())).collect();
        assert!(began.elapsed() < NOTICED_WITHIN, "{positions:?} do not reach {position}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Says who must notice.
fn strike(
    cluster: &Cluster,
    mischief: Mischief,
    safe: Position,
    seen: &[Arc<Replica>],
) -> Vec<Arc<Replica>> {
    let one = seen[0].number;
    // Nobody who starts now is held to what was answered before.
    cluster.world.judge().answered_up_to = 0;
    cluster.engine.change(|state| match mischief {
        Mischief::TakesBack | Mischief::TakesBackAndGoesOn => {
            let left = usize::try_from(safe.0 - state.forgotten).unwrap();
            state.batches.truncate(left);
            state.stored.truncate(usize::try_from(safe.0).unwrap());
            state.starts += 1;
        }
        Mischief::IsEmptied => {
            state.identity = None;
            state.batches.clear();
        }
        Mischief::IsAnother => {
            let identity = state.identity.as_mut().expect("there is a log");
            identity.log_id = surroundings::random_uuid();
            identity.history = surroundings::random_uuid();
            state.batches.clear();
        }
        Mischief::Skips => state.skips = Some(one),
        Mischief::Damages => state.damages = Some(one),
    });
    let only_one = matches!(mischief, Mischief::Skips | Mischief::Damages);
    if only_one { vec![Arc::clone(&seen[0])] } else { seen.to_vec() }
}

async fn notice(world: &World, victims: &[Arc<Replica>], mischief: Mischief) {
    let began = Instant::now();
    for replica in victims {
        let said = loop {
            if let Some(said) = replica.refused() {
                break said;
            }
            let number = replica.number;
            assert!(began.elapsed() < NOTICED_WITHIN, "replica {number} has not noticed");
            sleep(Duration::from_millis(100)).await;
        };
        world.tell(|| format!("replica {}: {said}", replica.number));
        assert!(mischief.said().iter().any(|what| said.contains(what)), "{mischief:?}: {said}");
        assert!(said.contains("docs/operations.md"), "what to do: {said}");
    }
}
