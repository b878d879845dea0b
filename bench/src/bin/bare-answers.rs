//! The limit of a poll: hyper that answers every request with bytes that are there.
//!
//! The answers are Herald's own to the same requests, head and body, read from a file and given in turn. With `--parse-query` every request's HER-ids are
//! read, sorted and counted first, as any server must that wants to know whose notifications are asked for.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use herald_bench::{
    bare::{Answer, fixed, serve},
    server::parse_head,
};
use hyper::{Response, http::response};

#[derive(Parser)]
struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// Whole answers: length in eight bytes, head, empty line, body
    #[arg(long)]
    answers: PathBuf,
    /// Read the HER-ids of every request first
    #[arg(long)]
    parse_query: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let bytes = fs::read(&args.answers).context("could not read the answers")?;
    let answers: Arc<[Prepared]> = split(&bytes).map(prepare).collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!answers.is_empty(), "no answer");
    // Relaxed: only that each gets its turn matters.
    let turn = Arc::new(AtomicUsize::new(0));
    serve(args.listen, move |request| {
        if args.parse_query {
            let her_ids = her_ids(request.uri().query().unwrap_or(""));
            assert!(!her_ids.is_empty(), "the load generator asks for some");
        }
        let prepared = &answers[turn.fetch_add(1, Ordering::Relaxed) % answers.len()];
        let body = fixed(prepared.body.clone());
        let answer: Answer = Response::from_parts(prepared.head.clone(), body);
        async move { answer }
    })
}

struct Prepared {
    head: response::Parts,
    body: Bytes,
}

/// Answers one behind the other, each behind its length in eight bytes.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        let (answer, rest) = rest.split_at_checked(u64::from_le_bytes(*len) as usize)?;
        bytes = rest;
        Some(answer)
    })
}

fn prepare(answer: &[u8]) -> anyhow::Result<Prepared> {
    let (head, body) = parse_head(answer).context("no head")?;
    let mut template = Response::builder();
    for (name, value) in head.headers {
        // hyper adds these itself.
        if !["content-length", "date", "connection"].contains(&name.as_str()) {
            template = template.header(name, value);
        }
    }
    let (head, ()) = template.body(())?.into_parts();
    Ok(Prepared { head, body: Bytes::copy_from_slice(body) })
}

/// The HER-ids of a query, sorted, each once.
fn her_ids(query: &str) -> Vec<u32> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let named = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("HerIds"));
    let mut her_ids: Vec<u32> = named.filter_map(|(_, value)| value.parse().ok()).collect();
    her_ids.sort_unstable();
    her_ids.dedup();
    her_ids
}
