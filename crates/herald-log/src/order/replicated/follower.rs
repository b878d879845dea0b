//! Follows the engine's log for this replica's view, for ever, and looks that it is still the same log.

use std::{sync::Arc, time::Duration};

use herald_types::with_causes;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{WHAT_TO_DO, other_batch};
use crate::{
    frame::Header,
    order::{
        Position,
        condition::Shared,
        engine::{Engine, EngineError, Follow as _, Followed, Identity, Look, Place, SILENCE_MAX},
    },
    surroundings,
    view::{Newest, View},
};

/// How often the engine is asked which log it keeps.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Between two tries to reach an engine that is away: doubling, with jitter.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// A log that does not go with the view is looked at again, so many times in a row, before that is said.
const DOUBT_LOOKS: u32 = 4;
/// One that only ends too early for longer: a node that has just become the leader may not have read all of its own log yet,
/// and one that has lost its majority knows only after a while.
const BEHIND_LOOKS: u32 = 8;
const SUSPICION_WAIT: Duration = Duration::from_secs(2);

/// Sends what the engine has to the sequencer.
pub(crate) struct Follower<E> {
    pub(crate) engine: Arc<E>,
    pub(crate) view: Arc<View>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: Identity,
    /// The highest term seen.
    pub(crate) term: u64,
    /// How long the engine keeps a batch at least; for ever where this is not said.
    pub(crate) kept_ms: Option<u64>,
    /// The newest batch that has come to be followed. When following begins again the engine must still have it; the view's
    /// newest may by then be one that was stored behind another.
    pub(crate) followed: Option<Place>,
    pub(crate) to: mpsc::Sender<Followed>,
}

/// Why the engine's log seems not to be the view's.
struct Suspicion {
    what: String,
    /// How many looks must say so.
    looks: u32,
    /// Nothing is wrong with the log: this replica was away for longer than batches are kept.
    is_outrun: bool,
}

impl Suspicion {
    fn now(what: String) -> Self {
        Self { what, looks: DOUBT_LOOKS, is_outrun: false }
    }
}

/// Why following ended.
enum Ended {
    /// Worth trying again.
    ForNow(EngineError),
    /// Nobody takes it any more.
    Closed,
}

impl From<EngineError> for Ended {
    fn from(error: EngineError) -> Self {
        Self::ForNow(error)
    }
}

impl<E: Engine> Follower<E> {
    /// Runs until nobody takes what it sends, or until the log turns out to be another one.
    pub(crate) async fn run(mut self) {
        let to = self.to.clone();
        tokio::select! {
            biased;
            () = to.closed() => {}
            () = self.follow_for_ever() => {}
        }
    }

    async fn follow_for_ever(&mut self) {
        let (mut wait, mut said) = (AGAIN_MIN, None);
        loop {
            let mut has_followed = false;
            match self.follow(&mut has_followed).await {
                Ended::Closed => return,
                Ended::ForNow(error) => {
                    if has_followed {
                        (wait, said) = (AGAIN_MIN, None);
                    }
                    // What is only broken is mended by beginning again.
                    if !matches!(error, EngineError::Broken(_)) {
                        self.shared.is_away();
                    }
                    // Once for each kind of trouble: one may follow on another.
                    let kind = std::mem::discriminant(&error);
                    if said.replace(kind) != Some(kind) {
                        let engine = self.engine.address();
                        tracing::warn!(
                            error = with_causes(&error),
                            engine,
                            "cannot follow the log; trying again"
                        );
                    }
                }
            }
            let jitter = 0.5 + surroundings::random::<f64>() / 2.0;
            sleep(wait.mul_f64(jitter)).await;
            wait = (wait * 2).min(AGAIN_MAX);
        }
    }

    async fn follow(&mut self, has_followed: &mut bool) -> Ended {
        let look = match self.check(self.followed).await {
            Ok(look) => look,
            Err(ended) => return ended,
        };
        // From the last batch that is here, so that the first one tells whether it is the same.
        let from = self.view.marks().position.max(look.first);
        let follow = match self.engine.follow(from).await {
            Ok(follow) => follow,
            Err(error) => return error.into(),
        };
        let (to, shared, salt) = (self.to.clone(), Arc::clone(&self.shared), self.identity.salt);
        let mut newest = self.followed;
        let ended = tokio::select! {
            biased;
            ended = receive::<E>(follow, to, shared, salt, has_followed, &mut newest) => ended,
            ended = self.keep_checking() => ended,
        };
        self.followed = newest;
        ended
    }

    async fn keep_checking(&mut self) -> Ended {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        let mut is_unfit = false;
        loop {
            looks.tick().await;
            match self.check(None).await {
                Ok(_) => is_unfit = false,
                // Whether the engine can be followed is seen by following.
                Err(Ended::ForNow(error)) => {
                    self.shared.is_mute();
                    if matches!(error, EngineError::Unfit(_))
                        && !std::mem::replace(&mut is_unfit, true)
                    {
                        tracing::warn!(
                            error = with_causes(&error),
                            "the log's engine cannot be used as it is now"
                        );
                    }
                    tracing::debug!(
                        error = with_causes(&error),
                        "the engine did not answer a look"
                    );
                }
                Err(ended) => return ended,
            }
        }
    }

    /// Looks whether the engine keeps the log that the view is a copy of, and all of it that the view has not. Comes back
    /// when it does, and until then says that it does not. It must still have `doubted`, too, unless that has aged out.
    async fn check(&mut self, mut doubted: Option<Place>) -> Result<Look, Ended> {
        let mut looks = 0;
        loop {
            // Before the look: what is appended meanwhile is not missed by it.
            let held = self.view.newest();
            let asked = Instant::now();
            let suspicion = match self.engine.look().await? {
                None => Suspicion::now("the engine has no log any more".to_owned()),
                Some(look) => {
                    // What was followed may still be on its way to the view.
                    let followed = doubted.map_or(Position(0), |doubted| doubted.position);
                    let reached = held.position.max(followed);
                    let mut suspicion = self.suspicion(&look, reached);
                    if suspicion.is_none() {
                        let ends_alike = place_of(held).filter(|held| held.position == look.newest);
                        let held = doubted.into_iter().chain(ends_alike);
                        suspicion = self.other_batch(held).await?;
                    }
                    let Some(suspicion) = suspicion else {
                        self.shared.looked(&look, asked);
                        self.shared.trust();
                        return Ok(self.remember(look).await);
                    };
                    suspicion
                }
            };
            looks += 1;
            self.shared.is_mute();
            self.shared.suspect();
            doubted = doubted.or(place_of(held));
            // What one doubts may change: then as many looks have been taken, or more.
            if looks < suspicion.looks {
                let what = suspicion.what;
                tracing::warn!(
                    what,
                    "the log may not be the one that this replica holds, looking again"
                );
            } else if suspicion.is_outrun && !self.shared.is_refused_for_good() {
                self.shared.outrun(&suspicion.what);
            } else {
                self.shared.doubt(&format!("{}. {WHAT_TO_DO}", suspicion.what));
            }
            sleep(SUSPICION_WAIT).await;
        }
    }

    /// Whether the engine has others in the place of these batches. Where the log ends with the view, nothing that comes to be
    /// followed would tell.
    async fn other_batch(
        &self,
        held: impl Iterator<Item = Place>,
    ) -> Result<Option<Suspicion>, EngineError> {
        for place in held {
            if let Some(what) = other_batch(&*self.engine, place, self.identity.salt).await? {
                return Ok(Some(Suspicion::now(what)));
            }
        }
        Ok(None)
    }

    fn suspicion(&self, look: &Look, reached: Position) -> Option<Suspicion> {
        let Identity { history, log_id, .. } = look.identity;
        if (history, log_id) != (self.identity.history, self.identity.log_id) {
            Some(Suspicion::now(format!(
                "the engine keeps the log {log_id} of history {history} now"
            )))
        } else if look.term < self.term {
            Some(Suspicion::now(format!(
                "the engine's term is {} and was {} before: an old primary has come back",
                look.term, self.term
            )))
        } else if look.newest < reached {
            let what = format!(
                "the engine's log ends at position {}, and this replica has seen {reached}: it has lost what it had \
                 acknowledged",
                look.newest
            );
            Some(Suspicion { looks: BEHIND_LOOKS, ..Suspicion::now(what) })
        } else if look.is_hollow() && !self.may_be_hollow(look) {
            Some(Suspicion::now(format!(
                "the engine's log has a past, up to position {}, and nothing of it is left to read: it was purged",
                look.newest
            )))
        } else if look.first > reached.next() {
            let what = format!(
                "the engine has removed the batches between position {reached} and {}: this replica was away for too long, \
                 and a restart builds its view again",
                look.first
            );
            Some(Suspicion { is_outrun: true, ..Suspicion::now(what) })
        } else {
            None
        }
    }

    /// Whether the newest batch has gone because of its age: then all replicas were away for long.
    fn may_be_hollow(&self, look: &Look) -> bool {
        let newest_ms = self.view.marks().time_ms;
        self.kept_ms.is_some_and(|kept_ms| newest_ms.saturating_add(kept_ms) <= look.time_ms)
    }

    async fn remember(&mut self, look: Look) -> Look {
        if look.term > self.term {
            let (view, term) = (Arc::clone(&self.view), look.term);
            match surroundings::spawn_blocking(move || view.remember_term(term)).await {
                Ok(Ok(())) => self.term = term,
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = with_causes(&error),
                        term,
                        "could not note the engine's term"
                    );
                }
                Err(panic) => {
                    tracing::error!(error = with_causes(&panic), "noting the term failed");
                }
            }
        }
        look
    }
}

/// The view's newest batch, where it is known which one that is.
fn place_of(newest: Newest) -> Option<Place> {
    newest.batch_id.map(|batch_id| Place { position: newest.position, batch_id })
}

/// Hands on what comes, and notes whether anything did and which batch was the newest.
async fn receive<E: Engine>(
    mut follow: E::Follow,
    to: mpsc::Sender<Followed>,
    shared: Arc<Shared>,
    salt: u64,
    has_followed: &mut bool,
    newest: &mut Option<Place>,
) -> Ended {
    loop {
        let page = match timeout(SILENCE_MAX, follow.next()).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return error.into(),
            Err(silent) => return EngineError::Away(silent.into()).into(),
        };
        *has_followed = true;
        if let Some((position, bytes)) = page.batches.last()
            && let Ok(header) = Header::of_frame(bytes, salt)
        {
            *newest = Some(Place { position: *position, batch_id: header.batch_id });
        }
        shared.heard(page.newest);
        if to.send(page).await.is_err() {
            return Ended::Closed;
        }
    }
}
