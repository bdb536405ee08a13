//! Best of `n`: what the completion with the highest of `n` scores is worth, and how far choosing it goes.
//!
//! # Estimator
//! Of `N >= n` completions of a prompt, sorted by score from the lowest, the best of `n` that are drawn without replacement is the `i`-th
//! with probability `C(i−1, n−1) / C(N, n)`; the mean of anything with these weights is an unbiased estimate of what the best of
//! `n` new completions has (Nakano et al. 2021, arXiv:2112.09332, app. I). Completions with equal scores share their weights evenly,
//! as if ties were broken at random.
//!
//! # Divergence
//! ```text
//! KL = ln n − (n − 1)/n      nats a completion
//! ```
//! Exact where no two completions have the same score with positive probability, as with a real-valued score on a distribution
//! without atoms; otherwise an upper bound, since choosing among equals moves nothing (Beirami et al. 2024, arXiv:2401.01879). It says
//! nothing of which score chooses.

/// KL divergence of the best of `n` completions from a single one, nats; an upper bound where scores tie. `n` is at least 1.
pub fn divergence(n: usize) -> f64 {
    let n = n as f64;
    n.ln() - (n - 1.0) / n
}

/// `C(i−1, n−1) / C(count, n)` for `i = 1..=count`, by the recurrence from the top, which neither overflows nor needs factorials.
fn weights(count: usize, n: usize) -> Vec<f64> {
    let mut weights = vec![0.0; count];
    let mut weight = n as f64 / count as f64;
    for i in (n..=count).rev() {
        weights[i - 1] = weight;
        // From the weight of i to that of i - 1.
        weight *= (i - n) as f64 / (i - 1).max(1) as f64;
    }
    weights
}

/// The expected value of the completion with the highest of `n` scores, from the scores and values of `N` completions of a prompt;
/// none if there are fewer than `n`, or if `n` is 0.
pub fn expected(scores: &[f64], values: &[f64], n: usize) -> Option<f64> {
    let count = scores.len();
    if n == 0 || n > count || values.len() != count {
        return None;
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let weights = weights(count, n);
    let mut sum = 0.0;
    let mut start = 0;
    for equals in order.chunk_by(|&a, &b| scores[a].total_cmp(&scores[b]).is_eq()) {
        let weight: f64 = weights[start..start + equals.len()].iter().sum();
        let mean = equals.iter().map(|&i| values[i]).sum::<f64>() / equals.len() as f64;
        sum += weight * mean;
        start += equals.len();
    }
    Some(sum)
}

/// 1, 2, 4, ... up to `most`.
pub fn sizes(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1_usize), |n| n.checked_mul(2)).take_while(move |&n| n <= most)
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    const SCORES: [f64; 6] = [0.3, -1.2, 2.5, 0.9, 1.7, -0.4];
    const GOLD: [f64; 6] = [0.1, -0.5, -2.0, 1.0, 1.5, 0.2];

    #[test]
    fn values_of_six_answers() {
        let of = |values: &[f64]| -> Vec<f64> {
            (1..=6).map(|n| expected(&SCORES, values, n).expect("enough")).collect()
        };
        assert_close!(
            of(&GOLD),
            [0.05, -0.04, -0.395, -0.866_666_666_667, -1.416_666_666_67, -2.0],
            rtol = 1e-11
        );
        assert_close!(
            of(&SCORES),
            [0.633_333_333_333, 1.48, 1.91, 2.18, 2.366_666_666_67, 2.5],
            rtol = 1e-11
        );
        assert_close!(weights(6, 3)[2..], [0.05, 0.15, 0.3, 0.5], rtol = 1e-14);
        let two = [0.066_666_666_666_7, 0.133_333_333_333, 0.2, 0.266_666_666_667, 0.333_333_333_333];
        assert_close!(weights(6, 2)[1..], two, rtol = 1e-11);
        assert_eq!((expected(&SCORES, &GOLD, 7), expected(&SCORES, &GOLD, 0)), (None, None));
    }

    #[test]
    fn the_divergence_of_choosing() {
        let values = [1, 2, 16, 12_500].map(divergence);
        assert_close!(values, [0.0, 0.193_147_180_56, 1.835_088_722_24, 8.433_563_923_29], rtol = 1e-11);
        assert!((1..100).all(|n| divergence(n + 1) > divergence(n)));
    }

    #[test]
    fn it_is_the_mean_over_all_subsets_and_equals_count_evenly() {
        // Two pairs of equal scores, so that ties are there.
        let scores = [0.5, 2.0, 0.5, -1.0, 2.0, 0.0, 1.0];
        let values = [1.0, -3.0, 4.0, 0.5, 2.0, -1.0, 7.0];
        for n in 1..=7 {
            let (mut sum, mut subsets) = (0.0, 0);
            for set in (0_u32..1 << 7).filter(|set| set.count_ones() as usize == n) {
                let members: Vec<usize> = (0..7).filter(|i| set >> i & 1 == 1).collect();
                let best = members.iter().map(|&i| scores[i]).fold(f64::NEG_INFINITY, f64::max);
                let top: Vec<f64> =
                    members.iter().filter(|&&i| scores[i] >= best).map(|&i| values[i]).collect();
                sum += top.iter().sum::<f64>() / top.len() as f64;
                subsets += 1;
            }
            let got = expected(&scores, &values, n).expect("enough");
            assert!((got - sum / f64::from(subsets)).abs() < 1e-12, "{n}: {got}");
        }
    }

    #[test]
    fn weights_sum_to_1_where_binomials_would_overflow() {
        for (count, n) in [(12_600, 6_144), (12_600, 12_500), (12_600, 1), (1, 1), (5, 5)] {
            let sum: f64 = weights(count, n).iter().sum();
            assert!((sum - 1.0).abs() < 1e-9, "{count} {n}: {sum}");
        }
        let plain = expected(&SCORES, &GOLD, 1).expect("enough");
        assert!((plain - GOLD.iter().sum::<f64>() / 6.0).abs() < 1e-15, "the best of one is the mean");
    }

    #[test]
    fn on_a_distribution_with_atoms_the_divergence_is_less() {
        // Three outcomes with distinct scores: the best of n is the k-th with F_k^n - F_(k-1)^n.
        let p = [0.5_f64, 0.3, 0.2];
        for n in [2, 4, 16] {
            let mut below: f64 = 0.0;
            let mut kl = 0.0;
            for p in p {
                let q = (below + p).powi(n) - below.powi(n);
                kl += q * (q / p).ln();
                below += p;
            }
            assert!(kl > 0.0 && kl < divergence(n as usize), "{n}: {kl}");
        }
    }
}
