//! Numbers of bytes as people write them: `512B`, `64KiB`, `16MiB`, `1GiB`.

/// The units, largest first, in bytes.
const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Text that is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a size such as 512B, 64KiB, 16MiB or 1GiB")]
pub(crate) struct InvalidSize;

/// Reads a whole number with one of the units `GiB`, `MiB`, `KiB` and `B`.
///
/// # Errors
/// [`InvalidSize`] for anything else, and for more than fits.
pub(crate) fn parse(text: &str) -> Result<usize, InvalidSize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: usize = text[..digits].parse().map_err(|_| InvalidSize)?;
    let unit = UNITS.into_iter().find(|(name, _)| *name == &text[digits..]);
    unit.and_then(|(_, bytes)| number.checked_mul(bytes)).ok_or(InvalidSize)
}

/// Writes a size so that [`parse`] reads the same, with the largest unit that leaves no rest.
#[must_use]
pub(crate) fn show(bytes: usize) -> String {
    let unit = UNITS.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let (name, unit) = unit.unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0B", 0),
            ("1B", 1),
            ("1023B", 1_023),
            ("1KiB", 1_024),
            ("64KiB", 65_536),
            ("16MiB", 16_777_216),
            ("2GiB", 2_147_483_648),
            ("18446744073709551615B", usize::MAX),
            ("17179869183GiB", 17_179_869_183 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "64",
            "KiB",
            "-1B",
            "+1B",
            "1.5KiB",
            "1 KiB",
            "1kib",
            "1KB",
            "1K",
            "1KiB1B",
            "１B",
            "1B ",
            "18446744073709551616B",
            "17179869184GiB",
        ] {
            assert_eq!(parse(text), Err(InvalidSize), "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for bytes in [0, 1, 1_023, 1_024, 1_025, 65_536, 1 << 20, 3 << 30, usize::MAX] {
            assert_eq!(parse(&show(bytes)), Ok(bytes));
        }
        assert_eq!(show(65_536), "64KiB");
        assert_eq!(show(1_536), "1536B");
    }
}
