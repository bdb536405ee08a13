//! Problems that are given as text.
//!
//! | module | reads |
//! |---|---|
//! | [`sif`] | the Standard Input Format of CUTEst |
//! | [`formula`] | TOML with formulas |
//! | [`known`] | nothing: problems with known solutions, as a list |
//!
//! Their functions are [`expression`]s with exact first and second derivatives.

pub mod expression;
pub mod formula;
pub mod known;
pub mod sif;
