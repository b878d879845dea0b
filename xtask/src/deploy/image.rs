//! The image: the Dockerfile's last stage, built from a binary of this machine, and what it starts, run as a container would
//! be: another root, which is read-only, no user's rights, no shell.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{chart, container::Container, made, read, tool};
use crate::process::{cargo, command, output, root, run as run_command};

const DOCKERFILE: &str = "deploy/docker/Dockerfile";
/// How the binary is made, here and there.
const BUILD: &str = "--locked --package herald --bin herald -- -C target-feature=+crt-static";
/// The stage that needs an image from outside; what it would leave stands in for it.
const BUILDER: &str = "builder";

pub(super) fn lint() -> anyhow::Result<()> {
    run_command(command(tool("hadolint")).args(["--failure-threshold", "info", DOCKERFILE]))
}

/// Builds and starts it, and returns the trace of its system calls.
pub(super) fn run(release: bool) -> anyhow::Result<String> {
    let stage = build_stage(release)?;
    let storage = Storage::new()?;
    let image = storage.build(&stage)?;
    image.is_as_kubernetes_wants_it()?;
    // As the chart starts it: with its variables, but on ports that are free here.
    let mut environment = image.environment()?;
    environment.extend(chart::environment_of_single()?);
    let container = Container { root: image.files, user: image.user, environment };
    container.live()
}

/// The binary and what goes with it, as the stage `builder` leaves them.
fn build_stage(release: bool) -> anyhow::Result<PathBuf> {
    let as_there = format!("RUN cargo rustc --release {BUILD} \\\n");
    if !read(DOCKERFILE)?.contains(&as_there) {
        bail!("{DOCKERFILE}: builds in another way than `{}`", as_there.trim());
    }
    let (profile, built) = if release { ("--release ", "release") } else { ("", "debug") };
    run_command(&mut cargo(&format!("rustc --quiet {profile}{BUILD}")))?;
    let binary = root().join("target").join(built).join("herald");
    let linked = output(command("ldd").arg(&binary))?;
    if linked.trim() != "statically linked" {
        bail!("the binary needs shared files: {linked}");
    }
    let stage = made()?.join(BUILDER);
    let image = stage.join("image");
    fs::create_dir_all(image.join("etc/ssl/certs"))?;
    fs::create_dir_all(image.join("var/lib/herald"))?;
    fs::copy(binary, image.join("herald")).context("could not copy the binary")?;
    // The run needs no issuer's certificate, so which ones are here does not matter.
    let certificates = "etc/ssl/certs/ca-certificates.crt";
    if fs::copy(Path::new("/").join(certificates), image.join(certificates)).is_err() {
        fs::write(image.join(certificates), "").context("could not write certificates")?;
    }
    Ok(stage)
}

/// Where buildah keeps images, beside those of this machine; gone when dropped.
struct Storage {
    home: PathBuf,
}

struct Image {
    files: PathBuf,
    user: String,
    config: Value,
}

impl Storage {
    fn new() -> anyhow::Result<Self> {
        let home = made()?.join("storage");
        fs::remove_dir_all(&home).ok();
        Ok(Self { home })
    }

    /// buildah without a daemon: plain directories, and no container to build in, since nothing is run.
    fn buildah(&self) -> Command {
        let mut buildah = command("buildah");
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(self.home.join("root"));
        buildah.arg("--runroot").arg(self.home.join("run"));
        buildah
    }

    fn build(&self, stage: &Path) -> anyhow::Result<Image> {
        let mut build = self.buildah();
        build.args(["bud", "--quiet", "--isolation", "chroot", "--format", "docker"]);
        build.arg("--build-context").arg(format!("{BUILDER}={}", stage.display()));
        run_command(build.args(["--file", DOCKERFILE, "--tag", "herald", "."]))?;
        let inspected = output(self.buildah().args(["inspect", "--type", "image", "herald"]))?;
        let inspected: Value =
            serde_json::from_str(&inspected).context("buildah's answer is not JSON")?;
        let config = inspected["Docker"]["config"].clone();
        let user = config["User"].as_str().context("the image has no user")?.to_owned();
        output(self.buildah().args(["from", "--name", "run", "herald"]))?;
        let files = output(self.buildah().args(["mount", "run"]))?;
        Ok(Image { files: files.trim().into(), user, config })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // Whatever is left is removed before the next run.
        fs::remove_dir_all(&self.home).ok();
    }
}

impl Image {
    fn is_as_kubernetes_wants_it(&self) -> anyhow::Result<()> {
        let config = &self.config;
        let (user, group) = self.user.split_once(':').context("the image's user has no group")?;
        let is_number = |id: &str| id.parse::<u32>().is_ok_and(|id| id > 0);
        if !is_number(user) || !is_number(group) {
            bail!(
                "{DOCKERFILE}: USER {} is root, or a name that nobody outside can look up",
                self.user
            );
        }
        for (what, is, wanted) in [
            ("ENTRYPOINT", &config["Entrypoint"], serde_json::json!(["/herald"])),
            ("CMD", &config["Cmd"], serde_json::json!(["serve"])),
            ("STOPSIGNAL", &config["StopSignal"], serde_json::json!("SIGTERM")),
            ("VOLUME", &config["Volumes"], serde_json::json!({"/var/lib/herald": {}})),
        ] {
            if *is != wanted {
                bail!("{DOCKERFILE}: {what} is {is}, and should be {wanted}");
            }
        }
        Ok(())
    }

    fn environment(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let variables = self.config["Env"].as_array().context("the image has no environment")?;
        let pairs = variables.iter().filter_map(|pair| pair.as_str()?.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}
