//! Lion secretly solves constrained optimization (Chen, Liu, Liang and Liu 2024, arXiv:2310.05898).

mod language;
mod quadratic;

use saddlepoint_core::reproduce::{Findings, Observer, Setting};
use saddlepoint_opt::optimizer::{Lion, LionConfig, Tensor};

use super::Reproduction;
use crate::Result;

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "lion",
    title: "Lion secretly solves constrained optimization",
    paper: "arXiv:2310.05898",
    experiment: "Random convex quadratics whose optimum is outside of the box |x| <= 1/λ, each minimised by the optimizer itself \
                 with implicit decay from inside and from outside of the box, and by six members of the family; the right \
                 answers come from coordinate descent. Then a small decoder is trained to say the largest of four digits, by \
                 Lion in a box that a part of its weights starts outside of, by Lion in a wide box, and by AdamW, on the same batches.",
    seeds: 5,
    run,
};

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    let size = if setting.full { quadratic::FULL } else { quadratic::DEFAULT };
    let mut findings = quadratic::findings(setting.seeds, &size, &lion, observer)?;
    let size = if setting.full { language::FULL } else { language::DEFAULT };
    let more = language::findings(setting.seeds, &size, language::LION, observer)?;
    findings.claims.extend(more.claims);
    findings.figures.extend(more.figures);
    Ok(findings)
}

/// The update that the paper is about, for one vector.
trait Update {
    fn update(&mut self, x: &mut [f32], g: &[f32], lr: f64) -> Result<()>;
    /// The momentum, a sum of gradients.
    fn momentum(&self) -> &[f32];
}

impl Update for Lion {
    fn update(&mut self, x: &mut [f32], g: &[f32], lr: f64) -> Result<()> {
        Ok(Lion::update(self, x, g, lr, 1.0)?)
    }

    fn momentum(&self) -> &[f32] {
        self.state()
    }
}

/// Makes the update for vectors of a length.
type Make<'a> = &'a dyn Fn(LionConfig, usize) -> Result<Box<dyn Update>>;

fn lion(config: LionConfig, len: usize) -> Result<Box<dyn Update>> {
    Ok(Box::new(Lion::new(config, &[Tensor { rows: 1, columns: len, decays: true }])?))
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::reproduce::Claim;
    use saddlepoint_opt::optimizer::LionConfig;

    use super::*;

    fn failed(make: Make) -> Vec<String> {
        let claims = quadratic::findings(5, &quadratic::TINY, make, &mut |_, _, _| ()).expect("runs").claims;
        claims.into_iter().filter(|claim| !claim.holds).map(|claim| claim.claim).collect()
    }

    /// Lion without its decay, and a decay of another kind.
    struct Corrupted {
        lion: Box<dyn Update>,
        lambda: f64,
        coupled: bool,
    }

    impl Update for Corrupted {
        fn update(&mut self, x: &mut [f32], g: &[f32], lr: f64) -> Result<()> {
            let lambda = self.lambda as f32;
            if self.coupled {
                let g: Vec<f32> = g.iter().zip(&*x).map(|(g, x)| g + lambda * x).collect();
                return self.lion.update(x, &g, lr);
            }
            for x in x.iter_mut() {
                *x *= 1.0 + lr as f32 * lambda;
            }
            self.lion.update(x, g, lr)
        }

        fn momentum(&self) -> &[f32] {
            self.lion.momentum()
        }
    }

    fn corrupted(coupled: bool) -> impl Fn(LionConfig, usize) -> Result<Box<dyn Update>> {
        move |config, len| {
            let plain = lion(LionConfig { weight_decay: 0.0, ..config }, len)?;
            Ok(Box::new(Corrupted { lion: plain, lambda: config.weight_decay, coupled }))
        }
    }

    #[test]
    fn the_claims_hold_for_lion_and_not_with_another_decay() {
        assert_eq!(failed(&lion), Vec::<String>::new());
        for (what, make) in [("of the other sign", corrupted(false)), ("as a penalty", corrupted(true))] {
            let failed = failed(&make);
            assert!(failed.len() >= 4, "decay {what}: only {failed:?} fail");
        }
    }

    #[test]
    fn without_decay_the_weights_of_a_model_do_not_end_in_the_box() {
        let held = |config| -> Vec<Claim> {
            language::findings(2, &language::TINY, config, &mut |_, _, _| ()).expect("runs").claims
        };
        // Two seeds are too few for an interval: what was measured is compared.
        let measured = |claims: &[Claim], part: &str| {
            claims.iter().find(|claim| claim.claim.contains(part)).expect("a claim").measured
        };
        let (lion, free) = (held(language::LION), held(LionConfig { weight_decay: 0.0, ..language::LION }));
        for (part, most) in [("at the end with Lion", 1.01), ("product of (1 - eλ)", 0.0)] {
            assert!(
                measured(&lion, part) <= most && measured(&free, part) > most,
                "{part}: {lion:?} {free:?}"
            );
        }
    }
}
