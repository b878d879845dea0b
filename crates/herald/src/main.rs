//! One binary, no logic.

mod access;
mod cli;
mod commands;
mod credentials;
mod duration;
mod logging;
mod output;
mod readable;
mod settings;
mod size;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::Parser as _;

fn main() -> ExitCode {
    commands::run(cli::Cli::parse().command)
}
