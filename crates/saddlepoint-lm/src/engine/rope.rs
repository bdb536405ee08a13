//! Tables of rotary angles.

use std::f64::consts::TAU;

use super::{Forest, RopeScaling, Shape};

/// Cosines and sines by position, grown as longer sequences come.
#[derive(Debug, Clone)]
pub(crate) struct RopeTable {
    frequencies: Vec<f64>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    pub(crate) fn new(shape: &Shape) -> Self {
        let frequencies = (0..shape.head_dim / 2)
            .map(|i| {
                let plain = shape.rope.theta.powf(-2.0 * i as f64 / shape.head_dim as f64);
                match shape.rope.scaling {
                    RopeScaling::None => plain,
                    RopeScaling::Linear(factor) => plain / factor,
                    RopeScaling::Llama3 { factor, low, high, original } => {
                        let wavelength = TAU / plain;
                        let original = original as f64;
                        if wavelength < original / high {
                            plain
                        } else if wavelength > original / low {
                            plain / factor
                        } else {
                            let ramp = (original / wavelength - low) / (high - low);
                            (1.0 - ramp) * plain / factor + ramp * plain
                        }
                    }
                }
            })
            .collect();
        Self { frequencies, cos: Vec::new(), sin: Vec::new() }
    }

    fn grow(&mut self, positions: usize) {
        let half = self.frequencies.len();
        for position in self.cos.len() / half..positions {
            for frequency in &self.frequencies {
                let angle = position as f64 * frequency;
                self.cos.push(angle.cos() as f32);
                self.sin.push(angle.sin() as f32);
            }
        }
    }

    /// Appends the row of one position.
    pub(crate) fn push(&mut self, position: usize, cos: &mut Vec<f32>, sin: &mut Vec<f32>) {
        self.grow(position + 1);
        let half = self.frequencies.len();
        cos.extend_from_slice(&self.cos[position * half..(position + 1) * half]);
        sin.extend_from_slice(&self.sin[position * half..(position + 1) * half]);
    }

    /// The rows of every token of a forest, `[N, head_dim / 2]` each.
    pub(crate) fn gather(&mut self, forest: &Forest) -> (Vec<f32>, Vec<f32>) {
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for segment in &forest.segments {
            for i in 0..segment.tokens.len() {
                self.push(segment.start + i, &mut cos, &mut sin);
            }
        }
        (cos, sin)
    }
}
