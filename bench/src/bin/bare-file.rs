//! The limit of an append: bodies written to a file behind hyper, all that wait with one write and one `fdatasync`.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use herald_bench::bare::{Answer, fixed, serve};
use http_body_util::BodyExt as _;
use hyper::{Request, Response, body::Incoming};
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::oneshot;

#[derive(Parser)]
struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// The file
    #[arg(long)]
    file: PathBuf,
    /// The body of Herald's answer to an append
    #[arg(long)]
    answer: PathBuf,
}

/// The most that is written at once, and the step in which room is reserved: Herald's.
const GROUP_BYTES_MAX: usize = 7 << 20;
const RESERVE_STEP_BYTES: u64 = 1 << 20;

type Waiting = (Bytes, oneshot::Sender<()>);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let answer = Bytes::from(std::fs::read(&args.answer).context("could not read the answer")?);
    let file = File::create(&args.file).context("could not make the file")?;
    let (sender, receiver) = channel();
    thread::spawn(move || write(&file, &receiver).expect("the disk of a benchmark works"));
    serve(args.listen, move |request| append(sender.clone(), answer.clone(), request))
}

async fn append(sender: Sender<Waiting>, answer: Bytes, request: Request<Incoming>) -> Answer {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (done, written) = oneshot::channel();
    let _ = sender.send((body, done));
    let written = written.await.is_ok();
    let mut response = Response::new(fixed(answer));
    *response.status_mut() =
        if written { hyper::StatusCode::CREATED } else { hyper::StatusCode::INTERNAL_SERVER_ERROR };
    response
}

/// The one writer: all that waits is one write and one sync.
fn write(file: &File, receiver: &Receiver<Waiting>) -> std::io::Result<()> {
    let (mut end, mut reserved) = (0, 0);
    let mut group = Vec::new();
    while let Ok(first) = receiver.recv() {
        group.clear();
        group.extend_from_slice(&first.0);
        let mut waiting = vec![first.1];
        while group.len() < GROUP_BYTES_MAX
            && let Ok((body, done)) = receiver.try_recv()
        {
            group.extend_from_slice(&body);
            waiting.push(done);
        }
        let group_end: u64 = end + group.len() as u64;
        if group_end > reserved {
            let to = group_end.next_multiple_of(RESERVE_STEP_BYTES);
            fallocate(file, FallocateFlags::empty(), reserved, to - reserved)?;
            reserved = to;
        }
        file.write_all_at(&group, end)?;
        file.sync_data()?;
        end = group_end;
        for done in waiting {
            let _ = done.send(());
        }
    }
    Ok(())
}
