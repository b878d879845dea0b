//! The alert rules, by Prometheus' own tool: that they can be read, and that each fires.

use anyhow::bail;

use super::read;
use crate::process::{command, run};

const RULES: &str = "deploy/prometheus/herald-alerts.yml";
const TESTS: &str = "deploy/prometheus/herald-alerts-test.yml";

pub(super) fn all() -> anyhow::Result<()> {
    run(command("promtool").args(["check", "rules", RULES]))?;
    run(command("promtool").args(["test", "rules", TESTS]))?;
    let (rules, page) = (read(RULES)?, read("docs/operations.md")?);
    let unknown: Vec<&str> =
        metric_names(&rules).filter(|name| !page.contains(&format!("`{name}`"))).collect();
    if !unknown.is_empty() {
        bail!("{RULES}: docs/operations.md does not explain {}", unknown.join(", "));
    }
    Ok(())
}

/// The metrics that rules name; one of a histogram's series is the histogram.
fn metric_names(rules: &str) -> impl Iterator<Item = &str> {
    let is_name = |byte: char| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == '_';
    rules
        .split(move |byte| !is_name(byte))
        .filter(|word| word.starts_with("herald_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_wherever_a_rule_names_them() {
        let rules =
            "expr: rate(herald_a_seconds_bucket[5m]) > herald_b{x=\"herald\"} and herald_c==1";
        assert_eq!(
            metric_names(rules).collect::<Vec<_>>(),
            ["herald_a_seconds", "herald_b", "herald_c"]
        );
    }
}
