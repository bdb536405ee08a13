//! Whatever the bytes, the gguf reader ends with tensors or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = saddlepoint_lm::model::fuzzing::gguf(bytes);
});
