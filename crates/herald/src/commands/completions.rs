//! `herald completions`.

use clap::CommandFactory as _;

use crate::{
    cli::{Cli, CompletionsArgs},
    output,
};

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "herald", &mut script);
    output::print(&script)
}
