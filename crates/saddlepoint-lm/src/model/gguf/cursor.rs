//! Sequential reading of a GGUF header; every length is checked against what is left before it is believed.

use std::path::Path;

use crate::Result;
use crate::model::bytes::Bytes;
use crate::model::{bad, unreadable};

/// The header is read in pieces of this many bytes.
const PIECE: usize = 1 << 16;

pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a dyn Bytes,
    at: u64,
    piece: Vec<u8>,
    piece_at: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a dyn Bytes) -> Self {
        Self { path, bytes, at: 0, piece: Vec::new(), piece_at: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    fn left(&self) -> u64 {
        self.bytes.size() - self.at
    }

    fn fill(&mut self, out: &mut [u8], what: &str) -> Result<()> {
        if out.len() as u64 > self.left() {
            let (at, path) = (self.at, self.path);
            return Err(bad(
                path,
                format!("the file ends inside {what} at byte {at}: it is truncated; download it again"),
            ));
        }
        let mut filled = 0;
        while filled < out.len() {
            let skip = self.at - self.piece_at;
            if self.at < self.piece_at || skip >= self.piece.len() as u64 {
                self.piece.resize((PIECE as u64).min(self.left()) as usize, 0);
                self.bytes
                    .read_at(self.at, &mut self.piece)
                    .map_err(|source| unreadable(self.path, source))?;
                self.piece_at = self.at;
                continue;
            }
            let here = &self.piece[skip as usize..];
            let n = here.len().min(out.len() - filled);
            out[filled..filled + n].copy_from_slice(&here[..n]);
            filled += n;
            self.at += n as u64;
        }
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `least` bytes each.
    pub(super) fn count(&mut self, least: u64, what: &str) -> Result<usize> {
        let count = self.u64(what)?;
        if count > self.left() / least {
            let left = self.left();
            return Err(bad(
                self.path,
                format!(
                    "{what}: {count} are announced but {left} bytes follow: the file is truncated or damaged"
                ),
            ));
        }
        Ok(count as usize)
    }

    pub(super) fn text(&mut self, what: &str) -> Result<String> {
        let mut bytes = vec![0; self.count(1, what)?];
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|_| bad(self.path, format!("{what} is not valid UTF-8")))
    }
}
