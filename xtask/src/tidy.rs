//! `cargo xtask tidy`: the project's own rules about its files, each with the reason why no other tool knows it.

mod figures;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use herald_types::problem::ProblemType;

use crate::process::root;

/// A longer file has a second job in it.
const LINES_MAX: usize = 700;
/// Directories that hold nothing of ours.
const SKIPPED: [&str; 4] = [".git", ".tools", "target", "node_modules"];

/// Runs every rule and reports every breach, not only the first.
pub(crate) fn all() -> anyhow::Result<()> {
    let files = files(root())?;
    let breaches: Vec<String> = [
        view_has_no_runtime(&files),
        problems_are_explained(&files),
        metrics_are_explained(&files),
        files_are_short(&files),
        links_lead_somewhere(&files),
        locks_name_no_host(&files),
        products_have_no_planted_bugs(&files),
        threats_are_tested(&files),
        figures::agree(&files),
    ]
    .concat();
    for breach in &breaches {
        eprintln!("    {breach}");
    }
    if !breaches.is_empty() {
        bail!("{} breaches of the project's rules", breaches.len());
    }
    eprintln!("    {} files, no breach", files.len());
    Ok(())
}

/// A text file of the tree.
struct File {
    /// From the root, with `/`.
    name: String,
    text: String,
}

impl File {
    fn is_product_source(&self) -> bool {
        self.name.starts_with("crates/")
            && self.name.contains("/src/")
            && has_extension(&self.name, "rs")
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

fn files(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("could not list {}", directory.display()))?;
        for entry in entries {
            let path: PathBuf = entry?.path();
            let skipped = path.file_name().is_some_and(|name| SKIPPED.iter().any(|s| name == *s));
            if path.is_dir() && !skipped {
                open.push(path);
            } else if let (Ok(name), Ok(text)) = (path.strip_prefix(root), read_text(&path)) {
                files.push(File { name: name.to_string_lossy().into_owned(), text });
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// What is not text (a fuzz input, a stored fixture) is no business of these rules.
fn read_text(path: &Path) -> anyhow::Result<String> {
    Ok(String::from_utf8(fs::read(path)?)?)
}

/// The view is what a replica can answer from: it has no clock, no network, and nothing to await.
fn view_has_no_runtime(files: &[File]) -> Vec<String> {
    let in_view = |file: &&File| file.name.starts_with("crates/herald-log/src/view");
    let with_tokio = files.iter().filter(in_view).filter(|file| file.text.contains("tokio"));
    with_tokio.map(|file| format!("{}: the view must not know tokio", file.name)).collect()
}

fn problems_are_explained(files: &[File]) -> Vec<String> {
    let page = text_of(files, "docs/problems.md");
    let missing = ProblemType::ALL.into_iter().filter(|kind| !page.contains(kind.slug()));
    missing.map(|kind| format!("docs/problems.md: does not explain '{}'", kind.slug())).collect()
}

fn metrics_are_explained(files: &[File]) -> Vec<String> {
    let page = text_of(files, "docs/operations.md");
    let sources = files.iter().filter(|file| file.is_product_source());
    let metrics: BTreeSet<&str> = sources.flat_map(|file| metric_names(&file.text)).collect();
    let missing = metrics.into_iter().filter(|name| !page.contains(&format!("`{name}`")));
    missing.map(|name| format!("docs/operations.md: does not explain `{name}`")).collect()
}

/// The text literals that are nothing but a metric's name.
fn metric_names(source: &str) -> impl Iterator<Item = &str> {
    source.split('"').filter(|literal| {
        literal.strip_prefix("herald_").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
    })
}

fn files_are_short(files: &[File]) -> Vec<String> {
    let lengths = files.iter().filter(|file| has_extension(&file.name, "rs"));
    let lengths = lengths.map(|file| (&file.name, file.text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > LINES_MAX);
    long.map(|(name, lines)| format!("{name}: {lines} lines, more than {LINES_MAX}")).collect()
}

fn links_lead_somewhere(files: &[File]) -> Vec<String> {
    let pages = files.iter().filter(|file| has_extension(&file.name, "md"));
    let links = pages.flat_map(|page| link_targets(&page.text).map(move |link| (page, link)));
    let broken = links.filter(|(page, link)| {
        let directory = Path::new(&page.name).parent().unwrap_or(Path::new(""));
        !root().join(directory).join(link).exists()
    });
    broken.map(|(page, link)| format!("{}: there is no {link}", page.name)).collect()
}

/// The files that a page links to, without the part behind `#`.
fn link_targets(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .filter_map(|target| target.split('#').next())
        .filter(|path| !path.is_empty())
}

/// A lock file that says where its packages came from works only where that host can be reached.
fn locks_name_no_host(files: &[File]) -> Vec<String> {
    let locks = files.iter().filter(|file| file.name.ends_with("package-lock.json"));
    let hosted = locks.filter(|file| file.text.contains("\"resolved\""));
    hosted.map(|file| format!("{}: names a registry's host (`resolved`)", file.name)).collect()
}

/// The feature is asked for on a command line and nowhere else.
fn products_have_no_planted_bugs(files: &[File]) -> Vec<String> {
    let manifests = files.iter().filter(|file| file.name.ends_with("Cargo.toml"));
    let asks = |line: &&str| {
        let line = line.trim_start();
        line.contains("planted-bugs") && !line.starts_with("planted-bugs = [")
    };
    let asking = manifests.filter(|manifest| manifest.text.lines().any(|line| asks(&line)));
    asking.map(|file| format!("{}: asks for planted bugs", file.name)).collect()
}

/// docs/security.md says of each threat which test shows that it is stopped; a test that was renamed or left out must not
/// leave its name there.
fn threats_are_tested(files: &[File]) -> Vec<String> {
    let page = text_of(files, "docs/security.md");
    let sources = files.iter().filter(|file| has_extension(&file.name, "rs"));
    let functions: BTreeSet<&str> = sources.flat_map(|file| function_names(&file.text)).collect();
    let missing = test_names(page).filter(|name| !functions.contains(name));
    missing.map(|name| format!("docs/security.md: there is no test {name}")).collect()
}

/// What stands between backticks and is a sentence with underscores, which no flag and no claim is.
fn test_names(page: &str) -> impl Iterator<Item = &str> {
    let is_sentence = |name: &&str| {
        name.matches('_').count() >= 4
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    page.split('`').skip(1).step_by(2).filter(is_sentence)
}

fn function_names(source: &str) -> impl Iterator<Item = &str> {
    source.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next())
}

fn text_of<'a>(files: &'a [File], name: &str) -> &'a str {
    files.iter().find(|file| file.name == name).map_or("", |file| &file.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> File {
        File { name: name.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_metric_must_be_explained_by_its_whole_name() {
        let source =
            file("crates/x/src/a.rs", r#"counter!("herald_polls"); "herald_"; "herald x""#);
        let page = |text| file("docs/operations.md", text);
        assert_eq!(metrics_are_explained(&[source, page("`herald_polls_total`")]).len(), 1);
        let source = file("crates/x/src/a.rs", r#"counter!("herald_polls")"#);
        assert!(metrics_are_explained(&[source, page("| `herald_polls` | …")]).is_empty());
    }

    #[test]
    fn planted_bugs_may_be_forwarded_and_not_asked_for() {
        let manifest = |text| file("crates/x/Cargo.toml", text);
        let forwarded = "[features]\nplanted-bugs = [\"herald-log/planted-bugs\"]";
        assert!(products_have_no_planted_bugs(&[manifest(forwarded)]).is_empty());
        for asked in [
            "default = [\"planted-bugs\"]",
            "herald-log = { workspace = true, features = [\"planted-bugs\"] }",
        ] {
            assert_eq!(products_have_no_planted_bugs(&[manifest(asked)]).len(), 1);
        }
    }

    #[test]
    fn every_problem_must_be_explained() {
        assert_eq!(problems_are_explained(&[]).len(), ProblemType::ALL.len());
    }

    #[test]
    fn the_view_must_not_know_tokio() {
        let files = [
            file("crates/herald-log/src/view/merge.rs", "use tokio::time;"),
            file("crates/herald-log/src/sequencer.rs", "use tokio::time;"),
        ];
        assert_eq!(view_has_no_runtime(&files).len(), 1);
    }

    #[test]
    fn links_are_paths_without_anchors_and_addresses() {
        let page = "[a](docs/a.md#x) [b](https://example.org/) [c](#here) [d](b.md \"title\")";
        assert_eq!(link_targets(page).collect::<Vec<_>>(), ["docs/a.md", "b.md"]);
    }

    #[test]
    fn a_file_may_be_as_long_as_the_limit() {
        let long = |lines| [file("crates/x/src/a.rs", &"x\n".repeat(lines))];
        assert!(files_are_short(&long(LINES_MAX)).is_empty());
        assert_eq!(files_are_short(&long(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn a_threat_must_name_a_test_that_there_is() {
        let page =
            file("docs/security.md", "| a | `b` | `one_is_shown_by_this`, `and_one_by_that_one` |");
        let source = file("crates/x/tests/it/a.rs", "async fn one_is_shown_by_this() {}");
        let told = threats_are_tested(&[page, source]);
        assert_eq!(told, ["docs/security.md: there is no test and_one_by_that_one"]);
    }

    #[test]
    fn a_lock_file_must_not_name_a_host() {
        let locks = [file("a/package-lock.json", r#"{"resolved": "https://example.org/x.tgz"}"#)];
        assert_eq!(locks_name_no_host(&locks).len(), 1);
    }
}
