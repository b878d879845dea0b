//! Rows 1 to 4: polls.

use std::time::Instant;

use anyhow::ensure;
use memchr::memmem;

use super::Bench;
use crate::{
    fill::{self, fill},
    load::{Answer, EMPTY_PAGE, Load, Work},
    measure::{Figure, Target},
    requests::{self, her_ids},
    server::Server,
};

/// Keep-alive connections.
const LANES: usize = 64;
/// The receivers that have something stored in the rows of polls that find nothing.
const RECEIVERS: u64 = 100_000;
const PAGE: u64 = 100;
/// How many notifications for others have come since a poll that finds nothing.
const UNREAD_OF_OTHERS: u64 = 20_000;
/// Of so many pages one is looked at record by record: all of them would cost more than they cost the server.
const LOOK_EVERY: u64 = 16;
/// How many requests are prepared and asked in turn.
const REQUESTS: u64 = 2048;

/// What every poll's answer must be.
pub(super) enum Expected {
    Empty,
    Page,
}

/// Asks prepared requests in turn.
pub(super) struct Polls {
    requests: Vec<Vec<u8>>,
    next: usize,
    expected: Expected,
    seen: u64,
}

impl Polls {
    pub(super) fn new(requests: Vec<Vec<u8>>, expected: Expected) -> Self {
        Self { requests, next: 0, expected, seen: 0 }
    }
}

impl Work for Polls {
    fn request(&mut self, _: usize, out: &mut Vec<u8>) -> bool {
        self.next = (self.next + 1) % self.requests.len();
        out.extend_from_slice(&self.requests[self.next]);
        true
    }

    fn answered(&mut self, _: usize, answer: &Answer<'_>, _: Instant) -> anyhow::Result<()> {
        ensure!(answer.status == 200, "status {}", answer.status);
        match self.expected {
            Expected::Empty => ensure!(answer.body == EMPTY_PAGE, "a page that is not empty"),
            Expected::Page => {
                self.seen += 1;
                if self.seen.is_multiple_of(LOOK_EVERY) {
                    check_page(answer.body)?;
                }
            }
        }
        Ok(())
    }
}

/// That a page holds 100 notifications and their offsets ascend.
fn check_page(body: &[u8]) -> anyhow::Result<()> {
    const NAME: &[u8] = b"\"offset\":";
    let (mut count, mut last) = (0, 0);
    for at in memmem::find_iter(body, NAME) {
        let digits = body[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        let offset = digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        ensure!(offset > last, "offset {offset} behind {last}");
        (count, last) = (count + 1, offset);
    }
    ensure!(count == PAGE, "a page of {count}");
    Ok(())
}

/// Both servers in turn, the same requests.
fn compare(
    bench: &Bench,
    figure: &mut Figure,
    herald: &Server,
    bare: &Server,
    polls: &mut Polls,
) -> anyhow::Result<()> {
    let size = bench.size;
    let mut at_herald = Load::new(herald.address, LANES)?;
    let mut at_bare = Load::new(bare.address, LANES)?;
    for _ in 0..size.rounds {
        let (ours, our_cpu) =
            herald.costing(|| at_herald.run(polls, None, size.warm_up, size.window))?;
        let (theirs, their_cpu) =
            bare.costing(|| at_bare.run(polls, None, size.warm_up, size.window))?;
        figure.round(ours.answer_rate(), theirs.answer_rate());
        figure.cost(our_cpu / ours.all_answers as f64, their_cpu / theirs.all_answers as f64);
    }
    Ok(())
}

/// `count` receivers, another set for each request.
fn receivers(number: u64, count: u64, of: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |at| (number * count + at) * 31 % of)
}

pub(super) fn empty(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figure = Figure::new(
        "1",
        "empty polls, 64 connections, 100,000 receivers stored",
        "requests/s",
        Target::AtLeast(0.80),
    );
    let herald = bench.places.fresh_herald(&[])?;
    fill(&herald, RECEIVERS, RECEIVERS)?;
    empty_polls(bench, &herald, &mut figure, RECEIVERS, 1, false)?;
    Ok(vec![figure])
}

pub(super) fn many_receivers(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figure = Figure::new(
        "4",
        "empty polls for 1500 receivers; the limit parses the query",
        "requests/s",
        Target::AtLeast(0.50),
    );
    let herald = bench.places.fresh_herald(&[])?;
    fill(&herald, RECEIVERS, RECEIVERS)?;
    empty_polls(bench, &herald, &mut figure, RECEIVERS, 1500, true)?;
    Ok(vec![figure])
}

/// Polls that find nothing, for `count` of `of` receivers each.
fn empty_polls(
    bench: &Bench,
    herald: &Server,
    figure: &mut Figure,
    of: u64,
    count: u64,
    parse_query: bool,
) -> anyhow::Result<()> {
    let tail = herald.tail()?;
    // What came since is for others: the server has to look to know.
    fill::append_for(herald, UNREAD_OF_OTHERS, of)?;
    let query = |number| format!("{}&Offset={tail}", her_ids(receivers(number, count, of)));
    let requests: Vec<_> = (0..REQUESTS).map(|number| requests::poll(&query(number))).collect();
    let bare = bench.places.bare_answers(herald, &requests[..1], parse_query)?;
    compare(bench, figure, herald, &bare, &mut Polls::new(requests, Expected::Empty))
}

pub(super) fn recent(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figure =
        Figure::new("2", "pages of 100 from recent memory", "requests/s", Target::AtLeast(0.80));
    // As much as recent memory holds, and each receiver's last 100 are in it.
    let herald = bench.places.fresh_herald(&[])?;
    fill(&herald, RECENT, RECENT / PAGE)?;
    recent_pages(bench, &herald, &mut figure, RECENT / PAGE, 1)?;
    Ok(vec![figure])
}

/// What recent memory holds of the benchmark's notifications, nearly.
const RECENT: u64 = 100_000;

/// Pages for `count` of `of` receivers, all from recent memory.
fn recent_pages(
    bench: &Bench,
    herald: &Server,
    figure: &mut Figure,
    of: u64,
    count: u64,
) -> anyhow::Result<()> {
    // Where each receiver has enough left, and all of it is recent.
    let turns = PAGE.div_ceil(count).max(1);
    let offset = herald.tail()?.saturating_sub(turns * of);
    let query = |number| format!("{}&Offset={offset}", her_ids(receivers(number, count, of)));
    let requests: Vec<_> = (0..REQUESTS).map(|number| requests::poll(&query(number))).collect();
    let bare = bench.places.bare_answers(herald, &requests, false)?;
    compare(bench, figure, herald, &bare, &mut Polls::new(requests, Expected::Page))
}

/// The figures of rows 1, 2 and 3 with so many notifications stored and so many receivers asked for.
pub(crate) fn of_each_kind(bench: &Bench, stored: u64, count: u64) -> anyhow::Result<Vec<Figure>> {
    let figure = |row, what, least| Figure::new(row, what, "requests/s", Target::AtLeast(least));
    let mut old = figure("3", "pages at random places", 0.30);
    let of = (stored / PAGE).max(1500);
    let dir = fill::stored(&bench.places, stored, of)?;
    let herald = bench.places.herald(&dir, &["--retention", "forever"])?;
    random_pages(bench, &herald, &mut old, stored, of, count)?;
    drop(herald);
    // Recent pages and polls that find nothing change what is stored: they have a copy.
    let copy = bench.places.copy(&dir, "grown")?;
    let herald = bench.places.herald(&copy, &["--retention", "forever"])?;
    let mut recent = figure("2", "pages from recent memory", 0.80);
    // Of few receivers, so that each has a page in memory whatever is stored.
    let few = if count < PAGE { RECENT / PAGE } else { count * 2 };
    fill(&herald, RECENT, few)?;
    recent_pages(bench, &herald, &mut recent, few, count)?;
    let mut empty = figure("1", "polls that find nothing", 0.80);
    empty_polls(bench, &herald, &mut empty, of, count, false)?;
    Ok(vec![empty, recent, old])
}

pub(super) fn random(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let stored = bench.size.stored;
    // A hundred each, so that a page may be all that one receiver has.
    let dir = fill::stored(&bench.places, stored, stored / PAGE)?;
    let herald = bench.places.herald(&dir, &["--retention", "forever"])?;
    let mut figures = Vec::new();
    for (row, count) in [("3", 10), ("3b", 1)] {
        let what = match count {
            1 => format!("a receiver's oldest 100 of {stored} stored, one receiver a poll"),
            _ => format!(
                "pages of 100 at random places in {stored} stored, {count} receivers a poll"
            ),
        };
        let mut figure = Figure::new(row, what, "requests/s", Target::AtLeast(0.30));
        random_pages(bench, &herald, &mut figure, stored, stored / PAGE, count)?;
        figures.push(figure);
    }
    Ok(figures)
}

/// Pages for `count` receivers, each from a place where a whole page follows.
fn random_pages(
    bench: &Bench,
    herald: &Server,
    figure: &mut Figure,
    stored: u64,
    of: u64,
    count: u64,
) -> anyhow::Result<()> {
    // Each receiver has one record in every `of`. Where these have 100 left, with some to spare; one may have no more
    // than that in all.
    let last = stored.saturating_sub((PAGE.div_ceil(count) + 1) * of);
    let requests: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let offset = if last == 0 { 0 } else { rand::random_range(0..last) };
            requests::poll(&format!("{}&Offset={offset}", her_ids(receivers(number, count, of))))
        })
        .collect();
    let bare = bench.places.bare_answers(herald, &requests, false)?;
    compare(bench, figure, herald, &bare, &mut Polls::new(requests, Expected::Page))
}
