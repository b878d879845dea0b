//! `herald dev issuer`: the token issuer, its files, and the commands that use them.

use std::{
    fs,
    path::{Path, absolute},
};

use anyhow::Context as _;
use herald_auth::{Algorithm, PrivateKey};
use herald_issuer::{
    ClientSource, HOME_CLIENT, HOME_HER_IDS, Home, HomeError, Issuer, IssuerSettings, StartError,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use crate::{
    cli::IssuerArgs,
    commands::stop::Stop,
    logging,
    output::{self, WrongUsage},
};

/// A message as in the examples of the other commands.
const MESSAGE_ID: &str = "0f84d750-8ce3-4471-a1ac-ab7a55e609c0";

/// Runs an issuer until told to stop.
pub(crate) fn run(args: IssuerArgs) -> anyhow::Result<()> {
    logging::start(logging::Format::Auto, logging::filter("info").context("a filter")?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("could not start")?.block_on(serve(args))
}

async fn serve(args: IssuerArgs) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let mut hang_up = signal(SignalKind::hangup()).context("could not listen for signals")?;
    let home = match &args.clients {
        Some(_) => None,
        None => Some(Home::new(&absolute(&args.dir).context("there is no working directory")?)),
    };
    let audience = args.audience.clone();
    let settings = settings(args, home.as_ref())?;
    let issuer = Issuer::start(settings).await.map_err(|error| match error {
        StartError::NotLoopback(_) | StartError::Key(_) => wrong_usage(error),
        StartError::Bind { .. } | StartError::Clients(_) | StartError::Random(_) => error.into(),
    })?;
    let greeting = match &home {
        Some(home) => greeting(issuer.url(), home, &audience),
        None => format!("The issuer is {}\n", issuer.url()),
    };
    output::print(format!("{greeting}\nCtrl-C ends it.\n").as_bytes())?;
    loop {
        tokio::select! {
            () = stop.signal() => break,
            _ = hang_up.recv() => {
                if let Err(error) = issuer.rotate() {
                    warn!(error = format!("{:#}", anyhow::Error::new(error)), "could not rotate");
                }
            }
        }
    }
    issuer.stop().await;
    Ok(())
}

/// The flags ask for what cannot be.
fn wrong_usage(error: StartError) -> anyhow::Error {
    WrongUsage(format!("{:#}", anyhow::Error::new(error))).into()
}

/// What the flags say, with the keys read or made.
fn settings(args: IssuerArgs, home: Option<&Home>) -> anyhow::Result<IssuerSettings> {
    if !args.listen.ip().is_loopback() {
        // Before anything is made.
        return Err(wrong_usage(StartError::NotLoopback(args.listen)));
    }
    let clients: ClientSource = match (&args.clients, home) {
        (Some(clients), _) => clients.clone().into(),
        (None, Some(home)) => home.clients.clone().into(),
        (None, None) => Vec::new().into(),
    };
    let given = args.signing_keys.iter().map(|path| read_key(path));
    let mut signing_keys = given.collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(home) = home {
        if signing_keys.is_empty() {
            let algorithm = args.algorithm.unwrap_or(Algorithm::Es256);
            signing_keys.push(home.signing_key(algorithm).map_err(|error| match error {
                HomeError::Make(error) => wrong_usage(error.into()),
                HomeError::Io { .. } | HomeError::Key { .. } => error.into(),
            })?);
        }
        home.fill()?;
    }
    Ok(IssuerSettings {
        listen: args.listen,
        signing_keys,
        algorithm: args.algorithm,
        token_kind: args.typ,
        audience: args.audience,
        lifetime: args.lifetime,
        rotate_every: args.rotate_every,
        nonce_period: args.nonce_period,
        ..IssuerSettings::new(clients)
    })
}

fn read_key(path: &Path) -> anyhow::Result<PrivateKey> {
    let text = fs::read_to_string(path)
        .map_err(anyhow::Error::from)
        .and_then(|text| text.parse().map_err(anyhow::Error::from));
    text.with_context(|| format!("could not read a signing key from {}", path.display()))
}

/// What to run, ready to be pasted.
fn greeting(url: &str, home: &Home, audience: &str) -> String {
    let organisations = quoted(&home.organisations.to_string_lossy());
    let audience = match audience {
        "nhn:msh" => String::new(),
        other => format!(" --audience {}", quoted(other)),
    };
    let her_id = HOME_HER_IDS[0];
    let as_laptop = format!(
        "--helseid-issuer {url} --helseid-client-id {HOME_CLIENT} \\\n    --helseid-key-file {}",
        quoted(&home.client_key.to_string_lossy())
    );
    format!(
        "\
The issuer is {url}
Its clients are in {clients}

A server that takes its tokens:
  herald serve --auth helseid --issuer {url}{audience} \\
    --organisations {organisations}

A notification, what there is, and what comes:
  herald append --her-id {her_id} --type NewMessage --message-id {MESSAGE_ID} \\
    {as_laptop}
  herald poll --her-id {her_id} --offset 0 \\
    {as_laptop}
  herald stream --her-id {her_id} --offset 0 \\
    {as_laptop}
",
        clients = home.clients.display(),
    )
}

/// As a shell reads it back.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_for_more_is_quoted() {
        for (text, expected) in [
            ("/tmp/a-b_c.json", "/tmp/a-b_c.json"),
            ("/tmp/my files", "'/tmp/my files'"),
            ("it's", r"'it'\''s'"),
            ("$(x)", "'$(x)'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
