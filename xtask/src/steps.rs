//! Named steps, one after the other: how long each took, which failed, and the exit code.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// The steps of one task so far.
pub(crate) struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    failure: Option<anyhow::Error>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { done: Vec::new() }
    }

    /// Runs one step and says whether it passed. A failed step does not stop the task: one run shows all that is wrong.
    pub(crate) fn run(
        &mut self,
        name: impl Into<String>,
        step: impl FnOnce() -> anyhow::Result<()>,
    ) -> bool {
        let name = name.into();
        eprintln!("\n==> {name}");
        let began = Instant::now();
        let failure = step().err();
        let took = began.elapsed();
        let outcome = if failure.is_some() { "FAILED" } else { "passed" };
        eprintln!("<== {name} {outcome} in {:.1} s", took.as_secs_f64());
        if let Some(error) = &failure {
            eprintln!("    {error:#}");
        }
        let passed = failure.is_none();
        self.done.push(Step { name, took, failure });
        passed
    }

    /// Prints the table of steps and the closing line.
    pub(crate) fn finish(self) -> ExitCode {
        eprintln!();
        for step in &self.done {
            let outcome = if step.failure.is_some() { "FAILED" } else { "passed" };
            eprintln!("{:>8.1} s  {outcome}  {}", step.took.as_secs_f64(), step.name);
        }
        let total: Duration = self.done.iter().map(|step| step.took).sum();
        eprintln!("{:>8.1} s  in all", total.as_secs_f64());
        for step in &self.done {
            if let Some(error) = &step.failure {
                eprintln!("FAILED: {}: {error:#}", step.name);
            }
        }
        let failed = self.done.iter().filter(|step| step.failure.is_some()).count();
        println!("steps: {} passed, {failed} failed", self.done.len() - failed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
