//! Figures, and how they are judged: by the median of the ratios of each round.

use std::fmt;

use serde::Serialize;

/// What a ratio must be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Herald does at least so many times what its limit does.
    AtLeast(f64),
    /// Herald costs at most so many times what its limit costs.
    AtMost(f64),
    /// Nothing is asked; the figure is told.
    Reported,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(ratio) => write!(f, "≥ {ratio:.2}"),
            Self::AtMost(ratio) => write!(f, "≤ {ratio:.2}"),
            Self::Reported => f.write_str("—"),
        }
    }
}

/// One figure of a row, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The row of the table, with a letter where there are several figures: `7b`.
    pub row: String,
    /// What was measured.
    pub what: String,
    /// In which unit.
    pub unit: &'static str,
    /// Herald's, a round each.
    pub herald: Vec<f64>,
    /// The limit's, a round each; empty where there is none.
    pub limit: Vec<f64>,
    /// CPU time that Herald used for one, in seconds, a round each.
    pub herald_cpu: Vec<f64>,
    /// CPU time that the limit used for one.
    pub limit_cpu: Vec<f64>,
    /// What the ratio must be.
    pub target: Target,
    /// What explains the figure, where it is not a ratio.
    pub note: String,
}

impl Figure {
    /// A figure without rounds yet.
    #[must_use]
    pub fn new(row: &str, what: impl Into<String>, unit: &'static str, target: Target) -> Self {
        Self {
            row: row.to_owned(),
            what: what.into(),
            unit,
            herald: Vec::new(),
            limit: Vec::new(),
            herald_cpu: Vec::new(),
            limit_cpu: Vec::new(),
            target,
            note: String::new(),
        }
    }

    /// One round of both.
    pub fn round(&mut self, herald: f64, limit: f64) {
        self.herald.push(herald);
        self.limit.push(limit);
    }

    /// What one cost both in that round, in seconds of CPU: what does not depend on who else uses the machine.
    pub fn cost(&mut self, herald: f64, limit: f64) {
        self.herald_cpu.push(herald);
        self.limit_cpu.push(limit);
    }

    /// Herald's median.
    #[must_use]
    pub fn herald_median(&self) -> f64 {
        median(&self.herald)
    }

    /// The limit's median, if there is a limit.
    #[must_use]
    pub fn limit_median(&self) -> Option<f64> {
        (!self.limit.is_empty()).then(|| median(&self.limit))
    }

    /// Herald over its limit, a round each.
    #[must_use]
    pub fn ratios(&self) -> Vec<f64> {
        self.herald.iter().zip(&self.limit).map(|(herald, limit)| herald / limit).collect()
    }

    /// The median of the ratios, the smallest and the largest.
    #[must_use]
    pub fn ratio(&self) -> Option<(f64, f64, f64)> {
        let ratios = self.ratios();
        let smallest = ratios.iter().copied().reduce(f64::min)?;
        let largest = ratios.iter().copied().reduce(f64::max)?;
        Some((median(&ratios), smallest, largest))
    }

    /// Whether the target is met; `None` where there is none.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        let (ratio, ..) = self.ratio()?;
        match self.target {
            Target::AtLeast(target) => Some(ratio >= target),
            Target::AtMost(target) => Some(ratio <= target),
            Target::Reported => None,
        }
    }
}

/// The middle one; of an even number the mean of the two in the middle. 0 of none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_judged_by_the_median_of_its_ratios_and_not_by_the_ratio_of_medians() {
        let mut figure = Figure::new("1", "x", "1/s", Target::AtLeast(0.8));
        // A machine that became twice as slow in the second round.
        figure.round(90.0, 100.0);
        figure.round(42.5, 50.0);
        figure.round(70.0, 100.0);
        assert_eq!(figure.ratio(), Some((0.85, 0.7, 0.9)));
        assert_eq!(figure.is_met(), Some(true));
        figure.target = Target::AtMost(0.84);
        assert_eq!(figure.is_met(), Some(false));
        figure.target = Target::Reported;
        assert_eq!(figure.is_met(), None);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
