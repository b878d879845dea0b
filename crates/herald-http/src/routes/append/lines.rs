//! NDJSON: one draft a line, appended piece by piece in bounded memory.

use bytes::Bytes;
use herald_log::Log;
use herald_types::{Draft, Grant, Violations};
use http::request::Parts;
use jiff::Timestamp;

use super::answer::Answer;
use crate::{
    extract::page_headers,
    problem::{Error, Places},
    upload::Upload,
};

/// How many drafts one NDJSON request may have.
pub const NDJSON_DRAFTS_MAX: usize = 100_000;
/// How long a line may be, without its end.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// How many lines one request may have, blank ones included: they are skipped, but not for ever.
pub const LINES_MAX: u32 = 1_000_000;
/// How many drafts are appended at once.
pub const PIECE_DRAFTS_MAX: usize = 1000;
/// How many bytes of lines are appended at once.
pub const PIECE_BYTES_MAX: usize = 1024 * 1024;

/// Appends the body of `upload`.
///
/// A request whose headers are invalid is read as well, up to its first bad line, so that all is reported; nothing of
/// it is stored.
pub(super) async fn append(
    log: &Log,
    grant: &Grant,
    head: &Parts,
    upload: &mut Upload,
) -> Result<Answer, Error> {
    let mut violations = Violations::new();
    page_headers(&head.headers, &mut violations);
    let log = violations.is_empty().then_some(log);
    let mut request = Request {
        log,
        grant,
        violations,
        piece: Piece::default(),
        answer: Answer::new(),
        drafts: 0,
    };
    match request.run(upload).await {
        Ok(()) => Ok(request.answer),
        Err(source) => {
            Err(Error::Partly { stored: request.answer.count(), source: Box::new(source) })
        }
    }
}

/// An append on its way.
struct Request<'a> {
    // None when the request is only checked.
    log: Option<&'a Log>,
    grant: &'a Grant,
    violations: Violations,
    piece: Piece,
    answer: Answer,
    drafts: usize,
}

/// Drafts that wait to be appended together.
#[derive(Default)]
struct Piece {
    drafts: Vec<Draft>,
    lines: Vec<u32>,
    bytes: usize,
}

impl Request<'_> {
    async fn run(&mut self, upload: &mut Upload) -> Result<(), Error> {
        let mut lines = Lines::default();
        while let Some(data) = upload.next().await? {
            lines.feed(data);
            while let Some((number, line)) = lines.next()? {
                self.line(number, &line).await?;
            }
        }
        if let Some((number, line)) = lines.finish()? {
            self.line(number, &line).await?;
        }
        if self.drafts == 0 {
            self.violations.add("the body has no draft");
        }
        std::mem::take(&mut self.violations).none_or(Some(())).map_err(Error::Invalid)?;
        self.append_piece().await
    }

    async fn line(&mut self, number: u32, line: &[u8]) -> Result<(), Error> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        self.drafts += 1;
        if self.drafts > NDJSON_DRAFTS_MAX {
            return Err(Error::TooLarge(format!(
                "line {number}: there are more than {NDJSON_DRAFTS_MAX} drafts."
            )));
        }
        match Draft::parse(line) {
            Err(found) => {
                self.violations.add_all(&format!("line {number}: "), &found);
                Err(Error::Invalid(std::mem::take(&mut self.violations)))
            }
            Ok(draft) => self.add(number, line.len(), draft).await,
        }
    }

    async fn add(&mut self, number: u32, bytes: usize, draft: Draft) -> Result<(), Error> {
        if self.log.is_none() {
            return Ok(());
        }
        let piece = &self.piece;
        if piece.drafts.len() == PIECE_DRAFTS_MAX || piece.bytes + bytes > PIECE_BYTES_MAX {
            self.append_piece().await?;
        }
        self.piece.drafts.push(draft);
        self.piece.lines.push(number);
        self.piece.bytes += bytes;
        Ok(())
    }

    async fn append_piece(&mut self) -> Result<(), Error> {
        let Piece { drafts, lines, .. } = std::mem::take(&mut self.piece);
        let Some(log) = self.log.filter(|_| !drafts.is_empty()) else { return Ok(()) };
        self.grant.check(drafts.iter().map(|draft| draft.receiver))?;
        let appended = log.append(drafts, Timestamp::now()).await;
        let appended =
            appended.map_err(|source| Error::Append { source, places: Places::Lines(lines) })?;
        self.answer.add(&appended);
        Ok(())
    }
}

/// Pieces of a body in, lines with their numbers out. It keeps one unfinished line and the piece at hand.
#[derive(Default)]
struct Lines {
    // The start of a line that its piece did not end.
    start: Vec<u8>,
    data: Bytes,
    number: u32,
}

impl Lines {
    fn feed(&mut self, data: Bytes) {
        debug_assert!(self.data.is_empty(), "the piece before is used up");
        self.data = data;
    }

    /// The next line that has its end, without it.
    fn next(&mut self) -> Result<Option<(u32, Bytes)>, Error> {
        let Some(end) = memchr::memchr(b'\n', &self.data) else {
            let rest = std::mem::take(&mut self.data);
            // One more for a CR whose LF has not come yet.
            if self.start.len() + rest.len() > LINE_BYTES_MAX + 1 {
                return Err(too_long(self.number + 1));
            }
            self.start.extend_from_slice(&rest);
            return Ok(None);
        };
        let mut line = self.data.split_to(end + 1);
        line.truncate(end);
        if !self.start.is_empty() {
            let mut joined = std::mem::take(&mut self.start);
            // Not into the vector without a look: a piece may be much larger than a line.
            if joined.len() + line.len() > LINE_BYTES_MAX + 1 {
                return Err(too_long(self.number + 1));
            }
            joined.extend_from_slice(&line);
            line = joined.into();
        }
        self.numbered(line).map(Some)
    }

    /// What stands behind the last line end.
    fn finish(&mut self) -> Result<Option<(u32, Bytes)>, Error> {
        let line = Bytes::from(std::mem::take(&mut self.start));
        if line.is_empty() { Ok(None) } else { self.numbered(line).map(Some) }
    }

    fn numbered(&mut self, mut line: Bytes) -> Result<(u32, Bytes), Error> {
        self.number += 1;
        if line.ends_with(b"\r") {
            line.truncate(line.len() - 1);
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(too_long(self.number));
        }
        if self.number > LINES_MAX {
            return Err(Error::TooLarge(format!("There are more than {LINES_MAX} lines.")));
        }
        Ok((self.number, line))
    }
}

fn too_long(number: u32) -> Error {
    Error::TooLarge(format!("line {number}: it is longer than {LINE_BYTES_MAX} bytes."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of `body`, fed in pieces of `size`, or the detail of the error.
    fn lines_of(body: &[u8], size: usize) -> Result<Vec<(u32, Vec<u8>)>, String> {
        let detail = |error| match error {
            Error::TooLarge(detail) => detail,
            other => other.to_string(),
        };
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for piece in body.chunks(size) {
            lines.feed(Bytes::copy_from_slice(piece));
            while let Some((number, line)) = lines.next().map_err(detail)? {
                all.push((number, line.to_vec()));
            }
        }
        all.extend(lines.finish().map_err(detail)?.map(|(number, line)| (number, line.to_vec())));
        Ok(all)
    }

    #[test]
    fn a_line_has_at_most_64_kib_without_its_end() {
        for (end, size) in [("\n", 1 << 20), ("\r\n", 1 << 20), ("", 1 << 20), ("\r\n", 1000)] {
            let of = |bytes: usize| format!("x\n{}{end}", "a".repeat(bytes)).into_bytes();
            assert_eq!(lines_of(&of(LINE_BYTES_MAX), size).unwrap()[1].1.len(), LINE_BYTES_MAX);
            let error = lines_of(&of(LINE_BYTES_MAX + 1), size).unwrap_err();
            assert!(error.starts_with("line 2: "), "{error}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_before_it_is_kept() {
        let error = lines_of(&vec![b'a'; 1 << 20], 4096).unwrap_err();
        assert!(error.starts_with("line 1: "), "{error}");
    }

    #[test]
    fn a_request_has_at_most_a_million_lines() {
        let body = vec![b'\n'; LINES_MAX as usize];
        assert_eq!(lines_of(&body, 1 << 16).unwrap().len(), LINES_MAX as usize);
        assert!(lines_of(&[body, b"\n".to_vec()].concat(), 1 << 16).is_err());
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_where_the_body_is_cut(
            body in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a')], 0..60),
            size in 1_usize..20,
        ) {
            let expected: Vec<(u32, Vec<u8>)> = body
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
                .zip(1_u32..)
                .map(|(line, number)| (number, line))
                .collect();
            prop_assert_eq!(lines_of(&body, size).unwrap(), expected);
        }
    }
}
