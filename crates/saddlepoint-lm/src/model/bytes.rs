//! Positioned reading, so that a file larger than memory is read block by block.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;

use super::unreadable;
use crate::Result;

/// Weights are read in blocks of this many bytes; one block is all the memory that reading needs.
pub(super) const BLOCK: usize = 1 << 20;

/// Something that can be read at any offset: a file, or bytes in memory.
pub trait Bytes: Debug + Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// The range does not lie inside the file, or the system refuses.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let range = usize::try_from(offset).ok().and_then(|from| Some(from..from.checked_add(out.len())?));
        let found = range.and_then(|range| self.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }
}

/// A file open for positioned reading.
#[derive(Debug)]
struct Opened {
    file: File,
    size: u64,
}

impl Bytes for Opened {
    fn size(&self) -> u64 {
        self.size
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, out, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let read = std::os::windows::fs::FileExt::seek_read(&self.file, out, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += read as u64;
            out = &mut out[read..];
        }
        Ok(())
    }
}

/// Opens a file.
pub(super) fn open(path: &Path) -> Result<Box<dyn Bytes>> {
    let file = File::open(path).map_err(|source| unreadable(path, source))?;
    let size = file.metadata().map_err(|source| unreadable(path, source))?.len();
    Ok(Box::new(Opened { file, size }))
}

/// Hands `range` of `bytes` to `each` in blocks whose length is a multiple of `unit`.
pub(super) fn in_blocks(
    path: &Path,
    bytes: &dyn Bytes,
    range: std::ops::Range<u64>,
    unit: usize,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let most = (BLOCK / unit * unit) as u64;
    let mut buffer = vec![0; most.min(range.end - range.start) as usize];
    let mut at = range.start;
    while at < range.end {
        let block = &mut buffer[..most.min(range.end - at) as usize];
        bytes.read_at(at, block).map_err(|source| unreadable(path, source))?;
        each(block)?;
        at += block.len() as u64;
    }
    Ok(())
}
