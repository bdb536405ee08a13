//! Log-probabilities of tokens beside the target: that they are those of the distribution, and what their derivatives do.

use saddlepoint_core::test::assert_close;
use saddlepoint_lm::engine::{Cotangent, Divergence, Forest, Policy, Row, Want};
use saddlepoint_lm::model::ModelFolder;

use crate::engine_golden::{folder, policy};

/// A forest with two completions, and every token listed at each of their predictions.
fn batch(vocab: usize) -> Forest {
    let mut forest = Forest::default();
    let root = forest.root(&(0..9).map(|i| 4 + (i * 3) % 90).collect::<Vec<_>>());
    forest.completion(root, &[5, 12, 19, 26]);
    forest.completion(root, &[7]);
    forest.listed = vec![(0..vocab as u32).collect(); forest.rows.len()];
    forest
}

fn vocab() -> usize {
    ModelFolder::open(&folder("qwen3/policy")).expect("a model").shape.vocab
}

fn gradients(policy: &mut Policy, forest: &Forest, want: Want, cotangent: &Cotangent) -> Vec<f64> {
    policy.zero_grads();
    policy.forward(forest, want).expect("statistics");
    policy.backward(cotangent).expect("gradients");
    policy.trainable().grads.iter().map(|&g| f64::from(g)).collect()
}

#[test]
fn listed_tokens_have_the_probabilities_of_the_distribution() {
    let (mut policy, vocab) = (policy("qwen3", false), vocab());
    for temperature in [None, Some(0.7)] {
        let forest = batch(vocab);
        let want = Want { temperature, entropy: true, ..Want::default() };
        let stats = policy.evaluate(&forest, want).expect("statistics");
        for (row, logps) in stats.listed.iter().enumerate() {
            let mass: f64 = logps.iter().map(|logp| logp.exp()).sum();
            let entropy: f64 = logps.iter().map(|logp| -logp.exp() * logp).sum();
            assert_close!([mass, entropy], [1.0, stats.entropy[row]], rtol = 1e-5);
            let target = forest.rows[row].target as usize;
            assert_eq!(logps[target].to_bits(), stats.logp[row].to_bits(), "the target is one of them");
        }
        let some = Forest { listed: vec![vec![40, 3], vec![], vec![8], vec![], vec![9, 1, 5]], ..forest };
        let of_some = policy.evaluate(&some, want).expect("statistics").listed;
        for ((ids, logps), all) in some.listed.iter().zip(of_some).zip(&stats.listed) {
            let expected: Vec<f64> = ids.iter().map(|&id| all[id as usize]).collect();
            assert_eq!(logps, expected, "a list chooses");
        }
    }
}

/// The derivative through a listed target is that through the target, and `p_v (ln p_v − ln q_v)` for all tokens, by which the reverse KL
/// depends on log-probabilities, gives the gradient of the divergence that the head computes itself.
#[test]
fn derivatives_by_listed_tokens_are_those_of_other_ways() {
    let (mut policy, vocab) = (policy("qwen3", false), vocab());
    let forest = batch(vocab);
    let rows = forest.rows.len();
    let slopes = [0.7, -0.3, 1.1, 0.4, -0.9];
    let of_targets =
        Forest { listed: forest.rows.iter().map(|row| vec![row.target]).collect(), ..forest.clone() };
    let listed = Cotangent { listed: slopes.map(|slope| vec![slope]).to_vec(), ..Cotangent::default() };
    let direct = Cotangent { logp: slopes.to_vec(), ..Cotangent::default() };
    let a = gradients(&mut policy, &of_targets, Want::default(), &listed);
    let b = gradients(&mut policy, &of_targets, Want::default(), &direct);
    assert_eq!(a, b);

    let logps = policy.evaluate(&forest, Want::default()).expect("statistics").listed;
    let mut by_token = Vec::new();
    for (row, logps) in logps.iter().enumerate() {
        // The reference's distribution, a target at a time.
        let all = (0..vocab as u32).map(|target| Row { at: forest.rows[row].at, target }).collect();
        let asked = Forest { rows: all, listed: Vec::new(), ..forest.clone() };
        let reference = policy.reference_logps(&asked).expect("a reference");
        let slope = |(lp, lq): (&f64, f64)| slopes[row] * lp.exp() * (lp - lq);
        by_token.push(logps.iter().zip(reference).map(slope).collect());
    }
    let a = gradients(
        &mut policy,
        &forest,
        Want::default(),
        &Cotangent { listed: by_token, ..Cotangent::default() },
    );
    let want = Want { divergence: Some(Divergence::ReverseKl), ..Want::default() };
    let whole = Cotangent { divergence: slopes.to_vec(), ..Cotangent::default() };
    let b = gradients(&mut policy, &Forest { listed: Vec::new(), ..forest }, want, &whole);
    let largest = b.iter().fold(0.0_f64, |most, g| most.max(g.abs()));
    assert!(rows == slopes.len() && largest > 1e-3, "{largest}");
    assert_close!(a, b, rtol = 1e-4, atol = 1e-5 * largest);
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let (mut policy, vocab) = (policy("qwen3", false), vocab());
    let forest = batch(vocab);
    let mut told = |listed: Vec<Vec<u32>>| {
        let forest = Forest { listed, ..forest.clone() };
        policy.evaluate(&forest, Want::default()).expect_err("refused").to_string()
    };
    assert_eq!(told(vec![vec![1]]), "batch: 1 lists of tokens for 5 predictions");
    let outside = told(vec![vec![], vec![], vec![vocab as u32], vec![], vec![]]);
    assert_eq!(outside, format!("tokenizer: token id {vocab} is outside the model's vocabulary of {vocab}"));
    policy.forward(&forest, Want::default()).expect("statistics");
    let short = Cotangent { listed: vec![vec![1.0]; 5], ..Cotangent::default() };
    let error = policy.backward(&short).expect_err("refused").to_string();
    assert!(error.starts_with("cotangent.listed: has other lengths"), "{error}");
}
