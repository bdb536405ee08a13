//! Whatever the text, reading a problem ends with one or an error, and a problem has values.
#![no_main]

use saddlepoint_opt::problem::Objective as _;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(problem) = saddlepoint_opt::problems::sif::read(text) {
        let _ = problem.value(problem.start());
        let _ = problem.check_derivatives();
    }
});
