//! The reverse KL over the teacher's most probable tokens, with all others taken for one.
//!
//! ```text
//! D = Σ_{v ∈ K} p_v ln(p_v/q_v) + p_r ln(p_r/q_r)     p_r = 1 − Σ_K p_v,  q_r = 1 − Σ_K q_v
//! ∂D/∂ln p_v = p_v ( ln(p_v/q_v) − ln(p_r/q_r) )      v ∈ K
//! ```
//! `p` is the policy, `q` the teacher, `K` what a server tells. Telling fewer tokens apart can only lower a divergence: `0 ≤ D ≤ KL(p‖q)`,
//! with equality on the right where `K` is the vocabulary or both agree on the shares of what is left. The sum over `K` alone is no divergence: it
//! falls below 0 where the policy leaves `K`.

use super::MOST;

/// Shares of what is left below it are taken for it: logits are of 32 bits, and a server writes log-probabilities of as many.
const LEAST: f64 = 1e-6;

/// What is known of a token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Top {
    /// `D`, nats.
    pub(super) value: f64,
    /// Its derivatives by the policy's log-probabilities; where a log-ratio is held, with the one that is held.
    pub(super) slopes: Vec<f64>,
    /// Share of the policy that is left.
    pub(super) left: f64,
    /// Share of the teacher that is left.
    pub(super) teacher_left: f64,
    /// Whether a log-ratio is held at its bound.
    pub(super) held: bool,
}

/// Of the log-probabilities of the teacher's most probable tokens under the policy and under the teacher.
pub(super) fn divergence(policy: &[f64], teacher: &[f64]) -> Top {
    let left = |logps: &[f64]| (1.0 - logps.iter().map(|logp| logp.exp()).sum::<f64>()).max(0.0);
    let (p_left, q_left) = (left(policy), left(teacher));
    let rest = (p_left.max(LEAST) / q_left.max(LEAST)).ln();
    let (mut value, mut held) = (p_left * rest, false);
    let slope = |(lp, lq): (&f64, &f64)| {
        let (p, ratio) = (lp.exp(), (lp - lq).clamp(-MOST, MOST));
        held |= (lp - lq).abs() > MOST;
        value += p * ratio;
        p * (ratio - rest)
    };
    let slopes = policy.iter().zip(teacher).map(slope).collect();
    Top { value, slopes, left: p_left, teacher_left: q_left, held }
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;
    use saddlepoint_opt::divergence::Divergence;

    use super::*;

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|z| z.exp()).sum();
        logits.iter().map(|z| z.exp() / sum).collect()
    }

    const POLICY: [f64; 5] = [0.7, -0.2, 0.1, 1.3, -0.9];
    const TEACHER: [f64; 5] = [0.1, 0.9, -0.4, -1.0, -1.2];
    /// Places of the teacher's tokens, the most probable first.
    const ORDER: [usize; 5] = [1, 0, 2, 3, 4];

    fn of(policy: &[f64], k: usize) -> Top {
        let (p, q) = (softmax(policy), softmax(&TEACHER));
        let logs = |p: &[f64]| ORDER[..k].iter().map(|&v| p[v].ln()).collect::<Vec<_>>();
        divergence(&logs(&p), &logs(&q))
    }

    /// It grows with the tokens that are told apart up to the whole divergence, which one token less also gives.
    #[test]
    fn it_bounds_the_divergence_from_below() {
        let whole = Divergence::ReverseKl.between(&softmax(&POLICY), &softmax(&TEACHER));
        let values: Vec<f64> = (0..=5).map(|k| of(&POLICY, k).value).collect();
        assert!(values[0].abs() < 1e-15, "{values:?}");
        assert!(values.windows(2).all(|pair| pair[1] >= pair[0] - 1e-12), "{values:?}");
        assert!(values[1] > 1e-3 && values[3] < whole - 1e-3, "{values:?} of {whole}");
        assert_close!([values[4], values[5]], [whole; 2], rtol = 1e-12);
        assert!(of(&TEACHER, 3).value.abs() < 1e-15);
        let top = of(&POLICY, 2);
        let left = |logits: &[f64]| 1.0 - softmax(logits)[0] - softmax(logits)[1];
        assert_close!([top.left, top.teacher_left], [left(&POLICY), left(&TEACHER)], rtol = 1e-12);
    }

    /// By the logits: `d ln p_v / dz_u = [u = v] − p_u`.
    #[test]
    fn its_derivative_is_that_of_finite_differences() {
        for k in 1..=5 {
            let top = of(&POLICY, k);
            let (p, sum) = (softmax(&POLICY), top.slopes.iter().sum::<f64>());
            for at in 0..5 {
                let own = ORDER[..k].iter().position(|&v| v == at).map_or(0.0, |place| top.slopes[place]);
                let moved = |step: f64| {
                    let mut logits = POLICY;
                    logits[at] += step;
                    of(&logits, k).value
                };
                let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert_close!([own - p[at] * sum], [numeric], rtol = 1e-7, atol = 1e-10);
            }
        }
    }

    /// A teacher that forbids what the policy says, or that tells everything, gives numbers.
    #[test]
    fn what_is_left_and_what_is_forbidden_stays_finite() {
        let top = divergence(&[0.5_f64.ln()], &[0.0]);
        assert!(top.value > 0.0 && top.value < 0.5 * 14.0 && top.slopes[0].is_finite(), "{top:?}");
        let top = divergence(&[0.5_f64.ln(), 0.5_f64.ln()], &[0.0, -9999.0]);
        assert!(top.held && top.value < MOST && top.slopes.iter().all(|slope| slope.is_finite()), "{top:?}");
    }
}
