//! Training on completions of a server, which is one in this file: it delays, drops, lies and dies. It also says what its model does of
//! given tokens (`teacher_server`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use saddlepoint_core::seed::Seed;
use saddlepoint_lm::engine::{Finish, GenerateConfig, Generator, Policy, Reference, Setup, Storage};
use saddlepoint_lm::model::{ModelFolder, adapter};
use saddlepoint_lm::trainer::run;
use serde_json::{Value, json};

use crate::on_policy::place;
use crate::teacher_server;
use crate::trainer::{lines, load, quiet};

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is answered.
    Answer,
    /// The connection is closed without a word.
    Drop,
    /// Nothing comes until the client gives up.
    Delay,
    /// A status that may pass.
    Busy,
    /// Something that is not true: this lie.
    Lie(usize),
    /// The server dies and starts again without its adapters.
    Die,
}

/// By the number of the request.
pub(crate) type Fates = fn(usize) -> Fate;

const LIES: usize = 8;

/// A server of one model on this machine.
pub(crate) struct Service {
    base: PathBuf,
    /// Adapters by the name that they were loaded as.
    adapters: Mutex<BTreeMap<String, PathBuf>>,
    /// Names of adapters in the order in which they were first loaded.
    pub(crate) versions: Mutex<Vec<String>>,
    pub(crate) requests: AtomicUsize,
    /// Requests for completions from this number on get no answer until it is raised.
    pub(crate) answered: AtomicUsize,
    deaths: AtomicUsize,
    fate: Fates,
}

impl Service {
    /// Serves in threads of its own; its address.
    pub(crate) fn start(base: &Path, fate: Fates) -> (String, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let service = Arc::new(Self {
            base: base.to_owned(),
            adapters: Mutex::default(),
            versions: Mutex::default(),
            requests: AtomicUsize::new(0),
            answered: AtomicUsize::new(usize::MAX),
            deaths: AtomicUsize::new(0),
            fate,
        });
        let serving = Arc::clone(&service);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let service = Arc::clone(&serving);
                // A client that has gone is no matter.
                thread::spawn(move || service.treat(stream).is_ok());
            }
        });
        (url, service)
    }

    fn treat(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
        reader.read_line(&mut first)?;
        while reader.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request: Value = serde_json::from_slice(&body).expect("JSON");
        let path = first.split(' ').nth(1).expect("a path");
        let (status, reply) = match path {
            "/v1/load_lora_adapter" => self.load(&request),
            "/v1/unload_lora_adapter" => self.unload(&request),
            "/v1/completions" => match (self.fate)(self.numbered()) {
                Fate::Answer => self.answer(&request, None),
                Fate::Lie(lie) => self.answer(&request, Some(lie)),
                Fate::Busy => (503, json!({ "error": "overloaded" })),
                Fate::Drop => return Ok(()),
                Fate::Delay => return reader.read(&mut [0]).map(drop),
                Fate::Die => {
                    self.adapters.lock().expect("no panic").clear();
                    self.deaths.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
            },
            other => (404, json!({ "message": format!("{other} is not served") })),
        };
        // What Python writes, and no JSON.
        let reply = reply.to_string().replace("\"NaN\"", "NaN");
        let head =
            format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", reply.len());
        stream.write_all((head + &reply).as_bytes())
    }

    /// The number of a request, when it may be answered.
    fn numbered(&self) -> usize {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        while number >= self.answered.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        number
    }

    fn load(&self, request: &Value) -> (u16, Value) {
        let [name, path] =
            ["lora_name", "lora_path"].map(|key| request[key].as_str().expect("text").to_owned());
        let mut versions = self.versions.lock().expect("no panic");
        if !versions.contains(&name) {
            versions.push(name.clone());
        }
        drop(versions);
        let known = self.adapters.lock().expect("no panic").insert(name, PathBuf::from(path));
        match known {
            Some(_) => (400, json!({ "message": "The lora adapter has already been loaded." })),
            None => (200, json!("Success")),
        }
    }

    fn unload(&self, request: &Value) -> (u16, Value) {
        let name = request["lora_name"].as_str().expect("text");
        match self.adapters.lock().expect("no panic").remove(name) {
            Some(_) => (200, json!("Success")),
            None => (404, json!({ "message": "The lora adapter cannot be found." })),
        }
    }

    fn answer(&self, request: &Value, lie: Option<usize>) -> (u16, Value) {
        match request["prompt_logprobs"].as_u64() {
            Some(count) => {
                (200, teacher_server::scored(&self.base, &ids(request, "prompt"), count as usize, lie))
            }
            None => self.complete(request, lie),
        }
    }

    fn complete(&self, request: &Value, lie: Option<usize>) -> (u16, Value) {
        let name = request["model"].as_str().expect("text");
        let Some(path) = self.adapters.lock().expect("no panic").get(name).cloned() else {
            return (404, json!({ "message": format!("The model `{name}` does not exist.") }));
        };
        let model = ModelFolder::open(&self.base).expect("the base");
        let adapter = adapter::read(&path, &model.shape).expect("an adapter");
        let setup = Setup {
            lora: Some(adapter.config.clone()),
            frozen: Storage::F32,
            reference: Reference::AdapterOff,
            recompute: false,
            max_tokens: 64,
            max_rows: 64,
        };
        let mut policy = Policy::new(model.shape.clone(), setup).expect("fits");
        policy.load(model.source()).expect("weights");
        policy.load_adapter(adapter.source()).expect("fits");
        let config = GenerateConfig {
            max_new_tokens: request["max_tokens"].as_u64().expect("a number") as usize,
            stop_ids: ids(request, "stop_token_ids"),
            ..GenerateConfig::default()
        };
        let samples = request["n"].as_u64().expect("a number") as usize;
        let seed = Seed::new(request["seed"].as_u64().expect("a seed"));
        let drawn = Generator::new(&policy, config)
            .and_then(|mut generator| generator.draw(&[&ids(request, "prompt")], samples, seed))
            .expect("draws");
        let choice = |sample: &saddlepoint_lm::engine::Sample| {
            json!({
                "index": sample.index, "text": "", "token_ids": sample.ids,
                "finish_reason": if sample.finish == Finish::Stop { "stop" } else { "length" },
                "logprobs": { "token_logprobs": sample.logps },
            })
        };
        let mut reply = json!({ "model": name, "choices": drawn.iter().map(choice).collect::<Vec<_>>() });
        let first = &mut reply["choices"][0];
        match lie {
            None => {}
            Some(0) => reply["model"] = json!("saddle-0000000000000000"),
            Some(1) => drop(reply["choices"].as_array_mut().expect("a list").pop()),
            Some(2) => first["index"] = json!(1),
            Some(3) => first["token_ids"][0] = json!(4_000_000),
            Some(4) => first["logprobs"]["token_logprobs"][0] = json!(0.7),
            Some(5) => first["logprobs"]["token_logprobs"] = json!([]),
            Some(6) => first["token_ids"] = json!([0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Some(_) => return (200, json!("not completions")),
        }
        (200, reply)
    }
}

fn ids(request: &Value, key: &str) -> Vec<u32> {
    let list = request[key].as_array().expect("a list").iter();
    list.map(|id| id.as_u64().expect("an id") as u32).collect()
}

pub(crate) fn sets(url: &str, out: &str) -> Vec<String> {
    vec![
        format!("train.output_dir=\"{out}\""),
        format!("rollout.server={{ url = \"{url}\", timeout = 20, retries = 8 }}"),
        "model.lora={ r = 8 }".to_owned(),
        "train.max_steps=50".to_owned(),
        "train.sample_prompts=0".to_owned(),
        "data.generate.eval_samples=8".to_owned(),
    ]
}

/// Whatever the server does, the run ends with the bytes of one whose server did nothing of it.
#[test]
fn a_server_that_dies_fifty_times_changes_nothing() {
    let place = place("name = \"grpo\"");
    // The base is trained first.
    quiet(&load(place.path(), "run.toml", &["train.max_steps=1", "train.output_dir=first"]), false);
    let base = place.path().join("base/model");
    let ended = |fate: Fates, out: &str| {
        let (url, service) = Service::start(&base, fate);
        let sets = sets(&url, out);
        let recipe = load(place.path(), "run.toml", &sets.iter().map(String::as_str).collect::<Vec<_>>());
        quiet(&recipe, false);
        (place.path().join(out), service.deaths.load(Ordering::Relaxed))
    };
    let (calm, none) = ended(|_| Fate::Answer, "calm");
    let (faulty, deaths) = ended(
        |request| match request % 32 {
            1 | 8 | 15 | 22 => Fate::Die,
            3 => Fate::Drop,
            11 => Fate::Busy,
            18 => Fate::Lie(request / 32 % LIES),
            27 if request < 32 => Fate::Delay,
            _ => Fate::Answer,
        },
        "faulty",
    );
    assert_eq!(none, 0);
    assert!(deaths >= 50, "{deaths} deaths");
    let adapter = |run: &Path| fs::read(run.join("model/adapter_model.safetensors")).expect("an adapter");
    assert!(adapter(&calm) == adapter(&faulty));
    let of_run = |run: &Path| -> Vec<Value> {
        lines(run.join("samples.jsonl")).into_iter().filter(|line| line.get("step").is_some()).collect()
    };
    let samples = of_run(&calm);
    assert!(samples == of_run(&faulty));
    assert_eq!(samples.len(), 50 * 32);
    let versions: std::collections::BTreeSet<&str> =
        samples.iter().map(|sample| sample["version"].as_str().expect("a version")).collect();
    assert_eq!(versions.len(), 50, "every step has weights of its own");
    for line in lines(calm.join("metrics.jsonl")).iter().filter(|line| line.get("loss").is_some()) {
        let mean = line["sampling/importance_sampling_ratio/mean"].as_f64().expect("a ratio");
        assert!((mean - 1.0).abs() < 1e-3, "the server samples from the policy: {line}");
    }
    let served = fs::read_dir(calm.join("served")).expect("a folder").count();
    assert_eq!(served, 1, "adapters that are no longer served are removed");
}

/// A server that never says what can be true is told about, and no step is taken.
#[test]
fn a_server_that_only_lies_is_an_error() {
    let place = place("name = \"grpo\"");
    quiet(&load(place.path(), "run.toml", &["train.max_steps=1", "train.output_dir=first"]), false);
    let base = place.path().join("base/model");
    let fates: [(Fates, &str); 3] = [
        (|_| Fate::Lie(0), "gave completions of `saddle-0000000000000000` when asked for `saddle-"),
        (|_| Fate::Lie(3), "completion 0 has id 4000000 in a vocabulary of "),
        (|_| Fate::Busy, "replied with status 503: \"{\\\"error\\\":\\\"overloaded\\\"}\""),
    ];
    for (i, (fate, told)) in fates.into_iter().enumerate() {
        let (url, _) = Service::start(&base, fate);
        let mut sets = sets(&url, &format!("lied-{i}"));
        sets[1] = format!("rollout.server={{ url = \"{url}\", retries = 1 }}");
        let recipe = load(place.path(), "run.toml", &sets.iter().map(String::as_str).collect::<Vec<_>>());
        let error = run(&recipe, false, &mut |_| {}).expect_err("no completions").to_string();
        assert!(error.starts_with("rollout.server: prompt "), "{error}");
        assert!(error.contains(told), "{error}");
        assert!(!place.path().join(format!("lied-{i}/samples.jsonl")).exists());
    }
}
