//! One connection to the primary, and how the primary is found among the servers.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, SimpleQueryMessage, SimpleQueryRow, config::Host,
    error::Severity,
};
use uuid::Uuid;

use super::{
    super::{
        Position,
        engine::{ANSWER_WAIT, EngineError, Place},
    },
    failure::Failure,
    settings::Servers,
};

/// How long all servers together may take to say which of them is the primary.
const OPEN_WAIT: Duration = Duration::from_secs(2);
/// How much longer the others may take once one of them has said that it is: an old primary that nobody has stopped says
/// so as well, and the newer one is to win.
const OTHERS_WAIT: Duration = Duration::from_millis(500);
/// How long a connection is read on for that nobody needs any more, so that the server is told of its end.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How long a barrier may wait for the standbys.
const BARRIER_WAIT: Duration = Duration::from_secs(1);
/// A commit with nothing in it but its place in the WAL. No row is touched, so none can be in its way, and none is left.
const BARRIER: &str = "SELECT pg_logical_emit_message(true, 'herald', '')";
/// How long a statement waits for a row that another transaction has touched and not decided about. Less than
/// [`ANSWER_WAIT`]: the server must end such a wait itself, or one process would be left behind with each try.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const VERSION_MIN: u32 = 130_000;

/// The channel of the words.
pub(super) const CHANNEL: &str = "herald";

/// A connection to a server that was the primary when it was opened. It stays that as long as it lives, since a primary
/// becomes a standby only by starting again: whatever one session has seen, it has seen in one life of one server, on one
/// timeline.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) heard: watch::Receiver<Heard>,
    /// The server's timeline: each promotion begins a new one.
    pub(super) term: u64,
    /// For messages.
    pub(super) server: String,
    /// Ends the task that drives the connection.
    _alive: oneshot::Sender<()>,
}

/// What a server says without being asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    /// How many warnings there were. A commit during which there was one is not known to be safe.
    pub(super) warnings: u64,
    /// The newest batch of which its writer has said, on this server and in this life of it, that it is safe.
    pub(super) word: Option<Place>,
}

impl Session {
    pub(super) fn warnings(&self) -> u64 {
        self.heard.borrow().warnings
    }

    /// Makes sure of all that this session has seen: what was in the WAL when this began is safe when it has ended well.
    pub(super) async fn barrier(&self, door: &Door) -> Result<(), Failure> {
        let warnings = self.warnings();
        let mut commit = pin!(self.client.batch_execute(BARRIER));
        match timeout(BARRIER_WAIT, &mut commit).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                // Cancelling such a wait makes it a local commit, which is a trap where a row hangs on it. Nothing hangs
                // on this one, and the server would keep a process for it until a standby comes back.
                let cancel = self.client.cancel_token();
                let _ = timeout(BARRIER_WAIT, cancel.cancel_query(door.servers.tls.clone())).await;
                timeout(BARRIER_WAIT, commit).await.map_err(|_| Failure::late())??;
            }
        }
        self.confirmed_since(warnings)
    }

    /// Whether what was committed since has been confirmed.
    pub(super) fn confirmed_since(&self, warnings: u64) -> Result<(), Failure> {
        if self.warnings() > warnings {
            return Err(Failure::new("no synchronous standby confirms what is committed"));
        }
        Ok(())
    }
}

/// The way to the servers.
pub(super) struct Door {
    servers: Servers,
    /// The newest timeline that any session has seen: an older one is a server that was deposed. Relaxed is enough: it is
    /// a maximum, and guards no other memory.
    newest_term: AtomicU64,
}

impl Door {
    pub(super) fn new(servers: Servers) -> Self {
        Self { servers, newest_term: AtomicU64::new(0) }
    }

    pub(super) fn newest_term(&self) -> u64 {
        self.newest_term.load(Ordering::Relaxed)
    }

    /// A session with the primary; of several, with that of the newest timeline. Not with one that was replaced.
    pub(super) async fn open(&self) -> Result<Session, EngineError> {
        let session = self.open_any().await?;
        self.admit(&session)?;
        Ok(session)
    }

    /// Refuses a server that was replaced, as one that is away: the right one may come back.
    pub(super) fn admit(&self, session: &Session) -> Result<(), EngineError> {
        let newest_term = self.newest_term();
        if session.term < newest_term {
            return Err(Failure::new(format!(
                "{} is on timeline {}, and there has been {newest_term}: it was replaced, and must \
                 not go on as a primary",
                session.server, session.term
            ))
            .into());
        }
        Ok(())
    }

    /// The same, but where there is only one that was replaced, with that: who looks at it must be told its timeline.
    pub(super) async fn open_any(&self) -> Result<Session, EngineError> {
        let mut tries: FuturesUnordered<_> =
            self.servers.each.iter().map(|server| self.open_one(server)).collect();
        let mut until = Instant::now() + OPEN_WAIT;
        let mut best: Option<Session> = None;
        let mut refusals = Vec::new();
        while let Ok(Some(tried)) = timeout_at(until, tries.next()).await {
            match tried {
                Ok(session) => {
                    until = until.min(Instant::now() + OTHERS_WAIT);
                    if best.as_ref().is_none_or(|best| best.term < session.term) {
                        best = Some(session);
                    }
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        let session = best.ok_or_else(|| self.why_none(refusals))?;
        self.newest_term.fetch_max(session.term, Ordering::Relaxed);
        Ok(session)
    }

    /// Why there is no primary. A server that must be mended says most; but as long as one has not said what it is, that
    /// may be the primary, and worth waiting for.
    fn why_none(&self, mut refusals: Vec<Refusal>) -> EngineError {
        let have_all_answered = refusals.len() == self.servers.each.len()
            && !refusals.iter().any(|refusal| matches!(refusal, Refusal::Silent(_)));
        refusals.sort_by_key(|refusal| match refusal {
            Refusal::Unfit(_) => 0,
            Refusal::Silent(_) => 1,
            Refusal::NotPrimary(_) => 2,
        });
        match refusals.into_iter().next() {
            Some(Refusal::Unfit(text)) if have_all_answered => EngineError::Unfit(text),
            Some(Refusal::Unfit(text) | Refusal::Silent(text) | Refusal::NotPrimary(text)) => {
                EngineError::Away(text.into())
            }
            None => EngineError::Away("no server answers".into()),
        }
    }

    async fn open_one(&self, config: &Config) -> Result<Session, Refusal> {
        let server = label(config);
        let bad = |failure: Failure| {
            let text = format!("{server}: {failure}");
            if failure.is_lasting() { Refusal::Unfit(text) } else { Refusal::Silent(text) }
        };
        let (client, connection) =
            config.connect(self.servers.tls.clone()).await.map_err(|error| bad(error.into()))?;
        let (hears, heard) = watch::channel(Heard::default());
        let (alive, ended) = oneshot::channel();
        tokio::spawn(async move {
            let mut driven = pin!(drive(connection, &hears));
            tokio::select! {
                () = &mut driven => {}
                _ = ended => drop(timeout(CLOSE_WAIT, driven).await),
            }
        });
        let said = client.simple_query(&greeting()).await.map_err(|error| bad(error.into()))?;
        let said = said.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Greeted::read(row),
            _ => None,
        });
        let Greeted { version, is_read_only, term } =
            said.ok_or_else(|| bad(Failure::new("its answer was not understood")))?;
        if version < VERSION_MIN {
            return Err(Refusal::Unfit(format!(
                "{server} is PostgreSQL {}, and Herald needs 13 or newer",
                version / 10_000
            )));
        }
        match term {
            Some(term) if !is_read_only => {
                Ok(Session { client, heard, term, server, _alive: alive })
            }
            Some(_) => Err(Refusal::NotPrimary(format!("{server} is set to be read only"))),
            None => Err(Refusal::NotPrimary(format!("{server} is a standby"))),
        }
    }
}

/// Why there is no session with a server; each with a text that names it.
enum Refusal {
    /// It answers, and something must be mended.
    Unfit(String),
    /// It answers, and is not the primary.
    NotPrimary(String),
    /// What it is is not known.
    Silent(String),
}

fn label(config: &Config) -> String {
    let host = match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(host)), _) => host.clone(),
        (Some(Host::Unix(path)), _) => path.display().to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    };
    format!("{host}:{}", config.get_ports().first().copied().unwrap_or_default())
}

struct Greeted {
    version: u32,
    is_read_only: bool,
    /// `None` where the server is a standby.
    term: Option<u64>,
}

impl Greeted {
    fn read(row: &SimpleQueryRow) -> Option<Self> {
        let term = match row.get(2)? {
            "" => None,
            name => Some(u64::from_str_radix(name, 16).ok()?),
        };
        Some(Self { version: row.get(0)?.parse().ok()?, is_read_only: row.get(1)? == "on", term })
    }
}

/// One question that tells who the server is and makes the session what Herald relies on, whatever the role, the database
/// or the server set otherwise.
fn greeting() -> String {
    let (statement_ms, lock_ms) = (ANSWER_WAIT.as_millis(), LOCK_WAIT.as_millis());
    format!(
        "SELECT current_setting('server_version_num'),
                current_setting('transaction_read_only'),
                CASE WHEN pg_is_in_recovery() THEN ''
                     ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
                (SELECT count(set_config(s.name, v.value, false)) FROM pg_settings s JOIN (VALUES
                    -- What is committed is safe when that is answered: never less than `on`.
                    ('synchronous_commit', CASE current_setting('synchronous_commit')
                        WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END),
                    -- A commit that was not waited for is known by its warning alone.
                    ('client_min_messages', 'warning'),
                    -- A statement sees what was committed when it began.
                    ('default_transaction_isolation', 'read committed'),
                    -- Rather an error than rows left out.
                    ('row_security', 'off'),
                    -- Neither of them ends a commit that waits for a standby: that would make it a local one.
                    ('statement_timeout', '{statement_ms}'),
                    ('lock_timeout', '{lock_ms}'),
                    ('idle_session_timeout', '0'),
                    ('idle_in_transaction_session_timeout', '{statement_ms}'),
                    -- All there is to plan is a walk along one index, however large a table was when a plan was made.
                    ('plan_cache_mode', 'force_generic_plan'),
                    ('enable_seqscan', 'off'),
                    ('enable_bitmapscan', 'off'),
                    ('jit', 'off')
                ) v(name, value) ON s.name = v.name)"
    )
}

/// Drives a connection to its end. Here the order of what the server says is kept: a warning is counted before the end of
/// the command it belongs to is handed on, so whoever has the answer sees the count.
async fn drive<S, T>(mut connection: Connection<S, T>, hears: &watch::Sender<Heard>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            AsyncMessage::Notice(notice) => {
                let is_harmless = matches!(
                    notice.parsed_severity(),
                    Some(Severity::Notice | Severity::Info | Severity::Log | Severity::Debug)
                );
                if !is_harmless {
                    hears.send_modify(|heard| heard.warnings += 1);
                }
            }
            AsyncMessage::Notification(notification) if notification.channel() == CHANNEL => {
                if let Some(word) = read_word(notification.payload()) {
                    hears.send_modify(|heard| {
                        if heard.word.is_none_or(|old| old.position < word.position) {
                            heard.word = Some(word);
                        }
                    });
                }
            }
            _ => {}
        }
    }
}

/// What a writer says when its commit was clean.
pub(super) fn word(place: Place) -> String {
    format!("safe {} {}", place.position, Uuid::from_u128(place.batch_id))
}

fn read_word(payload: &str) -> Option<Place> {
    let (position, batch_id) = payload.strip_prefix("safe ")?.split_once(' ')?;
    Some(Place {
        position: Position(position.parse().ok()?),
        batch_id: batch_id.parse::<Uuid>().ok()?.as_u128(),
    })
}

/// A place for a session that nobody uses at the moment. Whoever takes it out is its only user, so that what is dropped
/// half-way drops its connection too.
pub(super) struct Slot<T>(Mutex<Option<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: AsRef<Session>> Slot<T> {
    /// The session kept here, if it can still be used.
    pub(super) fn take(&self, door: &Door) -> Option<T> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let session = kept.as_ref();
        (!session.client.is_closed() && session.term >= door.newest_term()).then_some(kept)
    }

    pub(super) fn put(&self, session: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
    }
}
