//! Counts what does not depend on the clock and compares it with the numbers kept in counts.toml.

mod client;
mod kept;
mod memory;
mod remote;
mod server;
mod syscalls;
mod trace;

use std::{
    alloc::System,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::kept::{Counts, Kept};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Parser)]
#[command(about = "Counts what does not depend on the clock; `cargo xtask counts` runs it")]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// The server's binary, whose system calls are counted
    #[arg(long, default_value = "target/debug/herald")]
    herald: PathBuf,
    /// Writes what was counted into counts.toml instead of judging it
    #[arg(long)]
    accept: bool,
}

#[derive(Subcommand)]
enum Role {
    /// Asks the server of another process, as that one says on stdin
    #[command(hide = true)]
    Client {
        /// Where the server listens
        address: SocketAddr,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(Role::Client { address }) = cli.role {
        return remote::serve(address).map(|()| ExitCode::SUCCESS);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.toml");
    let mut kept = Kept::open(&file)?;
    let mut counts = Counts::new();
    memory::count(&mut counts)?;
    syscalls::count(&cli.herald, &mut counts)?;
    if cli.accept {
        kept.accept(&counts)?;
    }
    let passed = kept.judge(&counts);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
