//! Where a record stands, so that every complaint about it can say so.

use std::path::Path;
use std::sync::Arc;

use crate::Error;

/// First byte of a record in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: Arc<Path>,
    /// Line (row in a Parquet file), counted from 1.
    pub line: usize,
    /// Column in bytes, counted from 1.
    pub column: usize,
}

impl Source {
    /// An error at this place.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Error::Data {
            path: self.path.to_path_buf(),
            line: self.line,
            column: self.column,
            problem: problem.into(),
        }
    }

    /// The place `offset` bytes into the text that starts here.
    pub(crate) fn advanced(&self, text: &[u8], offset: usize) -> Self {
        let passed = &text[..offset.min(text.len())];
        let mut place = self.clone();
        for line in passed.split_inclusive(|&b| b == b'\n') {
            if line.ends_with(b"\n") {
                place.line += 1;
                place.column = 1;
            } else {
                place.column += line.len();
            }
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_restart_after_a_newline() {
        let start = Source { path: Path::new("f").into(), line: 3, column: 5 };
        let text = b"ab\ncd";
        let place = |offset| {
            let s = start.advanced(text, offset);
            (s.line, s.column)
        };
        assert_eq!([place(0), place(2), place(3), place(4)], [(3, 5), (3, 7), (4, 1), (4, 2)]);
        assert_eq!(start.error("bad").to_string(), "f:3:5: bad");
    }
}
