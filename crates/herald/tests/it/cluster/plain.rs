//! The plain `eventsource` of npm, many times in one process. It knows `retry:` and `Last-Event-ID`, and gives up for good
//! on a 503.

use std::{
    io::BufReader,
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use herald_feed::RETRY_HINT_MS;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    End,
    clients::Reader,
    presence::{Connected, Presence},
};
use crate::foreign::{script, tools};

/// The process, and what reads its lines.
pub(crate) struct Plain {
    child: Child,
    /// It ends when this does.
    stdin: Option<ChildStdin>,
    lines: JoinHandle<Vec<Reader>>,
}

impl Plain {
    /// Starts one for each of `whose`, from the oldest on until the end that `end` will tell.
    pub(crate) fn start(
        url: &str,
        whose: Vec<Vec<u32>>,
        connected: &Connected,
        end: &watch::Receiver<Option<Arc<End>>>,
    ) -> Self {
        let mut command = Command::new("node");
        command.arg(script("many_eventsources.mjs")).arg(url).env("HERALD_TOOLS", tools());
        for receivers in &whose {
            let her_ids: Vec<String> = receivers.iter().map(u32::to_string).collect();
            command.arg(her_ids.join(","));
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Node is installed: cargo xtask setup");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let stdin = child.stdin.take();
        let (connected, end) = (connected.clone(), end.clone());
        let read = move || read(stdout, whose, &connected, &end);
        Self { child, stdin, lines: tokio::task::spawn_blocking(read) }
    }

    /// Waits until all have come to the end; what they were given.
    pub(crate) async fn ended(mut self) -> Vec<Reader> {
        let readers = (&mut self.lines).await.expect("nothing was wrong with their lines");
        drop(self.stdin.take());
        readers
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct State {
    reader: Reader,
    presence: Presence,
}

fn read(
    lines: impl std::io::BufRead,
    whose: Vec<Vec<u32>>,
    connected: &Connected,
    end: &watch::Receiver<Option<Arc<End>>>,
) -> Vec<Reader> {
    let states = whose.into_iter().enumerate().map(|(number, receivers)| {
        let name = format!("eventsource {number}");
        let reader = Reader { name, receivers, given: Vec::new(), absences: Vec::new() };
        State { reader, presence: Presence::new(connected.clone()) }
    });
    let mut states: Vec<State> = states.collect();
    for line in lines.lines() {
        let line = line.expect("text");
        if let Some((number, rest)) = line.split_once(' ') {
            let number: usize = number.parse().expect("which one");
            states[number].take(rest);
        }
        let end = end.borrow().clone();
        if end.is_some_and(|end| states.iter().all(|state| state.is_done(&end))) {
            let done = states.into_iter();
            return done
                .map(|state| Reader { absences: state.presence.absences, ..state.reader })
                .collect();
        }
    }
    panic!("the process of the EventSources has ended");
}

impl State {
    fn take(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "connected" => self.presence.connected(),
            "notification" => {
                let (offset, object) = rest.split_once(' ').expect("an id and data");
                let offset = offset.parse().expect("an id is an offset");
                self.reader.given.push((offset, object.to_owned()));
            }
            // It waits as long as it was last told, and has no jitter of its own.
            "waits" => {
                let longest = Duration::from_millis(*RETRY_HINT_MS.end());
                self.presence.waits(longest);
            }
            _ => panic!("{}: {line}", self.reader.name),
        }
    }

    fn is_done(&self, end: &End) -> bool {
        let last = self.reader.given.last().map_or(0, |(offset, _)| *offset);
        last >= end.of(&self.reader.receivers)
    }
}
