//! What a person sees below the lines: how the connection fares, how fast notifications come, how far behind it is.

use std::{fmt, time::Duration};

use herald_client::{Cursor, Notification, Status};
use herald_types::Offset;
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::output;

/// The last line of a terminal. Without one, statuses are lines on stderr.
pub(super) struct View {
    bar: ProgressBar,
    place: Place,
}

/// Where the stream stands.
struct Place {
    connection: Connection,
    /// The newest offset that the server has named.
    tail: Offset,
    /// Up to where everything is printed.
    offset: Offset,
    /// How old the newest notification was when it was printed.
    lag: Option<Duration>,
    /// Something has been printed since the last look.
    is_busy: bool,
}

enum Connection {
    Connecting,
    Open,
    /// Until then.
    Waiting(Instant),
    Polling,
}

impl View {
    pub(super) fn new() -> Self {
        let place = Place {
            connection: Connection::Connecting,
            tail: Offset::ZERO,
            offset: Offset::ZERO,
            lag: None,
            is_busy: false,
        };
        let view = Self { bar: bar(), place };
        view.draw();
        view
    }

    /// The bar that lines must be printed above.
    pub(super) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// Something was heard of the connection.
    pub(super) fn note(&mut self, status: &Status, cursor: &Cursor) {
        let was_routine = self.place.note(status);
        // A connection that is open shows on the last line, if there is one.
        if self.bar.is_hidden() || !was_routine {
            self.bar.suspend(|| output::say(status));
        }
        self.moved(cursor);
    }

    /// These lines were printed.
    pub(super) fn printed(&mut self, notifications: &[Notification], cursor: &Cursor) {
        self.bar.inc(notifications.len() as u64);
        self.place.is_busy = true;
        // Reading a whole notification is work, so only if somebody sees it.
        if let Some(last) = notifications.last().filter(|_| !self.bar.is_hidden()) {
            let made_at = last.fields().ok().and_then(|fields| fields.created_at);
            self.place.lag = made_at.map(|made_at| {
                // Two machines' clocks may differ: nothing is from the future.
                Timestamp::now().duration_since(made_at).try_into().unwrap_or_default()
            });
        }
        self.moved(cursor);
    }

    /// The cursor is here now.
    pub(super) fn moved(&mut self, cursor: &Cursor) {
        // The run that is furthest behind.
        self.place.offset = cursor.offsets().iter().copied().min().unwrap_or_default();
        self.draw();
    }

    /// Nothing has come for a moment.
    pub(super) fn look(&mut self) {
        self.place.is_busy = false;
        self.draw();
    }

    /// Takes the last line away and says where to go on.
    pub(super) fn end(&self) {
        if !self.bar.is_hidden() {
            self.bar.finish_and_clear();
            let (printed, offset) = (HumanCount(self.bar.position()), self.place.offset);
            output::say(format_args!("{printed} printed, everything up to offset {offset}"));
        }
    }

    fn draw(&self) {
        if !self.bar.is_hidden() {
            self.bar.set_message(self.place.text(Instant::now()));
        }
    }
}

impl Place {
    /// Returns whether this is what is to be expected.
    fn note(&mut self, status: &Status) -> bool {
        match status {
            Status::Connected { position, .. } => {
                self.connection = Connection::Open;
                self.tail = self.tail.max(position.tail.unwrap_or_default());
                return true;
            }
            // A poll beside a stream that is held back has failed: it is still polling.
            Status::Waiting { .. } if matches!(self.connection, Connection::Polling) => {}
            Status::Waiting { wait, .. } => {
                self.connection = Connection::Waiting(Instant::now() + *wait);
            }
            Status::Polling { .. } => self.connection = Connection::Polling,
            _ => {}
        }
        false
    }

    fn text(&self, now: Instant) -> String {
        let behind = self.tail.get().saturating_sub(self.offset.get());
        let lag = self.lag.filter(|_| self.is_busy).map(|lag| format!(", lag {}", Lag(lag)));
        let lag = lag.unwrap_or_default();
        match self.connection {
            Connection::Connecting => "connecting".to_owned(),
            Connection::Open if self.is_busy && behind > 0 => {
                format!("catching up, {} offsets behind", HumanCount(behind))
            }
            Connection::Open => format!("live{lag}"),
            Connection::Waiting(until) => {
                let left = until.saturating_duration_since(now).as_secs_f64().ceil();
                format!("not connected, trying again in {left} s")
            }
            Connection::Polling => format!("polling{lag}"),
        }
    }
}

/// To the millisecond below a second, else to the second.
struct Lag(Duration);

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            millis @ 0..1000 => write!(f, "{millis} ms"),
            _ => write!(f, "{} s", HumanCount(self.0.as_secs())),
        }
    }
}

/// On stderr, where that is a terminal.
fn bar() -> ProgressBar {
    if !output::has_viewer() {
        return ProgressBar::hidden();
    }
    let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
        // That it cannot be written is no reason to stop.
        let _ = write!(text, "{:.1}/s", state.per_sec());
    };
    let style = ProgressStyle::with_template("{spinner} {msg} · {rate} · {human_pos} printed");
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        style.unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key("rate", rate),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(connection: Connection, tail: u64, offset: u64) -> Place {
        let at = |number| Offset::new(number).unwrap();
        Place {
            connection,
            tail: at(tail),
            offset: at(offset),
            lag: Some(Duration::from_millis(85)),
            is_busy: true,
        }
    }

    #[test]
    fn it_says_how_the_connection_fares_and_how_far_behind_it_is() {
        let now = Instant::now();
        let text = |place: Place| place.text(now);
        assert_eq!(text(place(Connection::Connecting, 0, 0)), "connecting");
        assert_eq!(
            text(place(Connection::Open, 13_000, 655)),
            "catching up, 12,345 offsets behind"
        );
        assert_eq!(text(place(Connection::Open, 655, 655)), "live, lag 85 ms");
        assert_eq!(text(place(Connection::Polling, 655, 655)), "polling, lag 85 ms");
        let until = now + Duration::from_millis(2500);
        assert_eq!(
            text(place(Connection::Waiting(until), 9, 5)),
            "not connected, trying again in 3 s"
        );
    }

    #[test]
    fn where_nothing_comes_any_more_there_is_no_lag() {
        let quiet = Place { is_busy: false, ..place(Connection::Open, 13_000, 655) };
        assert_eq!(quiet.text(Instant::now()), "live", "the rest is for others");
    }

    #[test]
    fn lag_is_in_milliseconds_below_a_second() {
        for (millis, text) in [(0, "0 ms"), (999, "999 ms"), (1000, "1 s"), (7_200_000, "7,200 s")]
        {
            assert_eq!(Lag(Duration::from_millis(millis)).to_string(), text);
        }
    }
}
