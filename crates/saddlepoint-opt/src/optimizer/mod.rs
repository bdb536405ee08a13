//! First-order optimizers on flat parameter arenas.
//!
//! An update streams over parameters, gradients and state once, in chunks of fixed size, so it is bound by
//! memory (28 bytes a parameter for AdamW, 20 with one momentum) and its result does not depend on the number of
//! threads. AdamW uses additions, multiplications, divisions and square roots only, never fused multiply-add, so it
//! does not depend on the vector width either; the others compute an element in `f64` and round it once.
//!
//! [`Optimizer`] is any of them, chosen by the `name` of its settings.

mod adamw;
mod choice;
mod decayed;
pub mod lion;
mod momentum;
mod norm;
mod sgd;
mod sign_sgd;
mod tensor;

pub use adamw::{AdamW, AdamWConfig};
pub use choice::{Optimizer, OptimizerConfig};
pub use lion::{Lion, LionConfig};
pub use norm::{clip_factor, global_norm};
pub use sgd::{Sgd, SgdConfig};
pub use sign_sgd::{SignSgd, SignSgdConfig};
pub use tensor::Tensor;
