//! The Helm chart: Helm's own reading of it, Kubernetes' schemas on what it renders, and what neither knows: that the pieces
//! name each other and the server's settings.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{made, read, tool};
use crate::process::{command, output, run};

const CHART: &str = "deploy/helm/herald";
const RELEASE: &str = "herald";
/// What is most likely, the least, and the most.
const VALUES: [&str; 3] =
    ["ci/cluster-values.yaml", "ci/single-values.yaml", "ci/everything-values.yaml"];
const SINGLE: &str = VALUES[1];
/// Of the schemas: the oldest that the chart admits, and the newest there are.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];
/// What must be refused beside the first of them, and a word of why.
const REFUSED: [(&str, &str); 8] = [
    ("engine.existingSecret=", "several replicas need an engine"),
    ("engine.existingSecret=,replicas=1,persistence.enabled=false", "the volume is the log"),
    (
        "engine.existingSecret=,replicas=1,autoscaling.enabled=true",
        "several replicas need an engine",
    ),
    ("settings.auth=none", "everybody in the cluster"),
    ("settings.drain=20s", "drain"),
    ("replicas=0", "replicas"),
    ("replica=3", "replica"),
    ("ports.ops=80", "ops"),
];
/// Less than this between the end of a drain and the kill would cut what a slow disk still has to close.
const MARGIN_SECONDS_MIN: u64 = 5;

pub(super) fn all() -> anyhow::Result<()> {
    ensure!(
        read(&format!("{CHART}/Chart.yaml"))?.contains(&format!("\">={}.0-0\"", KUBERNETES[0])),
        "{CHART}/Chart.yaml: kubeVersion is not the oldest version that is looked at"
    );
    for values in VALUES {
        let mut lint = command("helm");
        let file = format!("{CHART}/{values}");
        run(lint.args(["lint", "--strict", "--quiet", CHART, "--values", &file]))?;
        let rendered = render(values)?;
        let file = made()?.join("rendered.yaml");
        fs::write(&file, rendered).context("could not write what was rendered")?;
        for version in KUBERNETES {
            let mut validate = command(tool("kubernetes-validate"));
            run(validate.args(["--strict", "--quiet", "--no-warn", "-k", version]).arg(&file))?;
        }
        let resources = Resources::parse(&file)?;
        resources
            .judge(&read("docs/operations.md")?)
            .with_context(|| format!("with {values:?}"))?;
        eprintln!("    {} resources with {values:?}", resources.all.len());
    }
    REFUSED.into_iter().try_for_each(|(set, why)| is_refused(set, why))
}

/// What the chart's container has in its environment where one replica keeps the log.
pub(super) fn environment_of_single() -> anyhow::Result<BTreeMap<String, String>> {
    let file = made()?.join("single.yaml");
    fs::write(&file, render(SINGLE)?).context("could not write what was rendered")?;
    let resources = Resources::parse(&file)?;
    let environment = resources.container()?["env"].as_array().context("no environment")?;
    let pairs = environment.iter().map(|variable| {
        let text = |key: &str| variable[key].as_str().map(str::to_owned);
        text("name").zip(text("value")).context("a variable without a value")
    });
    pairs.collect()
}

fn template(values: &str) -> Command {
    let mut template = command("helm");
    template.args(["template", RELEASE, CHART, "--kube-version", &format!("{}.0", KUBERNETES[0])]);
    template.args(["--values", &format!("{CHART}/{values}")]);
    template
}

fn render(values: &str) -> anyhow::Result<String> {
    output(&mut template(values))
}

fn is_refused(set: &str, why: &str) -> anyhow::Result<()> {
    let told = template(VALUES[0]).args(["--set", set]).output()?;
    let told_why = String::from_utf8_lossy(&told.stderr);
    ensure!(!told.status.success(), "{CHART}: {set} is not refused");
    ensure!(told_why.contains(why), "{CHART}: {set} is refused without saying why: {told_why}");
    Ok(())
}

/// What was rendered.
struct Resources {
    all: Vec<Value>,
}

impl Resources {
    fn parse(file: &std::path::Path) -> anyhow::Result<Self> {
        let program = "import json, sys, yaml; print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1])) if d]))";
        let json = output(command(tool("python")).args(["-c", program]).arg(file))?;
        Ok(Self { all: serde_json::from_str(&json).context("not JSON")? })
    }

    fn kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.all.iter().filter(move |resource| resource["kind"] == kind)
    }

    fn stateful_set(&self) -> anyhow::Result<&Value> {
        self.kind("StatefulSet").next().context("there is no StatefulSet")
    }

    fn container(&self) -> anyhow::Result<&Value> {
        Ok(&self.stateful_set()?["spec"]["template"]["spec"]["containers"][0])
    }

    fn judge(&self, page: &str) -> anyhow::Result<()> {
        self.has_time_to_stop()?;
        self.says_ports_once()?;
        self.gives_known_settings(page)?;
        self.is_confined()?;
        self.pieces_fit(page)
    }

    /// The kubelet kills when pause and drain are over, and not before.
    fn has_time_to_stop(&self) -> anyhow::Result<()> {
        let pod = &self.stateful_set()?["spec"]["template"]["spec"];
        let grace = pod["terminationGracePeriodSeconds"].as_u64().context("no grace period")?;
        let container = self.container()?;
        let pause = &container["lifecycle"]["preStop"]["sleep"]["seconds"];
        let pause = pause.as_u64().context("no preStop")?;
        let drain = variable(container, "HERALD_DRAIN").and_then(|text| text.strip_suffix('s'));
        let drain: u64 = drain.context("no HERALD_DRAIN in seconds")?.parse()?;
        ensure!(
            grace >= pause + drain + MARGIN_SECONDS_MIN,
            "a pod is killed after {grace} s, with a preStop of {pause} s and a drain of {drain} s"
        );
        Ok(())
    }

    /// The ports of the container are those that the server is told, and probes go to health's.
    fn says_ports_once(&self) -> anyhow::Result<()> {
        let container = self.container()?;
        for (name, setting) in [("api", "HERALD_LISTEN"), ("ops", "HERALD_OPS_LISTEN")] {
            let port = port(container, name).with_context(|| format!("no port {name}"))?;
            let told = variable(container, setting).unwrap_or_default();
            ensure!(told == format!("0.0.0.0:{port}"), "{setting} is {told}, the port is {port}");
        }
        for (probe, path) in [
            ("startupProbe", "/health/live"),
            ("livenessProbe", "/health/live"),
            ("readinessProbe", "/health/ready"),
        ] {
            let asks = &container[probe]["httpGet"];
            ensure!(asks["port"] == "ops" && asks["path"] == path, "{probe} asks {asks}");
        }
        Ok(())
    }

    /// A variable that is no setting would be passed over without a word.
    fn gives_known_settings(&self, page: &str) -> anyhow::Result<()> {
        let names = self.container()?["env"].as_array().into_iter().flatten();
        for name in names.filter_map(|variable| variable["name"].as_str()) {
            let flag = name.strip_prefix("HERALD_").unwrap_or(name);
            let flag = format!("`--{}`", flag.to_ascii_lowercase().replace('_', "-"));
            ensure!(page.contains(&flag), "{name}: docs/operations.md has no {flag}");
        }
        Ok(())
    }

    fn is_confined(&self) -> anyhow::Result<()> {
        let pod = &self.stateful_set()?["spec"]["template"]["spec"];
        let container = self.container()?;
        for (what, is, wanted) in [
            ("runAsNonRoot", &pod["securityContext"]["runAsNonRoot"], serde_json::json!(true)),
            ("seccomp", &pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault".into()),
            ("token", &pod["automountServiceAccountToken"], false.into()),
            ("links", &pod["enableServiceLinks"], false.into()),
            ("root", &container["securityContext"]["readOnlyRootFilesystem"], true.into()),
            ("rights", &container["securityContext"]["allowPrivilegeEscalation"], false.into()),
            (
                "capabilities",
                &container["securityContext"]["capabilities"]["drop"],
                serde_json::json!(["ALL"]),
            ),
        ] {
            ensure!(*is == wanted, "{what} is {is}, and should be {wanted}");
        }
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let writable: Vec<&Value> = mounts.filter(|mount| mount["readOnly"] != true).collect();
        let data = variable(container, "HERALD_DATA_DIR").unwrap_or_default();
        ensure!(
            writable.len() == 1 && writable[0]["mountPath"] == data,
            "not only {data} can be written to: {writable:?}"
        );
        Ok(())
    }

    /// Names in one piece are names of another.
    fn pieces_fit(&self, page: &str) -> anyhow::Result<()> {
        let set = self.stateful_set()?;
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        let service =
            |name: &Value| self.kind("Service").find(|it| it["metadata"]["name"] == *name);
        for resource in &self.all {
            let (kind, spec) = (resource["kind"].as_str().unwrap_or_default(), &resource["spec"]);
            match kind {
                "StatefulSet" => {
                    let headless =
                        service(&spec["serviceName"]).context("serviceName is nobody's")?;
                    ensure!(headless["spec"]["clusterIP"] == "None", "serviceName is not headless");
                    selects(&spec["selector"]["matchLabels"], labels)?;
                }
                "Service" => {
                    selects(&spec["selector"], labels)?;
                    for entry in spec["ports"].as_array().into_iter().flatten() {
                        let target = entry["targetPort"].as_str().unwrap_or_default();
                        ensure!(port(self.container()?, target).is_some(), "no port {target}");
                    }
                }
                "PodDisruptionBudget" => selects(&spec["selector"]["matchLabels"], labels)?,
                "NetworkPolicy" => selects(&spec["podSelector"]["matchLabels"], labels)?,
                "HorizontalPodAutoscaler" => {
                    ensure!(
                        spec["scaleTargetRef"]["name"] == set["metadata"]["name"],
                        "scales nobody"
                    );
                    ensure!(set["spec"]["replicas"].is_null(), "replicas are said twice");
                    let metric = spec["metrics"][0]["pods"]["metric"]["name"].as_str();
                    let metric = metric.context("no metric of pods")?;
                    ensure!(page.contains(&format!("`{metric}`")), "there is no metric {metric}");
                    let adapter = read("deploy/prometheus/herald-adapter.yml")?;
                    ensure!(adapter.contains(&format!("as: {metric}}}")), "nobody gives {metric}");
                }
                "Ingress" => {
                    let backend = &spec["rules"][0]["http"]["paths"][0]["backend"]["service"];
                    let behind = service(&backend["name"]).context("the Ingress leads nowhere")?;
                    let name = &behind["spec"]["ports"][0]["name"];
                    ensure!(*name == backend["port"]["name"], "the Ingress leads to no port");
                }
                "ServiceMonitor" => {
                    let wanted = &spec["selector"]["matchLabels"];
                    let found = self
                        .kind("Service")
                        .filter(|it| selects(wanted, &it["metadata"]["labels"]).is_ok());
                    ensure!(
                        found.count() == 1,
                        "each replica would be scraped twice, or not at all"
                    );
                }
                _ => bail!("nothing here knows what a {kind} must be"),
            }
        }
        Ok(())
    }
}

/// Whether all of `wanted` is among `labels`.
fn selects(wanted: &Value, labels: &Value) -> anyhow::Result<()> {
    let wanted = wanted.as_object().filter(|wanted| !wanted.is_empty());
    let wanted = wanted.context("a selector that selects everything")?;
    let missing = wanted.iter().find(|(name, value)| labels[name.as_str()] != **value);
    ensure!(missing.is_none(), "a selector does not select: {missing:?}");
    Ok(())
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let variables = container["env"].as_array()?;
    variables.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

fn port(container: &Value, name: &str) -> Option<u64> {
    let ports = container["ports"].as_array()?;
    ports.iter().find(|port| port["name"] == name)?["containerPort"].as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resources(grace: u64, ops: u64, env: &str) -> Resources {
        let container = json!({
            "ports": [{"name": "api", "containerPort": 1}, {"name": "ops", "containerPort": ops}],
            "env": [
                {"name": "HERALD_LISTEN", "value": "0.0.0.0:1"},
                {"name": "HERALD_OPS_LISTEN", "value": "0.0.0.0:2"},
                {"name": "HERALD_DRAIN", "value": "10s"},
                {"name": env, "value": "x"},
            ],
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            "startupProbe": {"httpGet": {"path": "/health/live", "port": "ops"}},
            "livenessProbe": {"httpGet": {"path": "/health/live", "port": "ops"}},
            "readinessProbe": {"httpGet": {"path": "/health/ready", "port": "ops"}},
        });
        let pod = json!({"terminationGracePeriodSeconds": grace, "containers": [container]});
        Resources { all: vec![json!({"kind": "StatefulSet", "spec": {"template": {"spec": pod}}})] }
    }

    #[test]
    fn a_grace_period_may_be_as_short_as_pause_drain_and_the_least_margin() {
        let least = 5 + 10 + MARGIN_SECONDS_MIN;
        assert!(resources(least, 2, "HERALD_LOG").has_time_to_stop().is_ok());
        assert!(resources(least - 1, 2, "HERALD_LOG").has_time_to_stop().is_err());
    }

    #[test]
    fn a_port_must_be_the_one_that_the_server_is_told() {
        assert!(resources(30, 2, "HERALD_LOG").says_ports_once().is_ok());
        assert!(resources(30, 3, "HERALD_LOG").says_ports_once().is_err());
    }

    #[test]
    fn a_variable_must_be_a_setting() {
        let page = "| `--listen` | `--ops-listen` | `--drain` | `--tls-cert`, `--tls-key` |";
        assert!(resources(30, 2, "HERALD_TLS_KEY").gives_known_settings(page).is_ok());
        assert!(resources(30, 2, "HERALD_TLS_KEYS").gives_known_settings(page).is_err());
    }

    #[test]
    fn a_selector_selects_what_has_all_of_its_labels() {
        let labels = json!({"a": "1", "b": "2"});
        assert!(selects(&json!({"a": "1"}), &labels).is_ok());
        assert!(selects(&json!({"a": "1", "b": "3"}), &labels).is_err());
        assert!(selects(&json!({}), &labels).is_err());
    }
}
