//! A round: completions with what they are worth, and how a part of them becomes one forest.

use std::ops::Range;

use saddlepoint_core::metrics::Metrics;
use serde::{Deserialize, Serialize};

use super::{Completion, Correction, Weighted};
use crate::engine::{Cotangent, Forest, Stats};
use crate::method::{Credit, Judged};
use crate::teacher::Taught;

/// What steps go through before the next is sampled. Completions of a prompt follow each other, and all prompts have as many.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// The example of each prompt.
    pub examples: Vec<usize>,
    /// Completions, prompt after prompt.
    pub completions: Vec<Completion>,
    /// Log-probabilities of each token under the weights that are trained, before their first step; empty where sampling read the
    /// same or the one step of the round computes them.
    pub trained: Vec<Vec<f64>>,
    /// What each is worth; `None` where no reward applies or one failed. Empty until they are judged.
    pub rewards: Vec<Option<f64>>,
    /// What each is worth in the loss; `None` where nothing is to be learned from it. Empty until they are judged.
    pub advantages: Vec<Option<f64>>,
    /// What its tokens are worth in the loss, if the method learns values; otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credit: Vec<Option<Credit>>,
    /// What a teacher on a server says of each; empty where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taught: Vec<Taught>,
}

/// A part of a round, ready for the policy.
#[derive(Debug)]
pub struct Pass<'a> {
    /// Every prompt once, its completions below it.
    pub forest: Forest,
    /// The rows of each completion.
    pub sequences: Vec<Range<usize>>,
    /// What is known of each.
    pub judged: Vec<Judged<'a>>,
    /// Log-probabilities of the tokens of each as they were sampled.
    pub sampled: Vec<&'a [f64]>,
    /// What a teacher on a server says of each; empty where there is none.
    pub taught: &'a [Taught],
}

impl<'a> Pass<'a> {
    /// Takes the policy that the statistics are of for the one before its first step.
    pub fn trained_by(&mut self, stats: &'a Stats) {
        for (judged, rows) in self.judged.iter_mut().zip(&self.sequences) {
            judged.old_logp = &stats.logp[rows.clone()];
        }
    }

    /// Adds what a teacher on a server says to the statistics, in the place of a reference in this process.
    pub fn teach(&self, stats: &mut Stats) {
        if self.taught.is_empty() {
            return;
        }
        stats.ref_logp = vec![0.0; stats.logp.len()];
        stats.ref_listed = vec![Vec::new(); stats.listed.len()];
        for (rows, taught) in self.sequences.iter().zip(self.taught) {
            stats.ref_logp[rows.clone()].copy_from_slice(&taught.logps);
            for (row, top) in rows.clone().zip(&taught.top) {
                stats.ref_listed[row] = top.iter().map(|(_, logp)| *logp).collect();
            }
        }
    }

    /// Weights the derivatives by the log-probabilities of what was sampled otherwise than it is trained, and by its values.
    ///
    /// A value is the baseline of what is learned from its token. With weights `w`, of a token or of its completion and bounded or
    /// not, the least of `E_q[w (V(s) − R)²]` at a prefix `s` is `V(s) = E_q[w R|s] / E_q[w|s]`, under which the weighted advantages
    /// `w (R − V(s))` have mean 0. With ratios of whole completions that are not bounded it is the policy's own value. Without
    /// weights it would be that of what sampled.
    pub fn weight(&self, correction: Correction, cotangent: &mut Cotangent, weighted: &mut Weighted) {
        for ((rows, judged), sampled) in self.sequences.iter().zip(&self.judged).zip(&self.sampled) {
            let weights = correction.weights(judged.old_logp, sampled, weighted);
            for slopes in [&mut cotangent.logp, &mut cotangent.score] {
                // Empty without values.
                let slopes = slopes.get_mut(rows.clone()).unwrap_or_default();
                slopes.iter_mut().zip(&weights).for_each(|(slope, weight)| *slope *= weight);
            }
        }
    }
}

impl Round {
    /// Completions a prompt.
    pub fn each(&self) -> usize {
        self.completions.len() / self.examples.len().max(1)
    }

    /// The completions of each prompt.
    pub fn groups(&self) -> Vec<Range<usize>> {
        let each = self.each();
        (0..self.examples.len()).map(|group| group * each..(group + 1) * each).collect()
    }

    /// Tokens of these completions from which something is learned.
    pub fn learned_tokens(&self, part: Range<usize>) -> usize {
        let learned = part.filter(|&i| self.advantages[i].is_some());
        learned.map(|i| self.completions[i].ids.len()).sum()
    }

    /// Adds prompts with their completions, about which nothing else is known yet.
    pub fn extend(&mut self, examples: Vec<usize>, completions: Vec<Completion>) {
        self.examples.extend(examples);
        self.completions.extend(completions);
    }

    /// The completions of these prompts alone.
    pub fn cases(&self, prompts: &[usize]) -> Vec<usize> {
        let each = self.each();
        prompts.iter().flat_map(|&prompt| prompt * each..(prompt + 1) * each).collect()
    }

    /// A round of these prompts alone.
    #[must_use]
    pub fn only(&self, prompts: &[usize]) -> Self {
        Self {
            examples: prompts.iter().map(|&prompt| self.examples[prompt]).collect(),
            completions: self.cases(prompts).into_iter().map(|i| self.completions[i].clone()).collect(),
            ..Self::default()
        }
    }

    /// Puts completions below the prompts that `prompt` gives for their examples.
    pub fn pass<'p>(&self, part: Range<usize>, prompt: impl Fn(usize) -> &'p [u32]) -> Pass<'_> {
        let mut pass = Pass {
            forest: Forest::default(),
            sequences: Vec::new(),
            judged: Vec::new(),
            sampled: Vec::new(),
            taught: self.taught.get(part.clone()).unwrap_or_default(),
        };
        let mut root = (usize::MAX, 0);
        let listed = pass.taught.iter().flat_map(|taught| &taught.top);
        pass.forest.listed = listed.map(|top| top.iter().map(|(id, _)| *id).collect()).collect();
        for i in part {
            let (group, completion) = (i / self.each(), &self.completions[i]);
            if root.0 != group {
                root = (group, pass.forest.root(prompt(self.examples[group])));
            }
            pass.sequences.push(pass.forest.completion(root.1, &completion.ids));
            pass.sampled.push(&completion.logps);
            pass.judged.push(Judged {
                old_logp: self.trained.get(i).unwrap_or(&completion.logps),
                advantage: self.advantages.get(i).copied().flatten(),
                credit: self.credit.get(i).and_then(Option::as_ref),
                reward: self.rewards.get(i).copied().flatten(),
                group,
            });
        }
        pass
    }

    /// Lengths of completions under TRL's names, in tokens: `completions/{mean,min,max}_length`, the same of
    /// those that the policy ended (`..._terminated_length`, only if there is one), and `completions/clipped_ratio`, the share that
    /// was cut at the longest length.
    pub fn lengths(&self) -> Metrics {
        let mut metrics = Metrics::new();
        let mut add = |of: &str, lengths: Vec<usize>| {
            if let (Some(least), Some(most)) = (lengths.iter().min(), lengths.iter().max()) {
                let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
                metrics.set(format!("completions/mean{of}_length"), mean);
                metrics.set(format!("completions/min{of}_length"), *least as f64);
                metrics.set(format!("completions/max{of}_length"), *most as f64);
            }
        };
        let length = |completion: &Completion| completion.ids.len();
        add("", self.completions.iter().map(length).collect());
        let finished: Vec<usize> = self.completions.iter().filter(|c| c.finished).map(length).collect();
        let clipped = 1.0 - finished.len() as f64 / self.completions.len() as f64;
        add("_terminated", finished);
        metrics.set("completions/clipped_ratio", clipped);
        metrics
    }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::super::CorrectionMode;
    use super::*;
    use crate::method::ppo::{Ppo, PpoConfig};
    use crate::method::{Method, Norm, Rollout, View};

    fn round() -> Round {
        let completion = |ids: &[u32], finished| Completion {
            ids: ids.to_vec(),
            logps: vec![-1.0; ids.len()],
            finished,
            version: None,
        };
        Round {
            examples: vec![7, 3],
            completions: vec![
                completion(&[5, 9], true),
                completion(&[6, 6, 6], false),
                completion(&[9], true),
                completion(&[8, 9], true),
            ],
            trained: Vec::new(),
            rewards: vec![Some(1.0), None, Some(0.0), Some(1.0)],
            advantages: vec![Some(0.0), None, Some(-0.5), Some(0.5)],
            credit: Vec::new(),
            taught: Vec::new(),
        }
    }

    #[test]
    fn completions_hang_below_their_prompt_wherever_a_pass_begins() {
        let round = round();
        let prompts = |example: usize| -> &[u32] { if example == 7 { &[1, 2] } else { &[3] } };
        let whole = round.pass(0..4, prompts);
        assert_eq!(whole.forest.tokens, [1, 2, 5, 6, 6, 3, 8], "each prompt once, and no last token");
        let later = round.pass(1..3, prompts);
        assert_eq!(later.forest.tokens, [1, 2, 6, 6, 3]);
        let targets: Vec<u32> = later.forest.rows.iter().map(|row| row.target).collect();
        assert_eq!((targets, &later.sequences[..]), (vec![6, 6, 6, 9], &[0..3, 3..4][..]));
        assert_eq!(
            later.judged.iter().map(|judged| (judged.group, judged.advantage)).collect::<Vec<_>>(),
            [(0, None), (1, Some(-0.5))]
        );
        assert_eq!((round.learned_tokens(0..4), round.groups()), (5, vec![0..2, 2..4]));
    }

    #[test]
    fn a_round_of_some_prompts_has_their_completions() {
        let round = round();
        let second = round.only(&[1]);
        assert_eq!((&second.examples[..], &second.completions[..]), (&[3][..], &round.completions[2..]));
        let mut both = round.only(&[0]);
        both.extend(second.examples, second.completions);
        assert_eq!((both.examples, both.completions), (round.examples, round.completions));
    }

    /// All completions of two tokens, of two each: the policy's probabilities and those by which they are sampled, and what they are
    /// worth.
    struct Tree {
        policy: [[f64; 2]; 3],
        sampling: [[f64; 2]; 3],
        worth: [f64; 4],
    }

    const TREE: Tree = Tree {
        policy: [[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]],
        sampling: [[0.25, 0.75], [0.5, 0.5], [0.6, 0.4]],
        worth: [1.0, -2.0, 0.5, 3.0],
    };

    impl Tree {
        /// Probabilities of both tokens of completion `i`.
        fn of(of: &[[f64; 2]; 3], i: usize) -> [f64; 2] {
            [of[0][i / 2], of[1 + i / 2][i % 2]]
        }

        /// The derivatives of the loss of values in expectation over what is sampled: at the prompt and behind either first token.
        fn slopes(&self, correction: Option<Correction>, values: [f64; 3]) -> [f64; 3] {
            let logs = |of: &[[f64; 2]; 3], i| Self::of(of, i).map(f64::ln).to_vec();
            let credit = |i: usize| Credit {
                values: vec![values[0], values[1 + i / 2]],
                advantages: vec![0.0; 2],
                returns: vec![self.worth[i]; 2],
            };
            let round = Round {
                examples: vec![0],
                completions: (0..4)
                    .map(|i| Completion {
                        ids: vec![1 + i as u32 / 2, 1 + i as u32 % 2],
                        logps: logs(&self.sampling, i),
                        finished: true,
                        version: None,
                    })
                    .collect(),
                trained: (0..4).map(|i| logs(&self.policy, i)).collect(),
                rewards: vec![Some(0.0); 4],
                advantages: vec![Some(0.0); 4],
                credit: (0..4).map(|i| Some(credit(i))).collect(),
                taught: Vec::new(),
            };
            let pass = round.pass(0..4, |_| &[0]);
            let stats = Stats {
                logp: round.trained.concat(),
                score: (0..4).flat_map(|i| credit(i).values).collect(),
                entropy: vec![0.0; 8],
                ..Stats::default()
            };
            // A sum, not a mean over tokens.
            let norm = Norm { tokens: 1, sequences: 4, ..Norm::default() };
            let rollout =
                Rollout { completions: &pass.judged, max_completion_length: 2, step: 0, tokens_a_step: 8.0 };
            let view = View { rollout: Some(rollout), ..View::new(&pass.sequences, &stats, norm) };
            let mut cotangent = Cotangent::default();
            let config = PpoConfig { vf_coef: 1.0, ..PpoConfig::default() };
            Ppo::new(config).expect("valid").loss(&view, &mut cotangent);
            if let Some(correction) = correction {
                pass.weight(correction, &mut cotangent, &mut Weighted::default());
            }
            let mut slopes = [0.0; 3];
            for i in 0..4 {
                let chance: f64 = Self::of(&self.sampling, i).iter().product();
                slopes[0] += chance * cotangent.score[2 * i];
                slopes[1 + i / 2] += chance * cotangent.score[2 * i + 1];
            }
            slopes
        }

        /// Values of the prompt and behind either first token, where tokens are drawn by these.
        fn values(&self, first: &[f64; 2], second: &[[f64; 2]; 3]) -> [f64; 3] {
            let behind = |token: usize| {
                (0..2).map(|last| second[1 + token][last] * self.worth[2 * token + last]).sum::<f64>()
            };
            [first[0] * behind(0) + first[1] * behind(1), behind(0), behind(1)]
        }
    }

    /// Values are to be learned of what is trained, not of what sampled: by the ratio of whole completions it is the policy's value where the
    /// expected derivative is 0, by that of a token the one with the policy's next token.
    #[test]
    fn values_are_learned_under_the_ratios_of_the_policy() {
        let Tree { policy, sampling, .. } = &TREE;
        let by = |mode| Some(Correction { mode, clip_max: 100.0 });
        let own = TREE.values(&policy[0], policy);
        let sampled = TREE.values(&sampling[0], sampling);
        assert!(own.iter().zip(sampled).all(|(a, b)| (a - b).abs() > 0.1), "{own:?} {sampled:?}");
        assert_close!(TREE.slopes(None, sampled), [0.0; 3], atol = 1e-12);
        assert_close!(TREE.slopes(by(CorrectionMode::SequenceTruncate), own), [0.0; 3], atol = 1e-12);
        let [at_prompt, _, _] = TREE.values(&policy[0], sampling);
        let next = [at_prompt, own[1], own[2]];
        assert_close!(TREE.slopes(by(CorrectionMode::TokenTruncate), next), [0.0; 3], atol = 1e-12);
        let off = TREE.slopes(by(CorrectionMode::SequenceTruncate), sampled);
        assert!(off.iter().all(|slope| slope.abs() > 1e-2), "{off:?}");
    }

    /// Bounded, it is the baseline of the bounded advantages.
    #[test]
    fn under_a_bound_values_are_the_baseline_of_what_is_learned() {
        for mode in [
            CorrectionMode::TokenTruncate,
            CorrectionMode::TokenMask,
            CorrectionMode::SequenceTruncate,
            CorrectionMode::SequenceMask,
        ] {
            let correction = Correction { mode, clip_max: 1.45 };
            let weights: Vec<Vec<f64>> = (0..4)
                .map(|i| {
                    let [p, q] = [&TREE.policy, &TREE.sampling].map(|of| Tree::of(of, i).map(f64::ln));
                    correction.weights(&p, &q, &mut Weighted::default())
                })
                .collect();
            let mean = |at: usize, among: &[usize], of: &dyn Fn(usize) -> f64| {
                let chance = |i: usize| Tree::of(&TREE.sampling, i).iter().product::<f64>();
                among.iter().map(|&i| chance(i) * weights[i][at] * of(i)).sum::<f64>()
            };
            let prefixes: [(usize, &[usize]); 3] = [(0, &[0, 1, 2, 3]), (1, &[0, 1]), (1, &[2, 3])];
            let values =
                prefixes.map(|(at, among)| mean(at, among, &|i| TREE.worth[i]) / mean(at, among, &|_| 1.0));
            assert_close!(TREE.slopes(Some(correction), values), [0.0; 3], atol = 1e-12);
            for ((at, among), value) in prefixes.into_iter().zip(values) {
                assert!(mean(at, among, &|i| TREE.worth[i] - value).abs() < 1e-12, "{mode:?}");
            }
        }
    }

    #[test]
    fn lengths_have_the_names_of_trl() {
        let metrics = round().lengths();
        let got: Vec<(&str, f64)> = metrics.iter().collect();
        assert_eq!(
            got,
            [
                ("completions/mean_length", 2.0),
                ("completions/min_length", 1.0),
                ("completions/max_length", 3.0),
                ("completions/mean_terminated_length", 5.0 / 3.0),
                ("completions/min_terminated_length", 1.0),
                ("completions/max_terminated_length", 2.0),
                ("completions/clipped_ratio", 0.25),
            ]
        );
    }
}
