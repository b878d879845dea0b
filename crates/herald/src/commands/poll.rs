//! `herald poll`.

use std::{mem, time::Duration};

use anyhow::{Context as _, bail};
use herald_client::{Cursor, HelseId, Page, Status};
use herald_types::{HerIds, Offset, PageLimit};
use indicatif::{ProgressBar, ProgressStyle};

use super::stop::{Stop, Stopped};
use crate::{
    cli::PollArgs,
    output::{self, WrongUsage},
};

/// Prints one page, or all.
pub(crate) async fn run(args: PollArgs) -> anyhow::Result<()> {
    let mut stop = Stop::certain(1)?;
    let client = args.server.client(HelseId::READ_SCOPE)?;
    let her_ids = HerIds::new(args.her_ids.iter().copied())
        .map_err(|error| WrongUsage(format!("--her-id {error}")))?;
    let default = if args.follow_pages { PageLimit::MAX } else { PageLimit::DEFAULT };
    let limit = args.limit.and_then(PageLimit::new).unwrap_or(default);
    if !args.follow_pages {
        let Ok(page) = stop.or(client.poll(her_ids.as_slice(), args.offset, limit)).await else {
            bail!("stopped by a signal before there was an answer");
        };
        let page = page?;
        say_trimmed(&page, args.offset);
        return print(&mut stop, page, &ProgressBar::hidden()).await;
    }
    let cursor = Cursor::new(args.her_ids, args.offset).context("no HER-id was given")?;
    let mut pages = client.pages(cursor, limit);
    let progress = progress();
    let mut is_first = true;
    let mut after = args.offset;
    loop {
        let page = match stop.or(pages.next()).await {
            Ok(page) => page?,
            Err(Stopped) => {
                progress.finish_and_clear();
                bail!("stopped by a signal; what comes after offset {after} is left")
            }
        };
        let Some(page) = page else { break };
        progress.inc(page.notifications.len() as u64);
        if let Some(last) = page.notifications.last() {
            after = last.offset();
            progress.set_message(format!("offset {}", last.offset()));
        }
        if mem::take(&mut is_first) {
            progress.suspend(|| say_trimmed(&page, args.offset));
        }
        print(&mut stop, page, &progress).await?;
    }
    progress.finish_and_clear();
    Ok(())
}

/// What retention has taken is no error, but nobody should miss it without a word.
fn say_trimmed(page: &Page, after: Offset) {
    if let Some(trim) = page.position.trim.filter(|trim| *trim > after && after > Offset::ZERO) {
        output::say(Status::Trimmed { after, trim });
    }
}

/// Prints a page. If a signal came and nobody reads, that is an error: the output is not whole.
async fn print(stop: &mut Stop, page: Page, progress: &ProgressBar) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for notification in &page.notifications {
        lines.extend_from_slice(notification.raw().as_bytes());
        lines.push(b'\n');
    }
    match stop.finish(output::print_above(progress, lines)).await {
        Some(printed) => printed,
        None => bail!("stopped by a signal before all was printed"),
    }
}

/// How far it is, on stderr, where that is a terminal.
fn progress() -> ProgressBar {
    if !output::has_viewer() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {human_pos} notifications, {msg}");
    let bar = ProgressBar::new_spinner();
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
