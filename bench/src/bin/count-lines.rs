//! The limit of a client: reads one stream and only counts the lines that begin with `data: `.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use memchr::memmem::Finder;

#[derive(Parser)]
struct Args {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    /// The request, to the byte
    #[arg(long)]
    request: PathBuf,
    /// End after so many lines
    #[arg(long)]
    lines: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut stream = TcpStream::connect(args.address)?;
    stream.write_all(&std::fs::read(&args.request).context("could not read the request")?)?;
    let data = Finder::new(b"\ndata: ");
    // What is searched begins with the end of what was read before, which may be the start of a match.
    let keep = data.needle().len() - 1;
    let (mut buffer, mut kept, mut lines) = (vec![0; 256 * 1024], 0, 0);
    while lines < args.lines {
        let read = stream.read(&mut buffer[kept..])?;
        ensure!(read > 0, "the stream ended after {lines} lines");
        let end = kept + read;
        lines += data.find_iter(&buffer[..end]).count() as u64;
        kept = end.min(keep);
        buffer.copy_within(end - kept..end, 0);
    }
    ensure!(lines == args.lines, "{lines} lines instead of {}", args.lines);
    println!("{lines}");
    Ok(())
}
