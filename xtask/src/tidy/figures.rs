//! Figures that stand in more than one place: how long a stop takes, the ports, who runs the process, the versions. Each has
//! one source, and what is under deploy/ and in docs/operations.md must say the same.

use super::{File, text_of};

const TABLE: &str = "crates/herald/src/settings/table.rs";
const VALUES: &str = "deploy/helm/herald/values.yaml";
const STATEFUL_SET: &str = "deploy/helm/herald/templates/statefulset.yaml";
const CHART: &str = "deploy/helm/herald/Chart.yaml";
const UNIT: &str = "deploy/systemd/herald.service";
const DOCKERFILE: &str = "deploy/docker/Dockerfile";
const PAGE: &str = "docs/operations.md";

pub(super) fn agree(files: &[File]) -> Vec<String> {
    let Some(figures) = Figures::read(files) else {
        return vec![format!("{TABLE}, {VALUES} or {DOCKERFILE}: a figure is not where it was")];
    };
    let wanted = figures.wanted();
    let missing = wanted.into_iter().filter(|(file, text)| !text_of(files, file).contains(text));
    missing.map(|(file, text)| format!("{file}: does not say `{}`", text.trim())).collect()
}

/// What the others are derived from.
struct Figures {
    /// Seconds; the default of `--drain`.
    drain: u32,
    pre_stop: u32,
    margin: u32,
    api_port: u32,
    ops_port: u32,
    /// Of the user in the image.
    uid: u32,
}

impl Figures {
    fn read(files: &[File]) -> Option<Self> {
        let table = text_of(files, TABLE);
        let values = text_of(files, VALUES);
        Some(Self {
            drain: number_behind(table, r#"text("drain", "DURATION", ""#)?,
            pre_stop: number_behind(values, "preStopSeconds: ")?,
            margin: number_behind(values, "marginSeconds: ")?,
            api_port: number_behind(table, r#"text("listen", "ADDRESS", "127.0.0.1:"#)?,
            ops_port: number_behind(table, r#"text("ops-listen", "ADDRESS", "127.0.0.1:"#)?,
            uid: number_behind(text_of(files, DOCKERFILE), "USER ")?,
        })
    }

    fn wanted(&self) -> Vec<(&'static str, String)> {
        let Self { drain, pre_stop, margin, api_port, ops_port, uid } = self;
        let stop = drain + margin;
        let grace = pre_stop + stop;
        vec![
            (VALUES, format!("drainSeconds: {drain}\n")),
            (VALUES, format!("  api: {api_port}\n")),
            (VALUES, format!("  ops: {ops_port}\n")),
            (STATEFUL_SET, format!("runAsUser: {uid}\n")),
            (STATEFUL_SET, format!("runAsGroup: {uid}\n")),
            (STATEFUL_SET, format!("fsGroup: {uid}\n")),
            (CHART, format!("\nversion: {}\n", env!("CARGO_PKG_VERSION"))),
            (CHART, format!("appVersion: \"{}\"\n", env!("CARGO_PKG_VERSION"))),
            (UNIT, format!("HERALD_DRAIN={drain}s\n")),
            (UNIT, format!("TimeoutStopSec={stop}s\n")),
            (UNIT, format!("waits {margin} s more")),
            (DOCKERFILE, format!("USER {uid}:{uid}\n")),
            (DOCKERFILE, format!("--chown={uid}:{uid} ")),
            (DOCKERFILE, format!("HERALD_LISTEN=0.0.0.0:{api_port} ")),
            (DOCKERFILE, format!("HERALD_OPS_LISTEN=0.0.0.0:{ops_port} ")),
            (DOCKERFILE, format!("EXPOSE {api_port} {ops_port}\n")),
            (DOCKERFILE, format!("`docker stop --time {stop}`")),
            (PAGE, format!("{pre_stop} + {drain} + {margin} = {grace} s")),
            (PAGE, format!("`TimeoutStopSec={stop}s`")),
            (PAGE, format!("`docker stop --time {stop}`")),
        ]
    }
}

fn number_behind(text: &str, label: &str) -> Option<u32> {
    let (_, behind) = text.split_once(label)?;
    let end = behind.find(|byte: char| !byte.is_ascii_digit())?;
    behind[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(drain: &str, values: &str) -> Vec<File> {
        let table = format!(
            r#"text("listen", "ADDRESS", "127.0.0.1:1" text("ops-listen", "ADDRESS", "127.0.0.1:2" text("drain", "DURATION", "{drain}""#
        );
        let file = |name: &str, text: &str| File { name: name.to_owned(), text: text.to_owned() };
        vec![file(TABLE, &table), file(VALUES, values), file(DOCKERFILE, "USER 7:7\n")]
    }

    const FIGURES: &str = "preStopSeconds: 5\ndrainSeconds: 10\nmarginSeconds: 15\n";

    #[test]
    fn what_is_derived_from_the_drain_must_follow_it() {
        let told = |drain| agree(&files(drain, FIGURES)).join("\n");
        assert!(!told("10s").contains("drainSeconds"));
        assert!(told("10s").contains("docs/operations.md: does not say `5 + 10 + 15 = 30 s`"));
        assert!(told("20s").contains("values.yaml: does not say `drainSeconds: 20`"));
        assert!(told("20s").contains("`TimeoutStopSec=35s`"));
    }

    #[test]
    fn a_figure_that_is_not_found_is_a_breach() {
        assert_eq!(agree(&files("10s", "preStopSeconds: 5\n")).len(), 1);
        assert_eq!(agree(&files("ten", FIGURES)).len(), 1);
    }
}
