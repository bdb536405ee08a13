//! What a recipe names, opened: model, tokenizer and examples. Nothing is written and no weight is read yet.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rand_distr::{Distribution, StandardNormal};
use saddlepoint_core::memory;
use saddlepoint_core::seed::Seed;
use serde_json::{Value, json};

use super::example::{Asked, Compared, Example, Posed, bound};
use super::long;
use super::order::permutation;
use crate::data::generate::{Split, Task};
use crate::data::{Codec, Pair, PrepareReport, Prompt, ReadReport, Record, Template, Tokenizer, prepare};
use crate::data::{read_json, read_records_as};
use crate::engine::{Policy, Reference, Setup, Shape, Storage, Want};
use crate::method::{Input, Method, Samples};
use crate::model::{ModelFolder, Scored, Soup};
use crate::recipe::{FrozenDtype, NewModel, Recipe};
use crate::reward::{RewardConfig, Rewards};
use crate::rollout::{Plan, RolloutConfig};
use crate::tether::{ReferenceConfig, Tether, TetherConfig};
use crate::{Error, Result};

/// A recipe with everything it names.
#[derive(Debug)]
pub struct Job {
    pub(super) recipe: Recipe,
    pub(super) method: Box<dyn Method>,
    pub(super) model: ModelFolder,
    /// The model's shape before the recipe changed its positions; a reference that is the initial policy keeps it.
    reference_shape: Shape,
    pub(super) codec: Codec,
    /// The reference's models and their shares, where it is of other models.
    pub(super) held_to: Vec<(ModelFolder, f64)>,
    pub(super) train: Part,
    pub(super) eval: Option<Part>,
    /// How completions are divided into rounds and steps, if the method learns from rewards of them.
    pub(super) plan: Option<Plan>,
    /// The rewards of completions, if the method learns from them.
    pub(super) rewards: Option<Rewards>,
    /// Bytes that the process held when everything was open.
    pub(super) held: u64,
}

/// Examples and where they came from.
#[derive(Debug)]
pub struct Part {
    pub(super) examples: Vec<Example>,
    /// Index of the record of each example in its file.
    pub(super) records: Vec<usize>,
    /// What was read.
    pub read: ReadReport,
    /// What became of the records.
    pub prepared: PrepareReport,
}

impl Part {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The examples, in the order of their file.
    pub(crate) fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// The prompts, each once, in the order of the examples.
    pub(super) fn prompts(&self) -> Vec<Asked<'_>> {
        let mut seen = std::collections::BTreeSet::new();
        self.examples.iter().flat_map(Example::asked).filter(|asked| seen.insert(asked.ids)).collect()
    }
}

impl Job {
    /// Opens what `recipe` names; other recipes in it must have been replaced by their results ([`super::resolved`]).
    ///
    /// # Errors
    /// The recipe, the model or the data cannot be used.
    pub fn open(recipe: &Recipe) -> Result<Self> {
        recipe.check()?;
        let method = recipe.method.build()?;
        let mut model = open_model(recipe)?;
        model.set_readout(method.readout())?;
        let reference_shape = model.shape.clone();
        model.set_positions(recipe.model.rope_theta, recipe.model.max_position_embeddings);
        let codec = codec(&model)?;
        let held_to = held_to(recipe, &model, &codec)?;
        let (train, eval) = examples(recipe, &codec, method.meta().input, model.scoring_pad())?;
        let longest = eval.iter().chain([&train]).map(|part| part.prepared.longest).max().unwrap_or(0);
        if longest > model.shape.context {
            let (key, context) = ("data.max_length".to_owned(), model.shape.context);
            let problem = format!(
                "the longest sequence has {longest} tokens and the model's context {context}: lower it"
            );
            return Err(Error::Config { key, problem });
        }
        let recipe = recipe.clone();
        let plan = recipe.plan()?;
        let rewards = plan.and(recipe.reward.as_ref()).map(RewardConfig::build).transpose()?;
        let held = memory::resident().unwrap_or(0);
        let job =
            Self { recipe, method, model, reference_shape, codec, held_to, train, eval, plan, rewards, held };
        job.check_mismatched()?;
        job.check_rewarded()?;
        job.check_chunks()?;
        if job.recipe.tether.is_some() {
            job.check_prompts()?;
        }
        if let Some((_, length)) = job.wanted() {
            job.check_fits(length, "method.max_completion_length", [&job.train])?;
        }
        job.recipe.train.schedule(job.steps())?;
        Ok(job)
    }

    /// Checks that every step has completions of other examples, where the method needs them.
    fn check_mismatched(&self) -> Result<()> {
        if !self.method.mismatched() {
            return Ok(());
        }
        let refuse = |key: &str, problem| Err(Error::Config { key: key.to_owned(), problem });
        let (name, records, size) =
            (self.method.meta().name, self.train.len(), self.recipe.train.step_size());
        if size == 1 || records % size == 1 {
            let problem = format!(
                "{records} examples in steps of {size} leave a step of one, which has no completion of another example for the \
                 baseline of `{name}`; choose another size, or loss_type = \"apo_zero_unpaired\", which has none"
            );
            return refuse("train.per_device_train_batch_size", problem);
        }
        if self.eval.as_ref().is_some_and(|eval| eval.len() < 2) {
            let problem = format!("the baseline of `{name}` needs at least 2 held-out examples, there is 1");
            return refuse("data", problem);
        }
        Ok(())
    }

    /// Checks that rewards find their columns and that completions have room.
    fn check_rewarded(&self) -> Result<()> {
        let (Some(rewards), rollout) = (&self.rewards, self.rollout()) else { return Ok(()) };
        let asked = rollout.filter.and_then(|filter| filter.reward);
        if let Some(name) = asked.filter(|name| !rewards.names().contains(&name.as_str())) {
            let problem = format!("there is no reward `{name}`; there are {}", rewards.names().join(", "));
            return Err(Error::Config { key: "rollout.filter.reward".to_owned(), problem });
        }
        let parts = || self.eval.iter().chain([&self.train]);
        for part in parts() {
            rewards.check_columns(
                part.examples.iter().filter_map(Example::posed).map(|posed| &*posed.columns),
            )?;
        }
        self.check_fits(rollout.max_completion_length, "rollout.max_completion_length", parts())
    }

    /// How completions are sampled.
    pub(super) fn rollout(&self) -> RolloutConfig {
        self.recipe.rollout.clone().unwrap_or_default()
    }

    /// Checks that chunk, question and answer fit the reference's own context, which `model.max_position_embeddings` does not
    /// lengthen.
    fn check_chunks(&self) -> Result<()> {
        let parts = self.eval.iter().chain([&self.train]);
        let longest = |example: &Example| match example {
            Example::Long(pair) => Some(long::longest_of_reference(pair)),
            _ => None,
        };
        let Some(tokens) = parts.flat_map(|part| &part.examples).filter_map(longest).max() else {
            return Ok(());
        };
        let initial =
            self.recipe.tether.as_ref().is_none_or(|tether| tether.reference == ReferenceConfig::Initial);
        let own = if initial { self.reference_shape.context } else { self.model.shape.context };
        let context = self.held_to.iter().map(|(model, _)| model.shape.context).min().unwrap_or(own);
        if tokens <= context {
            return Ok(());
        }
        let problem = format!(
            "the longest chunk with its question and answer has {tokens} tokens, and the reference, which reads it, a context \
             of {context}: make pairs with shorter chunks (`saddle prepare longpo --chunk-tokens`)"
        );
        Err(Error::Config { key: "data".to_owned(), problem })
    }

    /// Longest sequence, in tokens, also of a completion under another's prompt.
    pub(super) fn longest(&self) -> usize {
        self.recipe.data.max_length.min(self.model.shape.context)
    }

    /// Checks that the context has room for a sample of `length` tokens, which `key` sets, after every prompt.
    fn check_fits<'a>(
        &self,
        length: usize,
        key: &str,
        parts: impl IntoIterator<Item = &'a Part>,
    ) -> Result<()> {
        let context = self.model.shape.context;
        let prompts = parts.into_iter().flat_map(|part| &part.examples).flat_map(Example::asked);
        let Some(long) = prompts.map(|asked| asked.ids.len()).find(|tokens| tokens + length > context) else {
            return Ok(());
        };
        let problem = format!(
            "a prompt of {long} tokens and {length} of a sample exceed the model's context of {context}: lower it or data.max_length"
        );
        Err(Error::Config { key: key.to_owned(), problem })
    }

    /// Checks that a divergence can be measured on the prompts.
    fn check_prompts(&self) -> Result<()> {
        let parts = self.eval.iter().chain([&self.train]);
        self.check_fits(self.sample_length(), "tether.max_completion_length", parts)?;
        let fewest = self.train.prompts().len().min(self.sampled_prompts().0.len());
        if fewest < 2 {
            let problem = format!(
                "an interval needs at least 2 different prompts to train on and 2 held out, there are {fewest}"
            );
            return Err(Error::Config { key: "tether".to_owned(), problem });
        }
        Ok(())
    }

    /// Whether the context has room for a prompt and a sample.
    fn fits(&self, prompt: &[u32]) -> bool {
        prompt.len() + self.sample_length() <= self.model.shape.context
    }

    /// What it trains on.
    pub fn train(&self) -> &Part {
        &self.train
    }

    /// What it evaluates on.
    pub fn eval(&self) -> Option<&Part> {
        self.eval.as_ref()
    }

    /// Whether it learns from rewards, which read the columns beside the prompts.
    pub fn is_rewarded(&self) -> bool {
        self.rewards.is_some()
    }

    /// The model as it is before training.
    pub fn model(&self) -> &ModelFolder {
        &self.model
    }

    /// Its tokenizer and chat template.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Optimizer steps of the run.
    pub fn steps(&self) -> u64 {
        let train = &self.recipe.train;
        match &self.plan {
            None => train.total_steps(self.train.len()),
            Some(plan) => {
                let steps = train.num_train_epochs * plan.steps_per_epoch(self.train.len());
                train.max_steps.unwrap_or(steps.ceil() as u64)
            }
        }
    }

    /// Optimizer steps of a pass over the data.
    pub(super) fn steps_per_epoch(&self) -> f64 {
        let records = self.train.len();
        self.plan.map_or_else(
            || self.recipe.train.steps_per_epoch(records) as f64,
            |plan| plan.steps_per_epoch(records),
        )
    }

    /// The prompts that are sampled before and after training, and whether they were kept out of it. Prompts that
    /// leave no room for a sample in the context are passed over.
    pub(super) fn sampled_prompts(&self) -> (Vec<Asked<'_>>, bool) {
        let part = self.eval.as_ref().unwrap_or(&self.train);
        if !self.model.shape.readout.vocabulary() {
            return (Vec::new(), self.eval.is_some());
        }
        let count = self.recipe.tether.as_ref().map_or(self.recipe.train.sample_prompts, |t| t.final_prompts);
        let mut prompts = part.prompts();
        prompts.retain(|asked| self.fits(asked.ids));
        prompts.truncate(count);
        (prompts, self.eval.is_some())
    }

    /// Longest sample, in tokens.
    pub(super) fn sample_length(&self) -> usize {
        self.recipe
            .tether
            .as_ref()
            .map_or(self.recipe.train.max_completion_length, |t| t.max_completion_length)
    }

    /// The samples that the method learns from, if it does, and the longest of them in tokens.
    pub(super) fn wanted(&self) -> Option<(Samples, usize)> {
        let samples = self.method.samples()?;
        Some((samples, samples.max_completion_length.unwrap_or(self.sample_length())))
    }

    pub(super) fn tether(&self) -> Result<Option<Tether>> {
        let Some(config) = self.recipe.tether.clone() else { return Ok(None) };
        let final_prompts = config.final_prompts.min(self.sampled_prompts().0.len());
        let config = TetherConfig { final_prompts, ..config };
        // Other angles of positions, or another view of the context, make it another distribution.
        let apart = self.model.shape != self.reference_shape || self.method.meta().input == Input::LongPairs;
        let open = if apart { Tether::apart } else { Tether::new };
        open(config, &*self.method).map(Some)
    }

    /// The statistics that a step needs.
    pub(super) fn want(&self, tether: Option<&Tether>) -> Want {
        let want = self.method.want().or(tether.map(Tether::want).unwrap_or_default());
        let temperature = self.plan.and_then(|_| self.rollout().tempered());
        Want { temperature, ..want }
    }

    /// The policy before its first step.
    pub(crate) fn policy(&self, setup: Setup) -> Result<Policy> {
        let mut policy = Policy::new(self.model.shape.clone(), setup)?;
        let seed = Seed::new(self.recipe.train.seed);
        match &self.recipe.model.path {
            Some(_) if self.model.lacks_score() => {
                let score = StandardNormal.sample_iter(seed.stream("model/score", &[]));
                let score = score.take(self.model.shape.hidden).map(|v: f32| SCORE_STD * v).collect();
                policy.load(&Scored { model: &self.model, score })?;
            }
            Some(_) => policy.load(self.model.source())?,
            None => policy.init(&mut seed.stream("model/init", &[])),
        }
        policy.init_adapter(&mut seed.stream("adapter/init", &[]));
        let tether = self.recipe.tether.as_ref();
        if tether.is_none_or(|tether| tether.reference == ReferenceConfig::Initial) {
            policy.set_reference_rope(&self.reference_shape);
        }
        if let Some((first, _)) = self.held_to.first() {
            let soup = blended(&self.held_to)?;
            soup.check_related(&first.shape.tensors())?;
            policy.load_reference(&first.shape, &soup)?;
        }
        Ok(policy)
    }

    pub(super) fn eval_batch(&self) -> usize {
        let train = &self.recipe.train;
        train.per_device_eval_batch_size.unwrap_or(train.per_device_train_batch_size)
    }

    /// The set-up in which the reference is there, whether or not training can do without it.
    pub(super) fn comparing(&self, tether: Option<&Tether>) -> Setup {
        Setup { reference: self.reference(tether, false), ..self.setup(tether) }
    }

    fn reference(&self, tether: Option<&Tether>, cached: bool) -> Reference {
        let in_reward = self.method.on_policy().is_some_and(|needs| needs.kl_in_reward);
        let wanted = tether.is_some() || self.method.want().reference() || in_reward;
        if let Some(teacher) = &self.recipe.teacher {
            // One on a server has no place here.
            return if teacher.server.is_some() { Reference::None } else { Reference::Other };
        }
        match tether.map_or(&ReferenceConfig::Initial, |tether| &tether.config().reference) {
            ReferenceConfig::Checkpoint(_) | ReferenceConfig::Soup(_) => Reference::Other,
            ReferenceConfig::Ema(_) | ReferenceConfig::Previous(_) => Reference::Moving,
            ReferenceConfig::Initial if self.recipe.model.lora.is_some() => Reference::AdapterOff,
            ReferenceConfig::Initial if wanted && !cached => Reference::Copy,
            ReferenceConfig::Initial => Reference::None,
        }
    }

    pub(crate) fn setup(&self, tether: Option<&Tether>) -> Setup {
        let (train, lora) = (&self.recipe.train, &self.recipe.model.lora);
        let mut room = bound(&self.train.examples, train.per_device_train_batch_size);
        if let Some((samples, length)) = self.wanted() {
            let count = train.per_device_train_batch_size.min(self.train.len()) * samples.per_prompt;
            // The last token of a sample is predicted and not stored.
            room = (room.0 + count * (length - 1), room.1 + count * length);
        }
        if let Some(plan) = &self.plan {
            let completions = train.per_device_train_batch_size;
            let (length, prompts) = (
                self.rollout().max_completion_length,
                bound(&self.train.examples, plan.touched(completions)).0,
            );
            room = (prompts + completions * (length - 1), completions * length);
        }
        let mut need = |(tokens, rows): (usize, usize)| room = (room.0.max(tokens), room.1.max(rows));
        if let Some(eval) = &self.eval {
            need(bound(&eval.examples, self.eval_batch()));
        }
        if tether.is_some() {
            let parts = self.eval.iter().chain([&self.train]);
            let asked = parts.flat_map(|part| &part.examples).flat_map(Example::asked);
            let longest = asked.map(|asked| asked.ids.len().max(asked.reference.len())).max().unwrap_or(0);
            need((longest + self.sample_length(), self.sample_length()));
        }
        let cached = train.precompute_ref_log_probs && tether.is_none();
        let reference = self.reference(tether, cached);
        let frozen = match self.recipe.model.dtype {
            FrozenDtype::F32 => Storage::F32,
            FrozenDtype::Bf16 => Storage::Bf16,
        };
        let recompute = train.gradient_checkpointing;
        Setup { lora: lora.clone(), frozen, reference, recompute, max_tokens: room.0, max_rows: room.1 }
    }
}

/// Deviation of the weights of a new score: `initializer_range` of transformers.
const SCORE_STD: f32 = 0.02;

/// The models of the reference, if it is not made of the policy itself. A teacher is one.
fn held_to(recipe: &Recipe, model: &ModelFolder, codec: &Codec) -> Result<Vec<(ModelFolder, f64)>> {
    let open = |path: &Path, weight| Ok((comparable(path, model, codec)?, weight));
    if let Some(teacher) = recipe.teacher.as_ref().filter(|teacher| teacher.server.is_none()) {
        let Some(path) = &teacher.path else { return Err(not_run("teacher.recipe")) };
        return Ok(vec![open(path, 1.0)?]);
    }
    let Some(tether) = &recipe.tether else { return Ok(Vec::new()) };
    let parts: Vec<_> = match &tether.reference {
        ReferenceConfig::Checkpoint(path) => vec![open(path, 1.0)?],
        ReferenceConfig::Soup(parts) => {
            parts.iter().map(|part| open(&part.path, part.weight)).collect::<Result<_>>()?
        }
        _ => Vec::new(),
    };
    if !parts.is_empty() {
        blended(&parts)?;
    }
    Ok(parts)
}

fn blended(parts: &[(ModelFolder, f64)]) -> Result<Soup<'_>> {
    Soup::new(parts.iter().map(|(model, weight)| (model, *weight)).collect())
}

fn not_run(key: &str) -> Error {
    let problem = "its result is not known here: run it first".to_owned();
    Error::Config { key: key.to_owned(), problem }
}

/// Opens a model whose probabilities can be compared with those of `model`, whose tokenizer is in `codec`.
///
/// # Errors
/// It cannot be opened, predicts another number of tokens, or has another token for an id.
pub fn comparable(path: &Path, model: &ModelFolder, codec: &Codec) -> Result<ModelFolder> {
    let other = ModelFolder::open(path)?;
    if !other.shape.readout.vocabulary() {
        let problem =
            "gives scores and predicts no tokens, so there are no probabilities to compare".to_owned();
        return Err(Error::Model { path: path.to_owned(), problem });
    }
    if other.shape.vocab != model.shape.vocab {
        let problem = format!(
            "predicts {} tokens and {} {}: probabilities of the two cannot be compared",
            other.shape.vocab,
            model.path().display(),
            model.shape.vocab
        );
        return Err(Error::Model { path: path.to_owned(), problem });
    }
    codec.tokenizer.check_same(&Tokenizer::from_bytes(path, other.tokenizer_json())?)?;
    Ok(other)
}

/// Tokenizer, chat template and ids with a role of a model.
///
/// # Errors
/// The tokenizer or the template cannot be used.
pub fn codec(model: &ModelFolder) -> Result<Codec> {
    let tokenizer = Tokenizer::from_bytes(model.path(), model.tokenizer_json())?;
    tokenizer.check_vocab(model.shape.vocab)?;
    let template = model
        .chat_template()
        .map(|source| Template::new(model.path(), source, model.tokenizer_config(), None))
        .transpose()?;
    Ok(Codec { tokenizer, template, bos: model.bos_id(), eos: model.eos_ids(), pad: model.pad_id() })
}

fn open_model(recipe: &Recipe) -> Result<ModelFolder> {
    match (&recipe.model.path, &recipe.model.new) {
        (Some(path), _) => ModelFolder::open(path),
        (None, Some(new)) => new_model(new, recipe.data.generate.as_ref().map(|generate| generate.task)),
        (None, None) => Err(not_run("model.recipe")),
    }
}

fn new_model(new: &NewModel, task: Option<Task>) -> Result<ModelFolder> {
    let nothing = json!({});
    let (origin, tokenizer, settings) = match (&new.tokenizer, task) {
        (Some(path), _) => {
            let settings = path.with_file_name("tokenizer_config.json");
            let settings = if settings.is_file() { parse(&settings)? } else { nothing.clone() };
            (path.as_path(), read(path)?, settings)
        }
        (None, Some(task)) => (Path::new("data.generate"), task.tokenizer_json(), task.tokenizer_config()),
        (None, None) => {
            let problem =
                "is needed where the data is not generated: the path of a tokenizer.json".to_owned();
            return Err(Error::Config { key: "model.new.tokenizer".to_owned(), problem });
        }
    };
    let vocab = Tokenizer::from_bytes(origin, &tokenizer)?.vocab_size();
    ModelFolder::new(new.shape(vocab), tokenizer, &settings, &nothing, None)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let refuse = |source| saddlepoint_core::Error::Io { action: "read", path: path.to_owned(), source };
    Ok(fs::read(path).map_err(refuse)?)
}

fn parse(path: &Path) -> Result<Value> {
    serde_json::from_slice(&read(path)?)
        .map_err(|e| Error::Model { path: path.to_owned(), problem: format!("is not JSON: {e}") })
}

/// `pad` is the token that does not count as the last of a sequence.
fn examples(recipe: &Recipe, codec: &Codec, input: Input, pad: Option<u32>) -> Result<(Part, Option<Part>)> {
    let data = &recipe.data;
    let seed = Seed::new(recipe.train.seed);
    if let Some(generate) = &data.generate {
        let part = |split| {
            let lines = match input {
                Input::Supervised => generate.corpus(split, seed),
                Input::Pairs | Input::ScoredPairs => generate.pairs(split, seed),
                Input::LongPairs => generate.long_pairs(split, seed)?,
                Input::Unpaired => generate.unpaired(split, seed),
                Input::Prompts => generate.prompts(split, seed),
            };
            let read = read_json(Path::new("data.generate"), lines.as_bytes(), &data.reading())?;
            prepared(recipe, codec, input, pad, read)
        };
        let eval = (generate.eval_samples > 0).then(|| part(Split::Eval)).transpose()?;
        return Ok((part(Split::Train)?, eval));
    }
    let file = |path| prepared(recipe, codec, input, pad, read_records_as(path, &data.reading())?);
    let all = file(data.path.as_deref().expect("checked: a path where nothing is generated"))?;
    match &data.eval_path {
        Some(path) => Ok((all, Some(file(path)?))),
        None if data.eval_fraction > 0.0 => split(&all, data.eval_fraction, seed),
        None => Ok((all, None)),
    }
}

fn prepared(
    recipe: &Recipe,
    codec: &Codec,
    input: Input,
    pad: Option<u32>,
    read: (Vec<Record>, ReadReport),
) -> Result<Part> {
    let (records, read) = read;
    let config = recipe.data.preparation();
    let (examples, prepared) = match input {
        Input::Supervised => {
            let (items, report) = prepare::sft(codec, &records, &config)?;
            (items.into_iter().map(Example::Supervised).collect(), report)
        }
        Input::Pairs => {
            let (items, report) = prepare::preference(codec, &records, &config)?;
            (items.into_iter().map(Example::Pair).collect::<Vec<_>>(), report)
        }
        Input::ScoredPairs => {
            let (items, report) = prepare::preference(codec, &records, &config)?;
            let compared = |(pair, &record): (Pair, &usize)| {
                Ok(Example::Compared(Compared::new(pair, pad, margin(&records[record])?)))
            };
            (items.into_iter().zip(&report.kept).map(compared).collect::<Result<_>>()?, report)
        }
        Input::LongPairs => {
            let (items, report) = prepare::long(codec, &records, &config)?;
            (items.into_iter().map(Example::Long).collect(), report)
        }
        Input::Unpaired => {
            let (items, report) = prepare::unpaired(codec, &records, &config)?;
            (items.into_iter().map(Example::Labelled).collect(), report)
        }
        Input::Prompts => {
            let (items, report) = prepare::prompts(codec, &records, &config)?;
            let posed = |(prompt, &record): (Prompt, &usize)| {
                let columns = Arc::new(records[record].extra.clone());
                Example::Posed(Posed { prompt, columns })
            };
            (items.into_iter().zip(&report.kept).map(posed).collect(), report)
        }
    };
    Ok(Part { examples, records: prepared.kept.clone(), read, prepared })
}

/// How far apart the scores of a pair are asked to be: its column `margin`, 0 without it.
fn margin(record: &Record) -> Result<f64> {
    match record.extra.get("margin") {
        None | Some(Value::Null) => Ok(0.0),
        Some(value) => value.as_f64().filter(|margin| margin.is_finite()).ok_or_else(|| {
            let problem = format!("`margin` must be a number, got {value}; correct it or rename the column");
            record.source.error(problem)
        }),
    }
}

/// Takes a share of the examples away for evaluation. Completions of the same prompt stay on one side.
fn split(all: &Part, fraction: f64, seed: Seed) -> Result<(Part, Option<Part>)> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known = BTreeMap::new();
    for (i, example) in all.examples.iter().enumerate() {
        if let Example::Supervised(_) = example {
            groups.push(vec![i]);
            continue;
        }
        let group = *known.entry(example.prompt()).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(i);
    }
    let wanted = (fraction * all.len() as f64).ceil() as usize;
    let mut held = vec![false; all.len()];
    let mut count = 0;
    for group in permutation(seed, "data/eval", &[], groups.len()) {
        if count >= wanted {
            break;
        }
        count += groups[group].len();
        groups[group].iter().for_each(|&i| held[i] = true);
    }
    if count == all.len() {
        let problem =
            format!("leaves nothing to train on: {} examples in {} groups", all.len(), groups.len());
        return Err(Error::Config { key: "data.eval_fraction".to_owned(), problem });
    }
    let side = |on: bool| {
        let picked: Vec<usize> = (0..all.len()).filter(|&i| held[i] == on).collect();
        Part {
            examples: picked.iter().map(|&i| all.examples[i].clone()).collect(),
            records: picked.iter().map(|&i| all.records[i]).collect(),
            read: all.read.clone(),
            prepared: all.prepared.clone(),
        }
    };
    Ok((side(false), Some(side(true))))
}
