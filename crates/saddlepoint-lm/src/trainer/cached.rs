//! Log-probabilities of the reference, computed once for all examples and kept on disk.
//!
//! They depend on the reference's weights and on the ids of the examples (so on data, template, tokenizer and
//! truncation), and on nothing else: a file is named by the SHA-256 digest of both, so that runs which differ in the
//! method or its coefficients share it. A file is believed only if the first examples, computed again, give its bits.

use std::fs;
use std::path::{Path, PathBuf};

use saddlepoint_core::atomic;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use sha2::{Digest, Sha256};

use super::example::{Batch, Example, batch};
use super::job::Job;
use super::{Event, Observer};
use crate::engine::{Policy, Stats};
use crate::method::Norm;
use crate::{Error, Result};

/// `ln q(token)` of each example's predictions, in the order of its sequences.
type Rows = Vec<Vec<f64>>;

/// Of the training examples and of those held out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cached {
    train: Rows,
    eval: Rows,
}

/// Which examples.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Train,
    Eval,
}

impl Cached {
    /// Reads what an earlier run computed in `folder`, or computes and keeps it. `policy` is as before its first step.
    pub(super) fn open(job: &Job, policy: &mut Policy, folder: &Path, observer: Observer) -> Result<Self> {
        let parts =
            [Some(&job.train), job.eval.as_ref()].map(|part| part.map_or(&[][..], |part| &part.examples));
        let path = folder.join(format!("ref-logps-{}.safetensors", key(policy, parts)));
        let [train, eval] = parts;
        let size = job.eval_batch();
        if let Some(known) = read(&path, [train, eval])? {
            let first = &train[..size.min(train.len())];
            let same =
                |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            if compute(policy, first, size, &mut |_| ())?.iter().zip(&known.train).all(same) {
                return Ok(known);
            }
        }
        let total = train.len() + eval.len();
        let mut done = 0;
        let mut side = |policy: &mut Policy, examples: &[Example]| {
            compute(policy, examples, size, &mut |more| {
                done += more;
                observer(&Event::Precomputing { done, total });
            })
        };
        let cached = Self { train: side(policy, train)?, eval: side(policy, eval)? };
        cached.write(&path)?;
        Ok(cached)
    }

    /// Adds the log-probabilities to the statistics of a batch of these examples.
    pub(super) fn complete(&self, side: Side, examples: &[usize], batch: &Batch, stats: &mut Stats) {
        let rows = match side {
            Side::Train => &self.train,
            Side::Eval => &self.eval,
        };
        stats.ref_logp = vec![0.0; stats.logp.len()];
        let each = batch.sequences.len() / examples.len();
        for (&example, sequences) in examples.iter().zip(batch.sequences.chunks(each)) {
            let places = sequences.iter().cloned().flatten();
            for (place, &value) in places.zip(&rows[example]) {
                stats.ref_logp[place] = value;
            }
        }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let flat =
            |rows: &Rows| rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let sides = [("train", flat(&self.train)), ("eval", flat(&self.eval))];
        let views = sides.iter().map(|(name, bytes)| {
            let view =
                TensorView::new(Dtype::F64, vec![bytes.len() / 8], bytes).expect("eight bytes a number");
            (*name, view)
        });
        let bytes = safetensors::serialize(views, None).expect("two tensors with names");
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io("create", folder))?;
        }
        Ok(atomic::write(path, &bytes)?)
    }
}

/// The file's content, if it is there and whole.
fn read(path: &Path, parts: [&[Example]; 2]) -> Result<Option<Cached>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", path)(error)),
    };
    let side = |name: &str, examples: &[Example]| {
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let tensor = file.tensor(name).ok()?;
        let mut numbers =
            tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight")));
        let rows: Rows = examples.iter().map(|e| numbers.by_ref().take(predictions(e)).collect()).collect();
        let whole = rows.iter().zip(examples).all(|(rows, e)| rows.len() == predictions(e));
        (whole && numbers.next().is_none()).then_some(rows)
    };
    let [train, eval] = parts;
    Ok(side("train", train).zip(side("eval", eval)).map(|(train, eval)| Cached { train, eval }))
}

fn predictions(example: &Example) -> usize {
    let mut norm = Norm::default();
    example.count(&mut norm);
    norm.tokens
}

/// The reference's log-probabilities; where the policy has none it is its own, as it is before its first step.
fn compute(
    policy: &mut Policy,
    examples: &[Example],
    size: usize,
    done: &mut dyn FnMut(usize),
) -> Result<Rows> {
    let mut rows = Vec::with_capacity(examples.len());
    for examples in examples.chunks(size) {
        let batch = batch(&examples.iter().collect::<Vec<_>>());
        let values = policy.reference_logps(batch.reference())?;
        let each = batch.sequences.len() / examples.len();
        rows.extend(batch.sequences.chunks(each).map(|sequences| {
            sequences.iter().cloned().flatten().map(|place| values[place]).collect::<Vec<f64>>()
        }));
        done(examples.len());
    }
    Ok(rows)
}

/// Digest of the reference's weights and shape and of the examples' ids.
fn key(policy: &Policy, parts: [&[Example]; 2]) -> String {
    let mut digest = Sha256::new();
    let shape = serde_json::to_vec(policy.reference_shape()).expect("numbers are JSON");
    digest.update((shape.len() as u64).to_le_bytes());
    digest.update(shape);
    let mut values = Vec::new();
    for spec in policy.reference_tensors() {
        values.resize(spec.len(), 0.0);
        policy.reference_tensor(spec, &mut values);
        digest.update(bytemuck::cast_slice::<f32, u8>(&values));
    }
    for examples in parts {
        digest.update((examples.len() as u64).to_le_bytes());
        for example in examples {
            let batch = batch(&[example]);
            let forest = batch.reference();
            let segments = forest.segments.iter().map(|s| [s.start, s.tokens.len()]);
            let rows = forest.rows.iter().map(|row| [row.at, row.target as usize]);
            let tokens = forest.tokens.iter().map(|&id| [id as usize, 0]);
            for [a, b] in segments.chain(tokens).chain(rows) {
                digest.update((a as u64).to_le_bytes());
                digest.update((b as u64).to_le_bytes());
            }
        }
    }
    let half: [u8; 16] = *digest.finalize().first_chunk().expect("32 bytes");
    format!("{:032x}", u128::from_be_bytes(half))
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> Error + 'a {
    move |source| saddlepoint_core::Error::Io { action, path: path.to_owned(), source }.into()
}

impl Job {
    /// Where log-probabilities of the reference are kept, if they are to be computed before training.
    pub(super) fn ref_logps(&self, run: &Path) -> Option<PathBuf> {
        let train = &self.recipe.train;
        let own = || run.join("reference");
        train.precompute_ref_log_probs.then(|| train.ref_log_probs_dir.clone().unwrap_or_else(own))
    }
}
