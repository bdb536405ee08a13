//! The policy's reference: its weights, how it follows, what it says alone.

use rayon::prelude::*;

use super::{Policy, gather, head_of, prepare};
use crate::engine::decoder::Decoder;
use crate::engine::kernel::RowState;
use crate::engine::rope::RopeTable;
use crate::engine::weights::Weights;
use crate::engine::{Forest, Shape, TensorSpec, Want, WeightSource};
use crate::{Error, Result};

/// What the policy is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reference {
    /// Nothing.
    #[default]
    None,
    /// The same weights with the adapter off.
    AdapterOff,
    /// A copy of the initial weights.
    Copy,
    /// Weights that [`Policy::load_reference`] reads.
    Other,
    /// A copy of what is trained (all weights, or the adapter), which [`Policy::follow`] moves.
    Moving,
}

impl Policy {
    /// Reads the reference's weights from elsewhere. `shape` is theirs: it has the policy's vocabulary and may differ from the
    /// policy's in everything else.
    ///
    /// # Errors
    /// As [`WeightSource::read`]; or the vocabularies have not the same size.
    pub fn load_reference(&mut self, shape: &Shape, source: &dyn WeightSource) -> Result<()> {
        if shape.vocab != self.shape.vocab {
            let problem = format!("predicts {} tokens, and the policy {}", shape.vocab, self.shape.vocab);
            return Err(Error::Config { key: "reference".into(), problem });
        }
        let shape = &shape.without_score();
        if !shape.same_weights(&self.reference_shape) {
            (self.reference, self.reference_arena) = (None, None);
        }
        self.reference.get_or_insert_with(|| Weights::new(shape, self.setup.frozen)).load(source)?;
        self.reference_shape = shape.clone();
        self.reference_rope = RopeTable::new(shape);
        Ok(())
    }

    /// Gives the reference the angles of positions and the longest context of `shape`, where they are not the policy's.
    pub fn set_reference_rope(&mut self, shape: &Shape) {
        self.reference_shape =
            Shape { rope: shape.rope.clone(), context: shape.context, ..self.reference_shape.clone() };
        self.reference_rope = RopeTable::new(shape);
    }

    /// Moves a reference that follows: `reference <- decay reference + (1 - decay) policy`. With `decay` 0 it is a copy.
    pub fn follow(&mut self, decay: f32) {
        let Some((reference, policy)) = self.followed() else { return };
        if decay == 0.0 {
            return reference.copy_from_slice(policy);
        }
        (reference, policy)
            .into_par_iter()
            .with_min_len(1 << 14)
            .for_each(|(r, &p)| *r = decay * *r + (1.0 - decay) * p);
    }

    /// The reference that follows, laid out as what is trained; none if it does not.
    pub fn follower(&mut self) -> Option<&mut [f32]> {
        self.followed().map(|(reference, _)| reference)
    }

    /// A reference that follows and what it follows.
    fn followed(&mut self) -> Option<(&mut [f32], &[f32])> {
        if self.setup.reference != Reference::Moving {
            return None;
        }
        let Self { follower, adapter, reference, weights, .. } = self;
        if let (Some(follower), Some(adapter)) = (follower, adapter) {
            return Some((&mut follower.params, &adapter.params));
        }
        let reference = reference.as_mut()?.trainable().0;
        // Of a score, which comes last, a reference has no copy.
        let policy = &weights.trainable().0[..reference.len()];
        Some((reference, policy))
    }

    pub(super) fn start_follower(&mut self) {
        if self.setup.reference == Reference::Moving {
            self.follower.clone_from(&self.adapter);
        }
    }

    /// Whether there is something to compare with.
    pub fn has_reference(&self) -> bool {
        self.setup.reference != Reference::None
    }

    /// The reference's tensors; the base's where it has no weights of its own.
    pub fn reference_tensors(&self) -> &[TensorSpec] {
        &self.reference.as_ref().unwrap_or(&self.weights).specs
    }

    /// Reads one tensor of the reference out; of the base where it has no weights of its own.
    pub fn reference_tensor(&self, spec: &TensorSpec, out: &mut [f32]) {
        self.reference.as_ref().unwrap_or(&self.weights).read(spec, out);
    }

    /// The reference's hyperparameters.
    pub fn reference_shape(&self) -> &Shape {
        &self.reference_shape
    }

    /// `ln q(target)` of a forest's rows under the reference, `[R]`, nats; under the base weights where there is none. The
    /// policy is not run, so a pass that waits for its [`Policy::backward`] is lost.
    ///
    /// # Errors
    /// As [`Policy::forward`].
    pub fn reference_logps(&mut self, forest: &Forest) -> Result<Vec<f64>> {
        self.check_forest(forest)?;
        self.pending = None;
        self.make_room(false);
        let Self { kernels, weights, reference, follower, arena, head, rows, .. } = self;
        let Self { reference_shape: shape, reference_rope, reference_arena, .. } = self;
        let arena = reference_arena.as_mut().or(arena.as_mut()).expect("allocated above");
        let weights = reference.as_ref().unwrap_or(weights);
        let decoder =
            Decoder { kernels: kernels.as_ref(), shape, weights, copies: None, adapter: follower.as_ref() };
        let batch = prepare(forest, shape, reference_rope);
        let slot = decoder.forward(&batch, arena, false, &mut |_, _| ());
        gather(decoder, arena, forest, &batch, slot, &mut rows.x, &mut rows.inv, &mut rows.hidden);
        let targets: Vec<u32> = forest.rows.iter().map(|r| r.target).collect();
        let (states, _) =
            head_of(decoder, Want::default(), &rows.hidden, None, &[]).forward(&targets, head, None);
        Ok(states.iter().map(RowState::logp).collect())
    }
}
