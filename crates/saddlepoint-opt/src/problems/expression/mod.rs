//! Functions given as text, with exact derivatives.
//!
//! An expression in Fortran's notation (`2.0D0 * X ** 2 - SIN(Y)`) becomes a [`Tape`]: a list of operations, each on registers that
//! earlier ones have filled. A tape is evaluated forwards, in numbers or in numbers with first and second derivatives. There is no
//! recursion over the text after parsing, so a long expression cannot exhaust the stack.

mod jet;
mod parse;
mod tape;

pub use jet::{Jet, Scratch};
pub(crate) use parse::{Kind, Scope};
pub use tape::Tape;
