//! Every bilevel solver on random problems with whatever a caller may get wrong, as `any_input` does it for those of one level.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::select;
use saddlepoint_opt::bilevel::{Bilevel, Outcome};
use saddlepoint_opt::bilevel::{
    By, F2sa, Form, Hypergradient, Loops, LowerCurvature, LvHba, PenaltyBilevel, Quadratic, Sizes, Solver,
};
use saddlepoint_opt::outcome::Status;
use saddlepoint_opt::problem::Simple;
use saddlepoint_opt::solver::Stop;
use saddlepoint_opt::{Error, Result};

use super::any_input::{
    Gives, gives, not_negative, outside, positive, require, scale, setting, simple, start, stop, stops, told,
    unfit,
};

const MOST: usize = 2;
/// Calls of oracles that no run with the limits below needs, its diagnosis included.
const BUDGET: u64 = 100_000_000;

/// An oracle of a problem.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Oracle {
    Upper,
    UpperGrad,
    Lower,
    LowerGrad,
    Constraints,
    Vjp,
    Project,
    HessYy,
    HessXy,
}

const ORACLES: [Oracle; 9] = [
    Oracle::Upper,
    Oracle::UpperGrad,
    Oracle::Lower,
    Oracle::LowerGrad,
    Oracle::Constraints,
    Oracle::Vjp,
    Oracle::Project,
    Oracle::HessYy,
    Oracle::HessXy,
];

/// What an oracle writes in place of what it should, and when.
#[derive(Debug, Clone, Copy)]
struct Fault {
    oracle: Oracle,
    /// From this call on; calls of all oracles count.
    from: u64,
    /// Above this first upper variable.
    beyond: f64,
    /// Nothing makes a projection an error.
    gives: Gives,
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    let from = prop_oneof![1 => Just(0), 3 => 0..2000_u64];
    let beyond = prop_oneof![1 => Just(f64::NEG_INFINITY), 1 => -1.0..2.0f64];
    let fault = (select(ORACLES.to_vec()), from, beyond, gives())
        .prop_map(|(oracle, from, beyond, gives)| Some(Fault { oracle, from, beyond, gives }));
    prop_oneof![1 => Just(None), 1 => fault]
}

/// A problem with quadratic objectives and affine constraints, one of whose oracles may fail.
#[derive(Debug)]
struct Wild {
    inner: Quadratic,
    sets: [Simple; 2],
    scales: [f64; 2],
    fault: Option<Fault>,
    calls: Cell<u64>,
}

impl Wild {
    /// What the fault gives at this call of an oracle, if it is one.
    fn wrong(&self, oracle: Oracle, x: &[f64]) -> Option<Gives> {
        let call = self.calls.replace(self.calls.get() + 1);
        assert!(call < BUDGET, "the run does not end");
        let fault = self.fault.filter(|fault| fault.oracle == oracle && call >= fault.from)?;
        x.first().is_none_or(|x| *x > fault.beyond).then_some(fault.gives)
    }

    fn spoiled(&self, oracle: Oracle, x: &[f64], outs: &mut [&mut [f64]]) -> bool {
        let wrong = self.wrong(oracle, x);
        if let Some(gives) = wrong {
            for out in outs {
                gives.fill(out);
            }
        }
        wrong.is_some()
    }

    fn scaled(&self, level: usize, outs: &mut [&mut [f64]]) {
        for out in outs {
            out.iter_mut().for_each(|out| *out *= self.scales[level]);
        }
    }
}

impl Bilevel for Wild {
    fn sizes(&self) -> Sizes {
        self.inner.sizes()
    }

    fn upper(&self, x: &[f64], y: &[f64]) -> f64 {
        let value = || self.scales[0] * self.inner.upper(x, y);
        self.wrong(Oracle::Upper, x).map_or_else(value, Gives::number)
    }

    fn upper_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        if !self.spoiled(Oracle::UpperGrad, x, &mut [dx, dy]) {
            self.inner.upper_grad(x, y, dx, dy);
            self.scaled(0, &mut [dx, dy]);
        }
    }

    fn lower(&self, x: &[f64], y: &[f64]) -> f64 {
        let value = || self.scales[1] * self.inner.lower(x, y);
        self.wrong(Oracle::Lower, x).map_or_else(value, Gives::number)
    }

    fn lower_grad(&self, x: &[f64], y: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        if !self.spoiled(Oracle::LowerGrad, x, &mut [dx, dy]) {
            self.inner.lower_grad(x, y, dx, dy);
            self.scaled(1, &mut [dx, dy]);
        }
    }

    fn constraints(&self, x: &[f64], y: &[f64], g: &mut [f64]) {
        if !self.spoiled(Oracle::Constraints, x, &mut [g]) {
            self.inner.constraints(x, y, g);
        }
    }

    fn vjp(&self, x: &[f64], y: &[f64], w: &[f64], dx: &mut [f64], dy: &mut [f64]) {
        if !self.spoiled(Oracle::Vjp, x, &mut [dx, dy]) {
            self.inner.vjp(x, y, w, dx, dy);
        }
    }

    fn equality(&self, i: usize) -> bool {
        self.inner.equality(i)
    }

    fn upper_set(&self) -> &Simple {
        &self.sets[0]
    }

    fn lower_set(&self) -> &Simple {
        &self.sets[1]
    }

    fn project(&self, x: &mut [f64], y: &mut [f64]) -> Result<()> {
        match self.wrong(Oracle::Project, x) {
            Some(Gives::Number(number)) => x.iter_mut().chain(y).for_each(|v| *v = number),
            Some(Gives::Nothing) => return Err(Error::Problem { problem: "no projection".to_owned() }),
            None => return self.inner.project(x, y),
        }
        Ok(())
    }
}

impl LowerCurvature for Wild {
    fn hess_yy(&self, x: &[f64], y: &[f64], v: &[f64], out: &mut [f64]) {
        if !self.spoiled(Oracle::HessYy, x, &mut [out]) {
            self.inner.hess_yy(x, y, v, out);
            self.scaled(1, &mut [out]);
        }
    }

    fn hess_xy(&self, x: &[f64], y: &[f64], v: &[f64], out: &mut [f64]) {
        if !self.spoiled(Oracle::HessXy, x, &mut [out]) {
            self.inner.hess_xy(x, y, v, out);
            self.scaled(1, &mut [out]);
        }
    }
}

/// A problem and a start.
#[derive(Debug, Clone)]
struct Case {
    n: usize,
    m: usize,
    forms: [Form; 2],
    scales: [f64; 2],
    sets: [Simple; 2],
    /// `a`, `b`, and whether it is an equality.
    rows: Vec<(Vec<f64>, f64, bool)>,
    fault: Option<Fault>,
    x: Vec<f64>,
    y: Vec<f64>,
}

/// Quadratic, convex or not.
fn form(len: usize) -> impl Strategy<Value = Form> {
    let element = || prop_oneof![3 => -1.0..1.0f64, 1 => Just(0.0)];
    let factor = prop::collection::vec(element(), len * len);
    (factor, prop::collection::vec(element(), len), any::<bool>(), 0.0..1.0f64).prop_map(
        move |(a, linear, convex, ridge)| {
            let product = |i: usize, j: usize| -> f64 {
                if !convex {
                    return a[i.min(j) * len + i.max(j)];
                }
                let sum: f64 = (0..len).map(|k| a[k * len + i] * a[k * len + j]).sum();
                sum + if i == j { ridge } else { 0.0 }
            };
            let matrix: Vec<f64> = (0..len * len).map(|k| product(k / len, k % len)).collect();
            Form::new(matrix, linear, 0.0)
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    (0..=MOST, 0..=MOST).prop_flat_map(|(n, m)| {
        let row = (prop::collection::vec(-1.0..1.0f64, n + m), -1.0..1.0f64, prop::bool::weighted(0.3));
        let rows = prop_oneof![2 => Just(Vec::new()).boxed(), 1 => prop::collection::vec(row, 1..3).boxed()];
        let set = |len| prop_oneof![1 => Just(Simple::Free).boxed(), 1 => simple(len).boxed()];
        ((form(n + m), form(n + m), scale(), scale()), (set(n), set(m), rows, fault()), (start(n), start(m)))
            .prop_map(move |((upper, lower, of_upper, of_lower), (outer, inner, rows, fault), (x, y))| {
                let (forms, scales, sets) = ([upper, lower], [of_upper, of_lower], [outer, inner]);
                Case { n, m, forms, scales, sets, rows, fault, x, y }
            })
    })
}

impl Case {
    fn problem(&self) -> Option<Wild> {
        let [upper, lower] = self.forms.clone();
        let mut inner = Quadratic::new(self.n, self.m, upper, lower).expect("finite and symmetric");
        for (a, b, equality) in &self.rows {
            inner = if *equality { inner.equal(a, *b) } else { inner.at_most(a, *b) }.ok()?;
        }
        // Sets that do not fit are for the solvers to refuse.
        inner = match inner.clone().within(self.sets[0].clone(), self.sets[1].clone()) {
            Ok(within) => within,
            Err(_) => inner,
        };
        let (sets, scales, calls) = (self.sets.clone(), self.scales, Cell::new(0));
        Some(Wild { inner, sets, scales, fault: self.fault, calls })
    }

    /// Words of one of which a refusal has to consist, whatever the solver.
    fn wrong(&self) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        for (set, len) in [(&self.sets[0], self.n), (&self.sets[1], self.m)] {
            unfit(set, len, &mut wrong);
            require(&mut wrong, !norm(set), "is kept in a norm");
        }
        for (start, len, length, place) in [
            (&self.x, self.n, "upper start", "of the upper start"),
            (&self.y, self.m, "lower start", "of the lower start"),
        ] {
            require(&mut wrong, start.len() == len, length);
            require(&mut wrong, start.iter().all(|v| v.is_finite()), place);
        }
        wrong
    }

    /// What may be refused, but need not be.
    fn doubtful(&self) -> Vec<&'static str> {
        let mut doubtful = Vec::new();
        require(&mut doubtful, self.rows.is_empty(), "do not settle");
        let projects = self.fault.is_none_or(|fault| fault.oracle != Oracle::Project);
        require(&mut doubtful, projects, "no projection");
        require(&mut doubtful, projects, "the projection of the start is not finite");
        doubtful
    }
}

fn norm(set: &Simple) -> bool {
    match set {
        Simple::L1(_) => true,
        Simple::Product(parts) => parts.iter().any(|(_, part)| norm(part)),
        _ => false,
    }
}

/// Runs a solver and says what is not as it has to be.
fn complaint<S>(case: &Case, solver: &S, mut wrong: Vec<&'static str>) -> std::result::Result<(), String>
where
    S: Solver<Wild>,
{
    let Some(problem) = case.problem() else { return Ok(()) };
    wrong.extend(case.wrong());
    stops(solver.stop(), &mut wrong);
    let out = match solver.solve(&problem, &case.x, &case.y) {
        Err(error) => {
            let told = error.to_string();
            let named = wrong.iter().chain(&case.doubtful()).any(|wrong| told.contains(wrong));
            return if named { Ok(()) } else { Err(format!("refused by {told:?}, and wrong is {wrong:?}")) };
        }
        Ok(_) if !wrong.is_empty() => return Err(format!("taken, and wrong is {wrong:?}")),
        Ok(out) => out,
    };
    untrue(case, &out, solver.stop()).map_or(Ok(()), |lie| Err(format!("{lie}: {out:?}")))
}

/// What an outcome says that is not so.
fn untrue(case: &Case, out: &Outcome, stop: Stop) -> Option<&'static str> {
    let optimal = out.status == Status::Optimal;
    let error = out.diagnosis.error();
    let said = |lie: bool, what| lie.then_some(what);
    let point = || out.x.iter().chain(&out.y);
    said(out.x.len() != case.n || out.y.len() != case.m, "a point of another problem")
        .or(said(point().any(|v| !v.is_finite()), "a point that is not finite"))
        .or(said(optimal && error.is_nan(), "optimal without a hyper-gradient"))
        .or(said(optimal && error > stop.tolerance, "optimal above the tolerance"))
        .or(said(optimal && !(out.upper.is_finite() && out.lower.is_finite()), "optimal without objectives"))
        .or(said(out.iterations > stop.iterations, "more iterations than asked for"))
        .or(said(
            case.fault.is_none() && (outside(&case.sets[0], &out.x) || outside(&case.sets[1], &out.y)),
            "a point outside of its set",
        ))
}

/// A setting that is measured where it is not given.
fn given() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![4 => Just(None), 1 => setting(0.05).prop_map(Some)]
}

fn seed() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![12 => Just(None), 1 => Just(Some(1))]
}

fn lv_hba() -> impl Strategy<Value = LvHba> {
    let steps = (given(), given(), given());
    let rest = (setting(1.0), setting(1.0), setting(1.0), setting(0.3), setting(1000.0));
    (steps, rest, stop()).prop_map(|((alpha, beta, eta), (gamma1, gamma2, c, power, r), stop)| LvHba {
        alpha,
        beta,
        eta,
        gamma1,
        gamma2,
        c,
        power,
        r,
        stop,
    })
}

fn penalty() -> impl Strategy<Value = PenaltyBilevel> {
    let loops = prop_oneof![
        8 => Just(Loops::Double { inner: 5, batch: 1 }),
        1 => (0..3_u32, 0..3_u32).prop_map(|(inner, batch)| Loops::Double { inner, batch }),
        4 => given().prop_map(|eta| Loops::Single { eta }),
    ];
    let sigmas = (setting(0.1), setting(1.0 / 3.0), setting(0.01), setting(0.5));
    (loops, sigmas, (given(), given(), given()), seed(), stop()).prop_map(
        |(loops, (sigma, power, floor, beta), (alpha, gamma, rho), sampled, stop)| PenaltyBilevel {
            loops,
            sigma,
            power,
            floor,
            alpha,
            beta,
            gamma,
            rho,
            sampled,
            stop,
        },
    )
}

fn f2sa() -> impl Strategy<Value = F2sa> {
    let steps = (setting(0.1), setting(1.0 / 3.0), setting(0.2), setting(0.0), setting(100.0), setting(1.0));
    let inner = prop_oneof![8 => Just(1_u32), 1 => 0..3_u32];
    (steps, inner, setting(1.0), given(), seed(), stop()).prop_map(
        |((alpha, a, gamma, c, k0, xi), inner, lambda, delta, sampled, stop)| F2sa {
            alpha,
            a,
            gamma,
            c,
            k0,
            xi,
            inner,
            lambda,
            delta,
            sampled,
            stop,
        },
    )
}

fn hypergradient() -> impl Strategy<Value = Hypergradient> {
    let by = prop_oneof![
        setting(1e-9).prop_map(|tolerance| By::Implicit { tolerance }),
        (0..4_u32).prop_map(|steps| By::Unrolled { steps }),
    ];
    (by, stop()).prop_map(|(by, stop)| Hypergradient { by, stop })
}

proptest! {
    #[test]
    fn lv_hba_ends_with_the_truth(case in case(), solver in lv_hba()) {
        let mut wrong = Vec::new();
        for (key, step) in [("alpha: ", solver.alpha), ("beta: ", solver.beta), ("eta: ", solver.eta)] {
            require(&mut wrong, step.is_none_or(positive), key);
        }
        for (key, value) in
            [("gamma1: ", solver.gamma1), ("gamma2: ", solver.gamma2), ("c: ", solver.c), ("r: ", solver.r)]
        {
            require(&mut wrong, positive(value), key);
        }
        require(&mut wrong, (0.0..=0.5).contains(&solver.power), "power: ");
        told("LV-HBA", &solver, &case, complaint(&case, &solver, wrong))?;
    }

    #[test]
    fn penalty_bilevel_ends_with_the_truth(case in case(), solver in penalty()) {
        let mut wrong = Vec::new();
        require(&mut wrong, positive(solver.sigma), "sigma: ");
        require(&mut wrong, not_negative(solver.power), "power: ");
        require(&mut wrong, solver.floor > 0.0 && solver.floor <= solver.sigma, "floor: ");
        for (key, step) in [("alpha: ", solver.alpha), ("gamma: ", solver.gamma), ("rho: ", solver.rho)] {
            require(&mut wrong, step.is_none_or(positive), key);
        }
        let share = |share: f64| share > 0.0 && share <= 1.0;
        require(&mut wrong, share(solver.beta), "beta: ");
        match solver.loops {
            Loops::Double { inner, batch } => {
                require(&mut wrong, inner > 0, "inner: ");
                require(&mut wrong, batch > 0, "batch: ");
            }
            Loops::Single { eta } => require(&mut wrong, eta.is_none_or(share), "eta: "),
        }
        require(&mut wrong, case.rows.is_empty(), "its lower level has constraints g");
        require(&mut wrong, solver.sampled.is_none(), "sampled gradients were asked for");
        told("penalty-bilevel", &solver, &case, complaint(&case, &solver, wrong))?;
    }

    #[test]
    fn f2sa_ends_with_the_truth(case in case(), solver in f2sa()) {
        let mut wrong = Vec::new();
        for (key, value) in [
            ("alpha: ", solver.alpha),
            ("gamma: ", solver.gamma),
            ("k0: ", solver.k0),
            ("xi: ", solver.xi),
            ("lambda: ", solver.lambda),
        ] {
            require(&mut wrong, positive(value), key);
        }
        for (key, value) in [("a: ", solver.a), ("c: ", solver.c), ("delta: ", solver.delta.unwrap_or(0.0))] {
            require(&mut wrong, not_negative(value), key);
        }
        require(&mut wrong, solver.inner > 0, "inner: ");
        let whole = case.rows.is_empty() && case.sets[1] == Simple::Free;
        require(&mut wrong, whole, "its lower level has a set or constraints");
        require(&mut wrong, solver.sampled.is_none(), "sampled gradients were asked for");
        told("F2SA", &solver, &case, complaint(&case, &solver, wrong))?;
    }

    #[test]
    fn hypergradients_end_with_the_truth(case in case(), solver in hypergradient()) {
        let mut wrong = Vec::new();
        match solver.by {
            By::Implicit { tolerance } => require(&mut wrong, positive(tolerance), "tolerance: "),
            By::Unrolled { steps } => require(&mut wrong, steps > 0, "steps: "),
        }
        require(&mut wrong, case.rows.is_empty(), "its lower level has constraints g");
        told("hypergradient", &solver, &case, complaint(&case, &solver, wrong))?;
    }
}

/// `min y²/2 where y minimises (y − x)²/2`, one of whose oracles fails from a call on.
fn failing(oracle: Oracle, from: u64, gives: f64) -> Wild {
    let upper = Form::new([0.0, 0.0, 0.0, 1.0], [0.0; 2], 0.0);
    let lower = Form::new([1.0, -1.0, -1.0, 1.0], [0.0; 2], 0.0);
    let inner = Quadratic::new(1, 1, upper, lower).expect("symmetric");
    let fault = Some(Fault { oracle, from, beyond: f64::NEG_INFINITY, gives: Gives::Number(gives) });
    Wild { inner, sets: [Simple::Free, Simple::Free], scales: [1.0; 2], fault, calls: Cell::new(0) }
}

#[test]
fn a_projection_that_is_not_finite_is_told_at_the_start_and_ends_a_run_later() {
    let told = [
        LvHba::default().solve(&failing(Oracle::Project, 0, f64::NAN), &[1.0], &[1.0]),
        PenaltyBilevel::default().solve(&failing(Oracle::Project, 0, f64::NAN), &[1.0], &[1.0]),
        Hypergradient::default().solve(&failing(Oracle::Project, 0, f64::NAN), &[1.0], &[1.0]),
    ];
    for told in told {
        assert_eq!(
            told.expect_err("refused").to_string(),
            "the problem: the projection of the start is not finite; Bilevel::project must give a point of its set"
        );
    }
    let out =
        LvHba::default().solve(&failing(Oracle::Project, 1, f64::INFINITY), &[1.0], &[0.5]).expect("runs");
    assert_eq!((out.status, out.x[0], out.y[0]), (Status::NotFinite, 1.0, 0.5));
}

#[test]
fn gradients_of_an_objective_without_a_value_are_not_believed() {
    for oracle in [Oracle::Upper, Oracle::Lower] {
        let problem = failing(oracle, 0, f64::NAN);
        let out = PenaltyBilevel::default().solve(&problem, &[1.0], &[1.0]).expect("runs");
        assert_eq!(out.status, Status::NotFinite, "{oracle:?}");
        assert!(out.diagnosis.error() <= 1e-3 && out.x[0].abs() < 0.1, "{out:?}");
    }
}
