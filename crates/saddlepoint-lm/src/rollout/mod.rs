//! Rollouts: completions that the policy gives to prompts, for methods that learn from rewards of them.
//!
//! A *round* is what the same weights sample before they move: `num_generations` completions for each of some prompts. The
//! sampled ids are the trained ids; nothing is decoded and read again. A completion is a function of seed, round, place of its
//! prompt in the round and its own number, whatever else is decoded with it. A server may sample a round while the one before is trained on;
//! its weights are then one round older.

mod ahead;
mod config;
mod correction;
mod draw;
pub mod filter;
mod plan;
mod round;
mod server;

pub use ahead::Ahead;
pub use config::RolloutConfig;
pub use correction::{Correction, CorrectionMode, Weighted};
pub use draw::{Completion, Drawing};
pub use filter::FilterConfig;
pub use plan::{Place, Plan};
pub use round::{Pass, Round};
pub use server::Server;
