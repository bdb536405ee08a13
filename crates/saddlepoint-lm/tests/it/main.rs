//! Integration tests of the crate.

mod data_corpus;
mod data_golden;
mod data_input;
mod data_public;
