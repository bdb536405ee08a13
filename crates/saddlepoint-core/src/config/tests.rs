use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;

/// A configuration with one of everything that recipes use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Recipe {
    /// Seed of every
    /// random stream.
    ///
    /// A second paragraph.
    seed: u64,
    data: Data,
    method: Method,
    /// How it moves.
    update: Update,
    /// Trains an adapter only.
    lora: Option<Lora>,
    /// Stops early at this loss.
    target: Option<f64>,
    stages: Vec<Stage>,
    weights: BTreeMap<String, f64>,
    start: Start,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seed: 42,
            data: Data::default(),
            // Not the default of `Dpo`, so that it shows which one counts.
            method: Method::Dpo(Dpo { beta: 0.3, ..Dpo::default() }),
            update: Update::default(),
            lora: None,
            target: None,
            stages: Vec::new(),
            weights: BTreeMap::new(),
            start: Start::Fresh,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Data {
    /// File to read.
    path: PathBuf,
    max_length: u16,
    columns: Vec<String>,
}

/// What is optimised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case")]
enum Method {
    Sft(Sft),
    Dpo(Dpo),
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sft {
    packing: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Dpo {
    /// Strength of the pull to the reference.
    beta: f64,
    loss_type: LossType,
}

impl Default for Dpo {
    fn default() -> Self {
        Self { beta: 0.1, loss_type: LossType::Sigmoid }
    }
}

/// A table of several kinds with a key that all of them have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Update {
    #[serde(flatten)]
    rule: Rule,
    /// Step size.
    rate: f64,
}

impl Default for Update {
    fn default() -> Self {
        Self { rule: Rule::Plain(Plain {}), rate: 0.5 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case")]
enum Rule {
    Plain(Plain),
    Inertial(Inertial),
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Plain {}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Inertial {
    /// What stays.
    momentum: f64,
    along: Along,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
enum Along {
    #[default]
    Itself,
    Power {
        p: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LossType {
    /// Logistic.
    Sigmoid,
    /// Squared.
    Ipo,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Lora {
    /// Rank.
    r: usize,
}

impl Default for Lora {
    fn default() -> Self {
        Self { r: 16 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Stage {
    /// Number of steps.
    steps: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Start {
    Fresh,
    Ema { decay: f64 },
}

fn with_file(text: &str, sets: &[&str]) -> Result<Recipe> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("run.toml");
    std::fs::write(&path, text).unwrap();
    load(Some(&path), &sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>())
}

/// The message without the directory of the file.
fn message(text: &str, sets: &[&str]) -> String {
    let message = with_file(text, sets).unwrap_err().to_string();
    match message.find("run.toml") {
        Some(at) => message[at..].to_owned(),
        None => message,
    }
}

#[test]
fn layers_come_one_over_the_other() {
    assert_eq!(load::<Recipe>(None, &[]).unwrap(), Recipe::default());
    let text = "seed = 1\nlora = {}\nstages = [{ steps = 5 }]\n[data]\npath = \"a.jsonl\"\nmax_length = 9\n\
                [method]\nloss_type = \"ipo\"\n[weights]\nlength = 0.5\n[start.ema]\ndecay = 0.9\n";
    let recipe =
        with_file(text, &["data.max_length=10", "data.path=b.jsonl", "weights.style = 2", "target=1"]);
    let expected = Recipe {
        seed: 1,
        data: Data { path: "b.jsonl".into(), max_length: 10, columns: Vec::new() },
        method: Method::Dpo(Dpo { beta: 0.3, loss_type: LossType::Ipo }),
        update: Update::default(),
        lora: Some(Lora { r: 16 }),
        target: Some(1.0),
        stages: vec![Stage { steps: 5 }],
        weights: BTreeMap::from([("length".into(), 0.5), ("style".into(), 2.0)]),
        start: Start::Ema { decay: 0.9 },
    };
    assert_eq!(recipe.unwrap(), expected);
}

#[test]
fn another_kind_of_table_starts_from_its_own_defaults() {
    let recipe = with_file("[method]\nname = \"sft\"\n", &[]).unwrap();
    assert_eq!(recipe.method, Method::Sft(Sft { packing: false }));
    let recipe = with_file("[method]\nname = \"sft\"\n", &["method.name=dpo", "method.beta=2"]).unwrap();
    assert_eq!(recipe.method, Method::Dpo(Dpo { beta: 2.0, loss_type: LossType::Sigmoid }));
    let text = "[method]\nname = \"sft\"\npacking = true\n";
    let told = "run.toml:3: unknown key method.packing; did you mean method[sft].packing?";
    assert_eq!(message(text, &["method.name=dpo"]), told, "what the user wrote is never dropped");
}

#[test]
fn keys_beside_the_kinds_of_a_table_belong_to_all_of_them() {
    let rule = |momentum, along| Rule::Inertial(Inertial { momentum, along });
    for (text, expected) in [
        ("[update]\nrate = 1\n", Update { rate: 1.0, ..Update::default() }),
        ("[update]\nname = \"inertial\"\n", Update { rule: rule(0.0, Along::Itself), rate: 0.5 }),
        (
            "[update]\nname = \"inertial\"\nmomentum = 1\nrate = 2\nalong = { name = \"power\", p = 3 }\n",
            Update { rule: rule(1.0, Along::Power { p: 3.0 }), rate: 2.0 },
        ),
    ] {
        let recipe = with_file(text, &[]).unwrap();
        assert_eq!(recipe.update, expected);
        assert_eq!(with_file(&to_toml(&recipe), &[]).unwrap(), recipe);
    }
    for (text, told) in [
        (
            "update.momentum = 1\n",
            "run.toml:1: unknown key update.momentum; did you mean update[inertial].momentum?",
        ),
        (
            "[update]\nname = \"inertial\"\nrates = 1\n",
            "run.toml:3: unknown key update.rates; did you mean update.rate?",
        ),
        (
            "[update]\nname = \"inertial\"\nalong = { name = \"itself\", p = 3 }\n",
            "run.toml:3: unknown key update.along.p; did you mean update[inertial].along[power].p?",
        ),
        (
            "[update]\nname = \"inertial\"\nalong = { name = \"power\" }\n",
            "run.toml:3: update.along.p is required; add it to the file or give --set update.along.p=VALUE",
        ),
        (
            "[update]\nname = \"plane\"\n",
            "run.toml:2: update.name: must be one of \"plain\", \"inertial\", got \"plane\"; did you mean \"plain\"?",
        ),
    ] {
        assert_eq!(message(text, &[]), told);
    }
}

/// Holds a table of several kinds that is left out by default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Absent {
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<Filled>,
}

/// Moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("default" = Filled::default()))]
struct Filled {
    #[serde(flatten)]
    rule: Rule,
    rate: f64,
}

impl Default for Filled {
    fn default() -> Self {
        Self { rule: Rule::Inertial(Inertial { momentum: 0.7, along: Along::Itself }), rate: 0.5 }
    }
}

#[test]
fn a_table_that_is_left_out_starts_from_the_default_of_its_type() {
    let read = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        load::<Absent>(None, &sets).map(|absent| absent.update)
    };
    assert_eq!(read(&[]).unwrap(), None);
    assert_eq!(read(&["update={}"]).unwrap(), Some(Filled::default()));
    let inertial = |momentum| Rule::Inertial(Inertial { momentum, along: Along::Itself });
    let slow = Filled { rule: inertial(0.2), ..Filled::default() };
    assert_eq!(read(&["update.momentum=0.2"]).unwrap(), Some(slow));
    let plain = Filled { rule: Rule::Plain(Plain {}), ..Filled::default() };
    assert_eq!(read(&["update.name=plain"]).unwrap(), Some(plain));
    let message = read(&["update={ name = \"plain\", momentum = 1 }"]).unwrap_err().to_string();
    assert!(
        message.ends_with("unknown key update.momentum; did you mean update[inertial].momentum?"),
        "{message}"
    );
    let shown: Vec<_> = keys::<Absent>().into_iter().map(|key| (key.path, key.default)).collect();
    let expected = [
        ("update", "unset"),
        ("update.name", "\"inertial\""),
        ("update.rate", "0.5"),
        ("update[inertial].momentum", "0.7"),
        ("update[inertial].along.name", "\"itself\""),
        ("update[inertial].along[power].p", "required"),
    ];
    assert_eq!(shown, expected.map(|(path, default)| (path.to_owned(), default.to_owned())));
}

#[test]
fn options_are_toml_or_text() {
    let set = |option: &str| load::<Recipe>(None, &[option.to_owned()]);
    assert_eq!(set("data.columns=[\"a\", \"b\"]").unwrap().data.columns, ["a", "b"]);
    assert_eq!(set("data.path=runs/a=b.jsonl").unwrap().data.path, PathBuf::from("runs/a=b.jsonl"));
    assert_eq!(set("data={ path = \"x\" }").unwrap().data.path, PathBuf::from("x"));
    assert_eq!(set("data.path=1\nseed=7").unwrap().data.path, PathBuf::from("1\nseed=7"));
    for bad in ["seed", "=1", "data..path=x"] {
        let expected = format!("--set {bad}: expected KEY=VALUE, for example --set method.beta=0.2");
        assert_eq!(set(bad).unwrap_err().to_string(), expected);
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    let cases = [
        (
            "seed = 1\n\n[method]\nname = \"dpo\"\nbta = 1\n",
            "run.toml:5: unknown key method.bta; did you mean method.beta?",
        ),
        ("sede = 1\n", "run.toml:1: unknown key sede; did you mean seed?"),
        ("[data]\nbeta = 1\n", "run.toml:2: unknown key data.beta; did you mean method[dpo].beta?"),
        ("[data]\nxyz = 1\n", "run.toml:2: unknown key data.xyz; known there: path, max_length, columns"),
        ("[lora]\nrank = 8\n", "run.toml:2: unknown key lora.rank; known there: r"),
        (
            "[[stages]]\nsteps = 1\n[[stages]]\nsteps = 1\nstep = 2\n",
            "run.toml:5: unknown key stages[1].step; did you mean stages[1].steps?",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(message(text, &[]), expected);
    }
    let told = "--set method.bta=1: unknown key method.bta; did you mean method.beta?";
    assert_eq!(message("seed = 1", &["method.bta=1"]), told);
}

#[test]
fn values_of_the_wrong_type_are_refused_with_their_line() {
    let cases = [
        ("\n[method]\nbeta = \"x\"\n", "run.toml:3: method.beta: must be a number, got \"x\" (default 0.3)"),
        ("seed = -1\n", "run.toml:1: seed: must be at least 0, got -1 (default 42)"),
        ("seed = 1.5\n", "run.toml:1: seed: must be an integer, got 1.5 (default 42)"),
        ("target = true\n", "run.toml:1: target: must be a number, got true"),
        (
            "data.max_length = 70000\n",
            "run.toml:1: data.max_length: must be at most 65535, got 70000 (default 0)",
        ),
        ("data.columns = [\"a\",\n 3]\n", "run.toml:2: data.columns[1]: must be a string, got 3"),
        ("data = 3\n", "run.toml:1: data: must be a table, got 3"),
        (
            "[method]\nname = \"dop\"\n",
            "run.toml:2: method.name: must be one of \"sft\", \"dpo\", got \"dop\"; did you mean \"dpo\"?",
        ),
        ("[method]\nname = 3\n", "run.toml:2: method.name: must be a string, got 3"),
        (
            "method.loss_type = \"hinge\"\n",
            "run.toml:1: method.loss_type: must be one of \"sigmoid\", \"ipo\", got \"hinge\" (default \"sigmoid\")",
        ),
        (
            "start = \"fresch\"\n",
            "run.toml:1: start: must be one of \"fresh\", got \"fresch\"; did you mean \"fresh\"? (default \"fresh\")",
        ),
        (
            "[[stages]]\n",
            "run.toml:1: stages[0].steps is required; add it to the file or give --set stages[0].steps=VALUE",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(message(text, &[]), expected);
    }
    let told = "--set method.beta=abc: method.beta: must be a number, got \"abc\" (default 0.3)";
    assert_eq!(message("[method]\nbeta = 1", &["method.beta=abc"]), told);
}

#[test]
fn what_is_not_toml_is_refused_with_line_and_column() {
    let told = message("seed = 1\n[data\npath = 3\n", &[]);
    assert!(told.starts_with("run.toml:2:6: not valid TOML: "), "{told}");
    let told = message("seed = 1\nseed = 2\n", &[]);
    assert!(told.starts_with("run.toml:2:1: not valid TOML: duplicate key"), "{told}");
    let absent = load::<Recipe>(Some(Path::new("/absent/run.toml")), &[]).unwrap_err().to_string();
    assert_eq!(
        absent,
        "cannot read /absent/run.toml: No such file or directory (os error 2); check the path"
    );
}

#[test]
fn every_key_is_listed_with_type_default_and_meaning() {
    let rows: Vec<String> = keys::<Recipe>()
        .into_iter()
        .map(|Key { path, kind, default, doc }| format!("{path} : {kind} = {default} # {doc}"))
        .collect();
    let expected = [
        "seed : integer = 42 # Seed of every random stream.",
        "data.path : string = \"\" # File to read.",
        "data.max_length : integer = 0 # ",
        "data.columns : array of string = [] # ",
        "method.name : \"sft\" | \"dpo\" = \"dpo\" # What is optimised.",
        "method[sft].packing : boolean = false # ",
        "method[dpo].beta : number = 0.3 # Strength of the pull to the reference.",
        "method[dpo].loss_type : \"sigmoid\" | \"ipo\" = \"sigmoid\" # ",
        "update.name : \"plain\" | \"inertial\" = \"plain\" # How it moves.",
        "update.rate : number = 0.5 # Step size.",
        "update[inertial].momentum : number = 0.0 # What stays.",
        "update[inertial].along.name : \"itself\" | \"power\" = \"itself\" # ",
        "update[inertial].along[power].p : number = required # ",
        "lora : table = unset # Trains an adapter only.",
        "lora.r : integer = 16 # Rank.",
        "target : number = unset # Stops early at this loss.",
        "stages : array of table = [] # ",
        "stages[].steps : integer = required # Number of steps.",
        "weights : table of number = {} # ",
        "start : \"fresh\" | table = \"fresh\" # ",
        "start.ema.decay : number = required # ",
    ];
    assert_eq!(rows, expected);
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let method = prop_oneof![
        any::<bool>().prop_map(|packing| Method::Sft(Sft { packing })),
        (-1e3..1e3).prop_map(|beta| Method::Dpo(Dpo { beta, loss_type: LossType::Ipo })),
    ];
    let parts = (any::<u32>(), "[ -~]{0,12}", any::<u16>(), method, any::<Option<u8>>());
    parts.prop_map(|(seed, path, max_length, method, rank)| Recipe {
        seed: seed.into(),
        data: Data { path: path.clone().into(), max_length, columns: vec![path] },
        method,
        lora: rank.map(|r| Lora { r: r.into() }),
        stages: vec![Stage { steps: seed.into() }],
        ..Recipe::default()
    })
}

proptest! {
    #[test]
    fn a_written_configuration_reads_back(recipe in recipes()) {
        prop_assert_eq!(with_file(&to_toml(&recipe), &[]).unwrap(), recipe);
    }

    #[test]
    fn the_highest_layer_that_names_a_key_decides(
        file in any::<[Option<u16>; 3]>(), sets in any::<[Option<u16>; 3]>(),
    ) {
        let keys = ["seed", "data.max_length", "method.beta"];
        let line = |(key, value): (&&str, &Option<u16>)| value.map(|value| format!("{key}={value}"));
        let text: Vec<String> = keys.iter().zip(&file).filter_map(line).collect();
        let options: Vec<String> = keys.iter().zip(&sets).filter_map(line).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let recipe = with_file(&text.join("\n"), &options).unwrap();
        let value = |i: usize| sets[i].or(file[i]);
        prop_assert_eq!(recipe.seed, value(0).map_or(42, u64::from));
        prop_assert_eq!(recipe.data.max_length, value(1).unwrap_or(0));
        let beta = value(2).map_or(0.3, f64::from);
        prop_assert_eq!(recipe.method, Method::Dpo(Dpo { beta, loss_type: LossType::Sigmoid }));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z=\\[\\]{}\"'.,#\n0-9 -]{0,60}", option in "\\PC{0,30}") {
        let _ = with_file(&text, &[&option]);
    }
}
