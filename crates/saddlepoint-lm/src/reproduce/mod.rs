//! Reproductions of the papers on language models: one file each, and one line in the list.
//!
//! The experiment of a file takes what the paper is about (a method, a loss, an update) as an argument, so that a test can
//! run it with a corrupted one and see a claim fail.

mod learner;
mod lion;

use saddlepoint_core::reproduce;

use crate::Error;

/// A reproduction in this crate.
pub type Reproduction = reproduce::Reproduction<Error>;

/// Every reproduction in this crate.
pub const LIST: &[&Reproduction] = &[&lion::REPRODUCTION];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reproduction_has_a_name_of_its_own_and_seeds_enough_for_an_interval() {
        let slugs: BTreeSet<_> = LIST.iter().map(|reproduction| reproduction.slug).collect();
        assert_eq!(slugs.len(), LIST.len());
        assert!(LIST.iter().all(|reproduction| reproduction.seeds >= 2));
    }
}
