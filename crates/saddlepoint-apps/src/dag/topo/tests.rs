//! The vectors of the population with four nodes, small problems whose best order is known, and random ones.

use proptest::prelude::*;
use saddlepoint_core::test::assert_close;

use super::*;
use crate::dag::data::{Data, Scaling};
use crate::dag::score::{Lasso, LeastSquares, Logistic, Mlp, MlpConfig};
use crate::dag::simulate::{self, Noise};

/// `W01 = 1.5, W02 = −1, W13 = 0.8, W23 = 2` with unit noise.
#[allow(clippy::approx_constant, reason = "6.28 is 0.8² + 2² and what comes through both paths, not 2π")]
const SIGMA: [f64; 16] =
    [1.0, 1.5, -1.0, -0.8, 1.5, 3.25, -1.5, -0.4, -1.0, -1.5, 2.0, 2.8, -0.8, -0.4, 2.8, 6.28];

fn population() -> LeastSquares {
    LeastSquares::from_gram(SIGMA.to_vec(), 4).expect("moments")
}

fn permutations(d: usize) -> Vec<Vec<usize>> {
    if d == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for rest in permutations(d - 1) {
        for place in 0..d {
            let mut order = rest.clone();
            order.insert(place, d - 1);
            all.push(order);
        }
    }
    all
}

/// Slopes by rows: `grad[i * d + j]`.
fn gradient<S: Score>(score: &S, fits: &[Fit]) -> Vec<f64> {
    let d = fits.len();
    let columns: Vec<Vec<f64>> = fits.iter().enumerate().map(|(j, fit)| score.slope(j, fit)).collect();
    (0..d * d).map(|at| columns[at % d][at / d]).collect()
}

#[test]
fn v1_the_true_order() {
    let score = population();
    let fits = on_order(&score, &[0, 1, 2, 3]).expect("solved");
    assert_close!(total(&fits), 2.0, atol = 1e-12);
    let w = weights(&score, &fits);
    assert_eq!(w.edges().len(), 4);
    for (i, j, value) in [(0, 1, 1.5), (0, 2, -1.0), (1, 3, 0.8), (2, 3, 2.0)] {
        assert_close!(w.get(i, j), value, atol = 1e-12);
    }
    let r = walks(&w, &[0, 1, 2, 3]);
    for (i, j, value) in
        [(1, 0, 1.5), (2, 0, 1.0), (3, 0, 3.2), (3, 1, 0.8), (3, 2, 2.0), (2, 1, 0.0), (0, 0, 1.0)]
    {
        assert_close!(r[j * 4 + i], value, atol = 1e-12);
    }
    let g = gradient(&score, &fits);
    for (i, j, value) in [
        (1, 0, -1.5),
        (2, 0, 1.0),
        (3, 0, 0.8),
        (3, 1, -0.8),
        (3, 2, -2.0),
        (0, 0, -1.0),
        (0, 1, 0.0),
        (1, 2, 0.0),
        (2, 3, 0.0),
    ] {
        assert_close!(g[i * 4 + j], value, atol = 1e-11);
    }
}

#[test]
fn v2_the_reversed_order() {
    let score = population();
    let order = [3, 2, 1, 0];
    let fits = on_order(&score, &order).expect("solved");
    assert_close!(total(&fits), 4.083_655_101_574, atol = 1e-11);
    let w = weights(&score, &fits);
    for (i, j, value) in [
        (1, 0, 0.352_941_176_5),
        (2, 0, -0.235_294_117_6),
        (2, 1, -1.758_474_576_3),
        (3, 1, 0.720_338_983_1),
        (3, 2, 0.445_859_872_6),
        (3, 0, 0.0),
    ] {
        assert_close!(w.get(i, j), value, atol = 1e-10);
    }
    let r = walks(&w, &order);
    for (i, j, value) in [
        (0, 1, 0.352_941_176_5),
        (0, 2, 0.855_932_203_4),
        (0, 3, 0.635_863_111_3),
        (1, 2, 1.758_474_576_3),
        (1, 3, 1.504_372_233_6),
        (2, 3, 0.445_859_872_6),
    ] {
        assert_close!(r[j * 4 + i], value, atol = 1e-10);
    }
    let g = gradient(&score, &fits);
    for (i, j, value) in [
        (0, 1, -0.317_796_610_2),
        (0, 2, 0.643_312_101_9),
        (0, 3, 0.8),
        (1, 2, 1.321_656_051),
        (1, 3, 0.4),
        (2, 3, -2.8),
    ] {
        assert_close!(g[i * 4 + j], value, atol = 1e-9);
    }
}

#[test]
fn v3_an_order_between() {
    let score = population();
    let fits = on_order(&score, &[3, 0, 1, 2]).expect("solved");
    assert_close!(total(&fits), 4.132_306_997_335, atol = 1e-11);
    let w = weights(&score, &fits);
    for (i, j, value) in [
        (0, 1, 1.613_475_177_3),
        (0, 2, -0.2),
        (1, 2, -0.32),
        (3, 0, -0.127_388_535),
        (3, 1, 0.141_843_971_6),
        (3, 2, 0.4),
    ] {
        assert_close!(w.get(i, j), value, atol = 1e-9);
    }
}

#[test]
fn v4_all_orders() {
    let score = population();
    let mut scores: Vec<(f64, Vec<usize>)> = permutations(4)
        .into_iter()
        .map(|order| (total(&on_order(&score, &order).expect("solved")), order))
        .collect();
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(scores.len(), 24);
    assert_close!([scores[0].0, scores[1].0], [2.0, 2.0], atol = 1e-12);
    let mut best = [scores[0].1.clone(), scores[1].1.clone()];
    best.sort();
    assert_eq!(best, [vec![0, 1, 2, 3], vec![0, 2, 1, 3]]);
    assert_close!([scores[2].0, scores[3].0], [2.124_878_048_8, 2.25], atol = 1e-9);
    assert_eq!((&scores[2].1, &scores[3].1), (&vec![0, 2, 3, 1], &vec![2, 0, 1, 3]));
    assert_close!(scores[23].0, 4.975_717_936_620, atol = 1e-11);
    assert_eq!(scores[23].1, [3, 1, 0, 2]);
}

#[test]
fn v5_a_search_step_by_step() {
    let score = population();
    let losses = |order: &[usize], pairs: &[(usize, usize)]| -> Vec<f64> {
        let fits = on_order(&score, order).expect("solved");
        let places = places(order);
        let windows: Vec<_> = pairs.iter().map(|&(i, j)| (places[j], places[i])).collect();
        let changes = score.changes(order, &fits, Swap::Exchange, &windows).expect("solved");
        changes.into_iter().map(|change| change + total(&fits)).collect()
    };
    let sets = |order: &[usize]| {
        candidates(&weights(&score, &on_order(&score, order).expect("solved")), order, (3, 6))
    };
    let first = sets(&[3, 2, 1, 0]);
    assert_eq!(first.small, [(0, 1), (0, 3), (2, 3)]);
    assert_close!(losses(&[3, 2, 1, 0], &first.small), [3.994_403_040_7, 2.0, 2.747_858_923_2], atol = 1e-9);
    let second = sets(&[0, 2, 1, 3]);
    assert_eq!(second.small, [(1, 2), (2, 0), (3, 1)]);
    assert_close!(losses(&[0, 2, 1, 3], &second.small), [2.0, 2.25, 2.124_878_048_8], atol = 1e-9);
    assert_eq!(second.rest, [(1, 0), (3, 0), (3, 2)]);
    let rest = losses(&[0, 2, 1, 3], &second.rest);
    assert_close!(rest, [2.896_493_212_7, 4.083_655_101_6, 3.863_262_411_3], atol = 1e-9);
    let topo = Topo { small: Some(3), large: Some(6), ..Topo::default() };
    let found = topo.run(&score, &[3, 2, 1, 0]).expect("runs");
    assert_eq!(found.order, [0, 2, 1, 3]);
    assert_close!(found.scores, [4.083_655_101_574, 2.0], atol = 1e-11);
    assert!(found.kkt.holds() && found.finished && found.rescues == 0, "{found:?}");
    assert_eq!(found.weights.edges().len(), 4);
}

#[test]
fn v7_what_an_order_allows() {
    // Z of the card: row i is true for the columns that i does not precede.
    let fits = on_order(&population(), &[0, 1, 2, 3]).expect("solved");
    for (j, fit) in fits.iter().enumerate() {
        assert!((j..4).all(|i| fit.weights[i] == 0.0));
    }
}

#[test]
fn settings_and_starts_out_of_range_are_told() {
    let score = population();
    for (topo, start, told) in [
        (
            Topo { small: Some(0), ..Topo::default() },
            vec![0, 1, 2, 3],
            "small: must be in 1..=6 for 4 nodes, got 0",
        ),
        (
            Topo { large: Some(400), ..Topo::default() },
            vec![0, 1, 2, 3],
            "large: must be in 1..=6, from the small set to all pairs of 4 nodes, got 400",
        ),
        (Topo::default(), vec![0, 1, 2], "the graph: an order of 3 nodes, and there are 4"),
        (Topo::default(), vec![0, 1, 2, 2], "the graph: node 2 of the order is not there or occurs twice"),
        (
            Topo { gain: f64::NAN, ..Topo::default() },
            vec![0, 1, 2, 3],
            "gain: must be >= 0, got NaN (default 0.0000000001)",
        ),
    ] {
        assert_eq!(topo.run(&score, &start).expect_err(told).to_string(), told);
    }
    let one = LeastSquares::from_gram(vec![2.0], 1).expect("moments");
    let found = Topo::default().run(&one, &[0]).expect("one node");
    assert!(found.finished && found.weights.edges().is_empty());
    assert_close!(found.score(), 1.0, atol = 1e-15);
    let cut = Topo { steps: 0, ..Topo::default() }.run(&score, &[3, 2, 1, 0]).expect("runs");
    assert!(!cut.finished && cut.notes[0].contains("cut off"), "{:?}", cut.notes);
}

/// Samples of a graph with equal variances, whose order has the least score of the population.
fn samples(d: usize, edges: usize, n: usize, seed: u64) -> (Weights, Data) {
    let truth = simulate::weighted(&simulate::erdos_renyi(d, edges, seed).expect("a graph"), seed);
    let data = simulate::linear(&truth, n, Noise::Gaussian, seed).expect("samples");
    (truth, data.scaled(Scaling::Centre).expect("scales"))
}

#[test]
fn every_score_ends_where_no_exchange_gains_and_some_start_at_the_best_order_of_all() {
    // Five nodes: all 120 orders are tried.
    for seed in 0..3 {
        let (_, data) = samples(5, 6, 300, seed);
        let signs = |x: &Vec<f64>| x.iter().map(|x| f64::from(u8::from(*x > 0.0))).collect();
        let labels = Data::unnamed(data.columns().iter().map(signs).collect()).expect("data");
        let scores: [Box<dyn Score>; 3] = [
            Box::new(LeastSquares::new(&data).expect("moments")),
            Box::new(Lasso::new(&data, 0.1).expect("moments")),
            Box::new(Logistic::new(&labels, 0.01).expect("labels")),
        ];
        for (which, score) in scores.iter().enumerate() {
            let best = permutations(5)
                .iter()
                .map(|order| total(&on_order(score.as_ref(), order).expect("solved")))
                .fold(f64::INFINITY, f64::min);
            let topo = Topo { small: Some(10), large: Some(10), ..Topo::default() };
            // One start may end at a local minimum.
            let reached = (0..30)
                .map(|start| {
                    let found = topo.run(score.as_ref(), &random_order(5, seed, start)).expect("runs");
                    assert!(found.kkt.holds() && found.finished, "{which} {:?}", found.kkt);
                    assert!(found.scores.windows(2).all(|pair| pair[1] < pair[0]), "{:?}", found.scores);
                    // All pairs were tried: no exchange has a gain, by regressions of the whole order.
                    for first in 0..5 {
                        for last in first + 1..5 {
                            let mut order = found.order.clone();
                            order.swap(first, last);
                            let other = total(&on_order(score.as_ref(), &order).expect("solved"));
                            assert!(other > found.score() - 1e-8, "{which} {other} {}", found.score());
                        }
                    }
                    found.score()
                })
                .fold(f64::INFINITY, f64::min);
            assert_close!(reached, best, rtol = 1e-7);
        }
    }
}

#[test]
fn a_curved_mechanism_is_learned_by_networks() {
    let graph = Weights::from_edges(3, &[(0, 1, 1.0), (1, 2, 1.0)]).expect("a graph");
    let data = simulate::nonlinear(&graph, 200, simulate::Mechanism::Mim, 1).expect("samples");
    let data = data.scaled(Scaling::Centre).expect("scales");
    let config = MlpConfig { hidden: 5, ..MlpConfig::default() };
    let score = Mlp::new(&data, config).expect("settings");
    let topo = Topo { choice: Choice::First, ..Topo::default() };
    let found = topo.run(&score, &[2, 1, 0]).expect("runs");
    assert!(found.scores.windows(2).all(|pair| pair[1] < pair[0]), "{:?}", found.scores);
    assert!(found.kkt.holds(), "{:?} {:?}", found.kkt, found.notes);
    let worst = total(&on_order(&score, &[2, 1, 0]).expect("solved"));
    assert!(found.score() <= worst);
}

#[test]
fn the_same_start_gives_the_same_bits_with_any_number_of_threads() {
    let (_, data) = samples(12, 24, 200, 5);
    let score = Lasso::new(&data, 0.05).expect("moments");
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| Topo::default().run(&score, &random_order(12, 0, 0)).expect("runs"))
    };
    assert_eq!(run(1), run(3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn searches_on_any_samples_descend_to_the_conditions(
        values in proptest::collection::vec(-3.0..3.0_f64, 6 * 12), rows in 2_usize..12, scale in -4.0..4.0_f64, seed in 0_u64..100,
    ) {
        // Fewer rows than columns in half of the cases.
        let columns: Vec<Vec<f64>> =
            (0..6).map(|j| (0..rows).map(|r| values[j * 12 + r] * 10.0_f64.powf(scale * f64::from(u8::from(j == 2)))).collect()).collect();
        let Ok(data) = Data::unnamed(columns) else { return Ok(()) };
        let data = data.scaled(Scaling::Standardise).expect("scales");
        for score in [&LeastSquares::new(&data).expect("moments") as &dyn Score, &Lasso::new(&data, 0.05).expect("moments")] {
            let found = Topo::default().run(score, &random_order(6, seed, 0)).expect("runs");
            prop_assert!(found.finished && found.kkt.holds(), "{:?}", found.kkt);
            prop_assert!(found.scores.windows(2).all(|pair| pair[1] < pair[0]));
            // Every fitted order is without a cycle.
            let a: Vec<f64> = found.weights.values().iter().map(|w| w.abs()).collect();
            prop_assert!(found.weights.order().is_some());
            if let Some((h, _)) = crate::dag::Acyclicity::LogDet(1.0).value_and_grad(&a, 6) {
                prop_assert!(h.abs() < 1e-9, "{h}");
            }
        }
    }
}
