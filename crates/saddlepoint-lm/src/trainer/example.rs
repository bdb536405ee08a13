//! Examples, and how several of them become one forest.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::long;
use super::sampling::Drawn;
use crate::Result;
use crate::data::{Labelled, LongPair, Pair, Prompt, Supervised};
use crate::engine::{Forest, Policy, Row, Stats, Want};
use crate::method::{Completions, Norm, View};

/// One record of the training data, as ids.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Example {
    Supervised(Supervised),
    Pair(Pair),
    Compared(Compared),
    Long(LongPair),
    Labelled(Labelled),
    Posed(Posed),
}

/// A pair whose sequences are scored at their last token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Compared {
    /// Completions end with the token that is scored; one is empty where that is in the prompt.
    pub(crate) pair: Pair,
    /// Place of the scored token in prompt and completion, of the chosen and of the rejected sequence.
    pub(crate) scored: [usize; 2],
    /// How far apart the scores are asked to be.
    pub(crate) margin: f64,
}

impl Compared {
    /// `pad` is the token that is passed over where the last one is looked for.
    pub(crate) fn new(mut pair: Pair, pad: Option<u32>, margin: f64) -> Self {
        let Pair { prompt, chosen, rejected } = &mut pair;
        let scored = [chosen, rejected].map(|completion| {
            let last = last_token([&prompt[..], completion].concat().iter(), pad);
            completion.truncate((last + 1).saturating_sub(prompt.len()));
            last
        });
        Self { pair, scored, margin }
    }

    /// Puts both sequences below their prompt. Returns their rows, one each.
    fn add(&self, forest: &mut Forest) -> Vec<Range<usize>> {
        let Pair { prompt, chosen, rejected } = &self.pair;
        let root = forest.root(prompt);
        let start = forest.segments[root].tokens.start;
        let sides = [chosen, rejected].into_iter().zip(self.scored);
        let rows = sides.map(|(completion, scored)| {
            let at = match scored.checked_sub(prompt.len()) {
                None => start + scored,
                Some(within) => {
                    let child = forest.child(root, completion);
                    forest.segments[child].tokens.start + within
                }
            };
            // Nothing is predicted; a score does not depend on the target.
            forest.rows.push(Row { at, target: 0 });
            forest.rows.len() - 1..forest.rows.len()
        });
        rows.collect()
    }
}

/// Place of the token at which a sequence is scored: the last that is not `pad`, the first if all are.
pub(crate) fn last_token<'a>(
    ids: impl DoubleEndedIterator<Item = &'a u32> + ExactSizeIterator,
    pad: Option<u32>,
) -> usize {
    ids.enumerate().rev().find(|(_, id)| Some(**id) != pad).map_or(0, |(place, _)| place)
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
            Example::Pair(pair) | Example::Compared(Compared { pair, .. }) => &pair.prompt,
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
            Example::Pair(pair) | Example::Compared(Compared { pair, .. }) => {
                vec![&pair.chosen, &pair.rejected]
            }
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
            Example::Compared(_) => norm.sequences += 2,
            _ => {
                for completion in self.completions() {
                    norm.tokens += completion.len();
                    norm.sequences += 1;
                }
            }
        }
        norm.pairs += usize::from(matches!(self, Example::Pair(_) | Example::Compared(_) | Example::Long(_)));
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
            Example::Compared(_) => self.tokens() - self.prompt().len(),
            _ => self.prompt().len() + self.below(),
        }
    }

    /// Predictions of it in a forest.
    fn rows(&self) -> usize {
        let mut norm = Norm::default();
        self.count(&mut norm);
        match self {
            Example::Long(pair) => norm.tokens + pair.chosen.ids.len() - 1 - long::answers(&pair.chosen),
            Example::Compared(_) => 2,
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
    /// Of the pairs that are scored.
    pub(crate) margins: Vec<f64>,
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
        let Self { sequences, labels, margins, contexts, samples, .. } = self;
        View { sequences, labels, margins, contexts, stats, norm, beta, mismatched, samples, rollout: None }
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
            Example::Compared(pair) => placed[i] = Some(pair.add(&mut forest)),
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
    let margin = |example: &&Example| match example {
        Example::Compared(pair) => Some(pair.margin),
        _ => None,
    };
    let margins = examples.iter().filter_map(margin).collect();
    let (reference, contexts) = views.finish(&mut forest);
    Batch { forest, reference, contexts, sequences, labels, margins, samples }
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
    fn pairs_to_compare_are_scored_at_the_last_token_that_is_no_padding() {
        let pair = |prompt: &[u32], chosen: &[u32], rejected: &[u32]| Pair {
            prompt: prompt.to_vec(),
            chosen: chosen.to_vec(),
            rejected: rejected.to_vec(),
        };
        let compared = [
            Compared::new(pair(&[1, 2], &[3, 4, 9], &[5, 9]), Some(9), 0.5),
            Compared::new(pair(&[7, 9], &[9], &[9, 9, 6]), Some(9), 0.0),
            Compared::new(pair(&[1], &[3, 9], &[9]), None, 1.0),
        ];
        let examples: Vec<Example> = compared.into_iter().map(Example::Compared).collect();
        let Batch { forest, sequences, margins, .. } = batch(&examples.iter().collect::<Vec<_>>());
        assert_eq!(forest.tokens, [1, 2, 3, 4, 5, 7, 9, 9, 9, 6, 1, 3, 9, 9]);
        let at: Vec<usize> = sequences.iter().map(|rows| forest.rows[rows.start].at).collect();
        assert_eq!((at, margins), (vec![3, 4, 5, 9, 12, 13], vec![0.5, 0.0, 1.0]));
        assert!(sequences.iter().all(|rows| rows.len() == 1));
        let (tokens, rows) = bound(&examples, 3);
        assert_eq!((tokens, rows), (forest.len(), 6));
        let mut norm = Norm::default();
        for example in &examples {
            example.count(&mut norm);
        }
        assert_eq!(norm, Norm { tokens: 0, sequences: 6, pairs: 3, desirable: 0 });
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
