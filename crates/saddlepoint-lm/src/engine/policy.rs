//! The trained model: statistics of a forest and, from their cotangents, the gradients.

mod memory;
mod reference;

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

pub use self::reference::Reference;
use super::adapter::Adapter;
use super::aligned::Aligned;
use super::arena::{Arena, Room, heads};
use super::decoder::{Decoder, Gradients, Prepared};
use super::head::{Buffers, Head, Side};
use super::kernel::{AttentionPlan, Cpu, Kernels, RowState};
use super::listed;
use super::rope::RopeTable;
use super::score;
use super::stats::{row_cotangents, statistics};
use super::weights::{Storage, Weights};
use super::{Cotangent, Forest, LoraConfig, Row, Shape, Stats, TensorSpec, Want, WeightSource};
use crate::{Error, Result};

/// How a policy is set up. Fixed for its life: everything is allocated once.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Train an adapter and freeze the rest; otherwise everything is trained.
    pub lora: Option<LoraConfig>,
    /// How frozen weights (the base under an adapter, the reference's copy) are kept.
    pub frozen: Storage,
    /// What divergences and reference log-probabilities refer to.
    pub reference: Reference,
    /// Keep only the layers' inputs and compute the rest again in the backward pass.
    pub recompute: bool,
    /// Most tokens of a forest.
    pub max_tokens: usize,
    /// Most rows of a forest.
    pub max_rows: usize,
}

/// What the optimizer works on.
#[derive(Debug)]
pub struct Trainable<'a> {
    /// Trained parameters.
    pub params: &'a mut [f32],
    /// Their gradients.
    pub grads: &'a mut [f32],
    /// Where each tensor lies in both.
    pub tensors: &'a [TensorSpec],
}

/// A batch as the policy reads it and as its reference does: the same predictions, row by row, which may follow
/// different contexts.
#[derive(Debug, Clone, Copy)]
pub struct Views<'a> {
    /// What the policy reads.
    pub policy: &'a Forest,
    /// What the reference reads.
    pub reference: &'a Forest,
}

impl<'a> From<&'a Forest> for Views<'a> {
    fn from(forest: &'a Forest) -> Self {
        Self { policy: forest, reference: forest }
    }
}

/// What a pass gives: states of the rows and logits of their listed tokens, none without a vocabulary, and scores, none unless wanted.
#[derive(Debug, Default)]
struct Found {
    states: Vec<RowState>,
    scores: Vec<f64>,
    logits: listed::Logits,
}

/// What [`Policy::backward`] needs of the last [`Policy::forward`].
#[derive(Debug)]
struct Pending {
    forest: Forest,
    want: Want,
    states: Vec<RowState>,
    /// Whether the logits are in the gradients' memory.
    kept: bool,
}

/// A decoder with its gradients, its activations and its reference.
#[derive(Debug)]
pub struct Policy {
    shape: Shape,
    setup: Setup,
    kernels: Box<dyn Kernels>,
    weights: Weights,
    adapter: Option<Adapter>,
    /// The reference's weights, where they are not the policy's.
    reference: Option<Weights>,
    /// The adapter of a reference that follows an adapter.
    follower: Option<Adapter>,
    /// The reference's hyperparameters and angles.
    reference_shape: Shape,
    reference_rope: RopeTable,
    /// The activations of a reference that has not the policy's sizes.
    reference_arena: Option<Arena>,
    grads: Aligned,
    /// Whether gradients count as zero without having been cleared.
    fresh: bool,
    rope: RopeTable,
    arena: Option<Arena>,
    head: Buffers,
    /// Logits that wait for the backward pass, beside an adapter.
    logits: Aligned,
    rows: Rows,
    pending: Option<Pending>,
}

/// Most elements of logits that wait beside an adapter (48 MiB).
const KEPT: usize = 12 << 20;

/// Where logits wait for the backward pass.
enum Waiting {
    /// In this part of the gradients.
    Gradients(Range<usize>),
    /// In this many elements of a buffer.
    Buffer(usize),
}

/// Rows gathered for the head, `[R, d]` each.
#[derive(Debug, Default)]
struct Rows {
    x: Vec<f32>,
    inv: Vec<f32>,
    hidden: Vec<f32>,
    reference: Vec<f32>,
    dhidden: Vec<f32>,
    dx: Vec<f32>,
}

impl Policy {
    /// Allocates a policy with zero weights; follow with [`Policy::load`] or [`Policy::init`].
    ///
    /// # Errors
    /// The reference is the adapter switched off and there is no adapter.
    pub fn new(shape: Shape, setup: Setup) -> Result<Self> {
        if setup.lora.is_none() && setup.reference == Reference::AdapterOff {
            return Err(Error::Config {
                key: "tether.reference".into(),
                problem: "the adapter cannot be switched off: there is none (set model.lora, or keep a copy)"
                    .into(),
            });
        }
        let storage = if setup.lora.is_some() { setup.frozen } else { Storage::F32 };
        let weights = Weights::new(&shape, storage);
        let adapter = setup.lora.as_ref().map(|lora| Adapter::new(&shape, lora));
        let trained = adapter.as_ref().map_or(weights.places.len, |a| a.params.len());
        Ok(Self {
            rope: RopeTable::new(&shape),
            kernels: Box::new(Cpu),
            reference: None,
            follower: None,
            reference_shape: shape.without_score(),
            reference_rope: RopeTable::new(&shape),
            reference_arena: None,
            grads: Aligned::new(trained),
            fresh: true,
            arena: None,
            head: Buffers::default(),
            logits: Aligned::default(),
            rows: Rows::default(),
            pending: None,
            weights,
            adapter,
            shape,
            setup,
        })
    }

    /// The hyperparameters.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Reads the base weights and, where a copy is the reference, copies them.
    ///
    /// # Errors
    /// As [`WeightSource::read`].
    pub fn load(&mut self, source: &dyn WeightSource) -> Result<()> {
        self.weights.load(source)?;
        if self.copies_weights() {
            let mut copy = Weights::new(&self.shape.without_score(), self.setup.frozen);
            copy.load(source)?;
            self.reference = Some(copy);
        }
        Ok(())
    }

    /// Whether the reference starts as a copy of all weights.
    fn copies_weights(&self) -> bool {
        let Setup { reference, lora, .. } = &self.setup;
        *reference == Reference::Copy || *reference == Reference::Moving && lora.is_none()
    }

    /// Gives the policy another base of the rotary frequencies; the reference keeps its own.
    pub fn set_rope_theta(&mut self, theta: f64) {
        if self.shape.rope.theta.to_bits() != theta.to_bits() {
            self.shape.rope.theta = theta;
            self.rope = RopeTable::new(&self.shape);
        }
    }

    /// Reads the adapter.
    ///
    /// # Errors
    /// As [`WeightSource::read`]; or the policy has no adapter.
    pub fn load_adapter(&mut self, source: &dyn WeightSource) -> Result<()> {
        let Some(adapter) = &mut self.adapter else {
            return Err(Error::Config {
                key: "model.lora".into(),
                problem: "the policy has no adapter to load".into(),
            });
        };
        let Adapter { specs, params, .. } = adapter;
        specs.iter().try_for_each(|spec| source.read(spec, &mut params[spec.range()]))?;
        self.start_follower();
        Ok(())
    }

    /// Draws random base weights: matrices normal with deviation 0.02, norms 1, biases 0.
    pub fn init(&mut self, rng: &mut ChaCha8Rng) {
        for spec in self.weights.specs.clone() {
            let values: Vec<f32> = if spec.dims.len() > 1 {
                StandardNormal.sample_iter(&mut *rng).take(spec.len()).map(|v: f32| 0.02 * v).collect()
            } else {
                vec![f32::from(u8::from(!spec.name.contains("_proj"))); spec.len()]
            };
            self.weights.write(&spec, &values);
        }
        if self.copies_weights() {
            let mut copy = Weights::new(&self.shape.without_score(), self.setup.frozen);
            let mut values = Vec::new();
            for spec in copy.specs.clone() {
                values.resize(spec.len(), 0.0);
                self.weights.read(&spec, &mut values);
                copy.write(&spec, &values);
            }
            self.reference = Some(copy);
        }
    }

    /// Starts the adapter as PEFT does: `A` random, `B` zero, so that the policy equals its base; a score is the base's.
    pub fn init_adapter(&mut self, rng: &mut ChaCha8Rng) {
        let Self { adapter, weights, .. } = self;
        if let Some(adapter) = adapter {
            adapter.init(rng);
            if let (Some(own), Some(base)) = (adapter.score.clone(), &weights.places.score) {
                let mut wide = Vec::new();
                adapter.params[own].copy_from_slice(weights.matrix(base, &mut wide));
            }
        }
        self.start_follower();
    }

    /// The base's tensors.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.weights.specs
    }

    /// The adapter's tensors; empty without one.
    pub fn adapter_tensors(&self) -> &[TensorSpec] {
        self.adapter.as_ref().map_or(&[], |a| &a.specs)
    }

    /// Reads one base tensor out.
    pub fn base_tensor(&self, spec: &TensorSpec, out: &mut [f32]) {
        self.weights.read(spec, out);
    }

    /// Parameters and gradients for the optimizer.
    pub fn trainable(&mut self) -> Trainable<'_> {
        if std::mem::take(&mut self.fresh) {
            self.grads.fill(0.0);
        }
        let Self { weights, adapter, grads, .. } = self;
        if let Some(Adapter { params, specs, .. }) = adapter {
            return Trainable { params, grads, tensors: specs };
        }
        let (params, tensors) = weights.trainable();
        Trainable { params, grads, tensors }
    }

    /// Sets the gradients to zero (done by the next backward pass, which overwrites them).
    pub fn zero_grads(&mut self) {
        self.fresh = true;
    }

    /// Statistics of the rows, keeping what [`Policy::backward`] needs.
    ///
    /// # Errors
    /// The forest is larger than the set-up allows, has ids outside the vocabulary, or wants a reference
    /// that there is none of.
    pub fn forward<'a>(&mut self, batch: impl Into<Views<'a>>, want: Want) -> Result<Stats> {
        let views = batch.into();
        let (Found { states, scores, logits }, forest) = (self.run(views, want, true)?, views.policy);
        let stats = statistics(&states, scores, &logits, want);
        let kept = self.waiting(forest.rows.len()).is_some();
        self.pending = Some(Pending { forest: forest.clone(), want, states, kept });
        Ok(stats)
    }

    /// Statistics of the rows alone.
    ///
    /// # Errors
    /// As [`Policy::forward`].
    pub fn evaluate<'a>(&mut self, batch: impl Into<Views<'a>>, want: Want) -> Result<Stats> {
        self.pending = None;
        let Found { states, scores, logits } = self.run(batch.into(), want, false)?;
        Ok(statistics(&states, scores, &logits, want))
    }

    fn make_room(&mut self, keep: bool) {
        let room = room(&self.shape, &self.setup, keep);
        if !self.arena.as_ref().is_some_and(|arena| arena.fits(room)) {
            self.arena = None;
            self.arena = Some(Arena::new(&self.shape, room));
        }
        let other = &self.reference_shape;
        if !other.same_weights(&self.shape.without_score()) && self.reference_arena.is_none() {
            self.reference_arena = Some(Arena::new(other, self::room(other, &self.setup, false)));
        }
    }

    /// Where the logits of `rows` rows can wait for the backward pass: in the layers' gradients, in which nothing
    /// is until it has left the head, or beside an adapter in a buffer of limited size.
    fn waiting(&self, rows: usize) -> Option<Waiting> {
        if !self.shape.readout.vocabulary() {
            return None;
        }
        let (places, len) = (&self.weights.places, rows * self.shape.vocab);
        if self.adapter.is_some() {
            return (len <= KEPT).then_some(Waiting::Buffer(len));
        }
        let spare = places.layers.first()?.norm1.start..places.norm.start;
        (self.fresh && len <= spare.len()).then_some(Waiting::Gradients(spare))
    }

    fn check(&self, Views { policy, reference }: Views<'_>, want: Want) -> Result<()> {
        let fail = |key: &str, problem: String| Err(Error::Config { key: key.into(), problem });
        self.check_forest(policy)?;
        if want.reference() && !std::ptr::eq(policy, reference) {
            self.check_forest(reference)?;
            let targets = |forest: &Forest| forest.rows.iter().map(|row| row.target).collect::<Vec<_>>();
            if targets(policy) != targets(reference) {
                return fail("batch", "policy and reference are to predict different tokens".into());
            }
        }
        let readout = self.shape.readout;
        if want.score && !readout.score() {
            return fail("model", "a score is wanted, and the model has no weights for one".into());
        }
        let distribution =
            want.entropy || want.reference() || want.temperature.is_some() || !policy.listed.is_empty();
        if distribution && !readout.vocabulary() {
            return fail("model", "is a reward model: it has no distribution over tokens".into());
        }
        let off = self.setup.reference == Reference::AdapterOff;
        if want.reference() && !off && self.reference.is_none() && self.follower.is_none() {
            return fail(
                "tether.reference",
                "a statistic of the reference is wanted, and there is no reference".into(),
            );
        }
        Ok(())
    }

    fn check_forest(&self, forest: &Forest) -> Result<()> {
        let fail = |key: &str, problem: String| Err(Error::Config { key: key.into(), problem });
        if forest.len() > self.setup.max_tokens || forest.rows.len() > self.setup.max_rows {
            return fail(
                "batch",
                format!(
                    "{} tokens with {} predictions exceed the {} and {} that memory was planned for; use a smaller \
                     batch or shorter samples",
                    forest.len(),
                    forest.rows.len(),
                    self.setup.max_tokens,
                    self.setup.max_rows
                ),
            );
        }
        if !(forest.listed.is_empty() || forest.listed.len() == forest.rows.len()) {
            let (lists, rows) = (forest.listed.len(), forest.rows.len());
            return fail("batch", format!("{lists} lists of tokens for {rows} predictions"));
        }
        let vocab = self.shape.vocab as u32;
        let targets = forest.rows.iter().map(|row| &row.target);
        let ids = forest.tokens.iter().chain(targets).chain(forest.listed.iter().flatten());
        if let Some(id) = ids.copied().find(|&id| id >= vocab) {
            return fail("tokenizer", format!("token id {id} is outside the model's vocabulary of {vocab}"));
        }
        Ok(())
    }

    /// Runs reference and policy and leaves the gathered rows in `self.rows`.
    fn run(&mut self, views: Views<'_>, want: Want, keep: bool) -> Result<Found> {
        self.check(views, want)?;
        let forest = views.policy;
        self.make_room(keep);
        let waiting = if keep { self.waiting(forest.rows.len()) } else { None };
        let Self {
            shape,
            kernels,
            weights,
            adapter,
            reference,
            follower,
            reference_shape,
            reference_rope,
            reference_arena,
            rope,
            arena,
            head,
            rows,
            grads,
            logits,
            ..
        } = self;
        let arena = arena.as_mut().expect("allocated above");
        let base = Decoder { kernels: kernels.as_ref(), shape, weights, copies: None, adapter: None };
        let other = reference.as_ref().unwrap_or(weights);
        if want.reference() {
            let arena = reference_arena.as_mut().unwrap_or(&mut *arena);
            let batch = prepare(views.reference, reference_shape, reference_rope);
            let decoder =
                Decoder { shape: reference_shape, weights: other, adapter: follower.as_ref(), ..base };
            let slot = decoder.forward(&batch, arena, false, &mut |_, _| ());
            let Rows { x, inv, reference, .. } = rows;
            gather(decoder, arena, views.reference, &batch, slot, x, inv, reference);
        }
        let batch = prepare(forest, shape, rope);
        let decoder = Decoder { adapter: adapter.as_ref(), ..base };
        let slot = decoder.forward(&batch, arena, keep, &mut |_, _| ());
        gather(decoder, arena, forest, &batch, slot, &mut rows.x, &mut rows.inv, &mut rows.hidden);
        let scores = match decoder.score() {
            Some(weights) if want.score => score::forward(&rows.hidden, &weights),
            _ => Vec::new(),
        };
        if !shape.readout.vocabulary() {
            return Ok(Found { scores, ..Found::default() });
        }
        let targets: Vec<u32> = forest.rows.iter().map(|r| r.target).collect();
        let side = want.reference().then_some(Side { hidden: &rows.reference, weights: other });
        let kept = waiting.map(|waiting| match waiting {
            Waiting::Gradients(spare) => &mut grads[spare],
            Waiting::Buffer(len) => logits.room(len),
        });
        let over = head_of(decoder, want, &rows.hidden, side, &forest.listed);
        let (states, logits) = over.forward(&targets, head, kept);
        Ok(Found { states, scores, logits })
    }

    /// Adds the gradients of the scalar whose derivatives with respect to the last forward's statistics
    /// are given.
    ///
    /// # Errors
    /// There was no forward pass to go back through, or the lengths do not match it.
    pub fn backward(&mut self, cotangent: &Cotangent) -> Result<()> {
        let Some(Pending { forest, want, states, kept }) = self.pending.take() else {
            return Err(Error::Config {
                key: "backward".into(),
                problem:
                    "there is no forward pass to go back through (call forward first, once for each backward)"
                        .into(),
            });
        };
        check_cotangent(cotangent, &forest, want, self.shape.readout.vocabulary())?;
        let cotangents = row_cotangents(cotangent, states.len());
        // Gradients that were read in between were set to zero, and the logits with them.
        let waiting = if kept { self.waiting(forest.rows.len()) } else { None };
        let Self {
            shape,
            kernels,
            weights,
            adapter,
            reference,
            rope,
            arena,
            head,
            rows,
            grads,
            fresh,
            logits,
            ..
        } = self;
        let arena = arena.as_mut().expect("the forward pass allocated it");
        let d = shape.hidden;
        let batch = prepare(&forest, shape, rope);
        let decoder =
            Decoder { kernels: kernels.as_ref(), shape, weights, copies: None, adapter: adapter.as_ref() };
        let other = reference.as_ref().unwrap_or(weights);
        let mut gradients =
            Gradients { values: grads, accumulate: !std::mem::take(fresh), full: adapter.is_none() };

        let (n, accumulate) = (forest.rows.len(), gradients.accumulate);
        rows.dhidden.resize(n * d, 0.0);
        // The policy's gradients need the reference's logits for a divergence alone: its log-probabilities are constants.
        let apart = want.divergence.is_some() && !cotangent.divergence.is_empty();
        let side = apart.then_some(Side { hidden: &rows.reference, weights: other });
        if shape.readout.vocabulary() {
            let (dweights, kept) = head_memory(&mut gradients, weights.places.head.clone(), waiting, logits);
            head_of(decoder, want, &rows.hidden, side, &forest.listed).backward(
                &states,
                &cotangents,
                &cotangent.listed,
                &mut rows.dhidden,
                dweights,
                accumulate,
                head,
                kept,
            );
        } else {
            rows.dhidden.fill(0.0);
        }
        if let (Some(place), Some(weights)) = (decoder.score_place(), decoder.score()) {
            let dweights = &mut gradients.values[place];
            if !accumulate {
                dweights.fill(0.0);
            }
            score::backward(&rows.hidden, &weights, &cotangent.score, &mut rows.dhidden, dweights);
        }
        rows.dx.clear();
        rows.dx.resize(n * d, 0.0);
        let norm = weights.places.norm.clone();
        let dnorm = gradients.base(&norm);
        let weight = weights.vector(&norm);
        kernels.rms_norm_backward(&rows.x, &weight, &rows.inv, &rows.dhidden, &mut rows.dx, dnorm);
        arena.dx[..batch.read.len() * d].fill(0.0);
        for (row, dx) in forest.rows.iter().zip(rows.dx.chunks_exact(d)) {
            for (o, &v) in arena.dx[place(&batch, row) * d..][..d].iter_mut().zip(dx) {
                *o += v;
            }
        }
        decoder.backward(&batch, arena, &mut gradients);
        Ok(())
    }

    /// The parts that sampling needs.
    pub(crate) fn decoder(&self) -> Decoder<'_> {
        Decoder {
            kernels: self.kernels.as_ref(),
            shape: &self.shape,
            weights: &self.weights,
            copies: None,
            adapter: self.adapter.as_ref(),
        }
    }

    /// A table of rotary angles of its own.
    pub(crate) fn rope(&self) -> RopeTable {
        self.rope.clone()
    }
}

/// The gradient of the head's matrix, where the base is trained, and the logits that wait.
fn head_memory<'a>(
    gradients: &'a mut Gradients<'_>,
    head: Range<usize>,
    waiting: Option<Waiting>,
    logits: &'a mut [f32],
) -> (Option<&'a mut [f32]>, Option<&'a mut [f32]>) {
    match waiting {
        Some(Waiting::Buffer(len)) => (None, Some(&mut logits[..len])),
        None => (gradients.full.then(|| &mut gradients.values[head]), None),
        Some(Waiting::Gradients(spare)) => {
            let (before, rest) = gradients.values.split_at_mut(spare.start);
            let (kept, after) = rest.split_at_mut(spare.len());
            let dweights = if head.end <= spare.start {
                &mut before[head]
            } else {
                &mut after[head.start - spare.end..head.end - spare.end]
            };
            (Some(dweights), Some(kept))
        }
    }
}

fn room(shape: &Shape, setup: &Setup, keep: bool) -> Room {
    let lora = setup.lora.as_ref().map_or(0, |lora| lora.r * lora.target_modules.len());
    let (slots, inputs) = match (keep, setup.recompute) {
        (false, _) => (1, 2),
        (true, true) => (1, shape.layers + 1),
        (true, false) => (shape.layers, shape.layers + 1),
    };
    let largest_b = setup.lora.as_ref().map_or(0, |lora| {
        lora.r * lora.target_modules.iter().map(|target| target.dims(shape).0).max().unwrap_or(0)
    });
    Room { tokens: setup.max_tokens, slots, inputs, lora, largest_b, backward: keep }
}

pub(crate) fn prepare<'a>(forest: &'a Forest, shape: &Shape, rope: &mut RopeTable) -> Prepared<'a> {
    let (cos, sin) = rope.gather(forest);
    let mut read: Vec<usize> = forest.rows.iter().map(|row| row.at).collect();
    read.sort_unstable();
    read.dedup();
    Prepared { tokens: &forest.tokens, read, plan: AttentionPlan::new(forest, heads(shape)), cos, sin }
}

/// Where the result that a row reads is.
fn place(batch: &Prepared<'_>, row: &Row) -> usize {
    batch.read.binary_search(&row.at).expect("prepared for these rows")
}

fn gather(
    decoder: Decoder<'_>,
    arena: &Arena,
    forest: &Forest,
    batch: &Prepared<'_>,
    slot: usize,
    x: &mut Vec<f32>,
    inv: &mut Vec<f32>,
    hidden: &mut Vec<f32>,
) {
    let d = decoder.shape.hidden;
    let from = slot * arena.room.tokens * d;
    x.clear();
    for row in &forest.rows {
        x.extend_from_slice(&arena.x[from + place(batch, row) * d..][..d]);
    }
    inv.resize(forest.rows.len(), 0.0);
    hidden.resize(x.len(), 0.0);
    let weight = decoder.weights.vector(&decoder.weights.places.norm);
    decoder.kernels.rms_norm(x, &weight, decoder.shape.norm_eps, hidden, inv);
}

fn head_of<'a>(
    decoder: Decoder<'a>,
    want: Want,
    hidden: &'a [f32],
    reference: Option<Side<'a>>,
    listed: &'a [Vec<u32>],
) -> Head<'a> {
    Head {
        kernels: decoder.kernels,
        vocab: decoder.shape.vocab,
        want,
        policy: Side { hidden, weights: decoder.weights },
        reference,
        listed,
    }
}

/// Refuses derivatives with respect to what was not wanted, and such of another number of rows.
fn check_cotangent(cotangent: &Cotangent, forest: &Forest, want: Want, vocabulary: bool) -> Result<()> {
    let Cotangent { logp, entropy, divergence, score, listed } = cotangent;
    let rows = forest.rows.len();
    let lengths = |lists: &[Vec<f64>]| lists.iter().map(Vec::len).collect::<Vec<_>>();
    let wanted: Vec<usize> = forest.listed.iter().map(Vec::len).collect();
    if !(listed.is_empty() || lengths(listed) == wanted) {
        let problem =
            "has other lengths than the lists of tokens whose log-probabilities were wanted".to_owned();
        return Err(Error::Config { key: "cotangent.listed".to_owned(), problem });
    }
    for (name, list, wanted) in [
        ("logp", logp, vocabulary),
        ("entropy", entropy, want.entropy),
        ("divergence", divergence, want.divergence.is_some()),
        ("score", score, want.score),
    ] {
        if !(list.is_empty() || (wanted && list.len() == rows)) {
            return Err(Error::Config {
                key: format!("cotangent.{name}"),
                problem: format!(
                    "{} values for {rows} rows of a statistic that must have been wanted",
                    list.len()
                ),
            });
        }
    }
    Ok(())
}
