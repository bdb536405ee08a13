//! Pairs about long documents in a batch: what the policy reads of them, and what the reference does.

use std::ops::Range;

use crate::data::{Answered, LongPair};
use crate::engine::{Forest, Row};

/// Tokens of all answers of one side.
pub(super) fn answers(side: &Answered) -> usize {
    side.answers.iter().map(ExactSizeIterator::len).sum()
}

/// Tokens that a forest stores of what the reference reads.
pub(super) fn reference_tokens(pair: &LongPair) -> usize {
    let prompts: usize = pair.short.iter().map(Vec::len).sum();
    // The last token of an answer is predicted and not stored.
    prompts + answers(&pair.chosen) + answers(&pair.rejected) - 2 * pair.short.len()
}

/// Longest sequence that the reference reads, in tokens: chunk, question and an answer.
pub(super) fn longest_of_reference(pair: &LongPair) -> usize {
    let answers = pair.chosen.answers.iter().zip(&pair.rejected.answers);
    let turns = pair.short.iter().zip(answers);
    turns.map(|(short, (a, b))| short.len() + a.len().max(b.len())).max().unwrap_or(0)
}

/// Hangs a side below its prompt. What is returned makes the prediction of the id at a place of the side.
fn hung<'a>(forest: &mut Forest, root: usize, side: &'a Answered) -> impl Fn(usize) -> Row + use<'a> {
    let start = side.answers[0].start;
    let before = forest.segments[root].tokens.start;
    // The last token is predicted and not stored.
    let below = &side.ids[start..side.ids.len() - 1];
    let child = (!below.is_empty()).then(|| forest.child(root, below));
    let after = child.map_or(0, |child| forest.segments[child].tokens.start);
    move |place| {
        let at = if place <= start { before + place - 1 } else { after + place - 1 - start };
        Row { at, target: side.ids[place] }
    }
}

/// The second forest of a batch, and the predictions that have no place in it.
#[derive(Debug, Default)]
pub(super) struct Views {
    reference: Forest,
    rows: Vec<Row>,
    contexts: Vec<Range<usize>>,
}

impl Views {
    /// Adds a pair to both forests: a document once, below it the two sides. Returns the rows of the chosen and of the
    /// rejected answers, which are the same in both.
    pub(super) fn add(&mut self, forest: &mut Forest, pair: &LongPair) -> Vec<Range<usize>> {
        let root = forest.root(&pair.chosen.ids[..pair.chosen.answers[0].start]);
        let better = hung(forest, root, &pair.chosen);
        let answered = |place: &usize| pair.chosen.answers.iter().any(|answer| answer.contains(place));
        let from = self.rows.len();
        self.rows.extend((1..pair.chosen.ids.len()).filter(|place| !answered(place)).map(&better));
        self.contexts.push(from..self.rows.len());
        let worse = hung(forest, root, &pair.rejected);
        self.add_reference(pair);
        let mut predict = |side: &Answered, row: &dyn Fn(usize) -> Row| {
            let first = forest.rows.len();
            forest.rows.extend(side.answers.iter().cloned().flatten().map(row));
            first..forest.rows.len()
        };
        vec![predict(&pair.chosen, &better), predict(&pair.rejected, &worse)]
    }

    /// Each question after its chunk, with its two answers; the predictions side by side as in the other forest.
    fn add_reference(&mut self, pair: &LongPair) {
        let first = self.reference.rows.len();
        let mut rows = [Vec::new(), Vec::new()];
        for (k, short) in pair.short.iter().enumerate() {
            let root = self.reference.root(short);
            for (side, rows) in [&pair.chosen, &pair.rejected].into_iter().zip(&mut rows) {
                let own = self.reference.completion(root, &side.ids[side.answers[k].clone()]);
                rows.extend_from_slice(&self.reference.rows[own]);
            }
        }
        self.reference.rows.truncate(first);
        self.reference.rows.extend(rows.concat());
    }

    /// Puts the predictions of the contexts behind all others of `forest`. What the reference reads, and their rows; nothing
    /// where no pair was added.
    pub(super) fn finish(self, forest: &mut Forest) -> (Option<Forest>, Vec<Range<usize>>) {
        let behind = forest.rows.len();
        forest.rows.extend(self.rows);
        let shifted = self.contexts.into_iter().map(|rows| rows.start + behind..rows.end + behind).collect();
        ((!self.reference.is_empty()).then_some(self.reference), shifted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::example::Batch;
    use crate::trainer::example::bound;
    use crate::trainer::{Example, batch};

    fn side<const N: usize>(ids: &[u32], answers: [(usize, usize); N]) -> Answered {
        Answered { ids: ids.to_vec(), answers: answers.map(|(start, end)| start..end).to_vec() }
    }

    fn targets(forest: &Forest, rows: &Range<usize>) -> Vec<u32> {
        forest.rows[rows.clone()].iter().map(|row| row.target).collect()
    }

    /// The ids that the prediction of a row follows.
    fn history(forest: &Forest, row: usize) -> Vec<u32> {
        let at = forest.rows[row].at;
        let own = forest.segments.iter().position(|segment| segment.tokens.contains(&at)).expect("a segment");
        let mut ids: Vec<u32> = forest
            .chain(own)
            .into_iter()
            .flat_map(|segment| forest.tokens[forest.segments[segment].tokens.clone()].to_vec())
            .collect();
        ids.truncate(ids.len() - (forest.segments[own].tokens.end - 1 - at));
        ids
    }

    #[test]
    fn both_forests_predict_the_same_answers_after_different_prompts() {
        let two = LongPair {
            chosen: side(&[1, 2, 3, 10, 11, 4, 12], [(3, 5), (6, 7)]),
            rejected: side(&[1, 2, 3, 20, 4, 21, 22], [(3, 4), (5, 7)]),
            short: vec![vec![2, 3], vec![1, 4]],
        };
        let one = LongPair {
            chosen: side(&[5, 6, 13], [(2, 3)]),
            rejected: side(&[5, 6, 23], [(2, 3)]),
            short: vec![vec![6]],
        };
        let pairs = [two, one].map(Example::Long);
        let Batch { forest, reference, contexts, sequences, .. } = batch(&pairs.iter().collect::<Vec<_>>());
        let reference = reference.expect("the reference reads something else");

        assert_eq!(forest.tokens, [1, 2, 3, 10, 11, 4, 20, 4, 21, 5, 6], "each document once, no last token");
        let answers = [vec![10, 11, 12], vec![20, 21, 22], vec![13], vec![23]];
        for forest in [&forest, &reference] {
            assert_eq!(sequences.iter().map(|rows| targets(forest, rows)).collect::<Vec<_>>(), answers);
        }
        assert_eq!(
            contexts.iter().map(|rows| targets(&forest, rows)).collect::<Vec<_>>(),
            [vec![2, 3, 4], vec![6]]
        );
        assert_eq!(reference.rows.len(), contexts[0].start);
        for (forest, expected) in [
            (&forest, [vec![1, 2, 3, 10], vec![1, 2, 3, 10, 11, 4], vec![1, 2, 3, 20, 4], vec![5, 6]]),
            (&reference, [vec![2, 3, 10], vec![1, 4], vec![1, 4], vec![6]]),
        ] {
            let rows =
                [sequences[0].start + 1, sequences[0].start + 2, sequences[1].start + 1, sequences[3].start];
            assert_eq!(rows.map(|row| history(forest, row)), expected);
        }
        assert_eq!(history(&forest, contexts[0].end - 1), [1, 2, 3, 10, 11]);

        let Example::Long(first) = &pairs[0] else { panic!("a long pair") };
        assert_eq!(longest_of_reference(first), 4, "[1, 4] with [21, 22], or [2, 3] with [10, 11]");

        let (tokens, rows) = bound(&pairs, 2);
        assert!(forest.len().max(reference.len()) <= tokens && forest.rows.len() == rows, "{tokens} {rows}");
        let asked = pairs[0].asked();
        assert_eq!(
            asked.iter().map(|asked| asked.ids).collect::<Vec<_>>(),
            [&[1, 2, 3][..], &[1, 2, 3, 10, 11, 4]]
        );
        assert_eq!(asked.iter().map(|asked| asked.reference).collect::<Vec<_>>(), [[2, 3], [1, 4]]);
    }
}
