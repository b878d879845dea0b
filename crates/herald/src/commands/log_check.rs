//! `herald log check`.

use std::fmt::Write as _;

use herald_log::Report;

use crate::{cli::LogCheckArgs, output};

/// Reads the whole directory and says what is there.
pub(crate) fn run(args: &LogCheckArgs) -> anyhow::Result<()> {
    let report = herald_log::check(&args.dir)?;
    output::print(text(&report).as_bytes())
}

fn text(report: &Report) -> String {
    let Report { history, segments, frames, records, tail, trim_point, notes } = report;
    let mut text = format!(
        "history     {history}\nsegments    {segments}\nframes      {frames}\nrecords     {records}\n\
         tail        {tail}\ntrim point  {trim_point}\n"
    );
    for note in notes {
        // Writing into memory cannot fail.
        let _ = writeln!(text, "note: {note}");
    }
    text + "in order\n"
}
