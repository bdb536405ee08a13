//! A model as it is found: a Hugging Face folder, a GGUF file, or nothing but a description.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::gguf::{self, Gguf, GgufWeights};
use super::json::{self, Object};
use super::safetensors::Shards;
use super::text::{self, Files, Text};
use super::{bad, config, unreadable};
use crate::Result;
use crate::engine::{Readout, Shape, TensorSpec, WeightSource};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// A model's description, tokenizer and settings, and the place of its weights.
#[derive(Debug)]
pub struct ModelFolder {
    /// Hyperparameters of the decoder.
    pub shape: Shape,
    path: PathBuf,
    config: Object,
    text: Text,
    weights: Weights,
    /// Whether the model is to have a score and its files have none.
    lacks_score: bool,
}

#[derive(Debug)]
enum Weights {
    Shards(Shards),
    Gguf(GgufWeights),
    None(Unwritten),
}

/// The weights of a model that has none yet.
#[derive(Debug)]
struct Unwritten;

impl WeightSource for Unwritten {
    fn read(&self, spec: &TensorSpec, _: &mut [f32]) -> Result<()> {
        Err(bad(Path::new("new model"), format!("has no tensor {} yet: initialise its weights", spec.name)))
    }

    fn unused(&self, _: &[TensorSpec]) -> Vec<String> {
        Vec::new()
    }
}

impl ModelFolder {
    /// Opens a Hugging Face folder, a `.gguf` file, or a folder that holds exactly one `.gguf` file (whose
    /// tokenizer files, if there are any, are preferred to those rebuilt from the GGUF metadata).
    ///
    /// # Errors
    /// A file is missing or damaged, or asks for something that is not supported; the message names the
    /// file and the key.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|source| unreadable(path, source))?;
        if metadata.is_file() {
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                return Err(bad(path, "holds weights only: give the folder, which also has config.json"));
            }
            return Self::open_gguf(path, Files::new());
        }
        if path.join("config.json").is_file() {
            return Self::open_folder(path);
        }
        let ggufs = gguf_files(path)?;
        match ggufs.as_slice() {
            [file] => Self::open_gguf(file, text::read_files(path)?),
            [] if path.join("adapter_config.json").is_file() => {
                Err(bad(path, "holds a LoRA adapter: give the base model, and this as its adapter"))
            }
            [] => Err(bad(path, "is not a model: it has neither config.json nor a .gguf file")),
            [first, second, ..] => {
                let (a, b) = (first.display(), second.display());
                Err(bad(path, format!("holds several GGUF files: give one of them ({a}, {b}, ...)")))
            }
        }
    }

    /// A model without weights, to be trained from nothing and written with [`super::write_folder`].
    ///
    /// # Errors
    /// The shape is of no supported family, or an id in `generation_config` is outside the vocabulary.
    pub fn new(
        shape: Shape,
        tokenizer_json: Vec<u8>,
        tokenizer_config: &Value,
        generation_config: &Value,
        chat_template: Option<&str>,
    ) -> Result<Self> {
        let path = Path::new("new model");
        config::check(path, &shape)?;
        let mut config = config::to_json(path, &shape)?;
        let mut files = Files::new();
        files.insert(text::TOKENIZER, tokenizer_json);
        for (name, value) in
            [(text::TOKENIZER_CONFIG, tokenizer_config), (text::GENERATION_CONFIG, generation_config)]
        {
            let object = value.as_object().ok_or_else(|| bad(path, format!("{name} must be an object")))?;
            files.insert(name, json::to_bytes(object));
        }
        if let Some(template) = chat_template {
            files.insert(text::TEMPLATE, template.as_bytes().to_vec());
        }
        let text = Text::new(path, files, &Object::new(), shape.vocab)?;
        add_ids(&mut config, &text);
        Ok(Self {
            shape,
            path: path.to_owned(),
            config,
            text,
            weights: Weights::None(Unwritten),
            lacks_score: false,
        })
    }

    fn open_folder(path: &Path) -> Result<Self> {
        let file = path.join("config.json");
        let config = json::read(&file)?;
        let shape = config::shape(&file, &config)?;
        let text = Text::new(path, text::read_files(path)?, &config, shape.vocab)?;
        let weights = Shards::open(path)?;
        refuse_unknown_parts(path, &weights, &shape, "model.layers.")?;
        let twice = shape.tied && weights.names().any(|name| name == HEAD);
        if twice && !weights.same(HEAD, EMBEDDING)? {
            let problem =
                format!("tie_word_embeddings is true, but {HEAD} differs from {EMBEDDING}: set it to false");
            return Err(bad(&file, problem));
        }
        let weights = Weights::Shards(weights);
        Ok(Self { shape, path: path.to_owned(), config, text, weights, lacks_score: false })
    }

    /// `beside` are files of the folder that replace what would be rebuilt from the metadata.
    fn open_gguf(path: &Path, beside: Files) -> Result<Self> {
        Self::from_gguf(Gguf::open(path)?, beside)
    }

    pub(super) fn from_gguf(file: Gguf, mut beside: Files) -> Result<Self> {
        let path = file.path().to_owned();
        let shape = gguf::shape(&file)?;
        let mut config = config::to_json(&path, &shape)?;
        if !beside.contains_key(text::TOKENIZER) {
            let made = gguf::synthesise(&file, shape.vocab, shape.context)?;
            beside
                .insert(text::TOKENIZER, serde_json::to_vec(&made.tokenizer).expect("JSON values serialise"));
            beside.entry(text::TOKENIZER_CONFIG).or_insert_with(|| json::to_bytes(&made.config));
            beside.entry(text::GENERATION_CONFIG).or_insert_with(|| json::to_bytes(&made.generation));
            if let Some(template) = made.template {
                beside.entry(text::TEMPLATE).or_insert_with(|| template.into_bytes());
            }
        }
        let text = Text::new(&path, beside, &Object::new(), shape.vocab)?;
        add_ids(&mut config, &text);
        let weights = GgufWeights::new(file, &shape);
        refuse_unknown_parts(&path, &weights, &shape, "blk.")?;
        Ok(Self { shape, path, config, text, weights: Weights::Gguf(weights), lacks_score: false })
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The weights, by their Hugging Face names.
    pub fn source(&self) -> &dyn WeightSource {
        match &self.weights {
            Weights::Shards(shards) => shards,
            Weights::Gguf(weights) => weights,
            Weights::None(none) => none,
        }
    }

    /// Changes the base of the rotary frequencies and the longest context, where they are given, also of what is written.
    pub fn set_positions(&mut self, rope_theta: Option<f64>, context: Option<usize>) {
        if let Some(theta) = rope_theta {
            self.shape.rope.theta = theta;
            super::rope::set_theta(&mut self.config, theta);
        }
        if let Some(context) = context {
            self.shape.context = context;
            self.config.insert("max_position_embeddings".into(), context.into());
        }
    }

    /// Changes what is read from the hidden states, also of what is written: a language model becomes a reward model, or gets a
    /// score beside its vocabulary. The score's weights are then in none of its files ([`lacks_score`](Self::lacks_score)).
    ///
    /// # Errors
    /// A reward model is to be a language model.
    pub fn set_readout(&mut self, readout: Readout) -> Result<()> {
        if readout.vocabulary() && !self.shape.readout.vocabulary() {
            let problem = "is a reward model: it has no distribution over tokens; give a language model";
            return Err(bad(&self.path, problem));
        }
        if readout == Readout::Score && self.shape.readout != readout {
            let pad = self.scoring_pad();
            config::set_score(&mut self.config, pad);
        }
        self.lacks_score = readout.score() && !self.shape.readout.score();
        self.shape.readout = readout;
        Ok(())
    }

    /// Whether the weights of its score are in none of its files, so that they have to be drawn.
    pub fn lacks_score(&self) -> bool {
        self.lacks_score
    }

    /// The token that does not count when the last one of a sequence is looked for, whose score is the sequence's: transformers
    /// skips padding, and TRL pads with the end token where a model has no other.
    pub fn scoring_pad(&self) -> Option<u32> {
        self.pad_id().or_else(|| self.eos_ids().first().copied())
    }

    /// `config.json`.
    pub(super) fn config(&self) -> &Object {
        &self.config
    }

    /// Files about text, to be written as they are.
    pub(super) fn files(&self) -> &Files {
        &self.text.files
    }

    /// Contents of `tokenizer.json`.
    pub fn tokenizer_json(&self) -> &[u8] {
        &self.text.files[text::TOKENIZER]
    }

    /// `tokenizer_config.json`; an empty object if there is none.
    pub fn tokenizer_config(&self) -> &Value {
        &self.text.tokenizer_config
    }

    /// `generation_config.json`; an empty object if there is none.
    pub fn generation_config(&self) -> &Value {
        &self.text.generation_config
    }

    /// The chat template (Jinja), if the model has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.text.template.as_deref()
    }

    /// Tokens that end a generation: from the generation config, else the model's, else the tokenizer's.
    pub fn eos_ids(&self) -> Vec<u32> {
        self.text.eos.clone()
    }

    /// The token that starts a sequence, if the model names one (which does not mean that it is used).
    pub fn bos_id(&self) -> Option<u32> {
        self.text.bos
    }

    /// The padding token, if the model names one inside its vocabulary.
    pub fn pad_id(&self) -> Option<u32> {
        self.text.pad
    }
}

/// Tells `config.json` the ids of the tokens with a role.
fn add_ids(config: &mut Object, text: &Text) {
    let eos = match text.eos.as_slice() {
        [] => Value::Null,
        [one] => Value::from(*one),
        several => Value::from(several),
    };
    config.insert("bos_token_id".into(), text.bos.into());
    config.insert("eos_token_id".into(), eos);
    config.insert("pad_token_id".into(), text.pad.into());
}

/// Refuses tensors of a layer that the family does not have: they would change the result if we knew how.
fn refuse_unknown_parts(path: &Path, source: &dyn WeightSource, shape: &Shape, prefix: &str) -> Result<()> {
    let in_layer = |name: &String| {
        let layer = name.strip_prefix(prefix).and_then(|rest| rest.split('.').next());
        let layer = layer.and_then(|layer| layer.parse().ok());
        // Frequencies that old files store although they follow from the configuration.
        layer.is_some_and(|layer: usize| layer < shape.layers) && !name.ends_with("rotary_emb.inv_freq")
    };
    match source.unused(&shape.tensors()).into_iter().find(in_layer) {
        None => Ok(()),
        Some(name) => Err(bad(
            path,
            format!("tensor {name} is not part of this architecture as we know it: not supported"),
        )),
    }
}

/// The `.gguf` files of a folder, sorted.
fn gguf_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|source| unreadable(folder, source))? {
        let path = entry.map_err(|source| unreadable(folder, source))?.path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
