//! Reproductions: a paper's central claims, measured at a small size and judged.
//!
//! A [`Reproduction`] names the paper, the experiment and its seeds; its `run` gives [`Findings`]: claims with what the paper
//! says, what was measured and whether it holds, and the curves behind them. Each crate that has methods has a list of
//! them. `saddle reproduce` runs them, prints the claims and writes a page with the curves.
//!
//! A claim is judged by rule, never by eye: either by the 95 % interval of a mean over seeds, which must lie on the claimed
//! side as a whole, or by a count of violations of what must never happen.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::interval::Mean;

/// A paper and the experiment by which its claims are tested. `E` is the error of the crate it stands in.
#[derive(Debug)]
pub struct Reproduction<E> {
    /// Its name: `saddle reproduce SLUG`.
    pub slug: &'static str,
    /// Title of the paper, or its usual short form.
    pub title: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// What is done here in place of the paper's experiments, in a few sentences.
    pub experiment: &'static str,
    /// Repetitions with other random numbers, at least 2, where none are asked for.
    pub seeds: usize,
    /// Does it.
    pub run: fn(&Setting, Observer) -> Result<Findings, E>,
}

/// How a reproduction is run.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Repetitions with the seeds 0, 1, ..., at least 2.
    pub seeds: usize,
    /// The larger setting.
    pub full: bool,
    /// Folder in which models that experiments start from are kept.
    pub cache: PathBuf,
}

/// Is told how far it is: units done, units in all, what is being done.
pub type Observer<'a> = &'a mut (dyn FnMut(u64, u64, &str) + Send);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// The claims, in the order in which they are to be read.
    pub claims: Vec<Claim>,
    /// The curves behind them.
    pub figures: Vec<Figure>,
}

/// The outcome as `saddle reproduce --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the reproduction.
    pub slug: String,
    /// Whether every claim holds, and there is one.
    pub holds: bool,
    /// The claims.
    pub claims: Vec<Claim>,
    /// How long it took.
    pub seconds: f64,
}

impl Outcome {
    /// From the claims of a run.
    pub fn new(slug: &str, claims: Vec<Claim>, seconds: f64) -> Self {
        let holds = !claims.is_empty() && claims.iter().all(|claim| claim.holds);
        Self { slug: slug.to_owned(), holds, claims, seconds }
    }
}

/// One claim and its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// What is claimed of which quantity, in which unit, ending with the bound that decides.
    pub claim: String,
    /// What the paper says or reports.
    pub paper: String,
    /// What was measured here: a mean over seeds, or a count.
    pub measured: f64,
    /// 95 % interval of the mean; a count is both ends of its own.
    pub interval: [f64; 2],
    /// Whether it holds.
    pub holds: bool,
}

/// On which side of a number a mean is claimed to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Above it.
    Above(f64),
    /// Below it.
    Below(f64),
}

impl Claim {
    /// Of the mean of a quantity, from its value for each seed: holds if the whole interval is on the claimed side.
    pub fn mean(quantity: &str, paper: &str, values: &[f64], bound: Bound) -> Self {
        let Mean { value, interval } = Mean::of(values);
        // What is not finite is on no side.
        let (sign, limit, holds) = match bound {
            Bound::Above(limit) => ('>', limit, interval[0] > limit && interval[1].is_finite()),
            Bound::Below(limit) => ('<', limit, interval[1] < limit && interval[0].is_finite()),
        };
        let claim = format!("{quantity} {sign} {limit}");
        Self { claim, paper: paper.to_owned(), measured: value, interval, holds }
    }

    /// Of something that must never happen, from how often it did.
    pub fn never(event: &str, paper: &str, count: usize) -> Self {
        let (claim, measured) = (format!("{event}: never"), count as f64);
        Self { claim, paper: paper.to_owned(), measured, interval: [measured; 2], holds: count == 0 }
    }
}

/// A chart of the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What is shown, with its unit.
    pub title: String,
    /// What is to the right, with its unit.
    pub x: String,
    /// The curves, at most six.
    pub curves: Vec<Curve>,
    /// A horizontal line with its name.
    pub limit: Option<(f64, String)>,
}

/// One named curve; its points ascend in the first coordinate and are finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it is.
    pub name: String,
    /// The points.
    pub points: Vec<(f64, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_holds_only_with_its_whole_interval() {
        let claim = |values: &[f64], bound| Claim::mean("difference, nats", "larger", values, bound);
        let held = claim(&[1.0, 1.1, 0.9], Bound::Above(0.5));
        assert!(held.holds && held.claim == "difference, nats > 0.5", "{held:?}");
        assert!(!claim(&[0.1, 2.0, 0.9], Bound::Above(0.5)).holds, "the mean is above, the interval is not");
        assert!(claim(&[0.1, 0.2], Bound::Below(2.0)).holds);
        assert!(!claim(&[0.1], Bound::Below(2.0)).holds, "one seed shows nothing");
        assert!(!claim(&[f64::NAN, 1.0], Bound::Above(0.0)).holds);
        assert!(!claim(&[f64::INFINITY, 1.0], Bound::Above(0.0)).holds);
    }

    #[test]
    fn one_violation_is_too_many() {
        assert!(Claim::never("outside the box", "it is never left", 0).holds);
        let once = Claim::never("outside the box", "it is never left", 1);
        assert_eq!(
            (once.claim.as_str(), once.interval, once.holds),
            ("outside the box: never", [1.0; 2], false)
        );
    }

    #[test]
    fn an_outcome_holds_with_all_of_its_claims_and_with_at_least_one() {
        let (held, missed) = (Claim::never("a", "b", 0), Claim::never("a", "b", 2));
        assert!(Outcome::new("x", vec![held.clone()], 1.0).holds);
        assert!(!Outcome::new("x", vec![held, missed], 1.0).holds);
        assert!(!Outcome::new("x", Vec::new(), 1.0).holds);
    }

    #[test]
    fn an_outcome_has_the_promised_keys() {
        let outcome = Outcome::new("x", vec![Claim::never("a", "b", 0)], 1.5);
        assert_eq!(
            serde_json::to_string(&outcome).expect("serialises"),
            r#"{"slug":"x","holds":true,"claims":[{"claim":"a: never","paper":"b","measured":0.0,"interval":[0.0,0.0],"holds":true}],"seconds":1.5}"#
        );
    }
}
