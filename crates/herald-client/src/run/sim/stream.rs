//! An event stream as servers write it, cut into pieces anywhere.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{
    server::{Held, World, no_connection},
    weather::{Closing, Kind, Terminal, Trouble},
    *,
};

/// What becomes of one stream.
pub(super) struct Plan {
    /// Until when something on the way keeps all of it.
    pub(super) held_until: Duration,
    /// After so many bytes it is cut.
    pub(super) cut: Option<(usize, Cut)>,
    /// When great trouble ends it.
    pub(super) end: Option<(Duration, Trouble)>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Cut {
    Ended,
    Broken,
    Silent,
}

/// Something that the judge is told when the client has its last byte.
enum Mark {
    Connected,
    Notification(u64),
    Unknown,
    Hint(Duration),
    Comment { until: u64 },
    Poison,
}

/// A stream writes on in its own time, whether or not anybody reads: what was written meanwhile is there at once.
pub(super) struct Stream {
    link: Held,
    plan: Plan,
    behind: Duration,
    after: u64,
    /// When it last wrote, and when a piece last arrived.
    clock: Duration,
    arrived: Duration,
    out: Vec<u8>,
    /// How many bytes have been sent, and what stands behind which byte.
    sent: usize,
    marks: VecDeque<(usize, Mark)>,
    /// Where an event begins that cannot be read: it comes in a piece of its own.
    poison_from: Option<usize>,
    cut: Option<Cut>,
}

/// What is written next.
enum Next {
    Entry(u64),
    Beat,
    End(Trouble),
}

impl Stream {
    pub(super) fn new(link: Held, after: u64, behind: Duration, plan: Plan) -> Self {
        let world = Arc::clone(&link.0);
        let after = world.begin_after(after);
        let mut stream = Self {
            link,
            plan,
            behind,
            after,
            clock: world.now(),
            arrived: world.now(),
            out: Vec::new(),
            sent: 0,
            marks: VecDeque::new(),
            poison_from: None,
            cut: None,
        };
        stream.event("connected", "", Some(Mark::Connected));
        stream
    }

    /// Ends it for good with an event that cannot be read.
    pub(super) fn poison(&mut self) {
        self.poison_from = Some(self.sent + self.out.len());
        self.plan.cut = None;
        self.event("notification", "{\"offset\":", Some(Mark::Poison));
    }

    pub(super) fn bytes(self) -> stream::BoxStream<'static, Result<Bytes, Error>> {
        stream::unfold(self, |mut stream| async move {
            let piece = stream.piece().await?;
            Some((piece, stream))
        })
        .boxed()
    }

    pub(super) fn world(&self) -> &World {
        &self.link.0
    }

    async fn piece(&mut self) -> Option<Result<Bytes, Error>> {
        let now = self.world().now();
        lock(&self.world().judge).keeps_waiting(now);
        loop {
            if self.cut.is_none() && !self.out.is_empty() {
                let late = self.world().happens(self.world().weather.late);
                let late = drawn(&mut lock(&self.world().rng), 0..if late { 3000 } else { 1 });
                self.arrived = (self.arrived.max(self.clock) + late).max(self.plan.held_until);
                self.sleep_until(self.arrived).await;
                if let Some(piece) = self.take() {
                    return Some(Ok(piece));
                }
            }
            match self.cut {
                None => {
                    let (at, next) = self.next();
                    self.clock = at;
                    self.sleep_until(at).await;
                    self.write(&next);
                }
                Some(Cut::Silent) => pending().await,
                Some(Cut::Broken) => {
                    let error = no_connection().await;
                    self.ended();
                    return Some(Err(error));
                }
                Some(Cut::Ended) => {
                    self.ended();
                    return None;
                }
            }
        }
    }

    async fn sleep_until(&self, at: Duration) {
        if at > self.world().now() {
            sleep_until(self.world().begun + at).await;
        }
    }

    fn ended(&self) {
        lock(&self.world().judge).ended(self.world().now());
    }

    /// The next piece: all that is there, or some of it, up to where the stream is cut.
    fn take(&mut self) -> Option<Bytes> {
        if self.world().is_calm() {
            self.plan.cut = None;
        }
        let clean = self.poison_from.map_or(usize::MAX, |from| from - self.sent);
        let mut size = if clean == 0 { self.out.len() } else { self.out.len().min(clean) };
        if clean > 0 && lock(&self.world().rng).random_bool(0.7) {
            size = lock(&self.world().rng).random_range(1..=size.min(100));
        }
        if let Some((left, how)) = &mut self.plan.cut {
            size = size.min(*left);
            *left -= size;
            if *left == 0 {
                self.cut = Some(*how);
            }
        }
        self.sent += size;
        while let Some((_, mark)) = self.marks.pop_front_if(|(at, _)| *at <= self.sent) {
            self.tell(&mark);
        }
        (size > 0).then(|| self.out.drain(..size).collect::<Vec<_>>().into())
    }

    fn tell(&self, mark: &Mark) {
        let (now, mut judge) = (self.world().now(), lock(&self.world().judge));
        match mark {
            Mark::Connected => judge.connected(now),
            Mark::Notification(offset) => {
                judge.connected(now);
                judge.reaches(*offset);
            }
            Mark::Unknown => judge.event(),
            Mark::Hint(hint) => judge.hinted(*hint),
            Mark::Comment { until } => {
                judge.comment(self.arrived, now);
                judge.reaches(*until);
            }
            Mark::Poison => judge.ends_it(now, Terminal::Undecodable),
        }
    }

    /// What is written next, and when.
    fn next(&self) -> (Duration, Next) {
        let weather = &self.world().weather;
        let entry = self.world().log.next(self.after);
        let entry = entry.map(|entry| (entry.at + self.behind, Next::Entry(entry.offset)));
        let end = self.plan.end.map(|(at, trouble)| (at, Next::End(trouble)));
        let beat = weather.beat.map(|beat| (self.clock + beat, Next::Beat));
        let first = [entry, end, beat].into_iter().flatten().min_by_key(|(at, _)| *at);
        let (at, next) = first.unwrap_or((seconds(1_000_000), Next::Beat));
        (at.max(self.clock), next)
    }

    fn write(&mut self, next: &Next) {
        match next {
            Next::Entry(offset) => {
                self.after = *offset;
                self.notification(*offset);
            }
            Next::Beat => self.beat(),
            Next::End(trouble) => return self.end(*trouble),
        }
        if self.world().happens(self.world().weather.noise) {
            self.noise();
        }
    }

    fn end(&mut self, trouble: Trouble) {
        self.plan.end = None;
        match trouble {
            Trouble::Away(Closing::Drained) => {
                let hint = lock(&self.world().rng).random_range(500..3000);
                self.hint(hint);
                self.plan.cut = Some((self.out.len(), Cut::Ended));
            }
            Trouble::Away(Closing::Broken) => self.cut = Some(Cut::Broken),
            Trouble::Away(Closing::Silent) => self.cut = Some(Cut::Silent),
            Trouble::Terminal(Terminal::Undecodable) => self.poison(),
            Trouble::Terminal(_) | Trouble::HeldBack => self.cut = Some(Cut::Ended),
        }
    }

    fn notification(&mut self, offset: u64) {
        let body =
            self.world().log.next(offset - 1).map(|entry| entry.body.clone()).unwrap_or_default();
        if self.world().weather.kind == Kind::Herald {
            self.line(&format!("id: {offset}"), None);
        }
        self.event("notification", &body, Some(Mark::Notification(offset)));
    }

    fn beat(&mut self) {
        let until = self.world().until(self.after, self.clock, self.behind);
        match self.world().weather.kind {
            Kind::Herald => self.comment(&format!(" until {until}"), until),
            Kind::Bare => self.comment("hello", 0),
        }
    }

    /// Something that changes nothing, or only how long to wait.
    fn noise(&mut self) {
        let (what, number) = {
            let mut rng = lock(&self.world().rng);
            (rng.random_range(0..6), rng.random_range(0..=self.after))
        };
        match what {
            0 => self.hint(number * 97 % 90_000),
            1 => self.comment(&format!(" until {number}"), number),
            2 => self.comment(&format!(" {}", self.after + number), 0),
            3 => self.event("news", "{\"offset\":1}", Some(Mark::Unknown)),
            4 => self.event("connected", "", Some(Mark::Connected)),
            _ => {
                let old = self.world().log.next(number).filter(|entry| entry.offset <= self.after);
                if let Some(offset) = old.map(|entry| entry.offset) {
                    self.notification(offset);
                }
            }
        }
    }

    fn hint(&mut self, hint: u64) {
        self.line(&format!("retry: {hint}"), Some(Mark::Hint(millis(hint))));
        self.line("", None);
    }

    fn comment(&mut self, text: &str, until: u64) {
        self.line(&format!(":{text}"), Some(Mark::Comment { until }));
        self.line("", None);
    }

    fn event(&mut self, name: &str, data: &str, mark: Option<Mark>) {
        self.line(&format!("event: {name}"), None);
        match self.world().weather.kind {
            Kind::Herald => self.line(&format!("data: {data}"), None),
            // Between two tokens a line may end.
            Kind::Bare => {
                for line in data.split_inclusive(',') {
                    self.line(&format!("data:{line}"), None);
                }
                if data.is_empty() {
                    self.line("data", None);
                }
            }
        }
        self.line("", mark);
    }

    /// A line, with a mark behind the first byte that ends it.
    fn line(&mut self, text: &str, mark: Option<Mark>) {
        self.out.extend_from_slice(text.as_bytes());
        let end = if self.world().weather.kind == Kind::Herald { "\n" } else { "\r\n" };
        if let Some(mark) = mark {
            self.marks.push_back((self.sent + self.out.len() + 1, mark));
        }
        self.out.extend_from_slice(end.as_bytes());
    }
}
