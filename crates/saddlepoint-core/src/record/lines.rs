//! Taking lines out of a file of JSON lines.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, Result, atomic};

/// Rewrites the file, whole or not at all, to the lines that `wanted` accepts, and drops a last line that has no
/// end. `Err` of `wanted` is the reason why a line cannot be read. An absent file stays absent.
pub(super) fn keep(path: &Path, wanted: impl Fn(&[u8]) -> Result<bool, String>) -> Result<()> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.map_err(Error::io("read", path))?,
    };
    let mut kept = Vec::with_capacity(text.len());
    let complete = text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    for (i, line) in complete.enumerate() {
        let damaged = |problem| Error::Damaged { path: path.into(), line: i + 1, problem };
        if wanted(line).map_err(damaged)? {
            kept.extend_from_slice(line);
        }
    }
    if kept == text { Ok(()) } else { atomic::write(path, &kept) }
}

/// The step of a line of metrics.
pub(super) fn step(line: &[u8]) -> Result<u64, String> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    let line: Line =
        serde_json::from_slice(line).map_err(|error| format!("not a record of a step ({error})"))?;
    Ok(line.step)
}
