//! Whatever the bytes, the chat template ends with text or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = saddlepoint_lm::data::fuzzing::template(bytes);
});
