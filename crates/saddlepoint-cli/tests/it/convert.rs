//! `saddle convert`: models in, Hugging Face folders out.

use std::fs;

use crate::saddle::Place;

#[test]
fn what_is_not_a_model_is_refused_and_nothing_is_made() {
    let place = Place::new();
    place.write("empty/readme.txt", "hello");
    place.write("short.gguf", b"GGUF\x03\0\0\0");
    place.refuses(
        &["convert", "nowhere", "out"],
        "cannot read nowhere: No such file or directory (os error 2); check the path",
    );
    place.refuses(
        &["convert", "empty", "out"],
        "empty: is not a model: it has neither config.json nor a .gguf file",
    );
    let ended = place.saddle(&["convert", "short.gguf", "out"]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.starts_with("saddle: short.gguf: "), "{}", ended.stderr);
    assert_eq!(place.names(), ["empty", "short.gguf"]);
}

#[test]
fn an_adapter_without_its_base_model_is_told_what_to_do() {
    let place = Place::new();
    place.write("lora/adapter_config.json", r#"{"base_model_name_or_path": "somewhere/model"}"#);
    place.refuses(
        &["convert", "lora", "out"],
        "lora/adapter_config.json: names somewhere/model as its base model, which is not here; use saddle convert \
         BASE OUT --merge lora",
    );
    place.refuses(
        &["convert", "lora", "out", "--merge", "lora"],
        "lora is an adapter already: give its base model with --merge",
    );
    fs::write(place.path("lora/adapter_config.json"), "{").expect("a file");
    let ended = place.saddle(&["convert", "lora", "out"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.starts_with("saddle: lora/adapter_config.json: not valid JSON: "),
        "{}",
        ended.stderr
    );
    assert_eq!(place.names(), ["lora"]);
}
