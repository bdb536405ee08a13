//! First-order optimizers on flat parameter arenas.
//!
//! An update streams over parameters, gradients and state once, in chunks of fixed size, so it is bound by
//! memory (28 bytes a parameter for AdamW) and its result does not depend on the number of threads. It uses
//! additions, multiplications, divisions and square roots only, never fused multiply-add, so it does not
//! depend on the vector width either.

mod adamw;
mod norm;

pub use adamw::{AdamW, AdamWConfig};
pub use norm::{clip_factor, global_norm};
