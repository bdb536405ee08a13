//! Examples, and how several of them become one forest.

use std::ops::Range;

use super::sampling::Drawn;
use crate::data::{Pair, Supervised};
use crate::engine::Forest;
use crate::method::{Completions, Norm};

/// One record of the training data, as ids.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Example {
    Supervised(Supervised),
    Pair(Pair),
}

impl Example {
    /// The ids before anything is learned.
    pub(super) fn prompt(&self) -> &[u32] {
        match self {
            Example::Supervised(s) => {
                let first = s.supervised.iter().position(|&on| on).expect("something is supervised");
                &s.ids[..first]
            }
            Example::Pair(pair) => &pair.prompt,
        }
    }

    /// Adds its predictions, sequences and pairs to `norm`.
    pub(super) fn count(&self, norm: &mut Norm) {
        match self {
            Example::Supervised(s) => {
                norm.tokens += s.supervised.iter().filter(|&&on| on).count();
                norm.sequences += 1;
            }
            Example::Pair(pair) => {
                norm.tokens += pair.chosen.len() + pair.rejected.len();
                norm.sequences += 2;
                norm.pairs += 1;
            }
        }
    }

    /// Tokens as TRL counts them (`num_tokens`): of every sequence, a pair's prompt twice.
    pub(super) fn tokens(&self) -> usize {
        match self {
            Example::Supervised(s) => s.ids.len(),
            Example::Pair(pair) => 2 * pair.prompt.len() + pair.chosen.len() + pair.rejected.len(),
        }
    }

    /// Tokens that a forest stores for it when it shares nothing with others.
    pub(super) fn stored(&self) -> usize {
        match self {
            Example::Supervised(s) => {
                s.supervised.iter().rposition(|&on| on).expect("something is supervised")
            }
            Example::Pair(pair) => pair.prompt.len() + pair.chosen.len() + pair.rejected.len() - 2,
        }
    }
}

/// What `count` examples need at most: stored tokens and predictions.
pub(super) fn bound(examples: &[Example], count: usize) -> (usize, usize) {
    let largest = |measure: &dyn Fn(&Example) -> usize| {
        let mut sizes: Vec<usize> = examples.iter().map(measure).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.iter().take(count).sum()
    };
    let predictions = |example: &Example| {
        let mut norm = Norm::default();
        example.count(&mut norm);
        norm.tokens
    };
    (largest(&Example::stored), largest(&predictions))
}

/// A forest and the rows of each sequence: one a supervised example, two a pair (chosen, rejected).
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) forest: Forest,
    pub(super) sequences: Vec<Range<usize>>,
    /// The samples after each pair's prompt, if there are any.
    pub(super) samples: Vec<Completions>,
}

/// Puts examples into one forest, and with them the samples drawn after the prompt of each (none, or those of every
/// example). Pairs and samples hang below their prompt, and those with the same prompt below one.
pub(super) fn batch(examples: &[&Example], drawn: &[Vec<Drawn>]) -> Batch {
    let mut forest = Forest::default();
    let mut samples = vec![Completions::default(); drawn.len()];
    let mut sequences: Vec<Range<usize>> = Vec::with_capacity(2 * examples.len());
    let mut placed = vec![None; examples.len()];
    for (i, example) in examples.iter().enumerate() {
        match example {
            Example::Supervised(s) => placed[i] = Some(vec![forest.sequence(&s.ids, &s.supervised)]),
            Example::Pair(first) if placed[i].is_none() => {
                let root = forest.root(&first.prompt);
                for (j, (place, other)) in placed.iter_mut().zip(examples).enumerate().skip(i) {
                    if let Example::Pair(pair) = other
                        && pair.prompt == first.prompt
                    {
                        let chosen = forest.completion(root, &pair.chosen);
                        *place = Some(vec![chosen, forest.completion(root, &pair.rejected)]);
                        for sample in drawn.get(j).into_iter().flatten() {
                            samples[j].sequences.push(forest.completion(root, &sample.ids));
                            samples[j].truncated += usize::from(sample.cut);
                        }
                    }
                }
            }
            Example::Pair(_) => {}
        }
    }
    sequences.extend(placed.into_iter().flat_map(|rows| rows.expect("every example has its place")));
    Batch { forest, sequences, samples }
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
        let Batch { forest, sequences, .. } = batch(&pairs.iter().collect::<Vec<_>>(), &[]);
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
        let Batch { forest, sequences, samples } = batch(&pairs.iter().collect::<Vec<_>>(), &drawn);
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
        let Batch { forest, sequences, .. } = batch(&[&example], &[]);
        assert_eq!((forest.tokens.len(), example.stored(), example.tokens()), (3, 3, 5));
        assert_eq!((sequences[0].clone(), sequences.len(), example.prompt()), (0..2, 1, &[1, 2][..]));
        let mut norm = Norm::default();
        example.count(&mut norm);
        assert_eq!(norm, Norm { tokens: 2, sequences: 1, pairs: 0 });
    }
}
