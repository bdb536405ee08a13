//! `saddle convert`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use saddlepoint_lm::data::Tokenizer;
use saddlepoint_lm::engine::{Readout, TensorSpec, WeightSource};
use saddlepoint_lm::model::{self, Dtype, ModelFolder, Soup, adapter};
use serde_json::{Value, json};

use crate::exit::{Usage, Verdict};
use crate::output::{Output, note};

/// Convert a model into a Hugging Face folder
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle convert models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf smollm2-f32\n\n\
                  Mean of two models: saddle convert runs/sft-1/model soup --soup runs/sft-2/model --weights 0.5,0.5"
)]
pub(crate) struct Arguments {
    /// Hugging Face folder, GGUF file, or LoRA adapter whose base model is where the adapter says
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Folder to make
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// How to store the weights
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    dtype: Format,
    /// LoRA adapter to merge into the weights
    #[arg(long, value_name = "FOLDER")]
    merge: Option<PathBuf>,
    /// Further model (or LoRA adapter) to average the weights with; may be given several times
    #[arg(long, value_name = "MODEL")]
    soup: Vec<PathBuf>,
    /// Shares of IN and of each --soup in the mean, divided by their sum [default: equal]
    #[arg(long, value_name = "W,W,...", value_delimiter = ',', requires = "soup")]
    weights: Vec<f64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    F32,
    Bf16,
    F16,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let shares = self.shares()?;
        let mut whole = vec![Whole::open(parts(&self.input, self.merge.as_deref())?)?];
        for path in &self.soup {
            whole.push(Whole::open(parts(path, None)?)?);
        }
        let folder = &whole[0].folder;
        let specs = folder.shape.tensors();
        check_tokenizers(&whole)?;
        let dtype = match self.dtype {
            Format::F32 => Dtype::F32,
            Format::Bf16 => Dtype::Bf16,
            Format::F16 => Dtype::F16,
        };
        let blend = whole
            .iter()
            .zip(&shares)
            .map(|(whole, &share)| (&whole.folder, whole as &dyn WeightSource, share));
        let soup = Soup::with(blend.collect())?;
        let cosine = soup.check_related(&specs)?;
        for whole in &whole {
            for name in whole.unused(&specs) {
                let path = whole.folder.path().display();
                note(format!("{path}: tensor {name} is not used by this architecture"))?;
            }
        }
        let read = |spec: &TensorSpec, out: &mut [f32]| match &whole[..] {
            [alone] => alone.read(spec, out),
            _ => soup.read(spec, out),
        };
        model::write_folder(&self.output, folder, &specs, &read, dtype.into())?;
        let parameters = folder.shape.parameters();
        let (tensors, name) = (specs.len(), dtype.torch_name());
        let of_soup = (whole.len() > 1).then(|| json!({ "models": whole.len(), "cosine": cosine }));
        output.object(&json!({
            "out": self.output, "parameters": parameters, "tensors": tensors, "dtype": name, "soup": of_soup,
        }))?;
        if !output.json() {
            let millions = parameters as f64 / 1e6;
            let out = self.output.display();
            output.say(format!("{out}: {tensors} tensors, {millions:.1} M parameters in {name}"))?;
            if of_soup.is_some() {
                output.say(format!("mean of {} models, cosine of their weights {cosine:.4}", whole.len()))?;
            }
        }
        Ok(Verdict::Done)
    }

    /// The share of each model.
    fn shares(&self) -> Result<Vec<f64>> {
        let models = 1 + self.soup.len();
        if self.weights.is_empty() {
            return Ok(vec![1.0; models]);
        }
        if self.weights.len() != models {
            let problem = format!(
                "--weights needs one for IN and one for each --soup, {models} in all; there are {}",
                self.weights.len()
            );
            return Err(Usage(problem).into());
        }
        if let Some(weight) = self.weights.iter().find(|weight| !(**weight > 0.0 && weight.is_finite())) {
            return Err(Usage(format!("--weights must be > 0, got {weight}")).into());
        }
        Ok(self.weights.clone())
    }
}

/// The base model of `input` and the adapter to merge.
fn parts(input: &Path, merge: Option<&Path>) -> Result<(PathBuf, Option<PathBuf>)> {
    let config = input.join("adapter_config.json");
    if !config.is_file() || input.join("config.json").is_file() {
        return Ok((input.to_owned(), merge.map(Path::to_owned)));
    }
    if merge.is_some() {
        let problem = format!("{} is an adapter already: give its base model with --merge", input.display());
        return Err(Usage(problem).into());
    }
    let text = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|e| Usage(format!("{}: not valid JSON: {e}", config.display())))?;
    let base = value.get("base_model_name_or_path").and_then(Value::as_str).map(PathBuf::from);
    match base {
        Some(base) if base.exists() => Ok((base, Some(input.to_owned()))),
        base => {
            let base = base.map_or("nothing".into(), |base| base.display().to_string());
            let problem = format!(
                "{}: names {base} as its base model, which is not here; use saddle convert BASE OUT --merge {}",
                config.display(),
                input.display(),
            );
            Err(Usage(problem).into())
        }
    }
}

/// Refuses models that have other tokens than the first.
fn check_tokenizers(whole: &[Whole]) -> Result<()> {
    let tokenizer = |whole: &Whole| Tokenizer::from_bytes(whole.folder.path(), whole.folder.tokenizer_json());
    let [first, others @ ..] = whole else { return Ok(()) };
    if others.is_empty() {
        return Ok(());
    }
    let first = tokenizer(first)?;
    Ok(others.iter().try_for_each(|other| first.check_same(&tokenizer(other)?))?)
}

/// A model with its adapter merged, if it has one.
struct Whole {
    folder: ModelFolder,
    merged: Option<Merged>,
}

impl Whole {
    fn open((base, adapter): (PathBuf, Option<PathBuf>)) -> Result<Self> {
        let mut folder = ModelFolder::open(&base)?;
        if let Some(path) = &adapter
            && adapter::purpose(path)?.readout == Readout::Score
        {
            folder.set_readout(Readout::Score)?;
        }
        let merged = adapter.map(|path| Merged::open(&path, &folder)).transpose()?;
        Ok(Self { folder, merged })
    }
}

impl WeightSource for Whole {
    fn read(&self, spec: &TensorSpec, out: &mut [f32]) -> saddlepoint_lm::Result<()> {
        if let Some(merged) = &self.merged
            && merged.replaces(spec, out)?
        {
            return Ok(());
        }
        self.folder.source().read(spec, out)?;
        self.merged.as_ref().map_or(Ok(()), |merged| merged.add(spec, out))
    }

    fn unused(&self, specs: &[TensorSpec]) -> Vec<String> {
        self.folder.source().unused(specs)
    }
}

/// An adapter on its way into the weights of its base model.
struct Merged {
    adapter: adapter::Adapter,
    specs: Vec<TensorSpec>,
}

impl Merged {
    fn open(path: &Path, base: &ModelFolder) -> Result<Self> {
        let adapter = adapter::read(path, &base.shape)?;
        let specs = adapter.config.tensors(&base.shape);
        Ok(Merged { adapter, specs })
    }

    /// Reads a tensor that the adapter has whole, the weights of a score; whether it has.
    fn replaces(&self, spec: &TensorSpec, weights: &mut [f32]) -> saddlepoint_lm::Result<bool> {
        let name = format!("base_model.model.{}", spec.name);
        let Some(own) = self.specs.iter().find(|own| own.name == name) else { return Ok(false) };
        self.adapter.source().read(own, weights)?;
        Ok(true)
    }

    /// Adds the low-rank update of the matrix `spec`, if there is one.
    fn add(&self, spec: &TensorSpec, weights: &mut [f32]) -> saddlepoint_lm::Result<()> {
        let Some(module) = spec.name.strip_suffix(".weight") else { return Ok(()) };
        let part = |side: &str| {
            let name = format!("base_model.model.{module}.lora_{side}.weight");
            self.specs.iter().find(|spec| spec.name == name)
        };
        let (Some(a), Some(b)) = (part("A"), part("B")) else { return Ok(()) };
        let read = |spec: &TensorSpec| {
            let mut values = vec![0.0; spec.len()];
            self.adapter.source().read(spec, &mut values).map(|()| values)
        };
        let config = &self.adapter.config;
        adapter::merge(weights, &read(a)?, &read(b)?, config.r, config.scale());
        Ok(())
    }
}
