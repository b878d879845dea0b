//! The numbers kept in counts.toml, and how what was counted compares with them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

/// What was counted, in the order of counting.
pub(crate) struct Counts {
    counts: Vec<(&'static str, u64)>,
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self { counts: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &'static str, count: u64) {
        self.counts.push((name, count));
    }

    fn has(&self, name: &str) -> bool {
        self.counts.iter().any(|(counted, _)| *counted == name)
    }
}

/// What a count must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// `kept`: the number, give or take so many per cent of it.
    About { kept: u64, tolerance_percent: u64 },
    /// `at_most`: what is below depends on who runs when, so only the bound says something.
    AtMost(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Higher,
    Lower,
}

impl Rule {
    fn read(entry: &dyn TableLike) -> anyhow::Result<Self> {
        let number = |key| -> anyhow::Result<Option<u64>> {
            let Some(item) = entry.get(key) else { return Ok(None) };
            let number = item.as_integer().and_then(|number| u64::try_from(number).ok());
            Ok(Some(number.with_context(|| format!("`{key}` must be a whole number"))?))
        };
        match (number("kept")?, number("at_most")?, number("tolerance_percent")?) {
            (Some(kept), None, percent) => {
                Ok(Self::About { kept, tolerance_percent: percent.unwrap_or(0) })
            }
            (None, Some(bound), None) => Ok(Self::AtMost(bound)),
            _ => bail!("needs `kept`, perhaps with `tolerance_percent`, or else `at_most`"),
        }
    }

    fn judge(self, count: u64) -> Verdict {
        let (min, max) = match self {
            Self::About { kept, tolerance_percent } => {
                let tolerance = kept * tolerance_percent / 100;
                (kept - tolerance.min(kept), kept + tolerance)
            }
            Self::AtMost(bound) => (0, bound),
        };
        match count {
            count if count > max => Verdict::Higher,
            count if count < min => Verdict::Lower,
            _ => Verdict::Good,
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::About { kept, tolerance_percent: 0 } => write!(f, "kept {kept}"),
            Self::About { kept, tolerance_percent } => {
                write!(f, "kept {kept}, tolerance {tolerance_percent} %")
            }
            Self::AtMost(bound) => write!(f, "at most {bound}"),
        }
    }
}

/// The file with the kept numbers.
pub(crate) struct Kept {
    file: PathBuf,
    document: DocumentMut,
}

impl Kept {
    pub(crate) fn open(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file);
        let text = text.with_context(|| format!("could not read {}", file.display()))?;
        let document = text.parse().with_context(|| format!("{} is not TOML", file.display()))?;
        Ok(Self { file: file.to_owned(), document })
    }

    fn rule(&self, name: &str) -> anyhow::Result<Rule> {
        let entry = self.document.get(name).and_then(Item::as_table_like);
        let entry = entry.with_context(|| format!("counts.toml has no [{name}]"))?;
        Rule::read(entry).with_context(|| format!("counts.toml: [{name}]"))
    }

    /// The comment above an entry: what its number is made of.
    fn comment(&self, name: &str) -> String {
        let table = self.document.get(name).and_then(Item::as_table);
        let prefix = table.and_then(|table| table.decor().prefix()).and_then(|text| text.as_str());
        prefix.unwrap_or_default().rsplit("\n\n").next().unwrap_or_default().trim().to_owned()
    }

    /// Takes over what is not as kept. A bound stays: only a person knows what cannot be exceeded.
    pub(crate) fn accept(&mut self, counts: &Counts) -> anyhow::Result<()> {
        for (name, count) in &counts.counts {
            let mut new = Value::from(i64::try_from(*count).context("too large for TOML")?);
            match self.rule(name) {
                Ok(Rule::AtMost(_)) => {}
                Ok(rule) if rule.judge(*count) == Verdict::Good => {}
                rule => {
                    let old = rule.map_or_else(|_| "new".to_owned(), |rule| rule.to_string());
                    eprintln!("{name}: {count}, was {old}");
                    let entry = self.document.entry(name).or_insert(Item::Table(Table::new()));
                    if let Some(before) = entry.get("kept").and_then(Item::as_value) {
                        // With what was written around it.
                        *new.decor_mut() = before.decor().clone();
                    }
                    entry["kept"] = Item::Value(new);
                }
            }
        }
        let stale: Vec<String> = self.document.iter().map(|(name, _)| name.to_owned()).collect();
        for name in stale.iter().filter(|name| !counts.has(name)) {
            eprintln!("{name}: nothing counts it any more");
            self.document.remove(name);
        }
        fs::write(&self.file, self.document.to_string()).context("could not write counts.toml")?;
        eprintln!("counts.toml is as counted now: let the comment above each number say why.");
        Ok(())
    }

    /// Prints each count with what is kept, then what to do about those that differ. `true` if none does.
    pub(crate) fn judge(&self, counts: &Counts) -> bool {
        let mut failures = Vec::new();
        for (name, count) in &counts.counts {
            let (shown, failure) = match self.rule(name) {
                Ok(rule) => (rule.to_string(), self.failure(name, *count, rule)),
                Err(error) => ("not kept".to_owned(), Some(format!("{name}: {error:#}"))),
            };
            let outcome = if failure.is_some() { "FAILED" } else { "as kept" };
            eprintln!("{outcome:>8}  {name}: {count} ({shown})");
            failures.extend(failure);
        }
        let stale = self.document.iter().map(|(name, _)| name).filter(|name| !counts.has(name));
        failures.extend(stale.map(|name| format!("{name}: counts.toml has it, nothing counts it")));
        for failure in &failures {
            eprintln!("\n{failure}");
        }
        if !failures.is_empty() {
            eprintln!("\n{ADVICE}");
        }
        failures.is_empty()
    }

    fn failure(&self, name: &str, count: u64, rule: Rule) -> Option<String> {
        let what = match rule.judge(count) {
            Verdict::Good => return None,
            Verdict::Higher => "HIGHER than kept: this change makes it dearer, on every machine.",
            Verdict::Lower => "LOWER than kept: lower the number in counts.toml, so that it stays.",
        };
        Some(format!("{name}: {count} counted, {rule}\n{}\n{what}", self.comment(name)))
    }
}

/// What follows the failures.
const ADVICE: &str = "\
No clock is in these numbers, so running it again gives the same. To find what moved one:
  git stash, cargo xtask counts     whether it was this change; if not, git bisect run cargo xtask counts
  git diff HEAD -- '*Cargo.lock'    a dependency or a new toolchain may have moved it as well
If it is worth its price, or is an improvement: cargo xtask counts --accept, then say in the comment above
the number what it is made of now, and in the commit what moved it, with the number before and after.";

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> Kept {
        Kept { file: PathBuf::new(), document: text.parse().unwrap() }
    }

    fn counts(counts: &[(&'static str, u64)]) -> Counts {
        Counts { counts: counts.to_vec() }
    }

    fn verdicts(rule: Rule, counts: [u64; 4]) -> [Verdict; 4] {
        counts.map(|count| rule.judge(count))
    }

    #[test]
    fn a_count_is_higher_or_lower_only_beyond_its_tolerance() {
        use Verdict::{Good, Higher, Lower};
        let exact = Rule::About { kept: 100, tolerance_percent: 0 };
        assert_eq!(verdicts(exact, [99, 100, 101, 0]), [Lower, Good, Higher, Lower]);
        let about = Rule::About { kept: 100, tolerance_percent: 5 };
        assert_eq!(verdicts(about, [94, 95, 105, 106]), [Lower, Good, Good, Higher]);
        assert_eq!(verdicts(Rule::AtMost(2), [0, 1, 2, 3]), [Good, Good, Good, Higher]);
    }

    #[test]
    fn the_failure_says_what_the_comment_says() {
        let kept = kept("# Of the file.\n\n# One for the head.\n[a]\nkept = 1\n");
        let failure = kept.failure("a", 2, kept.rule("a").unwrap()).unwrap();
        assert!(failure.starts_with("a: 2 counted, kept 1\n# One for the head.\nHIGHER"));
        assert!(!failure.contains("Of the file"));
    }

    #[test]
    fn what_is_counted_and_what_is_kept_must_be_the_same() {
        let kept = kept("[a]\nkept = 1\n\n[b]\nat_most = 1\n");
        assert!(kept.judge(&counts(&[("a", 1), ("b", 0)])));
        assert!(!kept.judge(&counts(&[("a", 1)])));
        assert!(!kept.judge(&counts(&[("a", 1), ("b", 0), ("c", 0)])));
    }

    #[test]
    fn accepting_changes_what_differs_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            "# Why.\n[a]\nkept = 1 # here\ntolerance_percent = 5\n\n# A bound.\n[b]\nat_most = 1\n";
        fs::write(&file, text).unwrap();
        let mut kept = Kept::open(file.path()).unwrap();
        kept.accept(&counts(&[("a", 3), ("b", 2), ("c", 4)])).unwrap();
        let accepted = fs::read_to_string(&file).unwrap();
        assert_eq!(accepted, text.replace("kept = 1", "kept = 3") + "\n[c]\nkept = 4\n");
    }

    #[test]
    fn an_entry_is_a_number_or_a_bound() {
        for entry in
            ["", "kept = 1\nat_most = 1", "kept = -1", "at_most = 1\ntolerance_percent = 1"]
        {
            assert!(kept(&format!("[a]\n{entry}\n")).rule("a").is_err(), "{entry}");
        }
    }
}
