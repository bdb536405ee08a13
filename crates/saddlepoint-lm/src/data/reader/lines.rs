//! JSONL: one object a line. A file that begins with `[` is handed on as a JSON array.

use std::io::BufRead;

use super::{Reader, array, unreadable};
use crate::data::json::Strict;
use crate::{Error, Result};

const BOM: &[u8] = b"\xEF\xBB\xBF";

pub(super) fn read(reader: &mut Reader<'_>, mut content: impl BufRead) -> Result<()> {
    let path = reader.path.to_path_buf();
    let mut buffer = Vec::new();
    let mut offset = 0;
    for number in 1.. {
        buffer.clear();
        if content.read_until(b'\n', &mut buffer).map_err(unreadable(&path))? == 0 {
            break;
        }
        let bom = if number == 1 && buffer.starts_with(BOM) { BOM.len() } else { 0 };
        let indent = buffer[bom..].iter().take_while(|b| b.is_ascii_whitespace()).count();
        match buffer.get(bom + indent) {
            None => reader.blank_lines += 1,
            Some(b'[') if reader.records.is_empty() => {
                content.read_to_end(&mut buffer).map_err(unreadable(&path))?;
                return array::read(reader, &buffer[bom..], number, offset + bom);
            }
            Some(_) => line(reader, &buffer[bom..], number, offset + bom)?,
        }
        offset += buffer.len();
    }
    Ok(())
}

fn line(reader: &mut Reader<'_>, bytes: &[u8], number: usize, offset: usize) -> Result<()> {
    let start = reader.at(number, 1);
    let text = check_utf8(bytes, offset, |at, problem| start.advanced(bytes, at).error(problem))?;
    let text = text.trim_end_matches(['\n', '\r']);
    let Strict(value) = serde_json::from_str(text).map_err(|e| {
        let hint = if e.is_eof() { "; in JSONL each line holds one whole object" } else { "" };
        reader.at(number, e.column().max(1)).error(format!("malformed JSON: {}{hint}", reason(&e)))
    })?;
    let indent = text.len() - text.trim_start().len();
    let source = reader.at(number, indent + 1);
    reader.push(value, text.trim_start().as_bytes(), source)
}

/// The bytes as text, or an error made from the place of the first bad byte; `offset` is where in the file
/// they begin.
pub(super) fn check_utf8(bytes: &[u8], offset: usize, fail: impl Fn(usize, String) -> Error) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        let problem = format!(
            "invalid UTF-8: byte 0x{:02X} at offset {}; save the file as UTF-8",
            bytes[at],
            offset + at
        );
        fail(at, problem)
    })
}

/// What `serde_json` complains about, without its own line and column.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]).to_owned()
}
