//! The table for people, and the same as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::{Figure, Target};

/// The table.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let header = ["row", "what", "Herald", "limit", "unit", "ratio", "spread", "target", ""];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(figures.iter().map(cells));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            // Numbers to the right, words to the left.
            let pad = widths[column];
            let _ = match column {
                0 | 1 | 4 | 8 => write!(line, "{cell:<pad$}  "),
                _ => write!(line, "{cell:>pad$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for figure in figures.iter().filter(|figure| !figure.note.is_empty()) {
        let _ = writeln!(text, "{}: {}", figure.row, figure.note);
    }
    text
}

fn cells(figure: &Figure) -> [String; 9] {
    let (ratio, spread) = figure.ratio().map_or_else(Default::default, |(median, low, high)| {
        (format!("{median:.2}"), format!("{low:.2}–{high:.2}"))
    });
    let verdict = match figure.is_met() {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "",
    };
    [
        figure.row.clone(),
        figure.what.clone(),
        number(figure.herald_median()),
        figure.limit_median().map(number).unwrap_or_default(),
        figure.unit.to_owned(),
        ratio,
        spread,
        figure.target.to_string(),
        verdict.to_owned(),
    ]
}

/// Three digits that count.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let (sign, digits) =
                digits.strip_prefix('-').map_or(("", &digits[..]), |rest| ("-", rest));
            let mut grouped = String::from(sign);
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The same for programs.
#[must_use]
pub fn json(figures: &[Figure], machine: &Value) -> Value {
    json!({ "machine": machine, "figures": figures_json(figures) })
}

/// The figures for programs.
#[must_use]
pub fn figures_json(figures: &[Figure]) -> Vec<Value> {
    figures.iter().map(figure_json).collect()
}

fn figure_json(figure: &Figure) -> Value {
    let ratio = figure.ratio();
    let target = match figure.target {
        Target::Reported => Value::Null,
        target => json!(target),
    };
    json!({
        "row": figure.row,
        "what": figure.what,
        "unit": figure.unit,
        "herald": figure.herald,
        "limit": figure.limit,
        "ratio": ratio.map(|(median, ..)| median),
        "ratio_min": ratio.map(|(_, low, _)| low),
        "ratio_max": ratio.map(|(.., high)| high),
        "herald_cpu_seconds": figure.herald_cpu,
        "limit_cpu_seconds": figure.limit_cpu,
        "target": target,
        "met": figure.is_met(),
        "note": figure.note,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_groups_of_three() {
        let shown = [0.123, 12.34, 123.4, 1234.0, 1_234_567.0, -1234.0].map(number);
        assert_eq!(shown, ["0.12", "12.3", "123", "1,234", "1,234,567", "-1,234"]);
    }
}
