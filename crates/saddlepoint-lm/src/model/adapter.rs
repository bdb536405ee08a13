//! LoRA adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Value, json};

use super::json::{self, Keys, Object};
use super::safetensors::{self, SafeTensors};
use super::{Dtype, bad, put};
use crate::Result;
use crate::engine::{LoraConfig, Readout, SCORE, Shape, Target, TensorSpec, WeightSource};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Keys that we honour or that do not change what the adapter computes. Any other key must say nothing.
const KNOWN: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Largest rank; far above any in use, and small enough that sizes stay within 64 bits.
pub(crate) const MAX_RANK: usize = 1 << 16;

/// An adapter on disk.
#[derive(Debug)]
pub struct Adapter {
    /// Rank, scale and the projections it changes. PEFT's `lora_dropout` has no counterpart: dropout does
    /// not change what a trained adapter computes.
    pub config: LoraConfig,
    /// The base model it was trained on, if it says so.
    pub base: Option<String>,
    weights: SafeTensors,
}

impl Adapter {
    /// The matrices `A` and `B`, by the names of [`LoraConfig::tensors`].
    pub fn source(&self) -> &dyn WeightSource {
        &self.weights
    }
}

/// Reads the adapter in `folder` for a base model of shape `shape`.
///
/// # Errors
/// A file is missing or damaged, the adapter does not fit the model, or it uses what we cannot honour
/// (DoRA, other trained modules, biases, ranks that differ between modules, some layers only, ...); the
/// message names the key.
pub fn read(folder: &Path, shape: &Shape) -> Result<Adapter> {
    let path = folder.join(CONFIG);
    let object = json::read(&path)?;
    let keys = Keys::new(&path, &object);
    refuse_unsupported(keys, shape.readout)?;
    let weights = SafeTensors::open(&folder.join(WEIGHTS))?;
    let r = keys.count("r")?.unwrap_or(8);
    if r == 0 {
        return Err(keys.refuse("r", "must be at least 1"));
    }
    if r > MAX_RANK {
        return Err(keys.refuse("r", &format!("must be at most {MAX_RANK}")));
    }
    let lora_alpha = keys.number("lora_alpha")?.unwrap_or(8.0);
    let target_modules = targets(&folder.join(WEIGHTS), &weights, shape)?;
    check_targets(keys, &target_modules)?;
    let config = LoraConfig { r, lora_alpha, target_modules, use_rslora: keys.flag("use_rslora")? };
    for spec in config.tensors(shape) {
        let dims = weights.dims(&spec.name);
        if dims != Some(&spec.dims) {
            let (name, want) = (&spec.name, &spec.dims);
            let have = dims.map_or("is missing".to_owned(), |dims| format!("has dimensions {dims:?}"));
            let problem = format!("tensor {name} {have}, the base model and r = {r} ask for {want:?}");
            return Err(bad(&folder.join(WEIGHTS), problem));
        }
    }
    let base = keys.text("base_model_name_or_path")?.map(str::to_owned);
    Ok(Adapter { config, base, weights })
}

/// What an adapter says before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose {
    /// What it makes of its base. A reward model has to be asked for ([`ModelFolder::set_readout`](super::ModelFolder::set_readout))
    /// before the adapter is read.
    pub readout: Readout,
    /// The base model it was trained on, if it says so.
    pub base: Option<String>,
}

/// What the adapter in `folder` is for.
///
/// # Errors
/// The adapter's configuration cannot be read.
pub fn purpose(folder: &Path) -> Result<Purpose> {
    let path = folder.join(CONFIG);
    let object = json::read(&path)?;
    let keys = Keys::new(&path, &object);
    let scores = keys.text("task_type")? == Some(task(Readout::Score));
    let readout = if scores { Readout::Score } else { Readout::Vocabulary };
    Ok(Purpose { readout, base: keys.text("base_model_name_or_path")?.map(str::to_owned) })
}

/// PEFT's name for what an adapter does.
fn task(readout: Readout) -> &'static str {
    if readout == Readout::Score { "SEQ_CLS" } else { "CAUSAL_LM" }
}

fn refuse_unsupported(keys: Keys, readout: Readout) -> Result<()> {
    if keys.text("peft_type")? != Some("LORA") {
        return Err(keys.refuse("peft_type", "only LORA is supported"));
    }
    if keys.text("task_type")?.is_some_and(|named| named != task(readout)) {
        let why = format!("only {} is supported on this model", task(readout));
        return Err(keys.refuse("task_type", &why));
    }
    // PEFT adds both names of heads for classifiers of sequences.
    let saved = keys.get("modules_to_save").and_then(Value::as_array);
    let heads = saved.is_some_and(|list| list.iter().all(|name| name == "score" || name == "classifier"));
    if keys.text("bias")?.is_some_and(|bias| bias != "none") {
        return Err(keys.refuse("bias", "trained biases are not supported"));
    }
    // Initialisations named here keep the base model as it is; the others (PiSSA, OLoRA, LoftQ, ...) change it.
    let harmless = |value: &Value| {
        value.is_boolean() || ["gaussian", "orthogonal", "eva"].iter().any(|name| value == name)
    };
    if keys.get("init_lora_weights").is_some_and(|value| !harmless(value)) {
        let why = "it changes the base weights; convert the adapter to plain LoRA with PEFT first";
        return Err(keys.refuse("init_lora_weights", why));
    }
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    };
    let fine = |key: &str| KNOWN.contains(&key) || (key == "modules_to_save" && heads && readout.score());
    match keys.object.iter().find(|(key, value)| !fine(key) && !empty(value)) {
        Some((key, _)) => Err(keys.refuse(key, "is not supported")),
        None => Ok(()),
    }
}

/// The projections that have an adapter, by the names of the tensors: every layer must have the same.
fn targets(path: &Path, weights: &SafeTensors, shape: &Shape) -> Result<Vec<Target>> {
    let found: BTreeSet<&str> = weights.names().collect();
    let everything = LoraConfig { target_modules: Target::ALL.to_vec(), ..LoraConfig::default() };
    let known: BTreeSet<String> = everything.tensors(shape).into_iter().map(|spec| spec.name).collect();
    if let Some(name) = found.iter().find(|name| !known.contains(**name)) {
        return Err(bad(path, format!("tensor {name} is not the adapter of a projection of this model")));
    }
    let targets =
        Target::ALL.into_iter().filter(|target| found.iter().any(|name| name.contains(target.path())));
    let targets: Vec<Target> = targets.collect();
    if targets.is_empty() {
        return Err(bad(path, "holds no adapter"));
    }
    let expected = LoraConfig { target_modules: targets.clone(), ..LoraConfig::default() };
    match expected.tensors(shape).into_iter().find(|spec| !found.contains(spec.name.as_str())) {
        None => Ok(targets),
        Some(spec) => {
            let problem = "is missing: adapters of some layers only are not supported";
            Err(bad(path, format!("tensor {} {problem}", spec.name)))
        }
    }
}

/// What the configuration asks for must be what the file holds. A pattern is not evaluated: the tensors
/// show what it matched.
fn check_targets(keys: Keys, found: &[Target]) -> Result<()> {
    let list = match keys.get("target_modules") {
        Some(Value::Array(list)) => list,
        Some(Value::String(name)) if name == "all-linear" => {
            return if found == Target::ALL {
                Ok(())
            } else {
                Err(keys.refuse("target_modules", "the file lacks some linear layers"))
            };
        }
        Some(Value::String(_)) => return Ok(()),
        _ => return Err(keys.refuse("target_modules", "must be a list of modules or a pattern")),
    };
    if let Some(name) = list.iter().find(|name| !Target::ALL.iter().any(|target| names(name, *target))) {
        let known: Vec<_> =
            Target::ALL.iter().filter_map(|target| target.path().split('.').next_back()).collect();
        let why = format!("{name} is not a projection that we can adapt ({})", known.join(", "));
        return Err(keys.refuse("target_modules", &why));
    }
    let asked: Vec<Target> =
        Target::ALL.into_iter().filter(|target| list.iter().any(|name| names(name, *target))).collect();
    // exclude_modules may take some away again.
    let fewer = keys.get("exclude_modules").is_some() && found.iter().all(|target| asked.contains(target));
    if fewer || found == asked {
        return Ok(());
    }
    let found: Vec<_> = found.iter().map(|target| target.path()).collect();
    Err(keys.refuse("target_modules", &format!("the file holds adapters of {found:?}")))
}

/// Whether PEFT would take `name` for this module: it is the module's name or the end of its path.
fn names(name: &Value, target: Target) -> bool {
    let path = format!(".{}", target.path());
    name.as_str().is_some_and(|name| path.ends_with(&format!(".{name}")))
}

/// Writes the adapter into `folder`, which must exist. `base` says where the base model is; `read` gives
/// the tensors `specs` ([`LoraConfig::tensors`]).
///
/// # Errors
/// The folder cannot be written, or a weight is not finite.
pub fn write(
    folder: &Path,
    config: &LoraConfig,
    base: &str,
    specs: &[TensorSpec],
    read: &dyn Fn(&TensorSpec, &mut [f32]) -> Result<()>,
) -> Result<()> {
    let scores = specs.last().is_some_and(|spec| spec.name.ends_with(SCORE));
    let readout = if scores { Readout::Score } else { Readout::Vocabulary };
    put(&folder.join(CONFIG), &json::to_bytes(&to_json(config, base, readout)))?;
    let specs: Vec<&TensorSpec> = specs.iter().collect();
    safetensors::write(&folder.join(WEIGHTS), &specs, read, Dtype::F32)
}

/// The keys of PEFT 0.21 with the values that plain LoRA gives them.
fn to_json(config: &LoraConfig, base: &str, readout: Readout) -> Object {
    let alpha = config.lora_alpha;
    // PEFT declares an integer; a fraction stays one.
    let alpha = if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) };
    let mut targets: Vec<_> =
        Target::ALL.into_iter().filter(|target| config.target_modules.contains(target)).collect();
    targets.sort();
    let saved = readout.score().then_some(["score"]);
    let value = json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": {},
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
        "loftq_config": {},
        "lora_alpha": alpha,
        "lora_bias": false,
        "lora_dropout": 0.0,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": saved,
        "peft_type": "LORA",
        "qalora_group_size": 16,
        "r": config.r,
        "rank_pattern": {},
        "revision": null,
        "target_modules": targets,
        "target_parameters": null,
        "task_type": task(readout),
        "trainable_token_indices": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": config.use_rslora,
    });
    let Value::Object(object) = value else { unreachable!("the literal above is an object") };
    object
}

/// Adds `scale B A` to the base matrix `w [out, in]`, with `a [r, in]` and `b [out, r]`, all row-major.
/// Sums run in `f64`, so the order of ranks does not matter to the last bit of most weights.
pub fn merge(w: &mut [f32], a: &[f32], b: &[f32], r: usize, scale: f64) {
    assert!(r > 0 && a.len().is_multiple_of(r), "a has r rows");
    let columns = a.len() / r;
    assert_eq!(w.len() * r, b.len() * columns, "w is [out, in], a [r, in] and b [out, r]");
    w.par_chunks_mut(columns).zip(b.par_chunks(r)).for_each_init(
        || vec![0.0; columns],
        |delta, (w, b)| {
            delta.fill(0.0);
            for (&b, a) in b.iter().zip(a.chunks_exact(columns)) {
                for (sum, &a) in delta.iter_mut().zip(a) {
                    *sum += f64::from(b) * f64::from(a);
                }
            }
            for (w, &sum) in w.iter_mut().zip(delta.iter()) {
                *w = (f64::from(*w) + scale * sum) as f32;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_the_scaled_product() {
        let mut w = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        // B A = [[1 * 1 + 2 * 4, ...], ...] with A [2, 3], B [2, 2].
        merge(&mut w, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1.0, 2.0, 0.0, -1.0], 2, 0.5);
        assert_eq!(w, [1.0 + 4.5, 2.0 + 6.0, 3.0 + 7.5, 4.0 - 2.0, 5.0 - 2.5, 6.0 - 3.0]);
    }
}
