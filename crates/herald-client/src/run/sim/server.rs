//! The server of one run: answers from the log, or does not, as the weather is.

use std::sync::LazyLock;

use herald_types::Offset;
use reqwest::{StatusCode, dns};
use tokio::time::sleep;

use super::{
    judge::Judge,
    stream::{Cut, Plan, Stream},
    weather::{Closing, Kind, Log, Terminal, Trouble, Weather},
    *,
};
use crate::{Refusal, TransportError};

pub(super) const HISTORY: Uuid = Uuid::from_u128(1);

pub(super) struct World {
    pub(super) begun: Instant,
    pub(super) log: Log,
    pub(super) weather: Weather,
    pub(super) rng: Mutex<StdRng>,
    pub(super) judge: Mutex<Judge>,
}

/// A handle on the world: what a run takes for its server.
#[derive(Clone)]
pub(super) struct Server(pub(super) Arc<World>);

/// A fault, as a client sees it.
enum Fault {
    Refused(StatusCode, Option<Duration>),
    Broken,
    Hung,
    Terminal(Terminal),
}

impl World {
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn is_calm(&self) -> bool {
        self.now() >= self.weather.calm
    }

    /// Something that happens with a chance, and never when it is calm.
    pub(super) fn happens(&self, chance: f64) -> bool {
        !self.is_calm() && lock(&self.rng).random_bool(chance)
    }

    /// Where an answer begins: a little or far too early with a chance.
    pub(super) fn begin_after(&self, after: u64) -> u64 {
        if !self.happens(self.weather.repeated) {
            return after;
        }
        let mut rng = lock(&self.rng);
        if rng.random_bool(0.1) { 0 } else { after.saturating_sub(rng.random_range(0..1000)) }
    }

    pub(super) fn replica(&self) -> Duration {
        let replicas = &self.weather.replicas;
        replicas[lock(&self.rng).random_range(0..replicas.len())]
    }

    /// An offset up to which there is nothing but what a replica so far behind has: anywhere in the gap behind it.
    pub(super) fn until(&self, after: u64, at: Duration, behind: Duration) -> u64 {
        let visible = at.saturating_sub(behind);
        let tail = self.log.after(after, visible).last().map_or(after, |entry| entry.offset);
        let end = self.log.next(tail).map_or(tail + 100, |entry| entry.offset);
        lock(&self.rng).random_range(tail..end)
    }

    fn position(&self, after: u64, behind: Duration, history: Option<Uuid>) -> LogPosition {
        if self.weather.kind == Kind::Bare {
            return LogPosition { history, ..LogPosition::default() };
        }
        // What retention has removed was not for these receivers.
        let end = self.log.next(after).map_or(after + 10, |entry| entry.offset);
        let trim = lock(&self.rng).random_range(0..end);
        let tail = self.until(after, self.now(), behind);
        LogPosition { tail: Some(offset(tail)), trim: Some(offset(trim)), history }
    }

    fn history(&self) -> Option<Uuid> {
        (self.weather.kind == Kind::Herald).then_some(HISTORY)
    }

    /// What goes wrong with a request that comes now.
    fn fault(&self) -> Option<Fault> {
        let now = self.now();
        let rng = &mut *lock(&self.rng);
        match self.weather.trouble(now) {
            Some(Trouble::Terminal(terminal)) => return Some(Fault::Terminal(terminal)),
            Some(Trouble::Away(closing)) => {
                let refuses = closing == Closing::Drained || rng.random_bool(0.3);
                return Some(if refuses { refused(rng) } else { broken(rng) });
            }
            Some(Trouble::HeldBack) | None => {}
        }
        if now >= self.weather.calm {
            None
        } else if rng.random_bool(self.weather.refused) {
            Some(refused(rng))
        } else if rng.random_bool(self.weather.broken) {
            Some(broken(rng))
        } else {
            rng.random_bool(self.weather.hung).then_some(Fault::Hung)
        }
    }

    /// How long a request takes.
    fn latency(&self) -> Duration {
        let slow = self.happens(0.1);
        drawn(&mut lock(&self.rng), 0..if slow { 10_000 } else { 50 })
    }

    fn plan(&self) -> Plan {
        let now = self.now();
        let held_back = self.weather.trouble(now) == Some(Trouble::HeldBack);
        let (held, cut) = (self.happens(self.weather.held), self.happens(self.weather.cut));
        let rng = &mut *lock(&self.rng);
        let held = if held { drawn(rng, 0..40_000) } else { Duration::ZERO };
        let held = if held_back { seconds(300) } else { held };
        let end = self
            .weather
            .end_of_stream(now)
            .map(|(at, trouble)| (at + drawn(rng, 0..5000), trouble));
        let cut = cut.then(|| {
            let how = [Cut::Ended, Cut::Broken, Cut::Silent][rng.random_range(0..3)];
            (rng.random_range(0..2000), how)
        });
        Plan { held_until: now + held, cut, end }
    }
}

impl Source for Server {
    fn open(&self, after: Offset) -> BoxFuture<'static, Result<Opened, Error>> {
        let world = Arc::clone(&self.0);
        lock(&world.judge).open(world.now(), after.get());
        let (fault, latency, behind) = (world.fault(), world.latency(), world.replica());
        let link = Held(Arc::clone(&world));
        async move {
            sleep(latency).await;
            let mut history = world.history();
            match fault {
                Some(Fault::Terminal(Terminal::OtherHistory(found))) => {
                    lock(&world.judge).ends_it(world.now(), Terminal::OtherHistory(found));
                    history = found;
                }
                // It comes in the stream.
                Some(Fault::Terminal(Terminal::Undecodable)) | None => {}
                Some(fault) => return Err(world.fail_open(&fault).await),
            }
            let after = after.get();
            let position = world.position(after, behind, history);
            let mut stream = Stream::new(link, after, behind, world.plan());
            if let Some(Fault::Terminal(Terminal::Undecodable)) = fault {
                stream.poison();
            }
            lock(&stream.world().judge).opened(stream.world().now());
            Ok(Opened { position, bytes: stream.bytes() })
        }
        .boxed()
    }

    fn page(&self, after: Offset) -> BoxFuture<'static, Result<Page, Error>> {
        let world = Arc::clone(&self.0);
        lock(&world.judge).page(world.now(), after.get());
        let (fault, latency, behind) = (world.fault(), world.latency(), world.replica());
        let asked = Asked { world: Arc::clone(&world), answered: false };
        async move {
            sleep(latency).await;
            if let Some(Fault::Hung) = fault {
                sleep(crate::POLL_TIMEOUT).await;
            }
            asked.answer();
            let mut history = world.history();
            match fault {
                Some(Fault::Terminal(Terminal::OtherHistory(found))) => {
                    lock(&world.judge).ends_it(world.now(), Terminal::OtherHistory(found));
                    history = found;
                }
                Some(fault) => return Err(world.fail_page(&fault).await),
                None => {}
            }
            Ok(world.page(after.get(), behind, history))
        }
        .boxed()
    }

    fn random(&mut self) -> f64 {
        let random = lock(&self.0.rng).random();
        lock(&self.0.judge).draw(random);
        random
    }
}

impl World {
    async fn fail_open(&self, fault: &Fault) -> Error {
        let retry_after = match fault {
            Fault::Hung => pending().await,
            Fault::Refused(_, retry_after) => retry_after.unwrap_or_default(),
            Fault::Broken => Duration::ZERO,
            Fault::Terminal(terminal) => {
                lock(&self.judge).ends_it(self.now(), *terminal);
                return ends_it(*terminal);
            }
        };
        let error = error(fault).await;
        lock(&self.judge).fails(self.now(), retry_after);
        error
    }

    async fn fail_page(&self, fault: &Fault) -> Error {
        if let Fault::Terminal(terminal) = *fault {
            // A page has no content type of its own.
            let terminal =
                if terminal == Terminal::ContentType { Terminal::Undecodable } else { terminal };
            lock(&self.judge).page_ends_it(self.now(), terminal);
            return ends_it(terminal);
        }
        let error = error(fault).await;
        lock(&self.judge).page_failed(self.now(), error.retry_after().unwrap_or_default());
        error
    }

    /// A page of any size, which may begin too early, and may be empty although there is more.
    fn page(&self, after: u64, behind: Duration, history: Option<Uuid>) -> Page {
        let from = self.begin_after(after);
        let short = self.happens(0.7);
        let most = if short { lock(&self.rng).random_range(0..6) } else { 1000 };
        let visible = self.log.after(from, self.now().saturating_sub(behind));
        let found: Vec<_> = visible.take(most).collect();
        let last = found.last().map_or(from, |entry| entry.offset).max(after);
        let until = if found.len() == most { last } else { self.until(last, self.now(), behind) };
        let until = (self.weather.kind == Kind::Herald).then(|| offset(until));
        let notifications: Vec<_> = found
            .iter()
            .map(|entry| Notification::parse(entry.body.clone().into()).unwrap())
            .collect();
        let other = history != self.history();
        if !other {
            lock(&self.judge).reaches(until.map_or(last, Offset::get));
        }
        lock(&self.judge).paged(self.now(), last > after && !other);
        let position = self.position(after, behind, history);
        Page { notifications, until, position, run: 0, last: Offset::ZERO }
    }
}

/// A connection that is there until the client lets go of it.
pub(super) struct Held(pub(super) Arc<World>);

impl Drop for Held {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            lock(&self.0.judge).let_go(self.0.now());
        }
    }
}

/// A poll that is to be answered.
struct Asked {
    world: Arc<World>,
    answered: bool,
}

impl Asked {
    fn answer(mut self) {
        self.answered = true;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            lock(&self.world.judge).page_let_go(self.answered);
        }
    }
}

fn refused(rng: &mut StdRng) -> Fault {
    let status = [408, 429, 500, 502, 503, 503, 503, 504, 599][rng.random_range(0..9)];
    let retry_after = match rng.random_range(0..20) {
        0..10 => None,
        10..19 => Some(rng.random_range(0..20)),
        _ => Some(rng.random_range(0..400)),
    };
    let status = StatusCode::from_u16(status).unwrap();
    Fault::Refused(status, retry_after.map(seconds))
}

fn broken(rng: &mut StdRng) -> Fault {
    if rng.random_bool(0.2) { Fault::Hung } else { Fault::Broken }
}

async fn error(fault: &Fault) -> Error {
    match fault {
        Fault::Refused(status, retry_after) => refusal(*status, *retry_after),
        _ => no_connection().await,
    }
}

fn ends_it(terminal: Terminal) -> Error {
    match terminal {
        Terminal::Status(status) => refusal(StatusCode::from_u16(status).unwrap(), None),
        Terminal::ContentType => Error::ContentType { found: "text/html".into() },
        Terminal::Undecodable => {
            undecodable("a body", crate::UndecodableSource::Body { limit_bytes: 0 })
        }
        Terminal::OtherHistory(_) => unreachable!("comes with an answer that is good otherwise"),
    }
}

fn refusal(status: StatusCode, retry_after: Option<Duration>) -> Error {
    Error::Refused(Box::new(Refusal { status, retry_after, problem: None, challenge: None }))
}

/// What the HTTP client says when there is no server: made by it, without a network.
pub(super) async fn no_connection() -> Error {
    struct Nowhere;
    impl dns::Resolve for Nowhere {
        fn resolve(&self, _: dns::Name) -> dns::Resolving {
            Box::pin(async { Err("no such name".into()) })
        }
    }
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        let client = reqwest::Client::builder().no_proxy().dns_resolver(Nowhere);
        #[cfg(feature = "tls")]
        let client = {
            let _ = rustls::crypto::ring::default_provider().install_default();
            client.tls_certs_only([])
        };
        client.build().unwrap()
    });
    let error = CLIENT.get("http://nowhere.example").send().await.unwrap_err();
    Error::Transport(TransportError::new(error))
}
