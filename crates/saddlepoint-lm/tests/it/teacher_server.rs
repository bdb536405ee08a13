//! A teacher on a server against the same teacher in the process, and a server that lies about its teacher.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use saddlepoint_lm::data::Tokenizer;
use saddlepoint_lm::engine::{Forest, Policy, Reference, Setup, Storage, Want};
use saddlepoint_lm::method::MethodConfig;
use saddlepoint_lm::model::ModelFolder;
use saddlepoint_lm::recipe::Recipe;
use saddlepoint_lm::trainer::run;
use serde_json::{Map, Value, json};

use crate::on_policy::{place, with_teacher};
use crate::rollout_server::{Fate, Fates, Service};
use crate::trainer::{lines, load, quiet};

/// What vLLM says of `ids` with `prompt_logprobs`; or a lie.
pub(crate) fn scored(model: &Path, ids: &[u32], count: usize, lie: Option<usize>) -> Value {
    let model = ModelFolder::open(model).expect("a model");
    let vocab = model.shape.vocab as u32;
    let tokenizer = Tokenizer::from_bytes(model.path(), model.tokenizer_json()).expect("a tokenizer");
    let setup = Setup {
        lora: None,
        frozen: Storage::F32,
        reference: Reference::None,
        recompute: false,
        max_tokens: 64,
        max_rows: 64,
    };
    let mut policy = Policy::new(model.shape.clone(), setup).expect("fits");
    policy.load(model.source()).expect("weights");
    let mut forest = Forest::default();
    let supervised: Vec<bool> = (0..ids.len()).map(|i| i > 0).collect();
    forest.sequence(ids, &supervised);
    forest.listed = vec![(0..vocab).collect(); forest.rows.len()];
    let stats = policy.evaluate(&forest, Want::default()).expect("statistics");
    let place = |(row, logps): (usize, &Vec<f64>)| {
        let mut order: Vec<u32> = (0..vocab).collect();
        order.sort_by(|&a, &b| logps[b as usize].total_cmp(&logps[a as usize]));
        let target = forest.rows[row].target;
        let told = order.iter().enumerate().filter(|&(rank, &id)| rank < count || id == target);
        let entry = |(rank, &id): (usize, &u32)| {
            let text = tokenizer.decode_with_special_tokens(&[id]);
            let entry = json!({ "logprob": logps[id as usize], "rank": rank + 1, "decoded_token": text });
            (id.to_string(), entry)
        };
        Value::Object(told.map(entry).collect::<Map<_, _>>())
    };
    let mut places: Vec<Value> = vec![Value::Null];
    places.extend(stats.listed.iter().enumerate().map(place));
    let (last, key) = (ids.len() - 1, ids[ids.len() - 1].to_string());
    match lie {
        None => {}
        Some(0) => drop(places.pop()),
        Some(1) => places[last][&key]["logprob"] = json!("NaN"),
        Some(2) => places[last][&key]["logprob"] = json!(0.7),
        Some(3) => drop(places[last].as_object_mut().expect("entries").remove(&key)),
        Some(4) => places[last][&key]["logprob"] = Value::Null,
        Some(5) => places[last][&key]["decoded_token"] = json!("gnu"),
        Some(6) => {
            let entries = places[last].as_object_mut().expect("entries");
            entries.insert("0".to_owned(), json!({ "logprob": 0.0 }));
            entries.insert("1".to_owned(), json!({ "logprob": 0.0 }));
        }
        Some(7) => places[last] = json!({ key.as_str(): places[last][&key] }),
        // As a server that does not know what is asked.
        Some(_) => return json!({ "choices": [{ "text": "", "index": 0 }] }),
    }
    json!({ "choices": [{ "text": "", "index": 0, "prompt_logprobs": places }] })
}

const STEPS: usize = 5;

/// The teacher alone, for so many steps, by this estimator.
fn method(estimator: &str) -> String {
    format!("name = \"kdrl\"\nmode = \"sequential\"\nkd_steps = {STEPS}\nkl_estimator = \"{estimator}\"")
}

/// A place with a student and a teacher that have been trained.
struct Taught {
    place: tempfile::TempDir,
    teacher: PathBuf,
}

impl Taught {
    fn new() -> Self {
        let place = place(&method("k2"));
        with_teacher(place.path());
        quiet(&load(place.path(), "run.toml", &["train.max_steps=1", "train.output_dir=first"]), false);
        let teacher = place.path().join("teacher/model");
        Self { place, teacher }
    }

    /// The recipe by `estimator`, whose teacher is in the process or as these lines say.
    fn recipe(&self, estimator: &str, server: Option<&str>, out: &str) -> Recipe {
        let text = fs::read_to_string(self.place.path().join("run.toml")).expect("text");
        let text = text.replace(&method("k2"), &method(estimator));
        let text = server.map_or(text.clone(), |lines| text.replace("recipe = \"teacher.toml\"", lines));
        fs::write(self.place.path().join("taught.toml"), text).expect("written");
        let (out, steps) = (format!("train.output_dir={out}"), format!("train.max_steps={STEPS}"));
        let sets = [out.as_str(), &steps, "data.generate.eval_samples=4", "train.sample_prompts=0"];
        load(self.place.path(), "taught.toml", &sets)
    }

    /// Metrics of the steps of a run.
    fn run(&self, estimator: &str, out: &str, server: Option<&str>) -> Vec<Value> {
        quiet(&self.recipe(estimator, server, out), false);
        let metrics = lines(self.place.path().join(out).join("metrics.jsonl"));
        let steps: Vec<Value> = metrics.into_iter().filter(|line| line.get("loss").is_some()).collect();
        assert_eq!(steps.len(), STEPS);
        steps
    }

    /// Why a run ends whose server has this fate at every request; no completion is trained on.
    fn told(&self, fate: Fates, settings: &str, out: &str) -> String {
        let (url, _) = Service::start(&self.teacher, fate);
        let server = format!("server = {{ url = \"{url}\", {settings} }}\ntop_k = 3");
        let recipe = self.recipe("top_k", Some(&server), out);
        let error = run(&recipe, false, &mut |_| {}).expect_err("no teacher").to_string();
        assert!(!self.place.path().join(out).join("samples.jsonl").exists());
        error.replace(&url, "URL")
    }
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name} in {line}"))
}

/// Each step says the same, but for what the order of sums and the writing of numbers change.
#[track_caller]
fn same(a: &[Value], b: &[Value], names: &[(&str, &str)]) {
    for (a, b) in a.iter().zip(b) {
        for (of_a, of_b) in names {
            let (a, b) = (number(a, of_a), number(b, of_b));
            assert!((a - b).abs() < 1e-4 * b.abs().max(1e-2), "{of_a} {a} against {of_b} {b}");
        }
    }
}

/// A run whose teacher is on a server is the one whose teacher is in the process: by the sampled token, and by a list of all tokens, which
/// is the whole distribution.
#[test]
fn a_teacher_on_a_server_teaches_what_it_does_in_the_process() {
    let taught = Taught::new();
    let vocab = ModelFolder::open(&taught.teacher).expect("a model").shape.vocab;
    let (url, _) = Service::start(&taught.teacher, |_| Fate::Answer);
    let server = format!("server = {{ url = \"{url}\" }}");
    let all = ["loss", "kl", "grad_norm", "entropy", "reward", "kdrl/clamped"].map(|name| (name, name));
    for estimator in ["k2", "k3"] {
        let here = taught.run(estimator, &format!("here-{estimator}"), None);
        let there = taught.run(estimator, &format!("there-{estimator}"), Some(&server));
        same(&there, &here, &all);
        assert!(number(&here[0], "kl") > 0.05, "there is something to learn: {}", here[0]);
    }
    let full = taught.run("full", "full", None);
    let listed = |k: usize| {
        let top = taught.run("top_k", &format!("top-{k}"), Some(&format!("{server}\ntop_k = {k}")));
        for line in &top {
            let left = number(line, "kdrl/teacher_left");
            assert!((0.0..1.0).contains(&left) && number(line, "kdrl/left") >= 0.0, "{line}");
        }
        top
    };
    let whole = listed(vocab);
    same(
        &whole,
        &full,
        &[("loss", "loss"), ("kdrl/top_kl", "kl"), ("grad_norm", "grad_norm"), ("reward", "reward")],
    );
    assert!(number(&whole[0], "kdrl/teacher_left") < 1e-5, "{}", whole[0]);
    // Of fewer tokens less is told apart, on the same completions of the first step.
    let bounds: Vec<f64> = [1, 2, 4].map(|k| number(&listed(k)[0], "kdrl/top_kl")).to_vec();
    let exact = number(&full[0], "kl");
    assert!(bounds[0] > 0.0 && bounds.windows(2).all(|pair| pair[0] < pair[1]), "{bounds:?}");
    assert!(bounds[2] < exact + 1e-6, "{bounds:?} of {exact}");
}

static ASKED: AtomicUsize = AtomicUsize::new(0);

/// After the steps that are the teacher's it is neither asked on a server nor computed in the process.
#[test]
fn a_teacher_that_has_taught_is_not_asked_any_more() {
    const TAUGHT: u64 = 2;
    let taught = Taught::new();
    let (url, _) = Service::start(&taught.teacher, |request| {
        ASKED.fetch_max(request + 1, Ordering::Relaxed);
        Fate::Answer
    });
    let metrics = |server: Option<&str>, out: &str| {
        let mut recipe = taught.recipe("k2", server, out);
        let MethodConfig::Kdrl(config) = &mut recipe.method else { panic!("kdrl") };
        config.kd_steps = Some(TAUGHT);
        quiet(&recipe, false);
        let metrics = lines(taught.place.path().join(out).join("metrics.jsonl"));
        metrics.into_iter().filter(|line| line.get("loss").is_some()).collect::<Vec<Value>>()
    };
    let there = metrics(Some(&format!("server = {{ url = \"{url}\" }}")), "there");
    let samples = lines(taught.place.path().join("there/samples.jsonl"));
    let of_teacher = samples.iter().filter(|line| line["step"].as_u64().is_some_and(|step| step <= TAUGHT));
    assert_eq!(ASKED.load(Ordering::Relaxed), of_teacher.count());
    let here = metrics(None, "here");
    same(&there, &here, &["loss", "grad_norm", "entropy", "kdrl/beta"].map(|name| (name, name)));
    for line in here.iter().chain(&there) {
        assert_eq!(line.get("kl").is_some(), number(line, "step") as u64 <= TAUGHT, "{line}");
    }
}

/// Faults that pass leave the bytes of a run as they are without them.
#[test]
fn a_server_whose_faults_pass_changes_nothing() {
    let taught = Taught::new();
    let ended = |fate: Fates, out: &str| {
        let (url, _) = Service::start(&taught.teacher, fate);
        let server = format!("server = {{ url = \"{url}\", timeout = 10 }}\ntop_k = 3");
        taught.run("top_k", out, Some(&server));
        fs::read(taught.place.path().join(out).join("model/model.safetensors")).expect("weights")
    };
    let calm = ended(|_| Fate::Answer, "calm");
    let faulty = ended(
        |request| match request % 16 {
            1 => Fate::Die,
            3 => Fate::Drop,
            5 => Fate::Busy,
            7 => Fate::Lie([0, 1, 2, 3, 4, 6, 7][request / 16 % 7]),
            11 if request < 16 => Fate::Delay,
            _ => Fate::Answer,
        },
        "faulty",
    );
    assert!(calm == faulty);
}

/// A server that does not say what can be true is told about, and a hang ends with the time that it was given.
#[test]
fn what_a_server_says_is_not_taken_on_trust() {
    let taught = Taught::new();
    let fates: [(Fates, &str); 10] = [
        (|_| Fate::Lie(0), "last: said something of "),
        (|_| Fate::Lie(1), "last: replied with no log-probabilities (expected value"),
        (|_| Fate::Lie(2), " has 0.7 for the log-probability of "),
        (|_| Fate::Lie(3), ", of which nothing is said"),
        (|_| Fate::Lie(4), " has no log-probability of "),
        (|_| Fate::Lie(5), " \"gnu\", which is \""),
        (|_| Fate::Lie(6), " has probabilities that add up to "),
        (|_| Fate::Lie(7), " has 1 of the 3 most probable tokens"),
        (|_| Fate::Lie(8), "URL/v1/completions: has no `prompt_logprobs`, which it has to know (vLLM does)"),
        (|_| Fate::Busy, "last: replied with status 503"),
    ];
    for (i, (fate, told)) in fates.into_iter().enumerate() {
        let error = taught.told(fate, "retries = 0", &format!("told-{i}"));
        assert!(error.starts_with("teacher.server: completion "), "{error}");
        assert!(error.contains(told), "{error} should say {told}");
    }
    let error = taught.told(|_| Fate::Delay, "timeout = 0.3, retries = 1", "late");
    assert!(error.contains("no reply to 2 requests, last: timeout"), "{error}");
}
