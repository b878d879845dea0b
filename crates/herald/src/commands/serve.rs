//! `herald serve`: the server from its settings to its exit code.

use std::{future::pending, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use herald_feed::OpenStreams;
use herald_http::{
    api::{Api, ApiSettings},
    lifecycle::Lifecycle,
    limits::ClientLimits,
    metrics::Metrics,
    ops::Ops,
    server::{CONNECTIONS_MAX, Server, ServerLimits, ServerSettings, Tls},
};
use herald_log::{EngineSettings, Log, LogSettings, OrderPlace, Progress};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

pub(crate) use crate::settings::Args;
use crate::{
    access::Access,
    commands::stop::Stop,
    logging,
    output::{self, WrongUsage},
    settings::{Auth, Key, Settings},
};

/// Which part of the files that the process may have open is not for connections of the API, and how many files that is
/// at least: the log has two for each segment of 128 MiB, the ops port its connections.
const RESERVED_FILES_PART: usize = 8;
const RESERVED_FILES_MIN: usize = 256;
/// How long the log may take to close at least, however short the drain.
const CLOSE_WAIT_MIN: Duration = Duration::from_millis(500);

/// Runs the server until it is told to stop: 0 after a clean stop, 1 when it failed, 2 for wrong settings.
#[must_use]
pub(crate) fn run(args: &Args) -> ExitCode {
    let settings = match Settings::read(args, |name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(invalid) => return output::report(&WrongUsage(invalid.to_string()).into()),
    };
    let filter = logging::filter(&settings.log_level).expect("checked with the settings");
    logging::start(settings.log_format, filter);
    match serve_until_signal(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = format!("{failure:#}"), "failed");
            ExitCode::FAILURE
        }
    }
}

fn serve_until_signal(settings: &Settings) -> anyhow::Result<()> {
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    for (key, value, source) in &settings.origins {
        // An engine's URL may have a password.
        let place = (*key == Key::Log).then(|| settings.log.to_string());
        info!(key = key.name(), value = place.as_ref().unwrap_or(value), source = %source, "setting");
    }
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        // Before anything else, so that a stop during the start is heard.
        let stop = Stop::new()?;
        let starting = Starting::bind(settings)?;
        let lifecycle = starting.lifecycle.clone();
        tokio::spawn(stop_at_signal(stop, lifecycle));
        starting.serve().await
    });
    // A read or a sync that hangs must not keep the process.
    runtime.shutdown_background();
    outcome
}

/// A server whose ports are bound and whose log is not open yet.
#[derive(Debug)]
pub(crate) struct Starting {
    settings: Settings,
    server: Server,
    /// The way to stop it.
    pub(crate) lifecycle: Lifecycle,
    metrics: Metrics,
}

impl Starting {
    /// Binds both ports. Needs a runtime.
    ///
    /// # Errors
    /// Which address cannot be had.
    pub(crate) fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let metrics = Metrics::install();
        let server = Server::bind(ServerSettings {
            listen: settings.listen,
            ops_listen: settings.ops_listen,
            stall_timeout: settings.stall_timeout,
            head_bytes_max: settings.head_bytes_max,
            idle_timeout: settings.idle_timeout,
            limits: ServerLimits {
                head_timeout: settings.head_timeout,
                connections_max: settings.connections_max.unwrap_or_else(connections_max),
                connections_per_address_max: settings.connections_per_address_max,
                http2_streams_max: settings.http2_streams_max,
                http2_resets_max: settings.http2_resets_max,
            },
        })?;
        let (api, ops) = (server.api_address(), server.ops_address());
        info!(%api, %ops, "listening");
        let lifecycle = match settings.log {
            OrderPlace::Local => Lifecycle::new(settings.drain),
            _ => Lifecycle::replicated(settings.drain),
        };
        Ok(Self { settings: settings.clone(), server, lifecycle, metrics })
    }

    /// Where the API and the ops port listen.
    pub(crate) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.server.api_address(), self.server.ops_address())
    }

    /// Opens the log and serves until the lifecycle is told to stop and the stop is done.
    ///
    /// # Errors
    /// Why the log could not be opened.
    pub(crate) async fn serve(self) -> anyhow::Result<()> {
        let Self { settings, mut server, lifecycle, metrics } = self;
        tell_insecure(&settings, &metrics);
        if let Some(tls) = &settings.tls {
            server = server.over_tls(Tls::open(tls).await.context("could not serve over TLS")?);
        }
        let streams = OpenStreams::new();
        let access = Access::open(&settings.auth, &lifecycle).await?;
        let admission = access.admission();
        let api = Arc::new(Api::new(
            lifecycle.clone(),
            streams.clone(),
            ApiSettings {
                heartbeat: settings.heartbeat,
                stream_max_age: settings.stream_max_age,
                admission: Arc::clone(&admission),
                upload_timeout: settings.upload_timeout,
                uploads_bytes_max: settings.uploads_bytes_max,
                clients: ClientLimits {
                    requests_per_second: settings.client_requests_max,
                    streams_max: settings.client_streams_max,
                },
                append_needs_certificate: settings
                    .tls
                    .as_ref()
                    .is_some_and(|tls| tls.client_ca.is_some()),
            },
        ));
        let ops = Arc::new(Ops::new(
            lifecycle.clone(),
            metrics.clone().telling_of(streams).telling_of_admission(admission),
        ));
        let upkeep = async {
            tokio::join!(metrics.keep_up(), access.keep_fresh(&lifecycle));
        };
        let running = server.run(lifecycle.clone(), api, ops);
        tokio::pin!(running, upkeep);
        // Boxed: joining a cluster is a large future.
        let mut log = Box::pin(open_log(&settings, lifecycle.progress()));
        let (mut opening, mut outrun) = (true, false);
        let stopped = loop {
            tokio::select! {
                stopped = &mut running => break stopped,
                () = &mut upkeep => unreachable!("upkeep goes on for ever"),
                opened = &mut log, if opening => {
                    opening = false;
                    let log = opened?;
                    info!(tail = log.tail().get(), trim = log.trim_point().get(), history = %log.history(), "ready");
                    lifecycle.serve(log);
                }
                () = is_outrun(&lifecycle), if !opening && !outrun => {
                    outrun = true;
                    warn!("stopping, so that this replica is started again");
                    lifecycle.stop();
                }
            }
        };
        if let Some(log) = lifecycle.log() {
            let deadline = lifecycle.stop().deadline().max(Instant::now() + CLOSE_WAIT_MIN);
            if timeout_at(deadline, log.close()).await.is_err() {
                warn!("the log did not close in time; what was acknowledged is durable");
            }
        }
        info!(cut = stopped.cut, "stopped");
        ensure!(
            !outrun,
            "this replica was away for too long; the next start builds its view again"
        );
        Ok(())
    }
}

/// Waits until the open log cannot go on from where it is.
async fn is_outrun(lifecycle: &Lifecycle) {
    match lifecycle.log() {
        Some(log) => log.outrun().await,
        None => pending().await,
    }
}

/// What is open to whoever is near, said at start and in a metric that an alert can watch.
fn tell_insecure(settings: &Settings, metrics: &Metrics) {
    let no_auth = settings.insecure_no_auth && settings.auth == Auth::None;
    if no_auth {
        warn!("everybody who can connect reads and appends for every HER-id: --insecure-no-auth");
    }
    let plain_http = settings.tls.is_none() && !settings.listen.ip().is_loopback();
    if plain_http {
        warn!(
            listen = %settings.listen,
            "plain HTTP beyond loopback: whoever is on the way reads and changes everything"
        );
    }
    metrics.tell_insecure(no_auth, plain_http);
}

/// Opens the log, or joins the cluster that keeps it.
async fn open_log(settings: &Settings, progress: &Progress) -> anyhow::Result<Log> {
    let engine = EngineSettings {
        ca_file: settings.log_ca.clone(),
        credentials_file: settings.log_credentials.clone(),
        retention: settings.retention,
    };
    let log_settings = LogSettings { retention: settings.retention };
    let log =
        Log::open_at(&settings.log, &engine, &settings.data_dir, log_settings, progress).await;
    log.context("could not open the log")
}

/// The first signal begins the stop, the second ends the process at once: what was acknowledged is durable anyway.
async fn stop_at_signal(mut stop: Stop, lifecycle: Lifecycle) {
    stop.signal().await;
    info!("stopping");
    lifecycle.stop();
    stop.signal().await;
    info!("ending at once");
    std::process::exit(1);
}

/// Takes as many file descriptors as the system lets this process have: each connection needs one, and the usual soft
/// limit of 1024 is for programs that use `select`.
fn raise_open_files() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => info!(limit = raised.current, "open files"),
        Err(error) => {
            warn!(%error, limit = limits.current, "could not raise the limit of open files");
        }
    }
}

/// How many connections the API may have where nobody says: one for each file, less a reserve, but half of a small number.
fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let Some(files) = files.and_then(|files| usize::try_from(files).ok()) else {
        return CONNECTIONS_MAX;
    };
    connections_of(files)
}

fn connections_of(files: usize) -> usize {
    let reserved = (files / RESERVED_FILES_PART).max(RESERVED_FILES_MIN).min(files / 2);
    files - reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_an_eighth_of_the_files_or_256_to_the_log_but_never_more_than_half() {
        for (files, connections) in [
            (256, 128),
            (511, 256),
            (512, 256),
            (1024, 768),
            (2048, 1792),
            (20_000, 17_500),
            (1 << 20, 917_504),
        ] {
            assert_eq!(connections_of(files), connections, "{files}");
        }
    }
}
