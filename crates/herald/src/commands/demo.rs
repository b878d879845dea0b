//! `herald demo`: a throw-away server, a producer and the client, in one process and over real HTTP.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use herald_client::{Client, Cursor, Event, Notifications};
use herald_types::{Draft, HerId, NotificationType, Offset};
use indicatif::ProgressBar;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use super::{
    serve::Starting,
    stop::{Stop, Stopped},
};
use crate::{
    cli::DemoArgs,
    logging, output, readable,
    settings::{Args, Key, Settings},
};

/// The parties of the demo: each sends to the next.
const PARTIES: [u32; 3] = [8_139_764, 90_215, 8_140_072];
/// How long the server may take to open an empty log.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long the server may take to stop.
const DRAIN: &str = "1s";
/// A free port.
const ANY: &str = "127.0.0.1:0";

/// Runs a server on a directory of its own until told to stop, and shows what arrives.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut stop = Stop::certain(0)?;
    let deadline = args.time.map(|time| Instant::now() + time);
    logging::start(logging::Format::Auto, logging::filter("warn").context("a filter")?);
    let directory = tempfile::tempdir().context("could not make a directory for the demo")?;
    let starting = bind(directory.path())?;
    let (api, ops) = starting.addresses();
    let lifecycle = starting.lifecycle.clone();
    let serving = tokio::spawn(starting.serve());
    let ready = async {
        while lifecycle.readiness().is_err() && !serving.is_finished() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let was_ready = match stop.or(timeout(READY_WITHIN, ready)).await {
        Ok(outcome) => outcome.is_ok() && !serving.is_finished(),
        Err(Stopped) => {
            lifecycle.stop();
            return serving.await.context("the server panicked")?;
        }
    };
    let shown = if was_ready {
        output::print(greeting(api, ops).as_bytes())?;
        stop.or(show(api, deadline)).await.unwrap_or(Ok(()))
    } else {
        Ok(())
    };
    lifecycle.stop();
    serving.await.context("the server panicked")??;
    if !was_ready {
        bail!("the server did not become ready");
    }
    shown
}

/// The usual ports if they are free, so that what the documentation says can be tried; else any.
fn bind(directory: &std::path::Path) -> anyhow::Result<Starting> {
    let data_dir = directory.to_str().context("the temporary directory's name is not UTF-8")?;
    let usual = [(Key::DataDir, data_dir), (Key::Drain, DRAIN)];
    let free = [&usual[..], &[(Key::Listen, ANY), (Key::OpsListen, ANY)]].concat();
    let bind = |texts: &[_]| -> anyhow::Result<_> {
        Starting::bind(&Settings::read(&Args::with(texts), |_| None)?)
    };
    bind(&usual).or_else(|_| bind(&free))
}

fn greeting(api: SocketAddr, ops: SocketAddr) -> String {
    let [receiver, ..] = PARTIES;
    format!(
        "\
Herald is running, with a producer that sends a message now and then.

  API       http://{api}
  Swagger   http://{api}/swagger
  Metrics   http://{ops}/metrics

In another terminal:

  curl -N -H 'api-version: 3' -H 'nhn-source-system: me' -H 'Accept: text/event-stream' \\
    'http://{api}/notifications/stream?HerIds={receiver}&Offset=0'

Ctrl-C ends it, and nothing is kept. What arrives:

"
    )
}

/// Shows what arrives until the deadline, while the producer goes on.
async fn show(api: SocketAddr, deadline: Option<Instant>) -> anyhow::Result<()> {
    let client = Client::new(&format!("http://{api}"), "herald-demo")?;
    let cursor = Cursor::new(PARTIES.into_iter().filter_map(HerId::new), Offset::ZERO)?;
    let notifications = client.notifications(cursor);
    let both = async {
        tokio::select! {
            outcome = produce(&client) => outcome.context("the producer failed"),
            outcome = consume(notifications) => outcome,
        }
    };
    match deadline {
        // The time is up: that is how it should end.
        Some(deadline) => timeout_at(deadline, both).await.unwrap_or(Ok(())),
        None => both.await,
    }
}

/// One message after the other from a party to the next, with all that happens to it; every third is refused.
async fn produce(client: &Client) -> anyhow::Result<()> {
    use NotificationType::{
        MessageApprecInfoUpdated, MessageDeliveryStateUpdated, MessageSentStateUpdated, NewMessage,
        RefusedMessage,
    };

    for number in 1_usize.. {
        let sender = PARTIES[number % PARTIES.len()];
        let receiver = PARTIES[(number + 1) % PARTIES.len()];
        let arrival = if number.is_multiple_of(3) { RefusedMessage } else { NewMessage };
        let message = Uuid::now_v7();
        for (kind, to, by) in [
            (MessageSentStateUpdated, sender, receiver),
            (arrival, receiver, sender),
            (MessageDeliveryStateUpdated, sender, receiver),
            (MessageApprecInfoUpdated, sender, receiver),
        ] {
            if (arrival, kind) == (RefusedMessage, MessageApprecInfoUpdated) {
                continue;
            }
            client.append(draft(message, kind, to, by)).await?;
            sleep(Duration::from_millis(rand::random_range(100..600))).await;
        }
    }
    Ok(())
}

fn draft(message: Uuid, kind: NotificationType, to: u32, by: u32) -> Option<Draft> {
    let draft = Draft::new(kind, message, HerId::new(to)?);
    Some(Draft { triggered_by: HerId::new(by), ..draft })
}

async fn consume(mut notifications: Notifications) -> anyhow::Result<()> {
    loop {
        match notifications.next().await? {
            Event::Notification(notification) => {
                let line = output::styled(&readable::line(&notification))?;
                output::print_above(&ProgressBar::hidden(), line).await?;
                notifications.ack(&notification);
            }
            Event::Status(status) => output::say(status),
            _ => {}
        }
    }
}
