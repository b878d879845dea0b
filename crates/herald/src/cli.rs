//! What can be said on the command line.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser, ValueParser},
};
use herald_auth::Algorithm;
use herald_client::{Client, SettingsError};
use herald_issuer::{LIFETIME_MAX, TokenKind};
use herald_log::OrderPlace;
use herald_types::{DESCRIPTION_CHARS_MAX, HerId, NotificationType, Offset};
use uuid::Uuid;

use crate::{commands, credentials::HelseIdArgs, output::WrongUsage, settings};

/// Herald keeps notifications in one durable log, and serves them by polling and as event streams.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  herald demo                                   see notifications arrive, with nothing set up
  herald serve                                  the server, on http://127.0.0.1:8080
  herald append --her-id 8139764 --type NewMessage \\
                --message-id 0f84d750-8ce3-4471-a1ac-ab7a55e609c0
  herald poll   --her-id 8139764 --offset 0     what there is
  herald stream --her-id 8139764 --offset 0     what there is, and what comes

Exit codes: 0 done, 1 the server refused or failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server: the API on one port, health and metrics on another.
    ///
    /// Each setting comes from its flag, else from the environment, else from the file, else is the default, and is printed at
    /// the start.
    #[command(after_help = "\
Examples:
  herald serve
  herald serve --listen 127.0.0.1:8081 --data-dir /var/lib/herald --retention 90d
  HERALD_HEARTBEAT=5s herald serve --config herald.toml
  herald serve --auth helseid --issuer https://helseid-sts.test.nhn.no \\
               --organisations organisations.json --public-url https://herald.example.no")]
    Serve(commands::serve::Args),
    Append(AppendArgs),
    Poll(PollArgs),
    Stream(StreamArgs),
    Demo(DemoArgs),
    #[command(subcommand)]
    Log(LogCommand),
    #[command(subcommand)]
    Dev(DevCommand),
    /// Print the OpenAPI document, as the server has it at /openapi.json.
    #[command(after_help = "\
Examples:
  herald openapi > openapi.json")]
    Openapi,
    Completions(CompletionsArgs),
}

/// Which server to call, and as whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// The server's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Name and version of the calling system, for the header nhn-source-system.
    #[arg(
        long,
        value_name = "NAME",
        default_value = concat!("herald-cli/", env!("CARGO_PKG_VERSION"))
    )]
    source_system: String,
    /// Trust the CA certificates in this file too, PEM, for https:// addresses [default: those of the system].
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// The certificate to show to a server that asks for one, PEM.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    #[command(flatten)]
    helseid: HelseIdArgs,
}

impl ServerArgs {
    /// Whether there is anything to sign in with.
    pub(crate) fn signs_in(&self) -> bool {
        self.helseid.is_given()
    }

    /// A client of that server that asks for `scope` where tokens are needed, or wrong usage.
    pub(crate) fn client(&self, scope: &str) -> anyhow::Result<Client> {
        let mut builder = Client::builder(&self.url, &self.source_system);
        if let Some(path) = &self.ca_cert {
            builder = builder.trust(&read("--ca-cert", path)?);
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            let certificate = read("--client-cert", certificate)?;
            builder = builder.identity(&certificate, &read("--client-key", key)?);
        }
        if let Some(helseid) = self.helseid.read(scope)? {
            builder = builder.credentials(helseid);
        }
        builder.build().map_err(|error| match error {
            SettingsError::Scope => WrongUsage(format!("--helseid-scope: {error}")).into(),
            error => WrongUsage(error.to_string()).into(),
        })
    }
}

fn read(flag: &str, path: &Path) -> Result<Vec<u8>, WrongUsage> {
    let wrong = |error| WrongUsage(format!("{flag} {}: {error}", path.display()));
    std::fs::read(path).map_err(wrong)
}

/// Append notifications: one from flags, or many as NDJSON from a file or stdin.
///
/// Prints the server's answer for each, one JSON object a line. Each draft without a notificationId is given one before it is
/// sent, so that sending it again after a lost answer stores nothing twice.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  herald append --her-id 8139764 --triggered-by 90215 --type NewMessage \\
                --message-id 0f84d750-8ce3-4471-a1ac-ab7a55e609c0
  herald append --file drafts.ndjson
  generate-drafts | herald append

A draft on one line:
  {\"relatedMessageId\":\"0f84d750-8ce3-4471-a1ac-ab7a55e609c0\",\"type\":\"NewMessage\",\"notificationReceiverHerId\":8139764}")]
pub(crate) struct AppendArgs {
    /// Whom the notification is for.
    #[arg(long, value_name = "HER-ID", requires_all = ["kind", "message_id"])]
    pub(crate) her_id: Option<HerId>,
    /// What happened: NewMessage, RefusedMessage, MessageSentStateUpdated, MessageApprecInfoUpdated or
    /// MessageDeliveryStateUpdated.
    #[arg(long = "type", id = "kind", value_name = "TYPE", requires = "her_id")]
    pub(crate) kind: Option<NotificationType>,
    /// The message that the notification is about.
    #[arg(long, value_name = "UUID", requires = "her_id")]
    pub(crate) message_id: Option<Uuid>,
    /// Who caused it.
    #[arg(long, value_name = "HER-ID", requires = "her_id")]
    pub(crate) triggered_by: Option<HerId>,
    /// A text for people, at most 1024 characters [default: one by type].
    #[arg(long, value_name = "TEXT", requires = "her_id", value_parser = parse_description)]
    pub(crate) description: Option<String>,
    /// The idempotency key [default: a new one].
    #[arg(long, value_name = "UUID", requires = "her_id")]
    pub(crate) notification_id: Option<Uuid>,
    /// Read drafts from here, one a line; - is stdin.
    #[arg(long, value_name = "FILE", conflicts_with = "her_id")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Fetch one page of notifications, or page after page until none is left.
///
/// Prints each notification as the server wrote it, one JSON object a line.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  herald poll --her-id 8139764 --offset 0
  herald poll --her-id 8139764 --her-id 8139765 --offset 45459 --limit 10
  herald poll --her-id 8139764 --offset 0 --follow-pages > all.ndjson")]
pub(crate) struct PollArgs {
    /// Whose notifications; may be given again, up to 1500.
    #[arg(long = "her-id", value_name = "HER-ID", required = true)]
    pub(crate) her_ids: Vec<HerId>,
    /// The last offset handled: what is newer comes. 0 is before the oldest.
    #[arg(long, value_name = "OFFSET")]
    pub(crate) offset: Offset,
    /// How many at most, 1 to 1000; with --follow-pages how many a page [default: 100, with --follow-pages 1000].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: Option<u16>,
    /// Go on until nothing is left.
    #[arg(long)]
    pub(crate) follow_pages: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Stream notifications for ever: those that are stored, then those that come.
///
/// Prints each notification as the server wrote it, one JSON object a line, and reconnects by itself; on a terminal a line for
/// people, and below them how fast they come and how far behind it is. With a checkpoint it goes on where it was after any end,
/// even a kill: at most the last line comes again, and none is lost.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  herald stream --her-id 8139764 --offset 0
  herald stream --her-id 8139764 --offset 0 --checkpoint journal.checkpoint
  herald stream --her-id 8139764 --offset 0 --idle-exit 5s > all.ndjson
  herald stream --her-id 8139764 --from-now

A checkpoint that exists wins over --offset and --from-now; it is used only for the same HER-ids and the same log.")]
pub(crate) struct StreamArgs {
    /// Whose notifications; may be given again.
    #[arg(long = "her-id", value_name = "HER-ID", required = true)]
    pub(crate) her_ids: Vec<HerId>,
    /// The last offset handled: what is newer comes. 0 is before the oldest.
    #[arg(long, value_name = "OFFSET", required_unless_present_any = ["checkpoint", "from_now"])]
    pub(crate) offset: Option<Offset>,
    /// Begin with what comes from now on: what is stored is left out.
    #[arg(long, conflicts_with = "offset")]
    pub(crate) from_now: bool,
    /// Keep here what is handled, and begin there the next time.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Replace the checkpoint only so often, to catch up faster, with so much more to repeat after a kill [default: after each
    /// line].
    #[arg(long, value_name = "TIME", requires = "checkpoint", value_parser = duration())]
    pub(crate) checkpoint_every: Option<Duration>,
    /// Stop after so many notifications.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    /// Stop after so long without a notification.
    #[arg(long, value_name = "TIME", value_parser = duration())]
    pub(crate) idle_exit: Option<Duration>,
    /// One JSON object a line on a terminal, too.
    #[arg(long)]
    pub(crate) ndjson: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// See notifications arrive: a throw-away server, a producer and the client together.
///
/// The server is a real one on a temporary directory; everything goes over HTTP, and nothing is kept.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  herald demo
  herald demo --for 20s")]
pub(crate) struct DemoArgs {
    /// Stop after so long [default: at Ctrl-C].
    #[arg(long = "for", value_name = "TIME", value_parser = duration())]
    pub(crate) time: Option<Duration>,
}

/// Look after a log.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  herald log check ./herald-data
  herald log seed --from ./herald-data --log nats://nats1:4222,nats2:4222,nats3:4222")]
pub(crate) enum LogCommand {
    Check(LogCheckArgs),
    Seed(LogSeedArgs),
}

/// Read every byte of a data directory and say what is found; nothing is changed.
///
/// A torn end or a missing index is a note, since a server mends it when it starts. A damaged frame, header or index, a
/// directory without a log, and one that a server has open are exit code 1.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  herald log check ./herald-data")]
pub(crate) struct LogCheckArgs {
    /// The data directory of a server that does not run.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// Fill an empty engine from a data directory, so that a cluster goes on where that ends.
///
/// For a single node that becomes a cluster, for an engine that has lost its log, and for a cluster that moves to another engine.
/// Notifications keep their offsets, bytes and times, and clients their cursors: the history stays. The log goes on 1,000,000
/// above the newest offset of the directory, so that what was answered and is not there does not have its offset used again.
///
/// The directory is a single node's, or any replica's copy: take the one with the greatest tail, as `herald log check` shows
/// it. It is only read, and no server may have it open. The engine must have no log. Until the last line is printed no replica
/// follows it; a seeding that was cut short is gone on with by the same command. Prints one JSON object when all has been written and read back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  herald log seed --from ./herald-data --log nats://nats1:4222,nats2:4222,nats3:4222
  herald log seed --from /var/lib/herald --log-ca ca.pem \\
                  --log 'postgres://herald@pg1,pg2,pg3/herald?target_session_attrs=read-write'

Exit codes: 0 seeded, 1 the directory or the engine would not do, or the engine is away; 2 wrong usage.")]
pub(crate) struct LogSeedArgs {
    /// The data directory of a server that does not run.
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The engine, as in `herald serve --log`: nats://HOST:PORT,… or postgres://USER@HOST:PORT,…/DATABASE.
    #[arg(long, value_name = "URL")]
    pub(crate) log: OrderPlace,
    /// The offset that the next notification gets, above the directory's newest one, at most 2^62 [default: 1,000,000 above it].
    /// With less than the default, an offset that was answered once may be given to another notification.
    #[arg(long, value_name = "OFFSET")]
    pub(crate) next_offset: Option<Offset>,
    /// How long the cluster keeps notifications, as in `herald serve --retention`, or forever: for so long, and a margin more, a
    /// stream of NATS is told to keep them. A server that keeps them for longer raises it.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_retention)]
    pub(crate) retention: Retention,
    /// Credentials for NATS, a .creds file.
    #[arg(long, value_name = "FILE")]
    pub(crate) log_credentials: Option<PathBuf>,
    /// Whose certificates the engine may show, PEM [default: those that the system trusts].
    #[arg(long, value_name = "FILE")]
    pub(crate) log_ca: Option<PathBuf>,
}

/// How long notifications are kept; `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention(pub(crate) Option<Duration>);

/// What only laptops and tests need.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  herald dev issuer")]
pub(crate) enum DevCommand {
    Issuer(Box<IssuerArgs>),
}

/// Run a small real token issuer, so that access can be tried with nothing from outside.
///
/// In its directory it makes, once, a signing key, a client with its own key, and a file of organisations, and prints the
/// commands that use them. SIGHUP changes the signing key. It listens on loopback only.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  herald dev issuer
  herald dev issuer --listen 127.0.0.1:8089 --dir /tmp/issuer --lifetime 1m --rotate-every 5m
  herald dev issuer --clients clients.json --signing-key rsa.pem
  curl -X POST http://127.0.0.1:8088/dev/rotate")]
pub(crate) struct IssuerArgs {
    /// Where to listen: a loopback address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8088")]
    pub(crate) listen: SocketAddr,
    /// Where its files are, and are made if they are missing.
    #[arg(long, value_name = "DIR", default_value = "./herald-issuer")]
    pub(crate) dir: PathBuf,
    /// Use these clients and make no file; read again when it changes.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub(crate) clients: Option<PathBuf>,
    /// Sign with this key, a private JWK or PEM; may be given again: a rotation takes the next.
    #[arg(long = "signing-key", value_name = "FILE")]
    pub(crate) signing_keys: Vec<PathBuf>,
    /// What signs; RS and PS need --signing-key [default: what the key is for, ES256 for a key that is made].
    #[arg(long, value_name = "NAME")]
    pub(crate) algorithm: Option<Algorithm>,
    /// What the header of a token calls it.
    #[arg(long, value_name = "TYPE", default_value = "JWT", value_parser = token_kind())]
    pub(crate) typ: TokenKind,
    /// What aud says.
    #[arg(long, value_name = "NAME", default_value = "nhn:msh")]
    pub(crate) audience: String,
    /// How long tokens are valid, for clients that have no lifetime of their own. With less than a minute streams take each end
    /// for a failure, and wait longer and longer.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = whole_seconds())]
    pub(crate) lifetime: Duration,
    /// Change the signing key so often [default: never].
    #[arg(long, value_name = "TIME", value_parser = duration())]
    pub(crate) rotate_every: Option<Duration>,
    /// Hand out another nonce so often; one is accepted twice as long.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = whole_seconds())]
    pub(crate) nonce_period: Duration,
}

/// Print a script that teaches a shell to complete herald's commands.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  herald completions bash > /etc/bash_completion.d/herald
  herald completions fish > ~/.config/fish/completions/herald.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    pub(crate) shell: clap_complete::Shell,
}

/// A time as people write it, more than nothing.
fn duration() -> ValueParser {
    ValueParser::new(|text: &str| match crate::duration::parse(text) {
        Ok(Duration::ZERO) => Err("must be more than nothing".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    })
}

fn parse_retention(text: &str) -> Result<Retention, String> {
    settings::retention(text).map(Retention)
}

/// A time as tokens have it, at most a day.
fn whole_seconds() -> ValueParser {
    ValueParser::new(|text: &str| match crate::duration::parse(text) {
        Ok(time) if time.is_zero() || time.subsec_nanos() > 0 || time > LIFETIME_MAX => {
            Err("must be whole seconds, 1s to 1d".to_owned())
        }
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    })
}

fn token_kind() -> impl TypedValueParser<Value = TokenKind> {
    PossibleValuesParser::new(["JWT", "at+jwt"]).map(|name| match name.as_str() {
        "JWT" => TokenKind::Jwt,
        _ => TokenKind::AtJwt,
    })
}

fn parse_description(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=DESCRIPTION_CHARS_MAX => Ok(text.to_owned()),
        count => {
            Err(format!("must have at most {DESCRIPTION_CHARS_MAX} characters, it has {count}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
