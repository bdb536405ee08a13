use proptest::prelude::*;
use saddlepoint_core::test::assert_close;

use super::super::toy;
use super::super::{Form, Quadratic, STOP};
use super::*;
use crate::problem::{Bounds, Simple};

fn constant(loops: Loops, alpha: f64, beta: f64) -> PenaltyBilevel {
    PenaltyBilevel {
        loops,
        power: 0.0,
        floor: 0.1,
        alpha: Some(alpha),
        beta,
        gamma: Some(0.3),
        rho: Some(1.0),
        stop: Stop { tolerance: 1e-300, iterations: 1 << 40 },
        ..PenaltyBilevel::default()
    }
}

/// `F = (y − 1)²/2 + 0.05 x²`, `f = (y − x)²/2` with `|x| <= 5`.
fn boxed() -> Quadratic {
    toy::scalar(None).within(Bounds::new(vec![-5.0], vec![5.0]), Simple::Free).expect("fits")
}

/// What each step of the list leaves, of `x, y, z, u, w`.
fn iterates(solver: &PenaltyBilevel, steps: &[u64]) -> Vec<[f64; 5]> {
    let problem = boxed();
    let mut s = solver.init(&problem, &[3.0], &[0.0]).expect("valid");
    let mut run = |&k: &u64| {
        while s.k < k {
            assert_eq!(solver.step(&problem, &mut s).expect("steps"), Flow::Continue);
        }
        [s.x[0], s.y[0], s.z[0], s.u[0], s.w[0]]
    };
    steps.iter().map(&mut run).collect()
}

#[test]
fn iterates_of_the_double_loop_are_those_of_the_formula() {
    let found =
        iterates(&constant(Loops::Double { inner: 5, batch: 1 }, 0.02, 0.5), &[1, 2, 3, 10, 100, 1000]);
    let expected = [
        [2.992_131_398_730, 0.732_976_993_650, 0.742_320_000_000],
        [2.981_035_376_296, 1.273_454_534_318, 1.299_013_332_502],
        [2.966_178_018_598, 1.670_736_432_292, 1.715_212_867_018],
        [2.776_809_751_442, 2.570_817_601_841, 2.708_880_229_450],
        [1.149_162_039_635, 1.156_971_575_420, 1.173_990_518_146],
        [0.900_900_901_218, 0.909_909_910_226, 0.900_900_901_250],
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert_close!(found[..3], expected[..], atol = 2e-12);
    }
}

#[test]
fn iterates_of_the_single_loop_are_those_of_the_formula() {
    let found = iterates(&constant(Loops::Single { eta: None }, 0.01, 0.2), &[1, 2, 3, 10, 1000, 8000]);
    for (found, expected) in found.iter().zip([
        [3.0, 0.186, 0.18, 0.93, 0.9],
        [2.998_59, 0.414_78, 0.406_8, 1.3299, 1.314],
        [2.995_477_11, 0.641_038_8, 0.634_883_4, 1.546_074, 1.547_217],
    ]) {
        assert_close!(*found, expected, atol = 1e-12);
    }
    assert_close!(found[3][0], 2.944_361_069_156, atol = 1e-11);
    assert_close!(found[3][3..], [2.198_564_814_734, 2.266_353_831_263][..], atol = 1e-11);
    assert_close!(found[4][0], 0.900_920_408_280, atol = 1e-11);
    assert_close!(found[5][..3], [0.900_900_900_901, 0.909_909_909_910, 0.900_900_900_901][..], atol = 1e-11);
}

#[test]
fn both_loops_end_at_the_minimiser_of_the_penalised_objective() {
    // argmin ψ_σ = 1/(1 + 0.1 (1 + σ)).
    for (sigma, expected) in [(0.1, 0.900_900_900_901), (0.01, 0.908_265_213_442)] {
        for loops in [Loops::Double { inner: 5, batch: 1 }, Loops::Single { eta: None }] {
            let stop = Stop { tolerance: 1e-9, iterations: 400_000 };
            let solver =
                PenaltyBilevel { loops, sigma, power: 0.0, floor: sigma, stop, ..PenaltyBilevel::default() };
            let out = solver.solve(&toy::scalar(None), &[3.0], &[0.0]).expect("runs");
            assert_close!(out.x[0], expected, atol = 1e-8);
            // It rests, at a point that the problem itself does not call a solution.
            assert_eq!(out.status, Status::Stalled);
            assert!(out.notes[0].contains("bias of its penalty"), "{:?}", out.notes);
        }
    }
}

#[test]
fn a_box_of_the_lower_level_is_kept() {
    let out = PenaltyBilevel::default().solve(&toy::scalar(Some(0.5)), &[-3.0], &[2.0]).expect("runs");
    // For x >= 1/2 the lower level answers 1/2: ψ = 0.125 + 0.05 x², least at the kink.
    assert!(out.y[0].abs() <= 0.5);
    assert_close!(out.x[0], 0.5, atol = 0.02);
}

fn noisy(loops: Loops, seed: u64) -> PenaltyBilevel {
    let stop = Stop { iterations: 3000, ..STOP };
    let (gamma, alpha) = (Some(0.05), Some(0.004));
    PenaltyBilevel {
        loops,
        sampled: Some(seed),
        gamma,
        alpha,
        power: 0.0,
        floor: 0.1,
        stop,
        ..PenaltyBilevel::default()
    }
}

#[test]
fn momentum_takes_the_noise_out_of_the_gradients_with_one_sample_a_step() {
    let problem = toy::scalar(None).noisy(0.5);
    // The deviation of the estimate of ∇_x F from 0.1 x, and of x from its goal.
    let errors = |eta| {
        let square = |seed| {
            let solver = noisy(Loops::Single { eta }, seed);
            let mut s = solver.init(&problem, &[1.5], &[1.5]).expect("valid");
            let mut x = 0.0;
            while s.k < 3000 {
                x = s.x[0];
                let _ = solver.step(&problem, &mut s).expect("steps");
            }
            let estimate = s.memory.as_ref().expect("gradients are sampled").upper[0][0];
            ((estimate - 0.1 * x).powi(2), (s.x[0] - 0.900_900_900_901).powi(2))
        };
        let each: Vec<(f64, f64)> = (0..16).map(square).collect();
        let root = |sum: f64| (sum / 16.0).sqrt();
        [root(each.iter().map(|each| each.0).sum()), root(each.iter().map(|each| each.1).sum())]
    };
    let (plain, momentum) = (errors(Some(1.0)), errors(None));
    // The variance of an average with weight η = 8 (3008)^(−2/3) is η/2 of that of a sample: 0.14² of it.
    assert!(plain[0] > 0.3 && momentum[0] < 0.25 * plain[0], "{momentum:?} {plain:?}");
    assert!(momentum[1] < 0.5, "{momentum:?} {plain:?}");
}

#[test]
fn a_run_goes_on_from_a_written_state_to_the_bit() {
    let problem = toy::scalar(None).noisy(0.5);
    for loops in [Loops::Double { inner: 2, batch: 3 }, Loops::Single { eta: None }] {
        let solver = noisy(loops, 3);
        let mut whole = solver.init(&problem, &[1.5], &[0.0]).expect("valid");
        (0..20).for_each(|_| assert_eq!(solver.step(&problem, &mut whole).expect("steps"), Flow::Continue));
        let mut half = solver.init(&problem, &[1.5], &[0.0]).expect("valid");
        for k in 0..20 {
            if k % 7 == 0 {
                let text = serde_json::to_string(&half).expect("writes");
                half = serde_json::from_str(&text).expect("reads");
            }
            let _ = solver.step(&problem, &mut half).expect("steps");
        }
        assert_eq!(half, whole);
    }
}

proptest! {
    /// With exact gradients the recursion of the momentum gives back the gradient.
    #[test]
    fn the_share_of_the_momentum_plays_no_part_without_noise(eta in 0.01..1.0f64, x in -3.0..3.0f64) {
        let end = |eta| {
            let solver = PenaltyBilevel {
                loops: Loops::Single { eta },
                stop: Stop { iterations: 30, ..STOP },
                ..PenaltyBilevel::default()
            };
            solver.solve(&toy::line(), &[x], &[0.0, 0.0]).expect("runs").x
        };
        prop_assert_eq!(end(Some(eta)), end(None));
    }
}

#[test]
fn what_it_cannot_do_is_refused() {
    let d = PenaltyBilevel::default();
    for (solver, message) in [
        (PenaltyBilevel { floor: 0.2, ..d }, "floor: must be > 0 and <= sigma, got 0.2 (default 0.01)"),
        (PenaltyBilevel { beta: 1.5, ..d }, "beta: must be in (0, 1], got 1.5 (default 0.5)"),
        (
            PenaltyBilevel { loops: Loops::Double { inner: 0, batch: 1 }, ..d },
            "inner: must be >= 1, got 0 (default 5)",
        ),
        (
            PenaltyBilevel { loops: Loops::Single { eta: Some(0.0) }, ..d },
            "eta: must be in (0, 1], got 0 (default min(1, 8 (k+8)^(-2/3)))",
        ),
        (
            PenaltyBilevel { sampled: Some(1), ..d },
            "the problem: sampled gradients were asked for, and it has only exact ones; \
                                                     leave out `sampled`",
        ),
    ] {
        assert_eq!(
            solver.init(&toy::scalar(None), &[0.0], &[0.0]).expect_err("refused").to_string(),
            message
        );
    }
    let error = d.init(&toy::half_space(), &[0.0], &[0.0]).expect_err("refused").to_string();
    assert!(error.contains("which this method cannot hold; use LvHba"), "{error}");
    let upper = Form::new([1.0], [0.0], 0.0);
    let empty = Quadratic::new(1, 0, upper.clone(), upper).expect("fits");
    assert!(d.solve(&empty, &[1.0], &[]).expect("runs").x[0].abs() < 1e-2);
}
