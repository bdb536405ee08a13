//! Examples, and how several of them become one forest.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::long;
use super::sampling::Drawn;
use crate::Result;
use crate::data::{Labelled, LongPair, Pair, Prompt, Supervised};
use crate::engine::{Forest, Policy, Stats, Want};
use crate::method::{Completions, Norm, View};

/// One record of the training data, as ids.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Example {
    Supervised(Supervised),
    Pair(Pair),
    Long(LongPair),
    Labelled(Labelled),
    Posed(Posed),
}

/// A prompt to be answered, with what rewards read beside it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Posed {
    pub(crate) prompt: Prompt,
    /// The record's other columns.
    pub(crate) columns: Arc<Map<String, Value>>,
}

/// A prompt as the policy reads it and as its reference does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) reference: &'a [u32],
}

impl Example {
    /// The ids before anything is learned.
    pub(crate) fn prompt(&self) -> &[u32] {
        match self {
            Example::Supervised(s) => {
                let first = s.supervised.iter().position(|&on| on).expect("something is supervised");
                &s.ids[..first]
            }
            Example::Pair(pair) => &pair.prompt,
            Example::Long(pair) => &pair.chosen.ids[..pair.chosen.answers[0].start],
            Example::Labelled(labelled) => &labelled.prompt,
            Example::Posed(posed) => &posed.prompt.ids,
        }
    }

    /// Everything that an answer can be drawn to: the prompt, and of a document with several questions each question after the
    /// better answers to those before it.
    pub(super) fn asked(&self) -> Vec<Asked<'_>> {
        match self {
            Example::Long(pair) => {
                let turns = pair.chosen.answers.iter().zip(&pair.short);
                turns
                    .map(|(answer, short)| Asked { ids: &pair.chosen.ids[..answer.start], reference: short })
                    .collect()
            }
            _ => vec![Asked { ids: self.prompt(), reference: self.prompt() }],
        }
    }

    /// What follows the prompt, sequence by sequence. None of a supervised example, of which only parts may be learned, and of
    /// a prompt alone.
    pub(super) fn completions(&self) -> Vec<&[u32]> {
        match self {
            Example::Supervised(_) | Example::Posed(_) => Vec::new(),
            Example::Pair(pair) => vec![&pair.chosen, &pair.rejected],
            Example::Long(pair) => {
                let start = pair.chosen.answers[0].start;
                [&pair.chosen, &pair.rejected].map(|side| &side.ids[start..]).to_vec()
            }
            Example::Labelled(labelled) => vec![&labelled.completion],
        }
    }

    /// Its completion with a label, if it is one.
    pub(super) fn labelled(&self) -> Option<&Labelled> {
        match self {
            Example::Labelled(labelled) => Some(labelled),
            _ => None,
        }
    }

    /// The prompt to be answered, if it is one.
    pub(super) fn posed(&self) -> Option<&Posed> {
        if let Example::Posed(posed) = self { Some(posed) } else { None }
    }

    /// Adds its predictions, sequences, pairs and desirable sequences to `norm`.
    pub(crate) fn count(&self, norm: &mut Norm) {
        match self {
            Example::Supervised(s) => {
                norm.tokens += s.supervised.iter().filter(|&&on| on).count();
                norm.sequences += 1;
            }
            Example::Long(pair) => {
                norm.tokens += long::answers(&pair.chosen) + long::answers(&pair.rejected);
                norm.sequences += 2;
            }
            _ => {
                for completion in self.completions() {
                    norm.tokens += completion.len();
                    norm.sequences += 1;
                }
            }
        }
        norm.pairs += usize::from(matches!(self, Example::Pair(_) | Example::Long(_)));
        norm.desirable += usize::from(self.labelled().is_some_and(|labelled| labelled.label));
    }

    /// Tokens as TRL counts them (`num_tokens`): of every sequence, a pair's prompt twice.
    pub(super) fn tokens(&self) -> usize {
        match self {
            Example::Supervised(s) => s.ids.len(),
            _ => self.completions().iter().map(|completion| self.prompt().len() + completion.len()).sum(),
        }
    }

    /// Tokens that a forest stores for it when it shares nothing with others.
    pub(super) fn stored(&self) -> usize {
        match self {
            Example::Supervised(s) => {
                s.supervised.iter().rposition(|&on| on).expect("something is supervised")
            }
            Example::Long(pair) => (self.prompt().len() + self.below()).max(long::reference_tokens(pair)),
            _ => self.prompt().len() + self.below(),
        }
    }

    /// Predictions of it in a forest.
    fn rows(&self) -> usize {
        let mut norm = Norm::default();
        self.count(&mut norm);
        match self {
            Example::Long(pair) => norm.tokens + pair.chosen.ids.len() - 1 - long::answers(&pair.chosen),
            _ => norm.tokens,
        }
    }

    /// Of these, those below its prompt.
    fn below(&self) -> usize {
        self.completions().iter().map(|completion| completion.len() - 1).sum()
    }
}

impl<'a> Asked<'a> {
    /// What the policy reads.
    pub(super) fn ids(asked: &[Self]) -> Vec<&'a [u32]> {
        asked.iter().map(|asked| asked.ids).collect()
    }
}

/// What `count` examples need at most: stored tokens and predictions. Completions with a label may be put under the prompts
/// of others, so there the longest of each are counted.
pub(super) fn bound(examples: &[Example], count: usize) -> (usize, usize) {
    let largest = |measure: &dyn Fn(&Example) -> usize| {
        let mut sizes: Vec<usize> = examples.iter().map(measure).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.iter().take(count).sum()
    };
    let stored = match examples.first() {
        Some(Example::Labelled(_)) => largest(&|example| example.prompt().len()) + largest(&Example::below),
        _ => largest(&Example::stored),
    };
    (stored, largest(&Example::rows))
}

/// A forest and the rows of each sequence: one a supervised example or a completion with a label, two a pair (chosen,
/// rejected).
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) forest: Forest,
    /// What the reference reads, where it is something else: the same predictions in the same order, but for those of
    /// `contexts`, which come last in `forest`.
    pub(crate) reference: Option<Forest>,
    /// Of long pairs the rest of each chosen sequence.
    pub(crate) contexts: Vec<Range<usize>>,
    pub(crate) sequences: Vec<Range<usize>>,
    /// Of the completions that have one.
    pub(crate) labels: Vec<bool>,
    /// The samples after each example's prompt, if there are any.
    pub(crate) samples: Vec<Completions>,
}

impl Batch {
    /// What a method sees of it.
    pub(crate) fn view<'a>(
        &'a self,
        stats: &'a Stats,
        norm: Norm,
        beta: Option<f64>,
        mismatched: f64,
    ) -> View<'a> {
        let Self { sequences, labels, contexts, samples, .. } = self;
        View { sequences, labels, contexts, stats, norm, beta, mismatched, samples, rollout: None }
    }

    /// What the reference predicts from.
    pub(crate) fn reference(&self) -> &Forest {
        self.reference.as_ref().unwrap_or(&self.forest)
    }

    /// [`Policy::forward`] of the batch.
    pub(crate) fn forward(&self, policy: &mut Policy, want: Want) -> Result<Stats> {
        self.statistics(policy, want, |policy, want| policy.forward(&self.forest, want))
    }

    /// [`Policy::evaluate`] of the batch.
    pub(crate) fn evaluate(&self, policy: &mut Policy, want: Want) -> Result<Stats> {
        self.statistics(policy, want, |policy, want| policy.evaluate(&self.forest, want))
    }

    /// What `run` gives, and where the reference reads something else its log-probabilities from there. The others of its
    /// statistics have no meaning then; no method for such batches reads them.
    fn statistics(
        &self,
        policy: &mut Policy,
        want: Want,
        run: impl FnOnce(&mut Policy, Want) -> Result<Stats>,
    ) -> Result<Stats> {
        let Some(reference) = self.reference.as_ref().filter(|_| want.ref_logp) else {
            return run(policy, want);
        };
        let ref_logp = policy.reference_logps(reference)?;
        let mut stats = run(policy, Want { ref_logp: false, ..want })?;
        stats.ref_logp = ref_logp;
        stats.ref_logp.resize(stats.logp.len(), 0.0);
        Ok(stats)
    }
}

/// Puts examples into one forest.
pub(crate) fn batch(examples: &[&Example]) -> Batch {
    with_samples(examples, &[])
}

/// Puts examples into one forest, and with them the samples drawn after the prompt of each (none, or those of every
/// example). Completions hang below their prompt, and those with the same prompt below one.
pub(crate) fn with_samples(examples: &[&Example], drawn: &[Vec<Drawn>]) -> Batch {
    let mut forest = Forest::default();
    let mut samples = vec![Completions::default(); drawn.len()];
    let mut sequences: Vec<Range<usize>> = Vec::with_capacity(2 * examples.len());
    let mut placed = vec![None; examples.len()];
    let mut views = long::Views::default();
    for (i, example) in examples.iter().enumerate() {
        match example {
            Example::Supervised(s) => placed[i] = Some(vec![forest.sequence(&s.ids, &s.supervised)]),
            Example::Long(pair) => placed[i] = Some(views.add(&mut forest, pair)),
            _ if placed[i].is_none() => {
                let root = forest.root(example.prompt());
                for (j, (place, other)) in placed.iter_mut().zip(examples).enumerate().skip(i) {
                    let completions = other.completions();
                    if !completions.is_empty() && other.prompt() == example.prompt() {
                        let rows = completions.iter().map(|completion| forest.completion(root, completion));
                        *place = Some(rows.collect());
                        for sample in drawn.get(j).into_iter().flatten() {
                            samples[j].sequences.push(forest.completion(root, &sample.ids));
                            samples[j].truncated += usize::from(sample.cut);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    sequences.extend(placed.into_iter().flat_map(|rows| rows.expect("every example has its place")));
    let labels = examples.iter().filter_map(|e| e.labelled()).map(|labelled| labelled.label).collect();
    let (reference, contexts) = views.finish(&mut forest);
    Batch { forest, reference, contexts, sequences, labels, samples }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(prompt: &[u32], chosen: &[u32], rejected: &[u32]) -> Example {
        Example::Pair(Pair { prompt: prompt.to_vec(), chosen: chosen.to_vec(), rejected: rejected.to_vec() })
    }

    #[test]
    fn pairs_with_the_same_prompt_share_it_and_keep_their_order() {
        let pairs =
            [pair(&[1, 2], &[3, 9], &[4, 9]), pair(&[7], &[8, 9], &[9]), pair(&[1, 2], &[5, 9], &[9])];
        let Batch { forest, sequences, .. } = batch(&pairs.iter().collect::<Vec<_>>());
        assert_eq!(forest.tokens, [1, 2, 3, 4, 5, 7, 8]);
        let targets: Vec<Vec<u32>> = sequences
            .iter()
            .map(|rows| forest.rows[rows.clone()].iter().map(|r| r.target).collect())
            .collect();
        assert_eq!(targets, [vec![3, 9], vec![4, 9], vec![8, 9], vec![9], vec![5, 9], vec![9]]);
        let (tokens, rows) = bound(&pairs, 2);
        assert_eq!((tokens, rows), (4 + 3, 4 + 3));
        assert!(forest.len() <= bound(&pairs, 3).0 && forest.rows.len() == bound(&pairs, 3).1);
    }

    #[test]
    fn samples_hang_below_the_prompt_of_their_pair() {
        let pairs = [pair(&[1, 2], &[3, 9], &[9]), pair(&[7], &[9], &[8]), pair(&[1, 2], &[9], &[4])];
        let drawn = |prompt, ids: &[u32], cut| Drawn { prompt, ids: ids.to_vec(), cut };
        let drawn = [
            vec![drawn(0, &[5, 9], false), drawn(0, &[6, 6], true)],
            vec![drawn(1, &[9], false), drawn(1, &[8, 9], false)],
            vec![drawn(2, &[9], false), drawn(2, &[9], false)],
        ];
        let Batch { forest, sequences, samples, .. } =
            with_samples(&pairs.iter().collect::<Vec<_>>(), &drawn);
        assert_eq!(forest.tokens, [1, 2, 3, 5, 6, 7, 8], "each prompt once, and no last token");
        let targets = |rows: &Range<usize>| -> Vec<u32> {
            forest.rows[rows.clone()].iter().map(|row| row.target).collect()
        };
        for (sampled, drawn) in samples.iter().zip(&drawn) {
            let ids: Vec<_> = drawn.iter().map(|sample| sample.ids.clone()).collect();
            assert_eq!(sampled.sequences.iter().map(targets).collect::<Vec<_>>(), ids);
        }
        assert_eq!(samples.iter().map(|sampled| sampled.truncated).collect::<Vec<_>>(), [1, 0, 0]);
        assert_eq!(sequences.iter().map(targets).collect::<Vec<_>>().concat(), [3, 9, 9, 9, 8, 9, 4]);
    }

    #[test]
    fn a_supervised_example_is_a_tree_of_its_own() {
        let example = Example::Supervised(Supervised {
            ids: vec![1, 2, 3, 4, 5],
            supervised: vec![false, false, true, true, false],
        });
        let Batch { forest, sequences, .. } = batch(&[&example]);
        assert_eq!((forest.tokens.len(), example.stored(), example.tokens()), (3, 3, 5));
        assert_eq!((sequences[0].clone(), sequences.len(), example.prompt()), (0..2, 1, &[1, 2][..]));
        let mut norm = Norm::default();
        example.count(&mut norm);
        assert_eq!(norm, Norm { tokens: 2, sequences: 1, pairs: 0, desirable: 0 });
    }

    #[test]
    fn completions_with_labels_share_a_prompt_and_need_room_under_the_prompts_of_others() {
        let labelled = |prompt: &[u32], completion: &[u32], label| {
            Example::Labelled(Labelled { prompt: prompt.to_vec(), completion: completion.to_vec(), label })
        };
        let examples = [
            labelled(&[1, 2], &[3, 9], true),
            labelled(&[7, 7, 7], &[8], false),
            labelled(&[1, 2], &[9], false),
        ];
        let Batch { forest, sequences, labels, .. } = batch(&examples.iter().collect::<Vec<_>>());
        assert_eq!((forest.tokens, sequences), (vec![1, 2, 3, 7, 7, 7], vec![0..2, 3..4, 2..3]));
        assert_eq!(labels, [true, false, false]);
        let mut norm = Norm::default();
        for example in &examples {
            example.count(&mut norm);
        }
        assert_eq!(norm, Norm { tokens: 4, sequences: 3, pairs: 0, desirable: 1 });
        assert_eq!(examples.iter().map(Example::tokens).collect::<Vec<_>>(), [4, 4, 3]);
        // The longest prompt with the longest completion.
        assert_eq!(bound(&examples, 1), (3 + 1, 2));
    }
}
