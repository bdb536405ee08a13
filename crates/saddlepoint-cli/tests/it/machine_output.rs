//! With `--json` standard output holds objects of the promised shape and nothing else.

use std::io::Read as _;
use std::process::Stdio;

use serde_json::Value;

use crate::saddle::Place;

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn methods_has_one_line_a_method() {
    let ended = Place::new().saddle(&["methods", "--json"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let methods = ended.objects();
    for method in &methods {
        assert_eq!(keys(method), ["name", "family", "paper", "status", "slug"]);
    }
    let names: Vec<_> = methods.iter().map(|method| method["name"].as_str().expect("a name")).collect();
    assert!(names.contains(&"sft") && names.contains(&"dpo"), "{names:?}");
}

/// A reader that stops early (`saddle methods | head -1`) is not an error.
#[test]
fn a_closed_pipe_ends_quietly() {
    let place = Place::new();
    let mut command = place.command(&["methods", "--json"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
    let code = child.wait().expect("an end").code();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}
