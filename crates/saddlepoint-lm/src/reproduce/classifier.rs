//! A classifier trained in the run, for experiments whose gold reward is a judgement of texts: logistic regression on words
//! and pairs of neighbouring words.

use std::collections::BTreeMap;

use rand::RngExt;
use saddlepoint_core::seed::Seed;

/// Says how probable it is that a text is positive.
#[derive(Debug, Clone)]
pub(super) struct Classifier {
    /// Where the weight of a feature is.
    places: BTreeMap<[u32; 2], usize>,
    weights: Vec<f64>,
    bias: f64,
}

/// In place of the left neighbour of a word alone.
const ALONE: u32 = u32::MAX;
const EPOCHS: usize = 5;
const RATE: f64 = 0.3;

impl Classifier {
    /// Learns from texts and whether each is positive, by AdaGrad on one text at a time.
    pub(super) fn train(texts: &[(Vec<u32>, bool)], seed: Seed) -> Self {
        let mut places = BTreeMap::new();
        for feature in texts.iter().flat_map(|(text, _)| features(text)) {
            let next = places.len();
            places.entry(feature).or_insert(next);
        }
        let mut learned = Self { weights: vec![0.0; places.len()], places, bias: 0.0 };
        let known: Vec<_> = texts.iter().map(|(text, _)| learned.known(text)).collect();
        let mut squares = vec![1.0; learned.weights.len()];
        let mut square = 1.0;
        let mut rng = seed.stream("reproduce/classifier", &[]);
        for _ in 0..EPOCHS * texts.len() {
            let i = rng.random_range(0..texts.len());
            let gradient = probability(learned.score(&known[i])) - if texts[i].1 { 1.0 } else { 0.0 };
            let step = |square: &mut f64| {
                *square += gradient * gradient;
                RATE * gradient / square.sqrt()
            };
            learned.bias -= step(&mut square);
            for &place in &known[i] {
                learned.weights[place] -= step(&mut squares[place]);
            }
        }
        learned
    }

    /// Probability that the text is positive.
    pub(super) fn positive(&self, text: &[u32]) -> f64 {
        probability(self.score(&self.known(text)))
    }

    /// Places of the features of a text that were in the texts that it learned from.
    fn known(&self, text: &[u32]) -> Vec<usize> {
        features(text).filter_map(|feature| self.places.get(&feature).copied()).collect()
    }

    fn score(&self, places: &[usize]) -> f64 {
        self.bias + places.iter().map(|&place| self.weights[place]).sum::<f64>()
    }
}

fn features(text: &[u32]) -> impl Iterator<Item = [u32; 2]> {
    let alone = text.iter().map(|&word| [ALONE, word]);
    alone.chain(text.windows(2).map(|pair| [pair[0], pair[1]]))
}

fn probability(score: f64) -> f64 {
    1.0 / (1.0 + (-score).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_and_what_turns_it_are_learned() {
        // 1 is good, 2 is bad, 3 turns what follows it, 4 to 9 say nothing.
        let text = |words: &[u32]| words.to_vec();
        let mut texts = Vec::new();
        for filler in (4..10).cycle().take(120) {
            texts.extend([
                (text(&[filler, 1]), true),
                (text(&[filler, 2]), false),
                (text(&[filler, 3, 1]), false),
                (text(&[filler, 3, 2]), true),
            ]);
        }
        let learned = Classifier::train(&texts, Seed::new(0));
        for (text, positive) in [([5, 1], true), ([5, 2], false), ([3, 1], false), ([3, 2], true)] {
            assert_eq!(learned.positive(&text) > 0.5, positive, "{text:?}: {}", learned.positive(&text));
        }
        assert!(
            (learned.positive(&[77]) - probability(learned.bias)).abs() < 1e-15,
            "unknown words say nothing"
        );
    }
}
