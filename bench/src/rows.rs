//! The rows of the table, and what they share.

pub(crate) mod appends;
mod cluster;
mod hostile;
mod live;
pub(crate) mod polls;
mod replay;
pub(crate) mod streams;
mod upkeep;

use std::time::Duration;

use crate::{cluster::Kind, measure::Figure, server::Places};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rounds of each figure, Herald and its limit in turn.
    pub rounds: usize,
    /// How long one window is.
    pub window: Duration,
    /// What is let pass before it.
    pub warm_up: Duration,
    /// The larger number of stored notifications; rows that ask for ten million take it.
    pub stored: u64,
    /// Streams of the rows that ask for 10,000.
    pub streams: usize,
    /// Streams of the rows that ask for 1,000.
    pub live: usize,
    /// Notifications of a replay.
    pub replayed: u64,
    /// Nodes of an engine.
    pub nodes: usize,
    /// How long replicas append against each other.
    pub contention: Duration,
}

impl Size {
    /// What docs/performance.md reports.
    pub const FULL: Self = Self {
        rounds: 5,
        window: Duration::from_secs(2),
        warm_up: Duration::from_millis(500),
        stored: 10_000_000,
        streams: 10_000,
        live: 1000,
        replayed: 1_000_000,
        nodes: 3,
        contention: Duration::from_secs(30),
    };
    /// A few minutes for all rows: less is stored, and windows are shorter.
    pub const QUICK: Self = Self {
        rounds: 3,
        window: Duration::from_millis(700),
        warm_up: Duration::from_millis(200),
        stored: 1_000_000,
        streams: 2_000,
        live: 1000,
        replayed: 1_000_000,
        nodes: 3,
        contention: Duration::from_secs(10),
    };
    /// Whether the measuring works: no figure of it says anything.
    pub const SMOKE: Self = Self {
        rounds: 1,
        window: Duration::from_millis(200),
        warm_up: Duration::from_millis(50),
        stored: 20_000,
        streams: 200,
        live: 100,
        replayed: 20_000,
        nodes: 1,
        contention: Duration::from_secs(1),
    };
}

impl Size {
    /// Many figures, each to show a direction.
    #[must_use]
    pub const fn for_growth(self) -> Self {
        Self {
            rounds: 3,
            window: Duration::from_secs(1),
            warm_up: Duration::from_millis(300),
            ..self
        }
    }
}

/// Everything that a row needs.
#[derive(Clone, Debug)]
pub struct Bench {
    /// Programs and data.
    pub places: Places,
    /// How much is measured.
    pub size: Size,
    /// The engines of the rows of a cluster.
    pub engines: Vec<Kind>,
}

/// One row of the table.
pub struct Row {
    /// Its number.
    pub number: u32,
    /// What it measures.
    pub name: &'static str,
    /// Whether it works with next to nothing.
    pub is_smoked: bool,
    /// Measures it.
    pub measure: fn(&Bench) -> anyhow::Result<Vec<Figure>>,
}

/// All rows, in order.
pub const ROWS: &[Row] = &[
    Row { number: 1, is_smoked: true, name: "polls that find nothing", measure: polls::empty },
    Row {
        number: 2,
        is_smoked: true,
        name: "pages of 100 from recent memory",
        measure: polls::recent,
    },
    Row {
        number: 3,
        is_smoked: true,
        name: "pages of 100 at random places",
        measure: polls::random,
    },
    Row {
        number: 4,
        is_smoked: true,
        name: "polls for 1500 receivers",
        measure: polls::many_receivers,
    },
    Row {
        number: 5,
        is_smoked: true,
        name: "memory of a stream at rest",
        measure: streams::memory,
    },
    Row {
        number: 6,
        is_smoked: true,
        name: "live events, one draft an append",
        measure: streams::one,
    },
    Row {
        number: 7,
        is_smoked: true,
        name: "live events that can be joined",
        measure: streams::joined,
    },
    Row {
        number: 8,
        is_smoked: true,
        name: "from an append's answer to its events",
        measure: streams::delays,
    },
    Row {
        number: 9,
        is_smoked: true,
        name: "a million notifications on one stream",
        measure: replay::replay,
    },
    Row {
        number: 10,
        is_smoked: true,
        name: "durable appends, one draft a request",
        measure: appends::single,
    },
    Row {
        number: 11,
        is_smoked: true,
        name: "durable appends, 1000 drafts a request",
        measure: appends::large,
    },
    Row { number: 12, is_smoked: true, name: "one append at a time", measure: appends::alone },
    Row {
        number: 13,
        is_smoked: true,
        name: "streams beside slow readers",
        measure: streams::slow,
    },
    Row {
        number: 14,
        is_smoked: false,
        name: "while retention deletes half",
        measure: upkeep::retention,
    },
    Row { number: 15, is_smoked: false, name: "ready after SIGKILL", measure: upkeep::restart },
    Row {
        number: 16,
        is_smoked: true,
        name: "streams of 1500 receivers",
        measure: streams::many_receivers,
    },
    Row {
        number: 17,
        is_smoked: false,
        name: "what idleness and storing cost",
        measure: upkeep::idle,
    },
    Row {
        number: 18,
        is_smoked: true,
        name: "a million notifications in the client",
        measure: replay::client,
    },
    Row {
        number: 19,
        is_smoked: true,
        name: "a poller beside hostile connections",
        measure: hostile::beside_hostile,
    },
];

/// The rows of a cluster, each on every engine that is asked for.
pub const CLUSTER_ROWS: &[Row] = &[
    Row {
        number: 20,
        is_smoked: true,
        name: "appends on an engine, one draft a request",
        measure: cluster::single,
    },
    Row {
        number: 21,
        is_smoked: true,
        name: "appends on an engine, 1000 drafts a request",
        measure: cluster::large,
    },
    Row {
        number: 22,
        is_smoked: true,
        name: "from an append on one replica to its event on another",
        measure: cluster::events,
    },
    Row { number: 23, is_smoked: true, name: "open streams by replica", measure: cluster::streams },
    Row {
        number: 24,
        is_smoked: true,
        name: "live events from one replica and from three",
        measure: cluster::fan_out,
    },
    Row {
        number: 25,
        is_smoked: true,
        name: "one, two and three replicas that append flat out",
        measure: cluster::contention,
    },
];
