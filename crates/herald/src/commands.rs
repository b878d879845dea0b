//! One file for each command.

mod append;
mod completions;
mod demo;
mod dev;
mod log_check;
mod log_seed;
mod openapi;
mod poll;
pub(crate) mod serve;
mod stop;
mod stream;

use std::{future::Future, process::ExitCode};

use anyhow::{Context as _, anyhow};
use herald_client::{CheckpointError, ConsumerError, Error};

use crate::{
    cli::{Command, DemoArgs, DevCommand, LogCommand},
    credentials, logging, output,
};

/// Runs one command to its end.
pub(crate) fn run(command: Command) -> ExitCode {
    let outcome = match command {
        Command::Serve(args) => return serve::run(&args),
        Command::Append(args) => client(args.server.signs_in(), append::run(args)),
        Command::Poll(args) => client(args.server.signs_in(), poll::run(args)),
        Command::Stream(args) => client(args.server.signs_in(), stream::run(args)),
        Command::Demo(args) => demo(args),
        Command::Log(LogCommand::Check(args)) => log_check::run(&args),
        Command::Log(LogCommand::Seed(args)) => client(true, log_seed::run(args)),
        Command::Dev(DevCommand::Issuer(args)) => dev::issuer::run(*args),
        Command::Openapi => openapi::run(),
        Command::Completions(args) => completions::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::report(&error),
    }
}

/// Runs a client command. One thread is enough for it, and a write to a stdout that nobody reads must not keep the process.
fn client(signs_in: bool, command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let filter = logging::filter("warn").context("a filter")?;
    logging::start(logging::Format::Text, filter);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("could not start")?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome.map_err(|error| match is_unauthorized(&error) && !signs_in {
        true => anyhow!("{error:#}; {}", credentials::ASK),
        false => error,
    })
}

/// Whether the server asked who is calling.
fn is_unauthorized(error: &anyhow::Error) -> bool {
    let of_consumer = || match error.downcast_ref()? {
        ConsumerError::<CheckpointError>::Client(error) => Some(error),
        _ => None,
    };
    let refused = error.downcast_ref().or_else(of_consumer);
    matches!(refused, Some(Error::Refused(refusal)) if refusal.status.as_u16() == 401)
}

/// Runs the demo, whose server should not wait for its client.
fn demo(args: DemoArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("could not start")?;
    let outcome = runtime.block_on(demo::run(args));
    runtime.shutdown_background();
    outcome
}
