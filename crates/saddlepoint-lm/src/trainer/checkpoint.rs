//! What a checkpoint holds, and how a run continues from one.
//!
//! | file | content |
//! |---|---|
//! | the model's or the adapter's files | loadable by transformers, PEFT and `saddle` |
//! | `optimizer.safetensors` | `PART.NAME` for every trained tensor and part of the optimizer's state: `exp_avg` and `exp_avg_sq` for AdamW, `exp_avg` for Lion, `momentum_buffer` for SGD and signSGD |
//! | `kept.safetensors` | the latest weights within the budget, if there is one |
//! | `trainer_state.json` | steps, epoch, best metric and history, as transformers writes them |
//! | `reference.safetensors` | a reference that moves |
//! | `value_head.safetensors` | what a policy gradient with values learns beside the policy |
//! | `rollouts.json` | completions that later steps go on with, if there are any |
//! | `state.json` | everything else |
//!
//! `checkpoint-0` holds `state.json` alone: the weights before the first step follow from the recipe.

use std::fs;
use std::path::Path;

use saddlepoint_core::atomic;
use saddlepoint_opt::optimizer::Optimizer;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::state::{State, VERSION};
use crate::engine::{Policy, Readout, SCORE, TensorSpec, WeightSource};
use crate::model::{Format, ModelFolder, SafeTensors, adapter, fill_folder};
use crate::recipe::Recipe;
use crate::{Error, Result};

const OPTIMIZER: &str = "optimizer.safetensors";
const KEPT: &str = "kept.safetensors";
const REFERENCE: &str = "reference.safetensors";
const ROLLOUTS: &str = "rollouts.json";
const VALUES: &str = "value_head.safetensors";
const STATE: &str = "state.json";
const TRAINER_STATE: &str = "trainer_state.json";

/// Writes the weights of `policy` into `folder` as others read them: a model or an adapter.
pub(super) fn write_weights(
    folder: &Path,
    recipe: &Recipe,
    model: &ModelFolder,
    policy: &mut Policy,
) -> Result<()> {
    let readout = policy.shape().readout;
    let trainable = policy.trainable();
    let params = &*trainable.params;
    let specs: Vec<TensorSpec> = public(trainable.tensors, readout).cloned().collect();
    let read = |spec: &TensorSpec, out: &mut [f32]| {
        out.copy_from_slice(&params[spec.range()]);
        Ok(())
    };
    match &recipe.model.lora {
        Some(lora) => adapter::write(folder, lora, &model.path().to_string_lossy(), &specs, &read),
        None => fill_folder(folder, model, &specs, &read, Format::default()),
    }
}

/// The tensors that others read: a policy's values are its trainer's business.
fn public(specs: &[TensorSpec], readout: Readout) -> impl Iterator<Item = &TensorSpec> {
    specs.iter().filter(move |spec| readout != Readout::Both || !spec.name.ends_with(SCORE))
}

/// Reads the weights that [`write_weights`] wrote.
pub(super) fn read_weights(
    folder: &Path,
    recipe: &Recipe,
    model: &ModelFolder,
    policy: &mut Policy,
) -> Result<()> {
    if recipe.model.lora.is_some() {
        let valued = policy.shape().readout == Readout::Both;
        let shape = if valued { model.shape.without_score() } else { model.shape.clone() };
        fill(policy, adapter::read(folder, &shape)?.source())
    } else {
        fill(policy, ModelFolder::open(folder)?.source())
    }
}

fn fill(policy: &mut Policy, source: &dyn WeightSource) -> Result<()> {
    let readout = policy.shape().readout;
    let trainable = policy.trainable();
    public(trainable.tensors, readout)
        .try_for_each(|spec| source.read(spec, &mut trainable.params[spec.range()]))
}

/// Fills `folder` with everything but the weights.
pub(super) fn write_state(
    folder: &Path,
    state: &State,
    kept: &[f32],
    optimizer: &Optimizer,
    policy: &mut Policy,
    epoch: f64,
) -> Result<()> {
    let specs = policy.trainable().tensors.to_vec();
    write_tensors(&folder.join(OPTIMIZER), &specs, &optimizer.state())?;
    if state.kept.is_some() {
        write_tensors(&folder.join(KEPT), &specs, &[("", kept)])?;
    }
    if let Some(reference) = policy.follower() {
        write_tensors(&folder.join(REFERENCE), &specs, &[("", reference)])?;
    }
    if policy.shape().readout == Readout::Both {
        let trainable = policy.trainable();
        let values = trainable.tensors.last().filter(|spec| spec.name.ends_with(SCORE));
        write_tensors(
            &folder.join(VALUES),
            values.map_or(&[], std::slice::from_ref),
            &[("", trainable.params)],
        )?;
    }
    if let Some(round) = &state.round {
        let round = serde_json::to_vec(round).expect("finite numbers are JSON");
        atomic::write(&folder.join(ROLLOUTS), &round)?;
    }
    let trainer_state = json!({
        "best_global_step": state.best.map(|best| best.step),
        "best_metric": state.best.map(|best| best.value),
        "best_model_checkpoint": state.best.map(|best| format!("checkpoint-{}", best.step)),
        "epoch": epoch,
        "global_step": state.step,
        "is_hyper_param_search": false,
        "is_local_process_zero": true,
        "is_world_process_zero": true,
        "log_history": state.history,
    });
    atomic::write(&folder.join(TRAINER_STATE), &pretty(&trainer_state))?;
    write_first(folder, state)
}

/// Fills `folder` with the state before the first step.
pub(super) fn write_first(folder: &Path, state: &State) -> Result<()> {
    let state = serde_json::to_value(state).expect("numbers and text are JSON");
    Ok(atomic::write(&folder.join(STATE), &pretty(&state))?)
}

/// Brings `policy` and `optimizer` to where the checkpoint in `folder` was written. Returns the state and the kept
/// weights.
pub(super) fn read(
    folder: &Path,
    recipe: &Recipe,
    model: &ModelFolder,
    policy: &mut Policy,
    optimizer: &mut Optimizer,
) -> Result<(State, Vec<f32>)> {
    let mut state: State = parse(&folder.join(STATE))?;
    if state.version != VERSION {
        let problem = format!(
            "is of version {}, this program reads {VERSION}: use the one that wrote it",
            state.version
        );
        return Err(Error::Model { path: folder.join(STATE), problem });
    }
    if state.step == 0 {
        return Ok((state, Vec::new()));
    }
    read_weights(folder, recipe, model, policy)?;
    let specs = policy.trainable().tensors.to_vec();
    let file = SafeTensors::open(&folder.join(OPTIMIZER))?;
    let parts = optimizer.state().into_iter().map(|(part, _)| gather(&file, &specs, part));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    optimizer.restore(state.step, &parts)?;
    let kept = match &state.kept {
        Some(_) => gather(&SafeTensors::open(&folder.join(KEPT))?, &specs, "")?,
        None => Vec::new(),
    };
    if let Some(reference) = policy.follower() {
        reference.copy_from_slice(&gather(&SafeTensors::open(&folder.join(REFERENCE))?, &specs, "")?);
    }
    if policy.shape().readout == Readout::Both {
        let file = SafeTensors::open(&folder.join(VALUES))?;
        let trainable = policy.trainable();
        for spec in trainable.tensors.iter().filter(|spec| spec.name.ends_with(SCORE)) {
            file.read(spec, &mut trainable.params[spec.range()])?;
        }
    }
    let mut trainer_state: Value = parse(&folder.join(TRAINER_STATE))?;
    if let Value::Array(history) = trainer_state["log_history"].take() {
        state.history = history;
    }
    let rollouts = folder.join(ROLLOUTS);
    if rollouts.is_file() {
        state.round = Some(parse(&rollouts)?);
    }
    Ok((state, kept))
}

/// The tensors `PART.NAME`, or `NAME` for the empty part.
fn gather(source: &SafeTensors, specs: &[TensorSpec], part: &str) -> Result<Vec<f32>> {
    let mut flat = vec![0.0; specs.last().map_or(0, |last| last.range().end)];
    for spec in specs {
        let named = TensorSpec { name: of_part(part, &spec.name), ..spec.clone() };
        source.read(&named, &mut flat[spec.range()])?;
    }
    Ok(flat)
}

fn of_part(part: &str, name: &str) -> String {
    if part.is_empty() { name.to_owned() } else { format!("{part}.{name}") }
}

fn write_tensors(path: &Path, specs: &[TensorSpec], parts: &[(&str, &[f32])]) -> Result<()> {
    let views = parts.iter().flat_map(|(part, flat)| {
        specs.iter().map(move |spec| {
            let bytes = bytemuck::cast_slice(&flat[spec.range()]);
            let view =
                TensorView::new(Dtype::F32, spec.dims.clone(), bytes).expect("the bytes of the tensor");
            (of_part(part, &spec.name), view)
        })
    });
    safetensors::serialize_to_file(views, None, path).map_err(|error| {
        let source = match error {
            safetensors::SafeTensorError::IoError(source) => source,
            other => std::io::Error::other(other),
        };
        saddlepoint_core::Error::Io { action: "write", path: path.to_owned(), source }.into()
    })
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(|source| saddlepoint_core::Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|error| Error::Model {
        path: path.to_owned(),
        problem: format!(
            "was changed from outside ({error}): resume from an earlier checkpoint by removing this one"
        ),
    })
}

/// JSON as a file.
pub(super) fn pretty(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("JSON values serialise");
    bytes.push(b'\n');
    bytes
}
