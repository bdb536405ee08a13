//! The forest against the padded layout with full logits, which exists only here, as an oracle.

use saddlepoint_lm::engine::{Cotangent, Divergence, Forest, Want};
use saddlepoint_lm::model::ModelFolder;

use crate::engine_golden::{folder, policy};

const WANT: Want = Want {
    entropy: true,
    ref_logp: true,
    divergence: Some(Divergence::ReverseKl),
    temperature: None,
    score: false,
};

/// Different cotangents for different rows.
fn cotangent(rows: usize) -> Cotangent {
    let wave = |shift: f64| (0..rows).map(|i| ((i as f64) * 0.7 + shift).sin()).collect();
    Cotangent { logp: wave(0.0), entropy: wave(1.0), divergence: wave(2.0), ..Cotangent::default() }
}

fn pick(all: &[f64], rows: &[usize]) -> Vec<f64> {
    rows.iter().map(|&i| all[i]).collect()
}

#[test]
fn a_shared_prefix_gives_the_values_and_gradients_of_separate_sequences() {
    let prompt: Vec<u32> = (0..70).map(|i| 4 + (i * 7) % 90).collect();
    let completions: Vec<Vec<u32>> = [1usize, 3, 9, 80]
        .iter()
        .map(|&n| (0..n as u32).map(|i| 4 + (i * 11 + n as u32) % 90).collect())
        .collect();
    for name in ["llama", "qwen2", "qwen3"] {
        let mut policy = policy(name, false);
        let mut shared = Forest::default();
        let root = shared.root(&prompt);
        for completion in &completions {
            shared.completion(root, completion);
        }
        let stats = policy.forward(&shared, WANT).expect("statistics");
        let cotangent = cotangent(shared.rows.len());
        policy.zero_grads();
        policy.backward(&cotangent).expect("gradients");
        let forest_grads = policy.trainable().grads.to_vec();

        policy.zero_grads();
        let mut first = 0;
        for completion in &completions {
            let rows: Vec<usize> = (first..first + completion.len()).collect();
            first += completion.len();
            let tokens: Vec<u32> = prompt.iter().chain(completion).copied().collect();
            let supervised: Vec<bool> = (0..tokens.len()).map(|i| i >= prompt.len()).collect();
            let mut alone = Forest::default();
            alone.sequence(&tokens, &supervised);
            let single = policy.forward(&alone, WANT).expect("statistics");
            for (a, b) in [
                (pick(&stats.logp, &rows), &single.logp),
                (pick(&stats.ref_logp, &rows), &single.ref_logp),
                (pick(&stats.entropy, &rows), &single.entropy),
                (pick(&stats.divergence, &rows), &single.divergence),
            ] {
                for (x, y) in a.iter().zip(b) {
                    assert!((x - y).abs() <= 1e-5 * y.abs().max(1.0), "{name}: {x} against {y}");
                }
            }
            policy
                .backward(&Cotangent {
                    logp: pick(&cotangent.logp, &rows),
                    entropy: pick(&cotangent.entropy, &rows),
                    divergence: pick(&cotangent.divergence, &rows),
                    ..Cotangent::default()
                })
                .expect("gradients");
        }
        let trainable = policy.trainable();
        for spec in trainable.tensors {
            let (mut error, mut norm) = (0.0, 0.0);
            for (a, b) in forest_grads[spec.range()].iter().zip(&trainable.grads[spec.range()]) {
                error += f64::from(a - b).powi(2);
                norm += f64::from(*b).powi(2);
            }
            assert!(
                (error / norm).sqrt() <= 1e-5,
                "{name}: {} differs by {:.1e}",
                spec.name,
                (error / norm).sqrt()
            );
        }
    }
}

/// A decoder written once more in `f64`, one padded row of tokens at a time with a full matrix of logits
/// and a causal mask; nothing of it is shared with the engine.
mod oracle {
    use saddlepoint_lm::engine::{Policy, Shape};

    pub(super) struct Oracle {
        shape: Shape,
        tensors: std::collections::BTreeMap<String, Vec<f64>>,
    }

    impl Oracle {
        pub(super) fn new(shape: &Shape, policy: &Policy) -> Self {
            let tensors = policy
                .tensors()
                .iter()
                .map(|spec| {
                    let mut values = vec![0.0f32; spec.len()];
                    policy.base_tensor(spec, &mut values);
                    (spec.name.clone(), values.into_iter().map(f64::from).collect())
                })
                .collect();
            Self { shape: shape.clone(), tensors }
        }

        fn linear(&self, x: &[Vec<f64>], name: &str, out: usize) -> Vec<Vec<f64>> {
            let w = &self.tensors[&format!("{name}.weight")];
            let bias = self.tensors.get(&format!("{name}.bias"));
            x.iter()
                .map(|row| {
                    (0..out)
                        .map(|o| {
                            let dot: f64 = row.iter().zip(&w[o * row.len()..]).map(|(a, b)| a * b).sum();
                            dot + bias.map_or(0.0, |b| b[o])
                        })
                        .collect()
                })
                .collect()
        }

        fn norm(&self, x: &[f64], name: &str) -> Vec<f64> {
            let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
            let inverse = 1.0 / (mean + f64::from(self.shape.norm_eps)).sqrt();
            x.iter().zip(&self.tensors[name]).map(|(v, w)| v * inverse * w).collect()
        }

        fn rotate(&self, x: &mut [f64], position: usize) {
            let half = x.len() / 2;
            for i in 0..half {
                let angle = position as f64 * self.shape.rope.theta.powf(-2.0 * i as f64 / x.len() as f64);
                let (a, b) = (x[i], x[i + half]);
                x[i] = a * angle.cos() - b * angle.sin();
                x[i + half] = b * angle.cos() + a * angle.sin();
            }
        }

        /// Log-probabilities `[T, V]` of a row padded on the right; `real` marks its real tokens.
        pub(super) fn logp(&self, tokens: &[u32], real: &[bool]) -> Vec<Vec<f64>> {
            let s = &self.shape;
            let hd = s.head_dim;
            let embedding = &self.tensors["model.embed_tokens.weight"];
            let mut x: Vec<Vec<f64>> =
                tokens.iter().map(|&t| embedding[t as usize * s.hidden..][..s.hidden].to_vec()).collect();
            for layer in 0..s.layers {
                let name = |part: &str| format!("model.layers.{layer}.{part}");
                let h: Vec<_> = x.iter().map(|r| self.norm(r, &name("input_layernorm.weight"))).collect();
                let mut q = self.linear(&h, &name("self_attn.q_proj"), s.q_width());
                let mut k = self.linear(&h, &name("self_attn.k_proj"), s.kv_width());
                let v = self.linear(&h, &name("self_attn.v_proj"), s.kv_width());
                for (list, which) in [(&mut q, "q"), (&mut k, "k")] {
                    for (position, row) in list.iter_mut().enumerate() {
                        for head in row.chunks_exact_mut(hd) {
                            if s.qk_norm {
                                let normed =
                                    self.norm(head, &name(&format!("self_attn.{which}_norm.weight")));
                                head.copy_from_slice(&normed);
                            }
                            self.rotate(head, position);
                        }
                    }
                }
                let mut attended = vec![vec![0.0; s.q_width()]; x.len()];
                for i in 0..x.len() {
                    for head in 0..s.heads {
                        let kv = head / (s.heads / s.kv_heads);
                        let scores: Vec<f64> = (0..x.len())
                            .map(|j| {
                                if j > i || !real[j] {
                                    return f64::NEG_INFINITY;
                                }
                                let dot: f64 = q[i][head * hd..][..hd]
                                    .iter()
                                    .zip(&k[j][kv * hd..][..hd])
                                    .map(|(a, b)| a * b)
                                    .sum();
                                dot / (hd as f64).sqrt()
                            })
                            .collect();
                        let top = scores.iter().copied().fold(f64::MIN, f64::max);
                        let mass: f64 = scores.iter().map(|z| (z - top).exp()).sum();
                        for j in 0..x.len() {
                            let p = (scores[j] - top).exp() / mass;
                            for c in 0..hd {
                                attended[i][head * hd + c] += p * v[j][kv * hd + c];
                            }
                        }
                    }
                }
                let o = self.linear(&attended, &name("self_attn.o_proj"), s.hidden);
                add(&mut x, &o);
                let h: Vec<_> =
                    x.iter().map(|r| self.norm(r, &name("post_attention_layernorm.weight"))).collect();
                let gate = self.linear(&h, &name("mlp.gate_proj"), s.ffn);
                let up = self.linear(&h, &name("mlp.up_proj"), s.ffn);
                let act: Vec<Vec<f64>> = gate
                    .iter()
                    .zip(&up)
                    .map(|(g, u)| g.iter().zip(u).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect())
                    .collect();
                let down = self.linear(&act, &name("mlp.down_proj"), s.hidden);
                add(&mut x, &down);
            }
            let h: Vec<_> = x.iter().map(|r| self.norm(r, "model.norm.weight")).collect();
            let head = if s.tied { "model.embed_tokens" } else { "lm_head" };
            self.linear(&h, head, s.vocab)
                .into_iter()
                .map(|z| {
                    let top = z.iter().copied().fold(f64::MIN, f64::max);
                    let lse = top + z.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
                    z.into_iter().map(|v| v - lse).collect()
                })
                .collect()
        }
    }

    fn add(x: &mut [Vec<f64>], y: &[Vec<f64>]) {
        for (a, b) in x.iter_mut().zip(y) {
            for (a, b) in a.iter_mut().zip(b) {
                *a += b;
            }
        }
    }
}

#[test]
fn the_forest_agrees_with_the_padded_layout_and_full_logits() {
    for name in ["llama", "qwen2", "qwen3"] {
        let shape = ModelFolder::open(&folder(name).join("policy")).expect("a model").shape.clone();
        let mut policy = policy(name, false);
        let oracle = oracle::Oracle::new(&shape, &policy);
        let prompt: Vec<u32> = (0..9).map(|i| 4 + i * 5).collect();
        let completions: [&[u32]; 3] = [&[7], &[8, 9, 10, 11], &[90, 12, 2]];
        let mut forest = Forest::default();
        let root = forest.root(&prompt);
        let rows: Vec<_> = completions.iter().map(|c| forest.completion(root, c)).collect();
        let stats = policy.evaluate(&forest, WANT).expect("statistics");
        for (completion, rows) in completions.iter().zip(rows) {
            let mut tokens: Vec<u32> = prompt.iter().chain(*completion).copied().collect();
            let real = tokens.len();
            tokens.resize(16, 0);
            let mask: Vec<bool> = (0..16).map(|i| i < real).collect();
            let logp = oracle.logp(&tokens, &mask);
            for (i, row) in rows.enumerate() {
                let distribution = &logp[prompt.len() + i - 1];
                let exact = distribution[completion[i] as usize];
                assert!((stats.logp[row] - exact).abs() <= 1e-5 * exact.abs().max(1.0), "{name} logp");
                let entropy: f64 = -distribution.iter().map(|l| l.exp() * l).sum::<f64>();
                assert!((stats.entropy[row] - entropy).abs() <= 1e-5 * entropy.max(1.0), "{name} entropy");
            }
        }
    }
}
