//! What a seed has in store: the log, and what goes wrong on the way to it until it is calm.

use super::*;

/// One notification: when the log has it, where, and its bytes.
pub(super) struct Entry {
    pub(super) at: Duration,
    pub(super) offset: u64,
    pub(super) body: String,
}

/// The truth: a vector and a filter.
pub(super) struct Log(pub(super) Vec<Entry>);

impl Log {
    /// What comes after an offset, ascending, as the log stood at a time.
    pub(super) fn after(&self, after: u64, at: Duration) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| entry.offset > after && entry.at <= at)
    }

    pub(super) fn next(&self, after: u64) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.offset > after)
    }

    /// Bursts and single ones with gaps between their offsets, until `calm`; and a few long after it.
    pub(super) fn draw(rng: &mut StdRng, calm: Duration) -> Self {
        let mut times: Vec<_> = (0..rng.random_range(0..25))
            .flat_map(|_| {
                let at = before(rng, calm);
                vec![at; if rng.random_bool(0.2) { rng.random_range(2..12) } else { 1 }]
            })
            .collect();
        times.extend((1..=3).map(|late| calm + CAUGHT_UP_WITHIN + seconds(97 * late)));
        times.sort_unstable();
        let mut offset = rng.random_range(0..1000);
        let entry = |at| {
            offset += if rng.random_bool(0.5) { 1 } else { rng.random_range(1..500) };
            let text = "blå ".repeat(rng.random_range(0..30));
            let body =
                format!(r#"{{"description":"{text}","type":"NewMessage","offset":{offset}}}"#);
            Entry { at, offset, body }
        };
        Self(times.into_iter().map(entry).collect())
    }
}

/// How long after the last fault a client may take to have everything. The longest way there: a `Retry-After` of 300 s
/// and 30 s of jitter that have just begun; or a connection just fallen silent whose comments came 40 s apart (120 s),
/// a `retry:` of 60 s and 30 s of jitter. A slow answer and a replica that is behind take the rest.
pub(super) const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(400);

/// Whose server it is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// With ids, headers and `until` comments.
    Herald,
    /// The page and nothing else.
    Bare,
}

/// What ends a client for good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Terminal {
    Status(u16),
    ContentType,
    Undecodable,
    OtherHistory(Option<Uuid>),
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Trouble {
    /// The server is away; streams end with a hint (a drain), break, or fall silent.
    Away(Closing),
    /// A proxy keeps what streams bring.
    HeldBack,
    /// Somebody has to look, and does.
    Terminal(Terminal),
}

/// How streams end when trouble begins.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Closing {
    Drained,
    Broken,
    Silent,
}

pub(super) struct Window {
    pub(super) from: Duration,
    pub(super) until: Duration,
    pub(super) trouble: Trouble,
}

/// The chances of each fault, and the times of the great ones.
pub(super) struct Weather {
    /// From here on all is well.
    pub(super) calm: Duration,
    pub(super) kind: Kind,
    /// How far behind each replica is.
    pub(super) replicas: Vec<Duration>,
    /// How often a silent stream brings a comment.
    pub(super) beat: Option<Duration>,
    pub(super) windows: Vec<Window>,
    /// Of a request: refused, broken off, never answered.
    pub(super) refused: f64,
    pub(super) broken: f64,
    pub(super) hung: f64,
    /// Of a stream: it ends, breaks or falls silent after some bytes; it is held back for a while; it begins too early.
    pub(super) cut: f64,
    pub(super) held: f64,
    pub(super) repeated: f64,
    /// Of a piece: it comes late.
    pub(super) late: f64,
    /// Of an event: something else comes with it.
    pub(super) noise: f64,
}

impl Weather {
    pub(super) fn draw(rng: &mut StdRng, calm: Duration, kind: Kind, known_history: bool) -> Self {
        let mut chance =
            |most: f64| if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..most) };
        let [refused, broken, hung] = [0.5, 0.5, 0.3].map(&mut chance);
        let [cut, held, repeated, late, noise] = [1.0, 0.7, 1.0, 0.3, 0.5].map(&mut chance);
        let windows = (0..rng.random_range(0..4))
            .map(|_| Window::draw(rng, calm, kind == Kind::Herald && known_history))
            .collect();
        let replicas = (0..rng.random_range(1..4))
            .map(|_| if rng.random_bool(0.5) { Duration::ZERO } else { drawn(rng, 0..30_000) })
            .collect();
        let beat = [Some(5), Some(15), Some(30), Some(40), None][rng.random_range(0..5)];
        let beat = if kind == Kind::Herald { Some(beat.unwrap_or(15)) } else { beat };
        let beat = beat.map(seconds);
        Self {
            calm,
            kind,
            replicas,
            beat,
            windows,
            refused,
            broken,
            hung,
            cut,
            held,
            repeated,
            late,
            noise,
        }
    }

    /// The trouble at a time, the gravest first.
    pub(super) fn trouble(&self, at: Duration) -> Option<Trouble> {
        let now = self.windows.iter().filter(|window| window.from <= at && at < window.until);
        let grave = |trouble: &Trouble| match trouble {
            Trouble::Terminal(_) => 0,
            Trouble::Away(_) => 1,
            Trouble::HeldBack => 2,
        };
        now.map(|window| window.trouble).min_by_key(grave)
    }

    /// When a stream opened at a time meets its end, and how.
    pub(super) fn end_of_stream(&self, opened: Duration) -> Option<(Duration, Trouble)> {
        let ends = self.windows.iter().filter(|window| window.from > opened);
        let ends = ends.filter(|window| window.trouble != Trouble::HeldBack);
        ends.map(|window| (window.from, window.trouble)).min_by_key(|(from, _)| *from)
    }
}

impl Window {
    fn draw(rng: &mut StdRng, calm: Duration, known_history: bool) -> Self {
        let from = before(rng, calm);
        let until = (from + drawn(rng, 1000..300_000)).min(calm);
        let trouble = match rng.random_range(0..5) {
            0 => Trouble::Away(Closing::Drained),
            1 => Trouble::Away(Closing::Broken),
            2 => Trouble::Away(Closing::Silent),
            3 => Trouble::HeldBack,
            _ => Trouble::Terminal(match rng.random_range(0..5) {
                0 => Terminal::ContentType,
                1 => Terminal::Undecodable,
                2 if known_history => Terminal::OtherHistory(Some(Uuid::from_u128(2))),
                3 if known_history => Terminal::OtherHistory(None),
                _ => Terminal::Status([204, 301, 400, 401, 403, 404, 410][rng.random_range(0..7)]),
            }),
        };
        Self { from, until, trouble }
    }
}

fn before(rng: &mut StdRng, end: Duration) -> Duration {
    drawn(rng, 0..u64::try_from(end.as_millis()).unwrap())
}
