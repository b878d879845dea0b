//! A client as a journal system has one: `herald-client`, one receiver from the oldest on, each notification acknowledged.
//!
//! Stdout says what the process had in memory at the most, in KiB: after a tenth of the notifications, and after all.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use herald_client::{
    Client, Cursor, Event, Status,
    types::{HerId, Offset},
};

#[derive(Parser)]
struct Args {
    /// The server
    #[arg(long)]
    address: SocketAddr,
    /// Whose notifications
    #[arg(long)]
    receiver: HerId,
    /// End after so many, which must have the offsets from 1 on
    #[arg(long)]
    notifications: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let client = Client::new(&format!("http://{}", args.address), "Bench, v1")?;
    let mut notifications = client.notifications(Cursor::new([args.receiver], Offset::ZERO)?);
    let (mut count, mut early_kib) = (0, 0);
    while count < args.notifications {
        match notifications.next().await? {
            Event::Notification(notification) => {
                count += 1;
                let offset = notification.offset();
                ensure!(offset.get() == count, "offset {offset} is number {count}");
                notifications.ack(&notification);
                if count == args.notifications / 10 {
                    early_kib = peak_kib()?;
                }
            }
            Event::Status(Status::Connected { .. }) | Event::Moved => {}
            other => bail!("{other:?}"),
        }
    }
    let handled = notifications.cursor().offsets();
    ensure!(handled == [Offset::new(count).context("an offset")?], "{handled:?} are handled");
    println!("{early_kib} {}", peak_kib()?);
    Ok(())
}

/// The most memory that this process has had.
fn peak_kib() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = peak.and_then(|peak| peak.split_whitespace().next()?.parse().ok());
    number.context("no VmHWM")
}
