//! Optimizers and multipliers.
