//! Drawing a token from logits.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::kernel::log_sum_exp;
use super::GenerateConfig;

/// Temperature and cut-offs, applied in the usual order: temperature, top-k, top-p, min-p.
#[derive(Debug, Clone)]
pub(super) struct Sampler {
    temperature: f32,
    /// Whether log-probabilities are those at the temperature.
    tempered: bool,
    top_k: usize,
    top_p: f64,
    min_p: f64,
}

impl Sampler {
    pub(super) fn new(config: &GenerateConfig) -> Self {
        Self {
            temperature: config.temperature as f32,
            tempered: config.tempered && config.temperature > 0.0,
            top_k: config.top_k,
            top_p: config.top_p,
            min_p: config.min_p,
        }
    }

    /// The token and its log-probability under the unchanged logits, or under those of the temperature.
    pub(super) fn draw(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> (u32, f64) {
        let id = if self.temperature == 0.0 { greedy(logits) } else { self.random(logits, rng) };
        let logp = |z: &[f32]| f64::from(z[id]) - log_sum_exp(z);
        let logp = if self.tempered { logp(&self.scaled(logits)) } else { logp(logits) };
        (id as u32, logp)
    }

    fn scaled(&self, logits: &[f32]) -> Vec<f32> {
        logits.iter().map(|&z| z / self.temperature).collect()
    }

    fn random(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> usize {
        let scaled = self.scaled(logits);
        let lse = log_sum_exp(&scaled);
        let u: f64 = rng.random();
        if self.top_k == 0 && self.top_p >= 1.0 && self.min_p <= 0.0 {
            let mut left = u;
            for (id, &z) in scaled.iter().enumerate() {
                left -= (f64::from(z) - lse).exp();
                if left < 0.0 {
                    return id;
                }
            }
            return greedy(logits);
        }
        let mut kept: Vec<usize> = (0..scaled.len()).collect();
        let descending = |a: &usize, b: &usize| scaled[*b].total_cmp(&scaled[*a]).then(a.cmp(b));
        if self.top_k > 0 && self.top_k < kept.len() {
            kept.select_nth_unstable_by(self.top_k - 1, descending);
            kept.truncate(self.top_k);
        }
        kept.sort_unstable_by(descending);
        let mass = |kept: &[usize]| kept.iter().map(|&i| (f64::from(scaled[i]) - lse).exp()).sum::<f64>();
        if self.top_p < 1.0 {
            let goal = self.top_p * mass(&kept);
            let mut sum = 0.0;
            let enough = kept.iter().position(|&i| {
                sum += (f64::from(scaled[i]) - lse).exp();
                sum >= goal
            });
            kept.truncate(enough.map_or(kept.len(), |at| at + 1));
        }
        if self.min_p > 0.0 {
            let bar = f64::from(scaled[kept[0]]) + self.min_p.ln();
            let below = kept.iter().position(|&i| f64::from(scaled[i]) < bar);
            kept.truncate(below.unwrap_or(kept.len()).max(1));
        }
        let mut left = u * mass(&kept);
        for &id in &kept {
            left -= (f64::from(scaled[id]) - lse).exp();
            if left < 0.0 {
                return id;
            }
        }
        kept[0]
    }
}

fn greedy(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, &z) in logits.iter().enumerate() {
        if z > logits[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::seed::Seed;

    use super::*;

    fn counts(config: &GenerateConfig, logits: &[f32]) -> Vec<usize> {
        let sampler = Sampler::new(config);
        let mut rng = Seed::new(1).stream("test", &[]);
        let mut counts = vec![0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.draw(logits, &mut rng).0 as usize] += 1;
        }
        counts
    }

    #[test]
    fn frequencies_follow_the_distribution_and_its_cut_offs() {
        let logits: Vec<f32> = [0.5f32, 0.25, 0.15, 0.1].iter().map(|p| p.ln() + 3.0).collect();
        let plain = GenerateConfig::default();
        let near = |config: &GenerateConfig, want: [f64; 4]| {
            for (count, p) in counts(config, &logits).iter().zip(want) {
                assert!((*count as f64 / 20_000.0 - p).abs() < 0.015, "{count} against {p} with {config:?}");
            }
        };
        near(&plain, [0.5, 0.25, 0.15, 0.1]);
        near(&GenerateConfig { top_k: 2, ..plain.clone() }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        near(&GenerateConfig { top_p: 0.8, ..plain.clone() }, [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0]);
        near(&GenerateConfig { min_p: 0.4, ..plain.clone() }, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        near(&GenerateConfig { temperature: 0.0, ..plain.clone() }, [1.0, 0.0, 0.0, 0.0]);
        let half = [0.25, 0.0625, 0.0225, 0.01].map(|p| p / 0.345);
        near(&GenerateConfig { temperature: 0.5, ..plain }, half);
    }
}
