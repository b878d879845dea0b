//! The limit of a poll: hyper that answers every request with the same bytes.
//!
//! The answer is one of Herald's own, head and body, read from a file. With `--parse-query` every request's HER-ids are
//! read, sorted and counted first, as any server must that wants to know whose notifications are asked for.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use herald_bench::{
    bare::{Answer, fixed, serve},
    server::parse_head,
};
use hyper::Response;

#[derive(Parser)]
struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// A whole answer: head, empty line, body
    #[arg(long)]
    answer: PathBuf,
    /// Read the HER-ids of every request first
    #[arg(long)]
    parse_query: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let bytes = fs::read(&args.answer).context("could not read the answer")?;
    let (head, body) = parse_head(&bytes).context("no head")?;
    let body = Bytes::copy_from_slice(body);
    let mut template = Response::builder();
    for (name, value) in head.headers {
        // hyper adds these itself.
        if !["content-length", "date", "connection"].contains(&name.as_str()) {
            template = template.header(name, value);
        }
    }
    let (parts, ()) = template.body(())?.into_parts();
    serve(args.listen, move |request| {
        if args.parse_query {
            let her_ids = her_ids(request.uri().query().unwrap_or(""));
            assert!(!her_ids.is_empty(), "the load generator asks for some");
        }
        let answer: Answer = Response::from_parts(parts.clone(), fixed(body.clone()));
        async move { answer }
    })
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
