//! What is wrong with a request: every violation found, not only the first.

/// The most violations that one answer names; what is beyond is counted in a last line.
///
/// A request of 1000 drafts with every field wrong still fits.
pub const VIOLATIONS_MAX: usize = 10_000;

/// The most characters of a caller's own text that a violation repeats.
const ECHO_CHARS_MAX: usize = 64;

/// Violations of one request, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    texts: Vec<String>,
    beyond: usize,
}

impl Violations {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { texts: Vec::new(), beyond: 0 }
    }

    /// Adds one.
    pub fn add(&mut self, text: impl Into<String>) {
        if self.texts.len() < VIOLATIONS_MAX {
            self.texts.push(text.into());
        } else {
            self.beyond += 1;
        }
    }

    /// Adds all of `other`, each behind `prefix`.
    pub fn add_all(&mut self, prefix: &str, other: &Self) {
        for text in &other.texts {
            self.add(format!("{prefix}{text}"));
        }
        self.beyond += other.beyond;
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The violations as text, at most [`VIOLATIONS_MAX`] and a line that counts the rest.
    #[must_use]
    pub fn into_texts(mut self) -> Vec<String> {
        if self.beyond > 0 {
            self.texts.push(format!("and {} more", self.beyond));
        }
        self.texts
    }

    /// `value` if nothing is wrong.
    ///
    /// # Errors
    /// The violations themselves, if there are any.
    pub fn none_or<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            _ => Err(self),
        }
    }
}

impl<T: Into<String>> From<T> for Violations {
    fn from(text: T) -> Self {
        Self { texts: vec![text.into()], beyond: 0 }
    }
}

/// A caller's own text as a violation may repeat it: quoted, escaped and bounded.
#[must_use]
pub fn echo(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(ECHO_CHARS_MAX).collect();
    let more = if chars.next().is_some() { "…" } else { "" };
    format!("'{}{more}'", start.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_beyond_the_bound_are_counted() {
        let mut violations = Violations::new();
        for number in 0..=VIOLATIONS_MAX {
            violations.add(number.to_string());
        }
        let texts = violations.into_texts();
        assert_eq!(texts.len(), VIOLATIONS_MAX + 1);
        assert_eq!(texts.last().map(String::as_str), Some("and 1 more"));
    }

    #[test]
    fn an_echo_is_escaped_and_bounded() {
        assert_eq!(echo("a\nb"), "'a\\nb'");
        assert_eq!(echo(&"x".repeat(65)), format!("'{}…'", "x".repeat(64)));
        assert_eq!(echo(&"x".repeat(64)), format!("'{}'", "x".repeat(64)));
    }
}
