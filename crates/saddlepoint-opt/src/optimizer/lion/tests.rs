//! The update against worked examples, and what every choice of `K` has to keep.

use saddlepoint_core::test::assert_close;

use super::lyapunov::Scheme;
use super::*;
use crate::optimizer::{SignSgd, SignSgdConfig};

/// One of each, for what holds for all of them.
pub(super) const EVERY: [Kappa; 12] = [
    Kappa::L1,
    Kappa::Lp { p: 3.0 },
    Kappa::SoftThreshold { e: 0.5 },
    Kappa::TopK { k: 1 },
    Kappa::TopK { k: 2 },
    Kappa::Huber { e: 0.5 },
    Kappa::Sqrt { e: 0.5 },
    Kappa::LogCosh,
    Kappa::HalfSquare,
    Kappa::L2 { group: Group::Tensor },
    Kappa::L2 { group: Group::Row },
    Kappa::Nuclear,
];

/// A matrix longer than a chunk, an embedding that has no decay, a vector.
const TENSORS: [Tensor; 3] = [
    Tensor { rows: 900, columns: 20, decays: true },
    Tensor { rows: 7, columns: 12, decays: false },
    Tensor { rows: 1, columns: 31, decays: true },
];
const LEN: usize = 900 * 20 + 7 * 12 + 31;

fn start() -> Vec<f32> {
    (0..LEN).map(|i| ((i * 31 % 97) as f32 - 48.0) * 0.02).collect()
}

fn gradient(t: usize) -> Vec<f32> {
    (0..LEN).map(|i| (((i * 17 + t * 29) % 101) as f32 - 50.0) * 10_f32.powi(-((i % 5) as i32))).collect()
}

fn config(kappa: Kappa) -> LionConfig {
    LionConfig { weight_decay: 0.3, kappa, ..LionConfig::default() }
}

fn lion(config: LionConfig) -> Lion {
    Lion::new(config, &TENSORS).expect("valid")
}

fn run(config: LionConfig, threads: usize, steps: usize) -> Vec<f32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
    let (mut lion, mut params) = (lion(config), start());
    pool.install(|| {
        (0..steps).for_each(|t| lion.update(&mut params, &gradient(t), 1e-2, 0.5).expect("finite"));
    });
    params
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// The first vector of the method card, in `f64` by the rule of one element and in `f32` by the optimizer.
#[test]
fn follows_lion_pytorch_by_hand() {
    let (x, m, g) = ([1.0, -2.0, 0.5], [0.1, -0.3, 0.0], [-0.5, 0.2, 0.0]);
    let explicit = [[0.87, -1.84, 0.485], [0.7439, -1.6848, 0.47045]];
    let implicit = [
        [0.873_786_407_767, -1.844_660_194_17, 0.485_436_893_204],
        [0.751_248_939_58, -1.693_844_848_71, 0.471_297_954_567],
    ];
    let momentum = [[0.094, -0.295, 0.0], [0.088_06, -0.290_05, 0.0]];
    let look = [[0.04, -0.25, 0.0], [0.0346, -0.2455, 0.0]];
    for (decay, expected) in [(Decay::Explicit, explicit), (Decay::Implicit, implicit)] {
        let config = LionConfig { decay, ..config(Kappa::L1) };
        let rule = Along { step: Step::new(&config, 0.1, 1.0), slope: sign };
        let tensor = Tensor { rows: 1, columns: 3, decays: true };
        let mut lion = Lion::new(config, &[tensor]).expect("valid");
        let (mut wide_x, mut wide_m) = (x, m);
        let mut params = x.map(|x| x as f32);
        lion.restore(&m.map(|m| m as f32)).expect("same arena");
        for t in 0..2 {
            for i in 0..3 {
                assert_close!(rule.step.look(g[i], wide_m[i]), look[t][i], atol = 1e-12);
                (wide_x[i], wide_m[i]) = rule.step(wide_x[i], g[i], wide_m[i]);
            }
            lion.update(&mut params, &g.map(|g| g as f32), 0.1, 1.0).expect("finite");
            assert_close!(wide_x, expected[t], rtol = 1e-11);
            assert_close!(wide_m, momentum[t], rtol = 1e-11);
            assert_close!(params, expected[t], rtol = 2e-7);
            assert_close!(lion.state(), momentum[t], rtol = 2e-7);
        }
    }
}

#[test]
fn every_kappa_follows_the_formula_in_double_precision() {
    for kappa in EVERY {
        let params = run(config(kappa), 2, 3);
        let (mut x, mut m): (Vec<f64>, _) = (start().into_iter().map(f64::from).collect(), vec![0.0; LEN]);
        for t in 0..3 {
            let g: Vec<f64> = gradient(t).into_iter().map(|g| 0.5 * f64::from(g)).collect();
            let mut from = 0;
            for tensor in TENSORS {
                let place = from..from + tensor.len();
                from = place.end;
                let mut u: Vec<f64> = place.clone().map(|i| 0.9 * m[i] + 0.1 * g[i]).collect();
                kappa.subgradient(&mut u, tensor.columns).expect("finite");
                for (i, u) in place.zip(u) {
                    x[i] = x[i] * if tensor.decays { 1.0 - 1e-2 * 0.3 } else { 1.0 } - 1e-2 * u;
                    m[i] = 0.99 * m[i] + 0.01 * g[i];
                }
            }
        }
        // A momentum that is rounded can fall on the other side of a jump: there the two differ by a whole step.
        let apart = x.iter().zip(&params).filter(|(x, p)| (**x - f64::from(**p)).abs() > 1e-5).count();
        assert!(apart <= 4, "{kappa:?}: {apart} of {LEN} differ");
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for kappa in EVERY {
        assert!(same(&run(config(kappa), 1, 3), &run(config(kappa), 2, 3)), "{kappa:?}");
    }
}

#[test]
fn restart_continues_exactly() {
    for kappa in EVERY {
        let (mut params, mut before) = (start(), lion(config(kappa)));
        for t in 0..3 {
            let mut next = lion(config(kappa));
            next.restore(before.state()).expect("same arena");
            next.update(&mut params, &gradient(t), 1e-2, 0.5).expect("finite");
            before = next;
        }
        assert!(same(&run(config(kappa), 2, 3), &params), "{kappa:?}");
    }
    let message = lion(config(Kappa::L1)).restore(&[0.0]).expect_err("refused").to_string();
    assert_eq!(
        message,
        format!("momentum: expected {LEN} elements, got 1; the state belongs to another problem")
    );
}

#[test]
fn an_implicit_step_is_a_shorter_explicit_one() {
    for kappa in EVERY {
        let implicit = LionConfig { decay: Decay::Implicit, ..config(kappa) };
        let (mut a, mut b) = (start(), start());
        lion(implicit).update(&mut a, &gradient(0), 0.1, 1.0).expect("finite");
        lion(config(kappa)).update(&mut b, &gradient(0), 0.1 / (1.0 + 0.1 * 0.3), 1.0).expect("finite");
        // Where nothing decays the steps are 0.1 and 0.1 / 1.03.
        let decays = |i: usize| !(18_000..18_084).contains(&i);
        assert!((0..LEN).filter(|&i| decays(i)).all(|i| a[i].to_bits() == b[i].to_bits()), "{kappa:?}");
    }
}

#[test]
fn the_sign_of_the_momentum_does_not_matter() {
    let g = [[0.3, -0.2, 0.0, 1.5, -0.7, 0.1], [-1.0, 0.4, 0.2, -0.3, 0.6, -0.1]];
    for kappa in EVERY {
        let config = LionConfig { decay: Decay::Implicit, ..config(kappa) };
        let mut lion = Lion::new(config, &[Tensor { rows: 2, columns: 3, decays: true }]).expect("valid");
        let scheme = Scheme { kappa, columns: 3, lr: 0.1, beta1: 0.9, beta2: 0.99, lambda: 0.3 };
        let (mut params, mut x, mut m) = ([0.5_f32; 6], vec![0.5; 6], vec![0.0; 6]);
        for g in g {
            lion.update(&mut params, &g.map(|g| g as f32), 0.1, 1.0).expect("finite");
            (x, m) = scheme.step(&x, &m, &g).expect("finite");
        }
        assert_close!(params, x, rtol = 1e-5, atol = 1e-6);
        assert_close!(lion.state().iter().map(|m| -m).collect::<Vec<_>>(), m, rtol = 1e-6, atol = 1e-9);
    }
}

#[test]
fn equal_coefficients_are_sign_momentum() {
    for weight_decay in [0.0, 0.3] {
        let lion_config = LionConfig { beta1: 0.9, beta2: 0.9, weight_decay, ..LionConfig::default() };
        let signum = SignSgdConfig { momentum: 0.9, weight_decay };
        let mut signum = SignSgd::new(signum, &TENSORS).expect("valid");
        let mut params = start();
        (0..3).for_each(|t| signum.update(&mut params, &gradient(t), 1e-2, 0.5));
        assert!(same(&run(lion_config, 1, 3), &params));
    }
}

/// `f(x) = ½‖x − b‖²` with `b` outside: every decayed element enters the box at the rate `1 − lr·λ` or faster, and
/// stays.
#[test]
fn the_box_is_entered_and_never_left() {
    let (lr, wd) = (0.05, 0.5);
    let mut lion = Lion::new(
        LionConfig { weight_decay: wd, ..LionConfig::default() },
        &[Tensor { rows: 2, columns: 2, decays: true }],
    )
    .expect("valid");
    let (mut x, b) = ([9.0_f32, -7.0, 1.0, 0.0], [8.0_f32, -9.0, 3.0, -1.0]);
    let outside = |x: &[f32]| x.iter().map(|x| (x.abs() - 2.0).max(0.0)).fold(0.0, f32::max);
    for t in 0..400 {
        let before = outside(&x);
        let g: Vec<f32> = x.iter().zip(b).map(|(x, b)| x - b).collect();
        lion.update(&mut x, &g, lr, 1.0).expect("finite");
        assert!(f64::from(outside(&x)) <= f64::from(before) * (1.0 - lr * wd) + 1e-6, "step {t}: {x:?}");
    }
    assert_close!(x, [2.0, -2.0, 2.0, -1.0], atol = 0.1);
}

#[test]
fn settings_outside_their_range_are_refused() {
    let d = LionConfig::default();
    let with = |kappa| LionConfig { kappa, ..d };
    for (config, message) in [
        (LionConfig { beta1: 1.0, ..d }, "beta1: must be in [0, 1), got 1 (default 0.9)"),
        (LionConfig { beta2: -0.1, ..d }, "beta2: must be in [0, 1), got -0.1 (default 0.99)"),
        (LionConfig { weight_decay: -1.0, ..d }, "weight_decay: must be >= 0, got -1 (default 0)"),
        (with(Kappa::Lp { p: 1.0 }), "kappa.p: must be > 1, got 1 (it has no default)"),
        (with(Kappa::TopK { k: 0 }), "kappa.k: must be >= 1, got 0 (it has no default)"),
        (with(Kappa::SoftThreshold { e: 0.0 }), "kappa.e: must be > 0, got 0 (it has no default)"),
        (with(Kappa::Huber { e: f64::NAN }), "kappa.e: must be > 0, got NaN (it has no default)"),
        (with(Kappa::Sqrt { e: f64::INFINITY }), "kappa.e: must be > 0, got inf (it has no default)"),
    ] {
        assert_eq!(Lion::new(config, &[]).expect_err("refused").to_string(), message);
    }
}
