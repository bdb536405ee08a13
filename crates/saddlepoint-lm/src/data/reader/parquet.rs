//! Parquet rows as records; the line in messages is the row, counted from 1.

use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{Reader, unreadable};
use crate::Result;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let file = File::open(&reader.path).map_err(unreadable(&reader.path))?;
    let fail = |row: usize, e: parquet::errors::ParquetError| {
        reader.at(row, 1).error(format!("the Parquet file cannot be read: {e}"))
    };
    let source = SerializedFileReader::new(file).map_err(|e| fail(1, e))?;
    let rows = source.get_row_iter(None).map_err(|e| fail(1, e))?;
    for (i, row) in rows.enumerate() {
        let row =
            row.map_err(|e| reader.at(i + 1, 1).error(format!("the Parquet file cannot be read: {e}")))?;
        let place = reader.at(i + 1, 1);
        reader.push(row.to_json_value(), b"", place)?;
    }
    Ok(())
}
