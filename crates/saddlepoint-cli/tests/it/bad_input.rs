//! Bad input: the message says what, where and what to do, and nothing is lost or left half-written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use saddlepoint_core::test::corpus;
use serde_json::json;

use crate::model;
use crate::saddle::{Place, files};

/// A model `m` and a recipe that trains it on `d.jsonl`.
fn place() -> Place {
    let place = Place::new();
    model::write(&place, "m");
    place.write(
        "r.toml",
        "[model]\npath = \"m\"\n[data]\npath = \"d.jsonl\"\n[train]\noutput_dir = \"run\"\nmax_steps = 2\n\
         sample_prompts = 2\nmax_completion_length = 4\n",
    );
    place.write("d.jsonl", "{\"prompt\": \"one\", \"completion\": \"two\"}\n");
    place
}

#[test]
fn a_report_needs_a_run() {
    let place = Place::new();
    place.refuses(&["report", "nowhere"], "nowhere: no config.toml; not a run directory");
    assert!(place.names().is_empty());
}

#[test]
fn a_report_names_the_broken_line_of_a_run() {
    let place = Place::new();
    place.write("run/config.toml", "seed = 1\n");
    place.write("run/metrics.jsonl", "{\"step\":1,\"loss\":2}\n{\"step\":2,\n{\"step\":3}\n");
    place.refuses(
        &["report", "run"],
        "run/metrics.jsonl:2: EOF while parsing a value; the file was changed from outside: restore it or start \
         a new run",
    );
    assert_eq!(crate::saddle::names(&place.path("run")), ["config.toml", "metrics.jsonl"]);
}

#[test]
fn data_that_cannot_be_used_begins_no_run() {
    let place = place();
    let columns = "{document, chunk, prompt, chosen, rejected}, {document, turns}, {system?, conversations, chosen, rejected}, {input?, system?, history?, instruction, chosen, \
                   rejected}, {prompt?, chosen, rejected}, {question, answer_matching_behavior, \
                   answer_not_matching_behavior}, {prompt, completion, label}, {messages, label}, {system?, \
                   conversations, kto_tag}, {prompt, completion}, {messages}, {system?, conversations}, {input?, \
                   system?, history?, instruction, output}, {question, answer}, {prompt}, {text}";
    let unknown = format!(
        "d.jsonl:1:1: no known schema has these columns: problem, solution; accepted are {columns}; rename them \
         with `data.columns`, for example {{ prompt = \"question\", completion = \"answer\" }}"
    );
    for (content, set, message) in [
        (&b"{\"text\": \"a\"}\n{\"text\": oops}\n"[..], "", "d.jsonl:2:10: malformed JSON: expected value"),
        (
            b"{\"text\":\n\"a\"}",
            "",
            "d.jsonl:1:8: malformed JSON: EOF while parsing a value; in JSONL each line holds one whole object",
        ),
        (b"{\"text\": 1}", "", "d.jsonl:1:10: `text` must be a string, got a number"),
        (b"{\"problem\": \"1+1\", \"solution\": \"2\"}", "", &unknown),
        (
            b"{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"reply\": \"b\"}",
            "",
            "d.jsonl:2:1: missing column completion (columns: prompt, reply); the file is read as \
             `prompt_completion`, so each record needs prompt, completion",
        ),
        (
            b"{\"text\": \"a\"}\n{\"text\": \"caf\xE9\"}",
            "",
            "d.jsonl:2:14: invalid UTF-8: byte 0xE9 at offset 27; save the file as UTF-8",
        ),
        (
            b"",
            "",
            "d.jsonl:1:1: the file holds no records; it needs one JSON object a line, or an array of them",
        ),
        (
            b"{\"prompt\": \"q\", \"completion\": \"\"}",
            "",
            "d.jsonl:1:1: none of the 1 records can be used: 1 empty completion (first: line 1); correct the data or \
             raise `data.max_length`",
        ),
        (
            b"{\"text\": \"a\"}",
            "method={ name = \"dpo\" }",
            "d.jsonl:1:1: the records are text, but a preference pair (chosen and rejected) is needed; use another \
             method, or say what the columns are with `data.columns`",
        ),
    ] {
        place.write("d.jsonl", content);
        let before = files(&place.path(""));
        let set = if set.is_empty() { vec![] } else { vec!["--set", set] };
        place.refuses(&[&["train", "r.toml"][..], &set].concat(), message);
        assert!(files(&place.path("")) == before, "{message}");
    }
    fs::remove_file(place.path("d.jsonl")).expect("the data");
    place.refuses(
        &["train", "r.toml"],
        "cannot read d.jsonl: No such file or directory (os error 2); check the path",
    );
    assert_eq!(place.names(), ["m", "r.toml"]);
}

#[test]
fn an_over_long_sample_is_counted_or_refused() {
    let place = place();
    let long = json!({ "text": "x".repeat(300) });
    place.write("d.jsonl", format!("{long}\n{{\"text\": \"ab\"}}\n"));
    place.refuses(
        &["train", "r.toml"],
        "data.max_length: the longest sequence has 301 tokens and the model's context 256: lower it",
    );
    let counts = |mode: &str| {
        let mode = format!("data.truncation_mode={mode}");
        let sets = ["train", "r.toml", "--dry-run", "--json", "--set", "data.max_length=16", "--set", &mode];
        let ended = place.saddle(&sets);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.objects()[0]["train"]["prepared"].clone()
    };
    let cut = counts("keep_start");
    assert_eq!((&cut["used"], &cut["truncated"], &cut["longest"]), (&json!(2), &json!(1), &json!(16)));
    let left = counts("drop");
    assert_eq!((&left["used"], &left["truncated"]), (&json!(1), &json!(0)));
    assert_eq!(place.names(), ["d.jsonl", "m", "r.toml"]);
}

#[test]
fn a_template_that_raises_begins_no_run() {
    let place = place();
    place.write("m/chat_template.jinja", "{{ raise_exception('roles must alternate') }}");
    let turns = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]);
    place.write("d.jsonl", json!({ "messages": turns }).to_string());
    place.refuses(
        &["train", "r.toml"],
        "d.jsonl:1:1: the chat template refuses this conversation: roles must alternate (template line 1); correct the \
         record or the model's template",
    );
    assert_eq!(place.names(), ["d.jsonl", "m", "r.toml"]);
}

#[test]
fn every_command_refuses_weights_that_are_damaged() {
    let place = place();
    let path = place.path("m/model.safetensors");
    let whole = fs::read(&path).expect("weights");
    let mut tensors = model::tensors();
    tensors[4].2[5] = f32::NAN;
    let mut wrong = model::tensors();
    wrong[4].1.reverse();
    let name = &tensors[4].0;
    for (bytes, message) in [
        (
            model::safetensors(&tensors),
            format!(
                "element [0, 5] of tensor {name} is not finite (NaN); the file is damaged or the run that wrote it \
                 had diverged: use another checkpoint"
            ),
        ),
        (
            model::safetensors(&wrong),
            format!("tensor {name} has dimensions [16, 24], the configuration asks for [24, 16]"),
        ),
        (
            whole[..whole.len() / 2].to_vec(),
            "tensor model.embed_tokens.weight ends at byte 16512 of the data, of which there are 15103: the file is \
             truncated; download or write it again"
                .to_owned(),
        ),
    ] {
        fs::write(&path, &bytes).expect("damaged weights");
        let message = format!("m/model.safetensors: {message}");
        for command in [
            &["generate", "--model", "m", "--prompt", "a"][..],
            &["score", "--model", "m", "--data", "d.jsonl"],
            &["eval", "--model", "m", "--data", "d.jsonl"],
            &["convert", "m", "out"],
        ] {
            place.refuses(command, &message);
        }
        assert_eq!(place.names(), ["d.jsonl", "m", "r.toml"]);
        let ended = place.saddle(&["train", "r.toml"]);
        assert_eq!((ended.code, ended.stderr), (2, format!("saddle: {message}\n")));
        let written = files(&place.path(""));
        let half = |name: &String| name.contains(".partial-") || name.contains("metrics") || name.contains("run/model");
        assert_eq!(written.keys().find(|name| half(name)), None);
        assert!(fs::read(&path).expect("weights") == bytes, "the input is as it was");
        let _ = fs::remove_dir_all(place.path("run"));
    }
    // With the right weights the same recipe runs.
    fs::write(&path, &whole).expect("weights");
    assert_eq!(place.saddle(&["train", "r.toml"]).code, 0);
}

#[test]
fn no_file_of_the_corpora_makes_the_program_fail_otherwise_than_in_words() {
    let place = place();
    let mut refused = 0;
    for (target, file, command) in [
        ("gguf", "x.gguf", &["convert", "x.gguf", "out"][..]),
        ("safetensors", "m/model.safetensors", &["convert", "m", "out"]),
        ("jsonl", "d.jsonl", &["score", "--model", "m", "--data", "d.jsonl", "--json"]),
        ("table", "x.csv", &["solve", "dag", "--data", "x.csv", "--json"]),
    ] {
        for (name, path) in corpus(target) {
            let kept = fs::read(place.path(file)).ok();
            fs::copy(path, place.path(file)).expect("a copy");
            let ended = place.saddle(command);
            assert!([0, 2].contains(&ended.code), "{target}/{name}: {}", ended.stderr);
            if name.starts_with("bad-") {
                assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{target}/{name}");
                let message = ended.stderr.lines().last().expect("a message");
                assert!(message.starts_with(&format!("saddle: {file}:")), "{target}/{name}: {message}");
                assert!(!place.path("out").exists(), "{target}/{name}");
                refused += 1;
            }
            let half = place.names().into_iter().find(|name| name.contains(".partial-"));
            assert_eq!(half, None, "{target}/{name}");
            let _ = fs::remove_dir_all(place.path("out"));
            match kept {
                Some(bytes) => fs::write(place.path(file), bytes).expect("restored"),
                None => fs::remove_file(place.path(file)).expect("removed"),
            }
        }
    }
    assert!(refused > 30, "{refused}");
}

#[test]
fn settings_beyond_reason_are_refused_before_anything_is_allocated() {
    let place = place();
    place.write("new.toml", "[model]\nnew = {}\n[data]\ngenerate = {}\n");
    for (recipe, set, message) in [
        ("r.toml", "train.per_device_train_batch_size=99999999", "must be at most 16777216, got 99999999"),
        ("r.toml", "train.gradient_accumulation_steps=99999999", "must be at most 16777216, got 99999999"),
        ("r.toml", "train.threads=99999", "must be at most 4096, got 99999"),
        ("r.toml", "train.max_completion_length=99999999", "must be at most 16777216, got 99999999"),
        (
            "r.toml",
            "model.lora.r=1000000000000000000",
            "must be at most 65536, got 1000000000000000000 (default 16)",
        ),
        ("new.toml", "data.generate.samples=99999999", "must be at most 10000000, got 99999999"),
    ] {
        let (key, _) = set.split_once('=').expect("a setting");
        place.refuses(&["train", recipe, "--set", set], &format!("{key}: {message}"));
    }
    let ask = ["generate", "--model", "m", "--prompt", "abcd"];
    place.refuses(
        &[&ask[..], &["--max-new-tokens", "253"]].concat(),
        "prompt 0 has 4 tokens; with --max-new-tokens 253 they exceed the model's context of 256: shorten one of them",
    );
    for option in ["--max-new-tokens", "--num-samples", "--batch-size"] {
        let ended = place.saddle(&[&ask[..], &[option, "0"]].concat());
        assert_eq!(ended.code, 2);
        let message = format!("error: invalid value '0' for '{option} <N>': number would be zero");
        assert!(ended.stderr.starts_with(&message), "{}", ended.stderr);
    }
    assert_eq!(place.names(), ["d.jsonl", "m", "new.toml", "r.toml"]);
}

#[test]
fn a_folder_of_something_else_stays_as_it_is() {
    let place = place();
    place.write("run/notes.txt", "mine");
    for arguments in [&["train", "r.toml"][..], &["train", "r.toml", "--resume"]] {
        let ended = place.saddle(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("saddle: run "), "{}", ended.stderr);
    }
    place.refuses(
        &["train", "r.toml"],
        "run is not empty; continue the run in it with --resume, or choose another output_dir",
    );
    let text = fs::read_to_string(place.path("run/notes.txt")).expect("a file");
    assert_eq!(text, "mine");
}

#[test]
fn a_second_run_changes_nothing_of_the_first() {
    let place = place();
    assert_eq!(place.saddle(&["train", "r.toml"]).code, 0);
    let before = files(&place.path(""));
    place.refuses(
        &["train", "r.toml", "--set", "train.seed=1"],
        "run is not empty; continue the run in it with --resume, or choose another output_dir",
    );
    let ended = place.saddle(&["train", "r.toml", "--resume", "--set", "train.seed=1"]);
    assert_eq!(ended.code, 2);
    let message = "saddle: train.output_dir: the run was started with other settings (first difference: train.seed = \
                   42 there, train.seed = 1 now); resume with run/config.toml or choose another output_dir\n";
    assert_eq!(ended.stderr, message);
    assert!(files(&place.path("")) == before);
}

#[test]
fn a_place_below_a_file_is_refused_and_the_file_kept() {
    let place = place();
    place.write("file", "kept");
    let before = files(&place.path(""));
    let reason = "Not a directory (os error 20); a part of that path is a file; choose another place";
    place.refuses(
        &["train", "r.toml", "--set", "train.output_dir=file/run"],
        &format!("cannot create file/run: {reason}"),
    );
    place.refuses(&["convert", "m", "file/out"], &format!("cannot read file/out: {reason}"));
    assert!(files(&place.path("")) == before);
}

/// Whether this user may make a mount namespace, in which a disk can be full or read-only even for root.
#[cfg(target_os = "linux")]
fn namespaces() -> bool {
    let script = "mkdir d && mount -t tmpfs -o size=64k none d && mount -o remount,ro d";
    let place = Place::new();
    let mounted = place.shell(&format!("unshare --map-root-user --mount sh -c '{script}'")).code == 0;
    if !mounted {
        eprintln!("skipped: this system lets its users make no mount namespaces");
    }
    mounted
}

/// For root as well, for whom permissions would not say no.
#[cfg(target_os = "linux")]
#[test]
fn a_read_only_disk_is_refused() {
    if !namespaces() {
        return;
    }
    let place = place();
    let script = "mkdir d && mount -t tmpfs none d && mkdir d/empty && echo kept >d/file && mount -o remount,ro d && \
                  for line in \"train r.toml --set train.output_dir=d/run\" \"train r.toml --set \
                  train.output_dir=d/empty\" \"convert m d/out\"; do \"$SADDLE\" $line; echo $?; done; ls -A d d/empty; \
                  cat d/file";
    let ended = place.shell(&format!("unshare --map-root-user --mount sh -c '{script}'"));
    let reason = "Read-only file system (os error 30); change its permissions or choose another place";
    let messages: String = ["d/run", "d/empty/.lock", "d/out"]
        .map(|path| format!("saddle: cannot create {path}: {reason}\n"))
        .concat();
    assert_eq!(ended.stderr, messages);
    assert_eq!(ended.stdout, "2\n2\n2\nd:\nempty\nfile\n\nd/empty:\nkept\n");
}

/// What a run of `base.toml` leaves that does not depend on the time.
fn outcome(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = files(run);
    files.retain(|name, _| {
        ["metrics.jsonl", "samples.jsonl"].contains(&name.as_str()) || name.starts_with("model/")
    });
    assert!(files.len() > 4, "{:?}", files.keys());
    files
}

/// A run that fails at any write leaves nothing half-written, and resumed it ends as if nothing had happened.
#[cfg(unix)]
#[test]
fn a_run_that_can_write_no_more_is_resumed_without_a_trace() {
    let calm = crate::train::place();
    assert_eq!(calm.saddle(&["train", "base.toml"]).code, 0);
    let expected = outcome(&calm.path("base"));
    let mut failed = 0;
    // Blocks of 512 or 1,024 bytes, as the shell has it: from less than the recipe to more than a checkpoint.
    for blocks in [1, 2, 3, 4, 6, 8, 16, 32, 64, 100, 200, 400, 4000] {
        let place = crate::train::place();
        let limited =
            place.shell(&format!("ulimit -f {blocks}; trap \"\" XFSZ; exec \"$SADDLE\" train base.toml"));
        let left = files(&place.path(""));
        let half = left.keys().find(|name| name.contains(".partial-"));
        assert_eq!(half, None, "{blocks}");
        if limited.code == 0 {
            assert!(outcome(&place.path("base")) == expected);
            continue;
        }
        failed += 1;
        let message = limited.stderr.lines().last().expect("a message");
        assert_eq!(limited.code, 2, "{}", limited.stderr);
        assert!(
            message.starts_with("saddle: cannot write base/")
                && message.ends_with(
                    ": File too large (os error 27); raise the limit on the size of files (ulimit -f) or choose \
                     another place"
                ),
            "{blocks}: {message}"
        );
        let resumed = place.saddle(&["train", "base.toml", "--resume"]);
        assert_eq!(resumed.code, 0, "{blocks}: {}", resumed.stderr);
        assert!(outcome(&place.path("base")) == expected, "{blocks}: other bytes than without the failure");
    }
    assert!(failed >= 6, "{failed}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_a_run_on_it_is_resumed_without_a_trace() {
    if !namespaces() {
        return;
    }
    let calm = crate::train::place();
    assert_eq!(calm.saddle(&["train", "base.toml"]).code, 0);
    let place = crate::train::place();
    model::write(&place, "m");
    // Room for a checkpoint, not for two; then for all.
    let script = "mkdir base && mount -t tmpfs -o size=400k none base && \"$SADDLE\" train base.toml; echo $?; \
                  cat /dev/zero >base/rest; \"$SADDLE\" convert m base/out; echo $?; rm base/rest; \
                  ls base | grep -v events; mount -o remount,size=16m base && \
                  \"$SADDLE\" train base.toml --resume >log; echo $?; cp -r base kept";
    let ended = place.shell(&format!("unshare --map-root-user --mount sh -c '{script}'"));
    let full = "No space left on device (os error 28); free some space or choose another place";
    let messages: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("saddle: ")).collect();
    assert_eq!(messages.len(), 2, "{}", ended.stderr);
    for message in messages {
        assert!(message.starts_with("saddle: cannot write base/") && message.ends_with(full), "{message}");
    }
    let codes: Vec<&str> = ended.stdout.lines().filter(|line| line.parse::<u8>().is_ok()).collect();
    assert_eq!(codes, ["2", "2", "0"], "{}", ended.stdout);
    let half = ended.stdout.lines().find(|line| line.contains(".partial-") || *line == "out");
    assert_eq!(half, None, "{}", ended.stdout);
    assert!(outcome(&place.path("kept")) == outcome(&calm.path("base")));
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_written_is_told() {
    let place = place();
    for command in [
        "generate --model m --prompt a --max-new-tokens 2 --json",
        "score --model m --data d.jsonl",
        "methods",
        "config sft",
    ] {
        let ended = place.shell(&format!("\"$SADDLE\" {command} >/dev/full"));
        let message = "saddle: writing the output: No space left on device (os error 28)\n";
        assert_eq!((ended.code, ended.stderr.as_str()), (2, message), "{command}");
    }
}

#[test]
fn a_summary_is_read_back() {
    let place = place();
    assert_eq!(place.saddle(&["train", "r.toml"]).code, 0);
    place.write("run/summary.json", "{");
    let ended = place.saddle(&["train", "r.toml", "--resume"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.starts_with("saddle: run/summary.json: was changed from outside (EOF while parsing"),
        "{}",
        ended.stderr
    );
}
