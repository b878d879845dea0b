//! One round: a cluster, its load, what is broken, and the verdict.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use herald_rig::{Engine, Link, nats, postgres, replica};
use tokio::time::{Instant, sleep};

use crate::{
    History, Verdict,
    faults::{EngineHand, EngineKind, Library, Place, Plan, Preload, ReplicaHand, SmallDisk},
    history::{Call, Moment, Outcome, Recorder},
    judge,
    load::Load,
};

const NODES: usize = 3;
const REPLICAS: usize = 3;
/// Whose disks can be full, counted from 0.
const SMALL_NODE: usize = 1;
const SMALL_REPLICA: usize = 2;
/// How long the load runs before anything is broken, and after all was mended.
const QUIET: Duration = Duration::from_secs(2);
/// More without an acknowledged append is told.
const GAP_TOLD: Moment = 1_000_000;

/// What a round is made of.
#[derive(Clone, Debug)]
pub struct Round {
    /// The engine.
    pub kind: EngineKind,
    /// `herald`.
    pub program: PathBuf,
    /// What is random comes from this, but the scheduling of threads.
    pub seed: u64,
    /// How long things are broken.
    pub time: Duration,
    /// Where everything is kept; made if it is missing.
    pub dir: PathBuf,
    /// A fault of the program's own that is planted into it.
    pub bug: Option<String>,
}

/// What came of a round.
#[derive(Debug)]
pub struct Outcomes {
    /// The verdict.
    pub verdict: Verdict,
    /// What went wrong beside: a replica that ended, a reader that never came to the end.
    pub failure: Option<anyhow::Error>,
    /// In words.
    pub summary: Summary,
}

impl Outcomes {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict.is_good() && self.failure.is_none()
    }
}

impl Round {
    /// Runs it.
    ///
    /// # Errors
    /// When it cannot be run; what Herald did wrong is in the outcomes.
    pub async fn run(&self) -> anyhow::Result<Outcomes> {
        fs::create_dir_all(&self.dir)?;
        // PostgreSQL runs as another user, who must get through.
        fs::set_permissions(&self.dir, Permissions::from_mode(0o755))?;
        let recorder = Recorder::default();
        let failure = self.recorded(&recorder).await.err();
        let history = recorder.history();
        history.save(&self.dir.join("history.ndjson"))?;
        let summary = Summary::of(&history);
        if history.copies.is_empty() {
            return Err(failure.unwrap_or_else(|| anyhow::anyhow!("nothing was read in the end")))
                .with_context(|| summary.to_string());
        }
        let verdict = tokio::task::spawn_blocking(move || judge(&history)).await?;
        Ok(Outcomes { verdict, failure, summary })
    }

    async fn recorded(&self, recorder: &Recorder) -> anyhow::Result<()> {
        let say = |what: String| eprintln!("{:>8.1} s  {what}", seconds(recorder.now()));
        let library = Library::build(&self.dir)?;
        // Before the engine: it is unmounted when the engine is dead.
        let node_disk = SmallDisk::mount(&self.dir.join(format!("engine/n{}", SMALL_NODE + 1)))?;
        let replica_disk = SmallDisk::mount(&self.replica_dir(SMALL_REPLICA))?;
        if node_disk.is_none() || replica_disk.is_none() {
            say("no disk can be full: mounting small file systems needs root".to_owned());
        }
        let mut preloads = HashMap::new();
        if self.kind == EngineKind::Postgres {
            for node in 0..NODES {
                preloads.insert(node, library.control(&format!("n{}", node + 1))?);
            }
        }
        let engine = self.engine(&preloads).await.context("the engine does not start")?;
        let places = self.places(&engine, &library)?;
        for place in &places {
            place.replica.ready().await?;
        }
        let urls: Vec<String> =
            places.iter().map(|place| format!("http://{}", place.front.address())).collect();
        let ops: Vec<String> =
            places.iter().map(|place| format!("http://{}", place.replica.ops())).collect();
        say("all is well".to_owned());
        let load = Load::begin(recorder, &urls, &ops, self.seed)?;
        sleep(QUIET).await;

        let plan = Plan::new(self.kind, REPLICAS, self.seed);
        let until = Instant::now() + self.time;
        let small_disk = node_disk.as_ref().map(|disk| (SMALL_NODE, disk));
        let engine_hand =
            EngineHand { engine: &engine, preloads: &preloads, small_disk, say: &say };
        let small_disk = replica_disk.as_ref();
        let replica_hand = ReplicaHand { places: &places, small_disk, recorder, say: &say };
        // When one fails, the other one still mends what it has broken.
        let (engine, replicas) = tokio::join!(
            engine_hand.run(&plan.engine, self.seed, until),
            replica_hand.run(&plan.replicas, until),
        );
        sleep(QUIET).await;
        say("all is mended; everything is read".to_owned());
        let read = load.end().await;
        engine.and(replicas).and(read)
    }

    fn replica_dir(&self, replica: usize) -> PathBuf {
        self.dir.join(format!("replica-{replica}"))
    }

    async fn engine(&self, preloads: &HashMap<usize, Preload>) -> anyhow::Result<Engine> {
        let dir = Some(self.dir.join("engine"));
        Ok(match self.kind {
            EngineKind::Nats => {
                let settings = nats::Settings { dir, linked: true, ..nats::Settings::default() };
                Engine::Nats(settings.start().await?)
            }
            EngineKind::Postgres => {
                let environment = (0..NODES)
                    .map(|node| preloads.get(&node).map(Preload::environment).unwrap_or_default());
                let environment = environment.collect();
                let settings = postgres::Settings {
                    dir,
                    linked: true,
                    environment,
                    ..postgres::Settings::default()
                };
                Engine::Postgres(settings.start().await?)
            }
        })
    }

    fn places(&self, engine: &Engine, library: &Library) -> anyhow::Result<Vec<Place>> {
        let mut places = Vec::new();
        for number in 0..REPLICAS {
            let name = format!("replica-{number}");
            let (way, preload) = (engine.way()?, library.control(&name)?);
            let mut settings = replica::Settings::new(&name, &self.program, way.url());
            settings = settings.flags(&["--heartbeat", "1s", "--drain", "2s"]);
            settings.dir = Some(self.replica_dir(number));
            settings.environment = preload.environment();
            if let Some(bug) = &self.bug {
                settings.environment.push(("HERALD_PLANTED_BUG".to_owned(), bug.into()));
            }
            let replica = settings.launch()?;
            let front = Link::to(replica.api())?;
            places.push(Place { replica, way, front, preload });
        }
        Ok(places)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(moment: Moment) -> f64 {
    moment as f64 / 1e6
}

/// What a round looked like.
#[derive(Debug, Default)]
pub struct Summary {
    counts: std::collections::BTreeMap<&'static str, usize>,
    /// When no append was acknowledged.
    gaps: Vec<(Moment, Moment)>,
}

impl Summary {
    fn of(history: &History) -> Self {
        let mut summary = Self::default();
        let mut stored = Vec::new();
        for record in &history.records {
            let name = match &record.call {
                Call::Append(append) => match &append.outcome {
                    Outcome::Stored(answers) => {
                        stored.push(record.ended);
                        let new = answers.iter().filter(|answer| !answer.duplicate).count();
                        *summary.counts.entry("notifications stored").or_default() += new;
                        "appends answered 201"
                    }
                    Outcome::Differs => "appends answered 409",
                    Outcome::Refused(_) => "appends refused",
                    Outcome::Unknown(_) => "appends unknown",
                    Outcome::Nothing(_) => "appends without an answer",
                    Outcome::Unexpected(_) => "appends with another answer",
                },
                Call::Poll(_) => "polls",
                Call::Stream(_) => "streams",
                Call::Ready(_) => "looks at health",
                Call::Disturbed(_) => "times that a replica was disturbed",
            };
            *summary.counts.entry(name).or_default() += 1;
        }
        stored.sort_unstable();
        let pairs = stored.windows(2).map(|pair| (pair[0], pair[1]));
        summary.gaps = pairs.filter(|(from, to)| to - from > GAP_TOLD).collect();
        summary
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.counts {
            writeln!(f, "{count:>8}  {name}")?;
        }
        write!(f, "no append acknowledged:")?;
        for (from, to) in &self.gaps {
            write!(f, " {:.1} s at {:.1},", seconds(to - from), seconds(*from))?;
        }
        let all: Moment = self.gaps.iter().map(|(from, to)| to - from).sum();
        writeln!(f, " {:.1} s in all", seconds(all))
    }
}
