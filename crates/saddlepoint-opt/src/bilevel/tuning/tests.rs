use std::fmt::Write;
use std::path::Path;

use proptest::prelude::*;
use saddlepoint_core::test::{assert_close, data};

use super::*;
use crate::bilevel::Bilevel;
use crate::examples::libsvm;
use crate::linalg::norm;

/// A small problem with overlapping classes.
fn examples() -> Examples {
    let mut text = String::new();
    for i in 0..40 {
        let (a, b) = ((f64::from(i) * 0.7).sin(), (f64::from(i) * 1.3).cos());
        let label = if a + 0.5 * b + 0.3 * (f64::from(i) * 2.9).sin() > 0.1 { 1 } else { -1 };
        writeln!(text, "{label} 1:{a} 2:{b}").expect("a string grows");
    }
    libsvm::parse(&text, Path::new("made")).expect("reads")
}

fn split() -> Split {
    Split::new(&examples(), 20, 12, 3).and_then(Split::classes).expect("two classes")
}

fn problem() -> Svm {
    let split = split();
    let groups = Weights::Each.groups(&split.train);
    Svm::new(split.train, split.held_out, groups, LIMITS)
}

/// Gradients of both levels, and products with second derivatives, against central differences.
fn derivatives_are_right<P: LowerCurvature>(problem: &P, x: &[f64], y: &[f64]) {
    let (n, m) = (x.len(), y.len());
    let w = [x, y].concat();
    let moved = |i: usize, h: f64| {
        let mut w = w.clone();
        w[i] += h;
        w
    };
    let grad = |upper: bool, w: &[f64]| {
        let (mut dx, mut dy) = (vec![0.0; n], vec![0.0; m]);
        if upper {
            problem.upper_grad(&w[..n], &w[n..], &mut dx, &mut dy);
        } else {
            problem.lower_grad(&w[..n], &w[n..], &mut dx, &mut dy);
        }
        [dx, dy].concat()
    };
    let h = 1e-6;
    for upper in [true, false] {
        let value = |w: &[f64]| {
            if upper { problem.upper(&w[..n], &w[n..]) } else { problem.lower(&w[..n], &w[n..]) }
        };
        let found = grad(upper, &w);
        for i in 0..n + m {
            let difference = (value(&moved(i, h)) - value(&moved(i, -h))) / (2.0 * h);
            assert_close!(found[i], difference, rtol = 1e-5, atol = 1e-7);
        }
    }
    let v: Vec<f64> = (0..m).map(|i| (1.0 + i as f64).sin()).collect();
    let along = |h: f64| {
        let mut w = w.clone();
        crate::linalg::add_scaled(&mut w[n..], h, &v);
        grad(false, &w)
    };
    let (plus, minus) = (along(h), along(-h));
    let difference: Vec<f64> = plus.iter().zip(&minus).map(|(a, b)| (a - b) / (2.0 * h)).collect();
    let (mut xy, mut yy) = (vec![0.0; n], vec![0.0; m]);
    problem.hess_xy(x, y, &v, &mut xy);
    problem.hess_yy(x, y, &v, &mut yy);
    assert_close!([xy, yy].concat(), difference, rtol = 1e-5, atol = 1e-7);
}

#[test]
fn derivatives_of_the_machine_and_of_ridge_are_right() {
    let problem = problem();
    let x: Vec<f64> = (0..20).map(|i| 0.1 * f64::from(i) - 2.0).collect();
    derivatives_are_right(&Hinge(&problem), &x, &[0.7, -0.4, 0.13]);
    let split = split();
    for shared in [true, false] {
        let problem = Ridge::new(split.train.clone(), split.held_out.clone(), shared, LIMITS);
        derivatives_are_right(&problem, if shared { &[-1.0] } else { &[-1.0, 0.5] }, &[0.7, -0.4, 0.13]);
    }
}

#[test]
fn both_forms_of_the_machine_have_the_same_solution() {
    let problem = problem();
    let (hinge, slack) = (Hinge(&problem), Slack(&problem));
    let x = vec![-1.0; 20];
    let y = crate::bilevel::diagnose(&hinge, &x, &[0.0; 3], &[]).1.y;
    let (lifted, multipliers) = slack.lift(&x, &y);
    assert_close!(slack.lower(&x, &lifted), hinge.lower(&x, &y), rtol = 1e-12);
    let (found, response) = crate::bilevel::diagnose(&slack, &x, &lifted, &multipliers);
    assert!(found.lower.error() < 1e-8, "{found}");
    assert_close!(response.y[..3], y[..], atol = 1e-6);
    // The hyper-gradient of one form is that of the other.
    let other = crate::bilevel::diagnose(&hinge, &x, &y, &[]).0;
    assert_close!(found.hypergradient, other.hypergradient, atol = 1e-4);
}

proptest! {
    #[test]
    fn the_joint_projection_of_the_machine_is_one(
        a in prop::collection::vec(-3.0..3.0f64, 23),
        b in prop::collection::vec(-3.0..3.0f64, 23),
    ) {
        let problem = problem();
        let slack = Slack(&problem);
        let project = |y: &[f64]| {
            let (mut x, mut y) = (vec![0.0; 20], y.to_vec());
            slack.project(&mut x, &mut y).expect("projects");
            y
        };
        let (pa, pb) = (project(&a), project(&b));
        let mut g = vec![0.0; 20];
        slack.constraints(&[0.0; 20], &pa, &mut g);
        prop_assert!(g.iter().all(|g| *g < 1e-9), "{g:?}");
        let difference = |a: &[f64], b: &[f64]| norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
        prop_assert!(difference(&pa, &project(&pa)) < 1e-9);
        prop_assert!(difference(&pa, &pb) <= difference(&a, &b) + 1e-9);
        let gain: f64 = (0..23).map(|i| (a[i] - pa[i]) * (pb[i] - pa[i])).sum();
        prop_assert!(gain < 1e-8, "{gain}");
    }
}

#[test]
fn one_penalty_of_ridge_is_that_of_a_search() {
    let split = Split::new(&examples(), 20, 12, 3).expect("fits");
    let problem = Ridge::new(split.train.clone(), split.held_out.clone(), true, LIMITS);
    let psi = |c: f64| crate::bilevel::diagnose(&problem, &[c], &[0.0; 3], &[]).1.upper;
    let best = (0..=360)
        .map(|i| -12.0 + 0.05 * f64::from(i))
        .min_by(|a, b| psi(*a).total_cmp(&psi(*b)))
        .expect("some");
    for (name, method) in Method::all() {
        let tuned = ridge(&split, true, 0.0, &method, &mut Control::default()).expect("runs");
        let found = psi(tuned.outcome.x[0]);
        assert!(
            found <= psi(best) * 1.01,
            "{name}: {} against {best}, {found} {}",
            tuned.outcome.x[0],
            psi(best)
        );
        assert!(tuned.retrained.held_out.loss <= tuned.start.held_out.loss, "{name}");
    }
}

#[test]
fn splits_are_parts_of_the_data_and_flips_are_counted() {
    let all = examples();
    let mut split = Split::new(&all, 20, 12, 3).expect("fits");
    assert_eq!((split.train.len(), split.held_out.len(), split.test.len()), (20, 12, 8));
    for (i, &row) in split.rows.iter().enumerate() {
        assert_eq!(split.train.dot(i, &[1.0, 2.0]).to_bits(), all.dot(row, &[1.0, 2.0]).to_bits());
    }
    assert_eq!(Split::new(&all, 20, 12, None).expect("fits").rows, (0..20).collect::<Vec<_>>());
    let before = split.train.labels.clone();
    let flipped = split.flip(0.4, 1);
    for ((flipped, before), after) in flipped.iter().zip(before).zip(&split.train.labels) {
        assert_close!(*after, if *flipped { -before } else { before }, atol = 0.0);
    }
    let told = |split: Result<Split>| split.expect_err("refused").to_string();
    assert!(
        told(Split::new(&all, 40, 1, 0))
            .contains("cannot take 40 examples for training and 1 to choose by out of 40")
    );
    let one = libsvm::parse("1 1:2\n1 1:3\n1 1:4\n", Path::new("made")).expect("reads");
    assert!(
        told(Split::new(&one, 1, 1, 0).and_then(Split::classes))
            .contains("two different labels, the data have 1")
    );
}

#[test]
fn the_papers_data_are_read() {
    for (name, rows, features) in [("diabetes", 768, 8), ("fourclass", 862, 2), ("breast-cancer", 683, 10)] {
        let Some(path) = data(&format!("opt/bilevel/{name}.txt")) else { return };
        let examples = libsvm::read(&path).expect("reads");
        assert_eq!((examples.len(), examples.features), (rows, features), "{name}");
    }
}

#[test]
fn standardised_parts_share_the_moments_of_the_training_examples() {
    let split = Split::new(&examples(), 20, 12, 3).expect("fits");
    let moments = split.train.moments();
    let raw = split.held_out.clone();
    let split = split.standardised();
    for (mean, deviation) in split.train.moments() {
        assert_close!([mean, deviation], [0.0, 1.0], atol = 1e-12);
    }
    for i in 0..raw.len() {
        let w = [2.0, -3.0];
        let by_hand: f64 = (0..2)
            .map(|j| {
                let unit: Vec<f64> = (0..2).map(|k| f64::from(k == j)).collect();
                w[j] * (raw.dot(i, &unit) - moments[j].0) / moments[j].1
            })
            .sum();
        assert_close!(split.held_out.dot(i, &w), by_hand, atol = 1e-12);
    }
    let constant = libsvm::parse("1 1:2\n2 1:2\n3 1:2\n", Path::new("made")).expect("reads");
    let split = Split::new(&constant, 2, 1, 0).expect("fits").standardised();
    assert_close!(split.train.dot(0, &[1.0]), 0.0, atol = 0.0);
}

#[test]
fn weights_that_fall_with_flips_separate_them() {
    let flipped = [true, false, true, false];
    assert_eq!(separation(&[0.0, 2.0, 1.0, 3.0], &flipped), Some(1.0));
    assert_eq!(separation(&[2.0, 2.0, 2.0, 2.0], &flipped), Some(0.5));
    assert_eq!(separation(&[5.0, 2.0, 1.0, 3.0], &flipped), Some(0.5));
    assert_eq!(separation(&[1.0], &[true]), None);
}

#[test]
fn what_was_tuned_has_names_and_the_duals_are_those_of_the_machine() {
    let split = split();
    for weights in [Weights::Each, Weights::Class, Weights::Shared] {
        for (_, mut method) in Method::all() {
            method.stop().iterations = 20;
            let tuned = svm(&split, weights, -1.0, &method, &mut Control::default()).expect("runs");
            assert_eq!(tuned.names.len(), tuned.outcome.x.len());
            assert_eq!(tuned.duals.len(), 20);
            // Stationarity of the machine in w and b: w = Σ λ_i s_i z_i, 0 = Σ λ_i s_i.
            let mut left = [0.0; 3];
            for (i, dual) in tuned.duals.iter().enumerate() {
                let pull = dual.value * split.train.labels[i];
                split.train.add(i, pull, &mut left[..2]);
                left[2] += pull;
            }
            let w = &tuned.retrained.w;
            assert_close!(left, [w[0], w[1], 0.0], atol = 1e-5);
        }
    }
    assert_eq!(Weights::Class.names(&split), ["class -1", "class 1"]);
}
