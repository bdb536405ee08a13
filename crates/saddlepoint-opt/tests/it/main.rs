//! Golden values of the peers, whose scripts lie beside them, and every solver on every problem of its class.

mod any_bilevel;
mod any_input;
mod bilevel;
mod chain;
mod conformance;
mod examples;
mod golden;
mod sif;
