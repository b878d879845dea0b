//! Several services on one HER-id: each has a checkpoint of its own and sees everything; what belongs to the other it skips.
//!
//! ```text
//! cargo run -p herald-client --example services -- http://127.0.0.1:8080 8139764
//! ```
//!
//! Here both are in one process; in two it is the same. Skipping is handling: it is acknowledged, too, or the cursor would stand
//! still at the first notification that belongs to the other.

use std::error::Error;

use herald_client::{
    CheckpointFile, Client, Event, Start,
    types::{HerId, NotificationType},
};

/// Follows one HER-id and prints what is for this service.
pub(crate) async fn serve(
    name: &str,
    client: &Client,
    receiver: HerId,
    is_mine: fn(Option<NotificationType>) -> bool,
) -> Result<(), Box<dyn Error>> {
    let checkpoint = CheckpointFile::new(format!("{name}.checkpoint"));
    let mut consumer = client.consumer([receiver], checkpoint, Start::Beginning).await?;
    loop {
        match consumer.next().await? {
            Event::Notification(notification) => {
                // A type that this version does not know is `None`: the service decides, and nothing ends.
                let kind = notification.fields()?.kind.parse().ok();
                if is_mine(kind) {
                    println!("{name}: {}", notification.raw());
                }
                consumer.ack(&notification).await?;
            }
            Event::Status(status) => eprintln!("{name}: {status}"),
            _ => {}
        }
    }
}

/// New documents are for the service that fetches them.
pub(crate) fn is_inbound(kind: Option<NotificationType>) -> bool {
    matches!(kind, Some(NotificationType::NewMessage | NotificationType::RefusedMessage))
}

/// Everything else says what became of our own documents.
pub(crate) fn is_outbound(kind: Option<NotificationType>) -> bool {
    !is_inbound(kind)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, her_id] = arguments.as_slice() else {
        return Err("usage: services URL HER-ID".into());
    };
    let (client, receiver) = (Client::new(url, "services-example/1.0")?, her_id.parse()?);
    tokio::try_join!(
        serve("inbound", &client, receiver, is_inbound),
        serve("outbound", &client, receiver, is_outbound),
    )?;
    Ok(())
}
