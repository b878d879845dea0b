//! What must never show: each token and proof that a test signs, searched for in all that its server says.

use std::{
    io,
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use tracing_subscriber::{
    EnvFilter,
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::herald::Answer;

/// A part of a signed object that is shorter says nothing: an unsigned one has an empty signature.
const PART_CHARS_MIN: usize = 12;

static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ANSWERS: Mutex<String> = Mutex::new(String::new());
static JSON: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static TEXT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Log lines, kept; those of JSON are printed too, for whoever looks at the output of the whole suite.
#[derive(Clone, Copy)]
struct Kept {
    lines: &'static Mutex<Vec<u8>>,
    is_printed: bool,
}

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(self.lines).extend_from_slice(bytes);
        if self.is_printed {
            print!("{}", String::from_utf8_lossy(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// From now on all is kept that Herald logs, as `--log-level trace` has it: as JSON, and as text for people.
pub(crate) fn keep_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let json = fmt::layer().json().flatten_event(true).with_span_list(false);
        let json = json.with_writer(Kept { lines: &JSON, is_printed: true });
        let text = fmt::layer().with_ansi(false).with_target(false);
        let text = text.with_writer(Kept { lines: &TEXT, is_printed: false });
        let filter = EnvFilter::new("warn,herald=trace");
        tracing_subscriber::registry().with(filter).with(json).with(text).init();
    });
}

/// The log so far, as JSON and as text.
pub(crate) fn logs() -> [String; 2] {
    [&JSON, &TEXT].map(|lines| String::from_utf8(lock(lines).clone()).unwrap())
}

/// `text` is a token or a proof from now on.
pub(crate) fn is_secret(text: &str) {
    let parts = text.split('.').filter(|part| part.len() >= PART_CHARS_MIN);
    lock(&SECRETS).extend(parts.map(str::to_owned));
}

/// Keeps what a caller was answered.
pub(crate) fn answered(answer: &Answer) {
    let body = String::from_utf8_lossy(&answer.body);
    lock(&ANSWERS).push_str(&format!("{:?}\n{body}\n", answer.headers));
}

/// What shows of the secrets, in answers, logs and `metrics`.
pub(crate) fn found(metrics: &str) -> Vec<String> {
    let [json, text] = logs();
    let answers = lock(&ANSWERS).clone();
    let places = [("answers", &*answers), ("JSON", &json), ("text", &text), ("metrics", metrics)];
    let secrets = lock(&SECRETS);
    let shown = secrets.iter().flat_map(|secret| {
        let places = places.iter().filter(move |(_, said)| said.contains(secret.as_str()));
        places.map(move |(place, _)| format!("{secret} in {place}"))
    });
    shown.collect()
}
