//! Logs go to stderr: text for people on a terminal, one JSON object a line otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads a filter such as `info` or `info,herald_http=debug`.
///
/// A level alone is Herald's own: what the libraries below say at `debug` and `trace` has requests' heads in it, and must
/// be asked for by name.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let level: Result<LevelFilter, _> = text.parse();
    match level {
        Ok(level) if level > LevelFilter::WARN => {
            EnvFilter::builder().parse(format!("warn,herald={level}"))
        }
        Ok(_) | Err(_) => EnvFilter::builder().parse(text),
    }
}

/// Writes the logs of this process from now on. Only the first call counts.
pub(crate) fn start(format: Format, filter: EnvFilter) {
    let terminal = io::stderr().is_terminal();
    let text = match format {
        Format::Auto => terminal,
        Format::Text => true,
        Format::Json => false,
    };
    let layer = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    // A second subscriber can only be a test's own.
    let _ = if text {
        registry.with(layer.with_ansi(terminal).with_target(false)).try_init()
    } else {
        registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init()
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let what = payload.downcast_ref::<&str>().copied();
        let what = what.or(payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(place, what, "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_heralds_own() {
        for (text, shown) in [
            ("error", "error"),
            ("warn", "warn"),
            ("info", "herald=info,warn"),
            ("TRACE", "herald=trace,warn"),
            ("debug,h2=trace", "h2=trace,debug"),
        ] {
            assert_eq!(filter(text).unwrap().to_string(), shown);
        }
        assert!(filter("a=b=c").is_err());
    }
}
