//! `herald log seed`.

use std::time::{Duration, Instant};

use anyhow::bail;
use herald_log::{EngineSettings, SeedProgress, SeedStep, Seeded};
use indicatif::{ProgressBar, ProgressStyle};

use super::stop::{Stop, Stopped};
use crate::{
    cli::LogSeedArgs,
    output::{self, WrongUsage},
};

/// Where there is no bar, a line says how far it is so often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Fills the engine.
pub(crate) async fn run(args: LogSeedArgs) -> anyhow::Result<()> {
    let LogSeedArgs { from, log, next_offset, retention, log_credentials, log_ca } = args;
    let settings = EngineSettings {
        ca_file: log_ca,
        credentials_file: log_credentials,
        retention: retention.0,
    };
    let (mut stop, began) = (Stop::certain(1)?, Instant::now());
    let mut telling = Telling::new();
    let seeding = herald_log::seed(&from, &log, &settings, next_offset, |at| telling.tell(at));
    let seeded = stop.or(Box::pin(seeding)).await;
    telling.bar.finish_and_clear();
    match seeded {
        Ok(Ok(seeded)) => output::print(line(&seeded, began.elapsed()).as_bytes()),
        Ok(Err(error)) if error.is_wrong_usage() => Err(WrongUsage(error.to_string()).into()),
        Ok(Err(error)) => Err(error.into()),
        Err(Stopped) => {
            bail!("stopped by a signal; the same command goes on where this one ended")
        }
    }
}

/// Numbers and UUIDs need no escaping.
fn line(seeded: &Seeded, took: Duration) -> String {
    let Seeded { history, log_id, records, tail, next_offset } = seeded;
    let took_ms = took.as_millis();
    format!(
        "{{\"history\":\"{history}\",\"logId\":\"{log_id}\",\"records\":{records},\"tail\":{tail},\
         \"nextOffset\":{next_offset},\"tookMs\":{took_ms}}}\n"
    )
}

/// Says how far it is: a bar on a terminal, else lines.
struct Telling {
    bar: ProgressBar,
    step: Option<SeedStep>,
    said: Instant,
}

impl Telling {
    fn new() -> Self {
        let bar = if output::has_viewer() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, step: None, said: Instant::now() }
    }

    fn tell(&mut self, progress: SeedProgress) {
        let SeedProgress { step, records, records_all } = progress;
        let is_new = self.step.replace(step) != Some(step);
        let what = match step {
            SeedStep::Checking => "checking the directory",
            SeedStep::EngineAway => "the engine does not answer, trying again",
            SeedStep::Comparing => "comparing what the engine has",
            SeedStep::Filling => "filling the engine",
        };
        if !self.bar.is_hidden() {
            if is_new {
                self.bar.set_message(what);
                self.bar.reset_eta();
            }
            self.bar.set_length(records_all);
            self.bar.set_position(records);
        } else if is_new || self.said.elapsed() >= LINE_INTERVAL {
            self.said = Instant::now();
            match step {
                SeedStep::Checking | SeedStep::EngineAway => output::say(what),
                SeedStep::Comparing | SeedStep::Filling => {
                    output::say(format_args!("{what}: {records} of {records_all} notifications"));
                }
            }
        }
    }
}
