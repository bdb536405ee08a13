//! A JSON array of objects, read one element at a time so that each one's place is known.

use super::lines::{check_utf8, reason};
use super::{Reader, Source};
use crate::Result;
use crate::data::json::Strict;

/// Reads the array in `bytes`, the first of which is column 1 of line `line` and byte `offset` of the file.
pub(super) fn read(reader: &mut Reader<'_>, bytes: &[u8], line: usize, offset: usize) -> Result<()> {
    let start = reader.at(line, 1);
    let text = check_utf8(bytes, offset, |at, problem| start.advanced(bytes, at).error(problem))?;
    let place = |at: usize| start.advanced(bytes, at);

    let mut at = skip_space(text, 0);
    debug_assert!(text[at..].starts_with('['), "the caller saw the bracket");
    let mut source = Cursor { start: start.clone(), at: 0 };
    let mut expected_close = true;
    at = skip_space(text, at + 1);
    loop {
        match text.as_bytes().get(at) {
            None => return Err(place(at).error("malformed JSON: the array is not closed; `]` is missing")),
            Some(b']') if expected_close => break,
            Some(b']') => return Err(place(at).error("malformed JSON: a record is missing after the comma")),
            Some(_) => {}
        }
        let from = source.advance(bytes, at);
        let mut elements = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Strict>();
        let value = match elements.next() {
            Some(Ok(Strict(value))) => value,
            Some(Err(e)) => {
                let wrong = within(&from, e.line(), e.column());
                return Err(wrong.error(format!("malformed JSON: {}", reason(&e))));
            }
            None => return Err(from.error("malformed JSON: a record is missing")),
        };
        let end = at + elements.byte_offset();
        reader.push(value, &bytes[at..end], from)?;
        at = skip_space(text, end);
        expected_close = true;
        match text.as_bytes().get(at) {
            Some(b',') => {
                at = skip_space(text, at + 1);
                expected_close = false;
            }
            Some(b']') | None => {}
            Some(_) => return Err(place(at).error("malformed JSON: expected `,` or `]` after a record")),
        }
    }
    let rest = skip_space(text, at + 1);
    if rest < text.len() {
        return Err(place(rest).error("malformed JSON: something follows the closing `]`"));
    }
    Ok(())
}

fn skip_space(text: &str, at: usize) -> usize {
    at + text.as_bytes()[at.min(text.len())..].iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// The place that `serde_json` counts as `line` and `column` from `from`.
fn within(from: &Source, line: usize, column: usize) -> Source {
    let mut place = from.clone();
    place.line += line.saturating_sub(1);
    place.column = if line <= 1 { from.column + column.saturating_sub(1) } else { column.max(1) };
    place
}

/// Counts lines forward only, so that a file is passed once however many records it has.
struct Cursor {
    start: Source,
    at: usize,
}

impl Cursor {
    fn advance(&mut self, bytes: &[u8], to: usize) -> Source {
        self.start = self.start.advanced(&bytes[self.at..], to - self.at);
        self.at = to;
        self.start.clone()
    }
}
