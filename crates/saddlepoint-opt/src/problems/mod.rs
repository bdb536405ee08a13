//! Problems that are given as text.
//!
//! | module | reads |
//! |---|---|
//! | [`sif`] | the Standard Input Format of CUTEst |
//!
//! Their functions are [`expression`]s with exact first and second derivatives.

pub mod expression;
pub mod sif;
