//! `saddle convert`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use saddlepoint_lm::engine::{Readout, TensorSpec};
use saddlepoint_lm::model::{self, Dtype, ModelFolder, adapter};
use serde_json::{Value, json};

use crate::exit::{Usage, Verdict};
use crate::output::{Output, note};

/// Convert a model into a Hugging Face folder
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle convert models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf smollm2-f32")]
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
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    F32,
    Bf16,
    F16,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let (base, adapter) = self.parts()?;
        let mut folder = ModelFolder::open(&base)?;
        if let Some(path) = &adapter
            && adapter::purpose(path)?.readout == Readout::Score
        {
            folder.set_readout(Readout::Score)?;
        }
        let folder = folder;
        let specs = folder.shape.tensors();
        for name in folder.source().unused(&specs) {
            note(format!("{}: tensor {name} is not used by this architecture", base.display()))?;
        }
        let dtype = match self.dtype {
            Format::F32 => Dtype::F32,
            Format::Bf16 => Dtype::Bf16,
            Format::F16 => Dtype::F16,
        };
        let merged = adapter.map(|path| Merged::open(&path, &folder)).transpose()?;
        let read = |spec: &TensorSpec, out: &mut [f32]| {
            if let Some(merged) = &merged
                && merged.replaces(spec, out)?
            {
                return Ok(());
            }
            folder.source().read(spec, out)?;
            merged.as_ref().map_or(Ok(()), |merged| merged.add(spec, out))
        };
        model::write_folder(&self.output, &folder, &specs, &read, dtype.into())?;
        let parameters = folder.shape.parameters();
        let tensors = specs.len();
        output.object(&json!({
            "out": self.output, "parameters": parameters, "tensors": tensors, "dtype": dtype.torch_name(),
        }))?;
        if !output.json() {
            let millions = parameters as f64 / 1e6;
            let name = dtype.torch_name();
            output.say(format!(
                "{}: {tensors} tensors, {millions:.1} M parameters in {name}",
                self.output.display()
            ))?;
        }
        Ok(Verdict::Done)
    }

    /// The base model and the adapter to merge.
    fn parts(&self) -> Result<(PathBuf, Option<PathBuf>)> {
        let config = self.input.join("adapter_config.json");
        if !config.is_file() || self.input.join("config.json").is_file() {
            return Ok((self.input.clone(), self.merge.clone()));
        }
        if self.merge.is_some() {
            let problem =
                format!("{} is an adapter already: give its base model with --merge", self.input.display());
            return Err(Usage(problem).into());
        }
        let text = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|e| Usage(format!("{}: not valid JSON: {e}", config.display())))?;
        let base = value.get("base_model_name_or_path").and_then(Value::as_str).map(PathBuf::from);
        match base {
            Some(base) if base.exists() => Ok((base, Some(self.input.clone()))),
            base => {
                let base = base.map_or("nothing".into(), |base| base.display().to_string());
                let problem = format!(
                    "{}: names {base} as its base model, which is not here; use saddle convert BASE OUT --merge {}",
                    config.display(),
                    self.input.display(),
                );
                Err(Usage(problem).into())
            }
        }
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
