//! The real binary on small inputs.
