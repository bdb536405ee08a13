//! Golden values of the peers; the scripts that made them lie beside them.

mod conformance;
mod golden;
mod sif;
