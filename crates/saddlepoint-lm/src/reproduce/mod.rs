//! Reproductions of the papers on language models: one file each, and one line in the list.
//!
//! The experiment of a file takes what the paper is about (a method, a loss, an update) as an argument, so that a test can
//! run it with a corrupted one and see a claim fail.

mod base;
mod classifier;
#[cfg(test)]
mod corrupted;
mod difficulty_filtering;
mod disco;
mod f_dpo;
mod facts;
mod hypo;
mod implicit_reward;
mod kdrl;
mod learner;
mod lion;
mod longpo;
mod practice;
mod preferences;
mod problems;
mod reviews;
mod reward_ensembles;
mod salsa;
mod side_by_side;
mod tdpo;
mod two_digits;

use saddlepoint_core::reproduce;

use crate::Error;

/// A reproduction in this crate.
pub type Reproduction = reproduce::Reproduction<Error>;

/// Every reproduction in this crate.
pub const LIST: &[&Reproduction] = &[
    &difficulty_filtering::REPRODUCTION,
    &disco::REPRODUCTION,
    &f_dpo::REPRODUCTION,
    &hypo::REPRODUCTION,
    &implicit_reward::REPRODUCTION,
    &kdrl::REPRODUCTION,
    &lion::REPRODUCTION,
    &longpo::REPRODUCTION,
    &reward_ensembles::REPRODUCTION,
    &salsa::REPRODUCTION,
    &tdpo::REPRODUCTION,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::method::{self, Status};

    /// Methods whose papers' claims are to be measured before they are called stable.
    const TO_REPRODUCE: [&str; 6] = ["f-dpo", "tdpo", "hypo", "longpo", "implicit-reward", "kdrl"];

    #[test]
    fn a_method_names_a_reproduction_that_there_is_and_is_stable_only_with_it() {
        for meta in method::list() {
            if let Some(slug) = meta.slug {
                assert!(LIST.iter().any(|each| each.slug == slug), "{}: no reproduction {slug}", meta.name);
            } else {
                let promised = meta.status == Status::Stable && TO_REPRODUCE.contains(&meta.name);
                assert!(!promised, "{} is stable without a reproduction", meta.name);
            }
        }
    }

    #[test]
    fn every_reproduction_has_a_name_of_its_own_and_seeds_enough_for_an_interval() {
        let slugs: BTreeSet<_> = LIST.iter().map(|reproduction| reproduction.slug).collect();
        assert_eq!(slugs.len(), LIST.len());
        assert!(LIST.iter().all(|reproduction| reproduction.seeds >= 2));
    }
}
