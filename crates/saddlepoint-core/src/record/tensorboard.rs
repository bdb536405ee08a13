//! TensorBoard event files, as far as scalars need them.
//!
//! A file is a sequence of records, each a serialised `tensorflow.Event`:
//! ```text
//! u64 length · u32 masked crc32c(length) · bytes · u32 masked crc32c(bytes)          all little-endian
//! Event       wall_time: double = 1, step: int64 = 2, file_version: string = 3, summary: Summary = 5,
//!             session_log: SessionLog = 7
//! Summary     repeated value { tag: string = 1, simple_value: float = 2 } = 1
//! SessionLog  status: enum = 1  (START = 1)
//! ```

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::clock::unix_seconds;
use crate::metrics::Metrics;
use crate::{Error, Result};

/// An event file that is being written.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Starts a file in `dir`. `restart` is the first step that will be written again: TensorBoard then forgets
    /// what earlier files say about it and later ones.
    pub(super) fn create(dir: &Path, restart: Option<u64>) -> Result<Self> {
        let (path, file) = fresh(dir)?;
        let mut events = Self { path, file };
        events.record(&event(None, |e| e.bytes(3, b"brain.Event:2")))?;
        if let Some(step) = restart {
            events.record(&event(Some(step), |e| e.message(7, |log| log.varint(1, 1))))?;
        }
        Ok(events)
    }

    /// Writes the metrics of a step as one event.
    pub(super) fn scalars(&mut self, step: u64, metrics: &Metrics) -> Result<()> {
        self.record(&event(Some(step), |e| {
            e.message(5, |summary| {
                for (name, value) in metrics.iter() {
                    summary.message(1, |scalar| {
                        scalar.bytes(1, name.as_bytes());
                        scalar.float(2, value as f32);
                    });
                }
            });
        }))
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend_from_slice(&length);
        record.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
        record.extend_from_slice(data);
        record.extend_from_slice(&masked_crc32c(data).to_le_bytes());
        self.file.write_all(&record).map_err(Error::io("write", &self.path))
    }
}

/// A new file, named so that TensorBoard reads the files of a run in the order of their making.
fn fresh(dir: &Path) -> Result<(PathBuf, File)> {
    let seconds = unix_seconds() as u64;
    for n in 0_u32.. {
        let path = dir.join(format!("events.out.tfevents.{seconds:010}.{n:04}.saddle"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (path.clone(), file)).map_err(Error::io("write", path)),
        }
    }
    unreachable!("a second has fewer than 2^32 files")
}

fn event(step: Option<u64>, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, unix_seconds());
    if let Some(step) = step {
        event.varint(2, step);
    }
    fill(&mut event);
    event.0
}

/// A Protocol Buffers message in the making. Each field begins with `number << 3 | wire type`.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.raw_varint(field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.raw_varint(field << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.raw_varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

/// The record format's checksum: a rotated and shifted crc32c, since a crc over data with crcs in it is weak.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli), bit by bit: a record is a few hundred bytes.
fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
    !data.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn crc32c_of_the_vectors_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46DD_794E);
    }

    /// A field as read back: its number and its value (varint and fixed-width values as raw bits).
    #[derive(Debug, PartialEq)]
    enum Field {
        Number(u64, u64),
        Bytes(u64, Vec<u8>),
    }

    fn take<const N: usize>(from: &mut &[u8]) -> [u8; N] {
        let (head, tail) = from.split_at(N);
        *from = tail;
        head.try_into().unwrap()
    }

    fn varint(from: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let [byte] = take(from);
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn fields(mut from: &[u8]) -> Vec<Field> {
        let mut list = Vec::new();
        while !from.is_empty() {
            let key = varint(&mut from);
            list.push(match key & 7 {
                0 => Field::Number(key >> 3, varint(&mut from)),
                1 => Field::Number(key >> 3, u64::from_le_bytes(take(&mut from))),
                5 => Field::Number(key >> 3, u32::from_le_bytes(take(&mut from)).into()),
                2 => {
                    let length = varint(&mut from) as usize;
                    let (head, tail) = from.split_at(length);
                    from = tail;
                    Field::Bytes(key >> 3, head.to_vec())
                }
                other => panic!("wire type {other}"),
            });
        }
        list
    }

    /// Events of a file without their wall times; checks every checksum.
    fn read(path: &Path) -> Vec<Vec<Field>> {
        let bytes = fs::read(path).unwrap();
        let mut from = &bytes[..];
        let mut events = Vec::new();
        while !from.is_empty() {
            let length: [u8; 8] = take(&mut from);
            assert_eq!(u32::from_le_bytes(take(&mut from)), masked_crc32c(&length));
            let (data, rest) = from.split_at(u64::from_le_bytes(length) as usize);
            from = rest;
            assert_eq!(u32::from_le_bytes(take(&mut from)), masked_crc32c(data));
            let mut event = fields(data);
            let Field::Number(1, wall_time) = event.remove(0) else {
                panic!("an event starts with its time")
            };
            assert!(f64::from_bits(wall_time) > 1.7e9);
            events.push(event);
        }
        events
    }

    #[test]
    fn a_file_reads_back() {
        let place = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::new();
        metrics.set("loss", 0.5);
        metrics.set("rewards/margins", -1.25);
        let mut file = EventFile::create(place.path(), Some(301)).unwrap();
        file.scalars(301, &metrics).unwrap();

        let scalar = |tag: &str, value: f32| {
            let mut message = Message::default();
            message.bytes(1, tag.as_bytes());
            message.float(2, value);
            Field::Bytes(1, message.0)
        };
        let events = read(&file.path);
        assert_eq!(events.len(), 3);
        assert_eq!(events[0], [Field::Bytes(3, b"brain.Event:2".to_vec())]);
        assert_eq!(events[1], [Field::Number(2, 301), Field::Bytes(7, vec![8, 1])]);
        assert_eq!(events[2][0], Field::Number(2, 301));
        let Field::Bytes(5, summary) = &events[2][1] else { panic!("{events:?}") };
        assert_eq!(fields(summary), [scalar("loss", 0.5), scalar("rewards/margins", -1.25)]);
    }

    #[test]
    fn files_of_the_same_second_have_different_names_in_order() {
        let place = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..3).map(|_| EventFile::create(place.path(), None).unwrap().path).collect();
        assert!(files.is_sorted() && files[0] != files[1] && files[1] != files[2], "{files:?}");
    }
}
