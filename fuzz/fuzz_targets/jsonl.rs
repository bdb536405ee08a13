//! Whatever the bytes, the data reader ends with records or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = saddlepoint_lm::data::fuzzing::jsonl(bytes);
});
