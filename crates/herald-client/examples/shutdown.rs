//! Graceful shutdown: work that has begun is finished, its cursor is kept, and nothing is left to do twice.
//!
//! ```text
//! cargo run -p herald-client --example shutdown -- http://127.0.0.1:8080 8139764
//! ```

use std::{error::Error, pin::pin, time::Duration};

use herald_client::{Checkpoint, CheckpointFile, Client, Consumer, Event, Notification, Start};

/// Handles what comes until `stop` is done.
pub(crate) async fn run<C: Checkpoint>(
    consumer: &mut Consumer<C>,
    stop: impl Future<Output = ()>,
    mut work: impl AsyncFnMut(&Notification),
) -> Result<(), Box<dyn Error>> {
    let mut stop = pin!(stop);
    loop {
        // Waiting may be given up at any time: nothing is lost by dropping `next`.
        let event = tokio::select! {
            biased;
            () = &mut stop => break,
            event = consumer.next() => event?,
        };
        // Work may not: it is outside the select.
        match event {
            Event::Notification(notification) => {
                work(&notification).await;
                consumer.ack(&notification).await?;
            }
            Event::Status(status) => eprintln!("{status}"),
            _ => {}
        }
    }
    // With `save_every` some acknowledgements may not be kept yet.
    Ok(consumer.save().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, her_id] = arguments.as_slice() else {
        return Err("usage: shutdown URL HER-ID".into());
    };
    let client = Client::new(url, "shutdown-example/1.0")?;
    let checkpoint = CheckpointFile::new("shutdown.checkpoint");
    let consumer = client.consumer([her_id.parse()?], checkpoint, Start::Beginning).await?;
    let mut consumer = consumer.save_every(Duration::from_secs(1));
    let stop = async { tokio::signal::ctrl_c().await.expect("signals can be heard") };
    run(&mut consumer, stop, async |notification| println!("{}", notification.raw())).await?;
    eprintln!("kept {:?}", consumer.cursor().offsets());
    Ok(())
}
