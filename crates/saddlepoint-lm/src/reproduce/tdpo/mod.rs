//! TDPO: sequential KL, diversity and accuracy beside DPO's (Zeng et al. 2024, arXiv:2404.11999).

mod digits;
mod sentiment;

use saddlepoint_core::reproduce::{Findings, Observer, Setting};

use super::Reproduction;
use super::preferences::{self, BETA};
use crate::Result;
use crate::method::Method;
use crate::method::dpo::{Dpo, DpoConfig};
use crate::method::tdpo::{Tdpo, TdpoConfig, Variant};

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "tdpo",
    title: "Token-level direct preference optimization",
    paper: "arXiv:2404.11999",
    experiment: "A small decoder continues `4,9,2,7=` by two of the four digits, drawn evenly. Pairs of such completions are \
                 labelled by a gold reward (a third of the sum of the two digits) through the model of Bradley and Terry. DPO, \
                 TDPO1 and TDPO2 with four weights are trained on the same pairs once, with the same beta and the same \
                 optimizer. The sequential forward KL K of the chosen (y⁺) and of the rejected (y⁻) completions, entropy, \
                 divergence, expected gold reward and accuracy, by each method's own reward, are exact sums over all \
                 completions and all pairs of held-out prompts. Then the paper's task of sentiment, where the film reviews \
                 of SST-2 are at hand (`lm/sst2/train.tsv` and `dev.tsv` in `$SADDLE_DATA`): a decoder trained on the sentences \
                 continues their first four words, a classifier trained on their labels says which of two continuations is \
                 more positive, and DPO, TDPO1 and TDPO2 learn from such pairs. Reward and divergence are those of samples after \
                 held-out beginnings, K that of held-out pairs. The learning rate of the reviews was raised from 2e-4 to 1e-3 after a \
                 first run, in which no method had learned.",
    seeds: 5,
    run,
};

/// Where the reviews are among the shared data.
const REVIEWS: &str = "lm/sst2";

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    let size = preferences::Size::of(setting.full);
    let mut findings = digits::findings(setting, size, &method, observer)?;
    // Says so where they are absent.
    if let Some(data) = saddlepoint_core::test::data(REVIEWS) {
        let size = sentiment::Size::of(setting.full);
        let more = sentiment::findings(setting, size, &data, &method, observer)?;
        findings.claims.extend(more.claims);
        findings.figures.extend(more.figures);
    }
    Ok(findings)
}

/// A loss of the comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Dpo,
    Tdpo1,
    /// With its weight α.
    Tdpo2(f64),
}

/// Makes a method.
type Make<'a> = &'a (dyn Fn(Kind) -> Result<Box<dyn Method>> + Sync);

fn method(kind: Kind) -> Result<Box<dyn Method>> {
    let tdpo = |variant, alpha| Tdpo::new(TdpoConfig { beta: BETA, variant, alpha });
    Ok(match kind {
        Kind::Dpo => Box::new(Dpo::new(DpoConfig { beta: BETA, ..DpoConfig::default() })?),
        Kind::Tdpo1 => Box::new(tdpo(Variant::Tdpo1, 1.0)?),
        Kind::Tdpo2(alpha) => Box::new(tdpo(Variant::Tdpo2, alpha)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Cotangent, Stats, Want};
    use crate::method::{Meta, Sums, View};
    use crate::reproduce::corrupted::corrupted;

    /// TDPO with the sign of δ turned: that of another sign of K.
    #[derive(Debug)]
    struct Turned(Box<dyn Method>);

    impl Method for Turned {
        fn meta(&self) -> &'static Meta {
            self.0.meta()
        }

        fn want(&self) -> Want {
            self.0.want()
        }

        fn loss(&self, view: &View, out: &mut Cotangent) -> Sums {
            let negative = |values: &[f64]| values.iter().map(|value| -value).collect::<Vec<_>>();
            let stats = Stats { divergence: negative(&view.stats.divergence), ..view.stats.clone() };
            let sums = self.0.loss(&View { stats: &stats, ..*view }, out);
            out.divergence = negative(&out.divergence);
            sums
        }
    }

    /// TDPO2 that forgot the stop-gradient on the chosen completion's KL.
    pub(super) fn leaking(kind: Kind) -> Result<Box<dyn Method>> {
        let tdpo2 = method(kind)?;
        let Kind::Tdpo2(alpha) = kind else { return Ok(tdpo2) };
        // D and α K have the same derivative in the margin, for both completions.
        Ok(corrupted(tdpo2, move |_, out| {
            out.divergence = out.logp.iter().map(|cotangent| alpha * cotangent).collect();
        }))
    }

    pub(super) fn turned(kind: Kind) -> Result<Box<dyn Method>> {
        Ok(Box::new(Turned(method(kind)?)))
    }
}
