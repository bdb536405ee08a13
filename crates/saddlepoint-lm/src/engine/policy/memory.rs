//! What a policy takes, before it is there.

use super::{KEPT, Policy, Reference, Setup, room};
use crate::engine::arena::Arena;
use crate::engine::head::Head;
use crate::engine::kernel::packed_bytes;
use crate::engine::weights::{Storage, Weights};
use crate::engine::{MemoryPlan, Shape, TensorSpec};

impl Policy {
    /// Bytes of a policy of this shape and set-up, part by part. `reference` is the shape of the weights that
    /// [`Self::load_reference`] will read, and otherwise that of the policy.
    pub fn plan(shape: &Shape, reference: &Shape, setup: &Setup) -> MemoryPlan {
        let mut plan = MemoryPlan::default();
        let trained = setup
            .lora
            .as_ref()
            .map_or(shape.parameters(), |lora| lora.tensors(shape).iter().map(TensorSpec::len).sum());
        let frozen = if setup.lora.is_some() { setup.frozen } else { Storage::F32 };
        plan.add("weights", Weights::bytes(shape, frozen));
        if setup.lora.is_some() {
            plan.add("adapter", trained as u64 * 4);
        }
        match setup.reference {
            Reference::None | Reference::AdapterOff => {}
            Reference::Moving if setup.lora.is_some() => plan.add("reference", trained as u64 * 4),
            _ => plan.add("reference", Weights::bytes(&reference.without_score(), setup.frozen)),
        }
        plan.add("gradients", trained as u64 * 4);
        let mut activations = Arena::bytes(shape, room(shape, setup, true));
        if !reference.without_score().same_weights(&shape.without_score()) {
            activations += Arena::bytes(reference, room(reference, setup, false));
        }
        plan.add("activations", activations);
        let compared = setup.reference != Reference::None;
        let gathered = setup.max_rows * (4 * shape.hidden + if compared { reference.hidden } else { 0 } + 1);
        let logits = Head::scratch(setup.max_rows, shape.vocab, compared);
        let waiting = if setup.lora.is_some() { (setup.max_rows * shape.vocab).min(KEPT) } else { 0 };
        let vocabulary = if shape.readout.vocabulary() { logits + waiting } else { 0 };
        plan.add("head", (gathered + vocabulary) as u64 * 4);
        plan.add("packed operands", (rayon::current_num_threads() * packed_bytes()) as u64);
        plan
    }

    /// Bytes of a policy of this shape and set-up that is asked for scores alone: no page of its gradients is ever touched, and it
    /// has no reference. Packed operands are those of whatever else computes in the process.
    pub fn scoring_bytes(shape: &Shape, setup: &Setup) -> u64 {
        let (frozen, adapter) = match &setup.lora {
            Some(lora) => (setup.frozen, lora.tensors(shape).iter().map(TensorSpec::len).sum()),
            None => (Storage::F32, 0),
        };
        // Of each row its hidden state before and after the norm, and the norm.
        let numbers = adapter + setup.max_rows * (2 * shape.hidden + 1);
        Weights::bytes(shape, frozen) + Arena::bytes(shape, room(shape, setup, false)) + numbers as u64 * 4
    }
}
