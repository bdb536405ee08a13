//! A model ready to be asked: weights in the engine, tokenizer and chat template beside them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use saddlepoint_lm::data::Codec;
use saddlepoint_lm::engine::{self, Policy, Readout, Reference, Setup, Storage};
use saddlepoint_lm::model::{ModelFolder, Scored, adapter};
use saddlepoint_lm::trainer::{codec, comparable};

use crate::output::note;

/// Which model is asked.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// Hugging Face folder or GGUF file
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// LoRA adapter to use on it
    #[arg(long, value_name = "FOLDER")]
    pub(crate) adapter: Option<PathBuf>,
}

/// How the weights are kept while tokens are generated.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Weights {
    F32,
    Bf16,
    Int8,
}

impl From<Weights> for engine::Weights {
    fn from(weights: Weights) -> Self {
        match weights {
            Weights::F32 => engine::Weights::F32,
            Weights::Bf16 => engine::Weights::Bf16,
            Weights::Int8 => engine::Weights::Int8,
        }
    }
}

/// A model's files, opened; no weight is read yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) folder: ModelFolder,
    pub(crate) codec: Codec,
    adapter: Option<adapter::Adapter>,
}

impl ModelArguments {
    pub(crate) fn open(&self) -> Result<Opened> {
        let mut folder = ModelFolder::open(&self.model)?;
        if let Some(path) = &self.adapter
            && adapter::purpose(path)?.readout == Readout::Score
        {
            folder.set_readout(Readout::Score)?;
        }
        let codec = codec(&folder)?;
        let adapter = self.adapter.as_ref().map(|path| adapter::read(path, &folder.shape)).transpose()?;
        Ok(Opened { folder, codec, adapter })
    }
}

impl Opened {
    /// Whether it scores sequences and has no distribution over tokens.
    pub(crate) fn is_reward_model(&self) -> bool {
        !self.folder.shape.readout.vocabulary()
    }

    /// The policy with its weights, for passes of at most `room.0` tokens and `room.1` predictions.
    ///
    /// With a `reference` divergences from that model can be asked for.
    pub(crate) fn policy(&self, reference: Option<&Path>, room: (usize, usize)) -> Result<Policy> {
        let from = reference.map(|path| comparable(path, &self.folder, &self.codec)).transpose()?;
        // With an adapter, the model without it needs no second copy.
        let off = |from: &ModelFolder| self.adapter.is_some() && from.path() == self.folder.path();
        let kind = match &from {
            None => Reference::None,
            Some(from) if off(from) => Reference::AdapterOff,
            Some(_) => Reference::Other,
        };
        for name in self.folder.source().unused(&self.folder.shape.tensors()) {
            note(format!("{}: tensor {name} is not used", self.folder.path().display()))?;
        }
        let setup = Setup {
            lora: self.adapter.as_ref().map(|adapter| adapter.config.clone()),
            frozen: Storage::F32,
            reference: kind,
            recompute: false,
            max_tokens: room.0,
            max_rows: room.1,
        };
        let mut policy = Policy::new(self.folder.shape.clone(), setup)?;
        if self.folder.lacks_score() {
            // The adapter brings the weights of its own.
            policy.load(&Scored { model: &self.folder, score: vec![0.0; self.folder.shape.hidden] })?;
        } else {
            policy.load(self.folder.source())?;
        }
        if let Some(from) = from.filter(|from| !off(from)) {
            policy.load_reference(&from.shape, from.source())?;
        }
        if let Some(adapter) = &self.adapter {
            policy.load_adapter(adapter.source())?;
        }
        Ok(policy)
    }
}
