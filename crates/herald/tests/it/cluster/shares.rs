//! How fast streams come to each replica, and how they are spread in the end.

use std::{sync::Arc, time::Duration};

use herald_rig::replica::Replica;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often it is looked. What falls between two looks is judged by the time between them, however long that was.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Over how long the rate is taken: several looks.
const WINDOW: Duration = Duration::from_secs(2);
/// Streams that were opened since the replica's start.
const OPENED: &str =
    "herald_http_requests_total{route=\"/notifications/stream\",method=\"GET\",status=\"200\"}";

/// What was seen of one replica: `None` while it did not answer.
struct Seen {
    name: String,
    looks: Vec<Option<(Instant, f64)>>,
}

/// Looks at replicas until it is asked what it has seen.
pub(crate) struct Looker {
    is_over: watch::Sender<bool>,
    task: JoinHandle<Vec<Seen>>,
}

impl Looker {
    pub(crate) fn start(replicas: Vec<Arc<Replica>>) -> Self {
        let is_over = watch::Sender::new(false);
        let mut over = is_over.subscribe();
        let task = tokio::spawn(async move {
            let named = replicas.iter().map(|one| one.name().to_owned());
            let mut seen: Vec<_> = named.map(|name| Seen { name, looks: Vec::new() }).collect();
            let mut pace = interval(LOOK_EVERY);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = pace.tick() => {}
                    _ = over.changed() => return seen,
                }
                for (replica, seen) in replicas.iter().zip(&mut seen) {
                    let opened = replica.metric(OPENED).await.ok();
                    // It has none before its first stream.
                    let look = opened.map(|count| (Instant::now(), count.unwrap_or_default()));
                    seen.looks.push(look);
                }
            }
        });
        Self { is_over, task }
    }

    /// Asserts that no replica ever got streams faster than `per_second`.
    pub(crate) async fn assert_none_was_stormed(self, per_second: f64) {
        self.is_over.send_replace(true);
        for seen in self.task.await.expect("looking does not panic") {
            let (most, within) = seen.fastest();
            let bound = per_second * within.as_secs_f64();
            println!("{}: at most {most} streams came in {within:.1?}", seen.name);
            assert!(
                most <= bound,
                "{}: {most} streams came in {within:.1?}, where {bound:.0} are its share",
                seen.name
            );
        }
    }
}

impl Seen {
    /// The window with the highest rate: how many came, in how long.
    fn fastest(&self) -> (f64, Duration) {
        let mut fastest = (0.0, WINDOW);
        for (place, first) in self.looks.iter().enumerate() {
            let Some((began, before)) = *first else { continue };
            // As long as it is the same process: it counts from 0 again after a restart.
            let same = self.looks[place..].iter().map_while(|look| *look);
            let same = same.take_while(|(_, count)| *count >= before);
            let window = same.map(|(at, count)| (count - before, at.duration_since(began)));
            let Some((count, within)) = window.into_iter().find(|(_, within)| *within >= WINDOW)
            else {
                continue;
            };
            if count / within.as_secs_f64() > fastest.0 / fastest.1.as_secs_f64() {
                fastest = (count, within);
            }
        }
        fastest
    }
}

/// How many streams each has now.
pub(crate) async fn open_streams(replicas: &[Arc<Replica>]) -> Vec<f64> {
    let mut open = Vec::new();
    for replica in replicas {
        let count = replica.metric("herald_open_streams").await.expect("metrics");
        open.push(count.expect("a gauge"));
    }
    open
}

/// Waits until none has more than twice what another one has, and all together nearly all of `count`: some are always
/// between two streams.
pub(crate) async fn spread(replicas: &[Arc<Replica>], count: usize) -> Vec<f64> {
    loop {
        let open = open_streams(replicas).await;
        let least = open.iter().copied().fold(f64::INFINITY, f64::min);
        let most = open.iter().copied().fold(0.0, f64::max);
        #[expect(clippy::cast_precision_loss, reason = "some hundred streams")]
        let all = open.iter().sum::<f64>() >= 0.8 * count as f64;
        if all && most <= 2.0 * least {
            return open;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
