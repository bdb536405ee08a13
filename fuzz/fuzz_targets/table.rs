//! Whatever the bytes, reading a table of samples ends with them or an error, and so does everything that is done before a search.
#![no_main]

use std::path::Path;

use saddlepoint_apps::dag::score::LeastSquares;
use saddlepoint_apps::dag::{Data, Scaling};

/// Above it, second moments take longer than reading does.
const MOST_COLUMNS: usize = 64;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(data) = Data::parse(bytes, Path::new("table.csv")) else { return };
    if data.nodes() > MOST_COLUMNS {
        return;
    }
    for scaling in [Scaling::None, Scaling::Centre, Scaling::Standardise] {
        if let Ok(scaled) = data.scaled(scaling) {
            let _ = LeastSquares::new(&scaled);
        }
    }
});
