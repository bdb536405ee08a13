//! Examples divided into those that train, those that choose and those that judge.

use rand_chacha::rand_core::Rng as _;
use saddlepoint_core::seed::Seed;

use crate::examples::Examples;
use crate::{Error, Result};

/// Three parts with the same features.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// What the model is trained on.
    pub train: Examples,
    /// Where the training examples stood in the data, counted from 0.
    pub rows: Vec<usize>,
    /// What hyperparameters are chosen by.
    pub held_out: Examples,
    /// What neither has seen; may be empty.
    pub test: Examples,
    /// What the data call the classes −1 and 1; empty where labels are not classes.
    pub classes: Vec<f64>,
}

impl Split {
    /// The first `train` and the next `held_out` of the examples in an order that the seed decides, or without one in that of the data; the rest
    /// are for the test.
    ///
    /// # Errors
    /// There are fewer examples than that, or a part is empty.
    pub fn new(
        examples: &Examples,
        train: usize,
        held_out: usize,
        seed: impl Into<Option<u64>>,
    ) -> Result<Self> {
        let all = examples.len();
        if train == 0 || held_out == 0 || train.saturating_add(held_out) > all {
            let problem =
                format!("cannot take {train} examples for training and {held_out} to choose by out of {all}");
            return Err(Error::Problem { problem });
        }
        let mut order: Vec<usize> = (0..all).collect();
        if let Some(seed) = seed.into() {
            let mut stream = Seed::new(seed).stream("bilevel/split", &[]);
            // Fisher and Yates; the remainder's bias is below 2^-40 for any file that fits.
            for i in (1..all).rev() {
                order.swap(i, (stream.next_u64() % (i as u64 + 1)) as usize);
            }
        }
        let (first, rest) = order.split_at(train);
        let (second, third) = rest.split_at(held_out);
        let (train, rows) = (examples.pick(first), first.to_vec());
        let (held_out, test) = (examples.pick(second), examples.pick(third));
        Ok(Self { train, rows, held_out, test, classes: Vec::new() })
    }

    /// Gives each feature mean 0 and deviation 1 over the training examples; one that does not vary there becomes 0.
    #[must_use]
    pub fn standardised(mut self) -> Self {
        let mut moments = self.train.moments();
        for (mean, deviation) in &mut moments {
            // Rounding of a constant is no variation.
            if *deviation <= 1e-12 * mean.abs() {
                *deviation = 1.0;
            }
        }
        for part in [&mut self.train, &mut self.held_out, &mut self.test] {
            part.shift_and_scale(&moments);
        }
        self
    }

    /// Name of each training example: its place in the data, from 1.
    pub fn example_names(&self) -> Vec<String> {
        self.rows.iter().map(|row| format!("example {}", row + 1)).collect()
    }

    /// Turns the labels of a file with two classes into ±1; the larger becomes 1.
    ///
    /// # Errors
    /// There are not two classes, or the training or held-out part has one only.
    pub fn classes(mut self) -> Result<Self> {
        let mut labels: Vec<f64> = [&self.train, &self.held_out, &self.test]
            .into_iter()
            .flat_map(|part| part.labels.clone())
            .collect();
        labels.sort_by(f64::total_cmp);
        labels.dedup();
        if labels.len() != 2 {
            let problem = format!("a classifier needs two different labels, the data have {}", labels.len());
            return Err(Error::Problem { problem });
        }
        for (name, part) in
            [("training", &mut self.train), ("held-out", &mut self.held_out), ("test", &mut self.test)]
        {
            for label in &mut part.labels {
                *label = if *label >= labels[1] { 1.0 } else { -1.0 };
            }
            let positive = part.labels.iter().filter(|label| **label > 0.0).count();
            if name != "test" && (positive == 0 || positive == part.len()) {
                let problem = format!("the {name} examples are all of one class; take more, or another seed");
                return Err(Error::Problem { problem });
            }
        }
        self.classes = labels;
        Ok(self)
    }

    /// Turns the label of each training example with this probability; which were turned.
    pub fn flip(&mut self, rate: f64, seed: u64) -> Vec<bool> {
        let mut stream = Seed::new(seed).stream("bilevel/flip", &[]);
        let mut flipped = Vec::with_capacity(self.train.len());
        for label in &mut self.train.labels {
            let turned = (stream.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 <= rate && rate > 0.0;
            *label *= if turned { -1.0 } else { 1.0 };
            flipped.push(turned);
        }
        flipped
    }
}
