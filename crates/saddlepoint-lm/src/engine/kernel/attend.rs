//! Attention of one token to cached keys and values, as decoding needs it: bound by reading the cache once.

use saddlepoint_opt::simd::vectorized;

use super::lanes::{COLUMNS, LINE, add, exp, max, prefetch_second, sum};

/// Tokens of a block of keys, which lie dimension by dimension: a score for each is a sum without a reduction.
pub(crate) const KEYS: usize = 64;

/// Elements between what is read and what is asked the memory for.
const AHEAD: usize = 2048;

/// Keys and values of earlier tokens for one key and value head of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cached<'a> {
    /// `[blocks, head_dim, KEYS]`; what follows the last token is finite.
    pub(crate) keys: &'a [f32],
    /// `[tokens, head_dim]`, and maybe more.
    pub(crate) values: &'a [f32],
    /// Number of tokens.
    pub(crate) len: usize,
}

/// `out = softmax(query keys^T / sqrt(head_dim)) values` for the query heads `[group, head_dim]` that share a key and
/// value head.
pub(crate) fn attend(head_dim: usize, query: &[f32], parts: [Cached<'_>; 2], out: &mut [f32]) {
    let total: usize = parts.iter().map(|part| part.len).sum();
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut weights = vec![0.0f32; query.len() / head_dim * total];
    vectorized(
        #[inline(always)]
        || {
            let mut at = 0;
            for part in parts {
                for (block, keys) in part.keys.chunks_exact(KEYS * head_dim).enumerate() {
                    let here = KEYS.min(part.len.saturating_sub(block * KEYS));
                    let heads = query.chunks_exact(head_dim).zip(weights.chunks_exact_mut(total));
                    for (head, (query, weights)) in heads.enumerate() {
                        // The first head to read a block asks for the next one.
                        let ask = head == 0;
                        let weights = &mut weights[at..at + here];
                        match here {
                            0..=16 => scores::<16>(query, keys, ask, weights),
                            17..=32 => scores::<32>(query, keys, ask, weights),
                            _ => scores::<KEYS>(query, keys, ask, weights),
                        }
                        for weight in weights {
                            *weight *= scale;
                        }
                    }
                    at += here;
                }
            }
            for weights in weights.chunks_exact_mut(total) {
                let top = max(weights);
                for w in weights.iter_mut() {
                    *w = exp(*w - top);
                }
                let mass = sum(weights);
                for w in weights {
                    *w /= mass;
                }
            }
            let heads = out.chunks_exact_mut(head_dim).zip(weights.chunks_exact(total));
            for (head, (out, weights)) in heads.enumerate() {
                for (block, out) in out.chunks_mut(COLUMNS).enumerate() {
                    mean(parts, head_dim, block * COLUMNS, weights, head == 0, out);
                }
            }
        },
    );
}

/// Asks the memory for what lies some way behind a row.
#[inline(always)]
fn ask_behind(row: &[f32]) {
    for line in row.chunks(LINE) {
        prefetch_second(line.as_ptr().wrapping_add(AHEAD));
    }
}

/// Products of a query with the keys of a block, of which the first `K` are read; with `ask` what follows is asked for.
#[inline(always)]
fn scores<const K: usize>(query: &[f32], keys: &[f32], ask: bool, out: &mut [f32]) {
    let mut scores = [0.0f32; K];
    for (&q, keys) in query.iter().zip(keys.chunks_exact(KEYS)) {
        if ask {
            ask_behind(&keys[..K]);
        }
        for (score, &key) in scores.iter_mut().zip(keys) {
            *score += q * key;
        }
    }
    out.copy_from_slice(&scores[..out.len()]);
}

/// Sum of the values' dimensions from `first` on, one for each of `out`, each value times its weight; with `ask` what follows is asked for.
#[inline(always)]
fn mean(parts: [Cached<'_>; 2], head_dim: usize, first: usize, weights: &[f32], ask: bool, out: &mut [f32]) {
    let mut sums = [0.0f32; COLUMNS];
    let mut weights = weights.iter();
    for part in parts {
        for (value, &w) in part.values.chunks_exact(head_dim).take(part.len).zip(&mut weights) {
            let value = &value[first..];
            if ask {
                ask_behind(&value[..COLUMNS.min(value.len())]);
            }
            add(&mut sums, w, value);
        }
    }
    out.copy_from_slice(&sums[..out.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_formula_whatever_the_cache_is_cut_into() {
        let (hd, group) = (6, 3);
        let value = |i: usize| ((i * 37) % 101) as f32 / 50.0 - 1.0;
        for (first, second) in [(1, 1), (64, 1), (65, 63), (3, 200)] {
            let total = first + second;
            let query: Vec<f32> = (0..group * hd).map(value).collect();
            let key = |t: usize, i: usize| value(7 * t + 5 * i + 3);
            let cached = |from: usize, len: usize| {
                let mut keys = vec![0.0; len.div_ceil(KEYS) * KEYS * hd];
                for t in 0..len {
                    for i in 0..hd {
                        keys[(t / KEYS * hd + i) * KEYS + t % KEYS] = key(from + t, i);
                    }
                }
                let values: Vec<f32> = (0..len * hd).map(|i| value(11 * (from * hd + i))).collect();
                (keys, values)
            };
            let ((k0, v0), (k1, v1)) = (cached(0, first), cached(first, second));
            let parts = [
                Cached { keys: &k0, values: &v0, len: first },
                Cached { keys: &k1, values: &v1, len: second },
            ];
            let mut out = vec![1.0; group * hd];
            attend(hd, &query, parts, &mut out);
            for h in 0..group {
                let scores: Vec<f64> = (0..total)
                    .map(|t| {
                        let dot: f64 =
                            (0..hd).map(|i| f64::from(query[h * hd + i]) * f64::from(key(t, i))).sum();
                        (dot / (hd as f64).sqrt()).exp()
                    })
                    .collect();
                for i in 0..hd {
                    let want = scores
                        .iter()
                        .enumerate()
                        .map(|(t, s)| s * f64::from(value(11 * (t * hd + i))))
                        .sum::<f64>()
                        / scores.iter().sum::<f64>();
                    assert!((f64::from(out[h * hd + i]) - want).abs() < 1e-5, "{first} + {second} tokens");
                }
            }
        }
    }
}
