//! Whatever the text, reading examples as a table or in LIBSVM's format ends with them or an error, and they have moments.
#![no_main]

use std::path::Path;

use saddlepoint_opt::examples::{Examples, csv, libsvm};

/// Above it, moments take longer than reading does: one line of LIBSVM's format may name ten million features.
const MOST_FEATURES: usize = 10_000;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let path = Path::new("examples");
    let first = text.split([',', '\n']).next();
    let tables = [csv::parse(text, path, None), csv::parse(text, path, first)];
    for examples in tables.into_iter().chain([libsvm::parse(text, path)]).flatten() {
        used(&examples);
    }
});

fn used(examples: &Examples) {
    if examples.features > MOST_FEATURES {
        return;
    }
    let w = vec![1.0; examples.features];
    for i in 0..examples.len() {
        let _ = examples.dot(i, &w);
    }
    let _ = examples.pick(&[0]).moments();
    let _ = examples.moments();
}
