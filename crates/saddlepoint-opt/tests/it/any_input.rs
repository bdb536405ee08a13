//! Every solver on random problems with whatever a caller may get wrong: starts and sets that do not fit, settings out of range, functions
//! that are not finite somewhere or from some call on, scales at both ends of the numbers. What comes is an outcome that is true, or an
//! error that names what is wrong; it is an error only where something is.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::sample::select;
use saddlepoint_opt::dual::{NuPi, Penalty};
use saddlepoint_opt::kkt::Judge as _;
use saddlepoint_opt::outcome::{Outcome, Status};
use saddlepoint_opt::problem::{Affine, Ball, Bounds, L1, Problem, Simple, Simplex, between, minimize};
use saddlepoint_opt::solver::{
    AugmentedLagrangian, DualAscent, InteriorPoint, ProjectedGradient, ProximalGradient, SketchedNewton,
    Solver, Stop, System,
};

const MOST: usize = 3;
/// Calls of functions that no run with the limits below needs.
const BUDGET: u64 = 3_000_000;

/// Numbers that are no setting's default, most of them out of any range.
pub(crate) fn odd() -> impl Strategy<Value = f64> {
    select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e-300, 1.0 + 1e-15, 1e300])
}

/// A setting at its usual value, or now and then at an odd one.
pub(crate) fn setting(usual: f64) -> impl Strategy<Value = f64> {
    prop_oneof![24 => Just(usual), 1 => odd()]
}

/// Factors of functions.
pub(crate) fn scale() -> impl Strategy<Value = f64> {
    prop_oneof![6 => Just(1.0), 1 => select(vec![0.0, 1e-300, 1e-8, 1e8, 1e150, 1e300])]
}

/// Elements of a start.
pub(crate) fn start(n: usize) -> impl Strategy<Value = Vec<f64>> {
    let element = || prop_oneof![20 => -2.0..2.0f64, 1 => Just(1e150), 1 => Just(-1e300)];
    let fits = move || prop::collection::vec(element(), n);
    prop_oneof![
        24 => fits(),
        1 => prop::collection::vec(element(), 0..MOST + 2),
        1 => (fits(), any::<prop::sample::Index>(), select(vec![f64::NAN, f64::INFINITY])).prop_map(|(mut x, i, bad)| {
            if !x.is_empty() {
                let i = i.index(x.len());
                x[i] = bad;
            }
            x
        }),
    ]
}

/// What comes in place of what should.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gives {
    Number(f64),
    /// The slice stays as it was.
    Nothing,
}

pub(crate) fn gives() -> impl Strategy<Value = Gives> {
    let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300].map(Gives::Number);
    select([&numbers[..], &[Gives::Nothing]].concat())
}

impl Gives {
    pub(crate) fn number(self) -> f64 {
        if let Self::Number(number) = self { number } else { 0.0 }
    }

    pub(crate) fn fill(self, out: &mut [f64]) {
        if let Self::Number(number) = self {
            out.fill(number);
        }
    }
}

/// What a function returns in place of its value or of its derivatives, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    what: What,
    when: When,
    gives: Gives,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Value,
    Gradient,
    Curvature,
}

#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    /// Where the first variable is above a number.
    Beyond(f64),
    /// From some call on.
    Later(u64),
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    let when = prop_oneof![
        1 => Just(When::Always),
        4 => (-1.0..3.0f64).prop_map(When::Beyond),
        4 => (0..60_u64).prop_map(When::Later),
    ];
    let fault = (select(vec![What::Value, What::Gradient, What::Curvature]), when, gives());
    prop_oneof![2 => Just(None), 1 => fault.prop_map(|(what, when, gives)| Some(Fault { what, when, gives }))]
}

/// `scale (Σ a_i x_i + b_i x_i²/2 + c x_0 x_1 + extra(x_0))`.
#[derive(Debug, Clone)]
struct Function {
    a: Vec<f64>,
    b: Vec<f64>,
    c: f64,
    extra: Extra,
    scale: f64,
    fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy)]
enum Extra {
    Nothing,
    Exponential,
    Logarithm,
    Fourth,
    Root,
}

impl Extra {
    /// Value, first and second derivative.
    fn jet(self, x: f64) -> [f64; 3] {
        match self {
            Self::Nothing => [0.0; 3],
            Self::Exponential => [x.exp(); 3],
            Self::Logarithm => [-x.ln(), -1.0 / x, 1.0 / (x * x)],
            Self::Fourth => [x.powi(4), 4.0 * x.powi(3), 12.0 * x * x],
            Self::Root => [x.sqrt(), 0.5 / x.sqrt(), -0.25 / x.powf(1.5)],
        }
    }
}

fn function(n: usize) -> impl Strategy<Value = Function> {
    let extra = vec![
        Extra::Nothing,
        Extra::Nothing,
        Extra::Exponential,
        Extra::Logarithm,
        Extra::Fourth,
        Extra::Root,
    ];
    let coefficients = || prop::collection::vec(prop_oneof![3 => -2.0..2.0f64, 1 => Just(0.0)], n);
    let all = (coefficients(), coefficients(), -1.0..1.0f64, select(extra), scale(), fault());
    all.prop_map(|(a, b, c, extra, scale, fault)| Function { a, b, c, extra, scale, fault })
}

/// Counts calls, so that what changes with them can, and so that a run without an end is found.
#[derive(Debug, Default)]
pub(crate) struct Calls(AtomicU64);

impl Calls {
    fn next(&self) -> u64 {
        let call = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(call < BUDGET, "the run does not end");
        call
    }
}

impl Function {
    /// What the fault gives at this call, if it is one.
    fn wrong(&self, what: What, call: u64, x: &[f64]) -> Option<Gives> {
        let fault = self.fault.filter(|fault| fault.what == what)?;
        let now = match fault.when {
            When::Always => true,
            When::Beyond(cut) => x.first().is_some_and(|x| *x > cut),
            When::Later(later) => call >= later,
        };
        now.then_some(fault.gives)
    }

    fn value(&self, calls: &Calls, x: &[f64]) -> f64 {
        if let Some(gives) = self.wrong(What::Value, calls.next(), x) {
            return gives.number();
        }
        let sum: f64 = (0..x.len()).map(|i| self.a[i] * x[i] + 0.5 * self.b[i] * x[i] * x[i]).sum();
        let cross = if x.len() > 1 { self.c * x[0] * x[1] } else { 0.0 };
        self.scale * (sum + cross + x.first().map_or(0.0, |x| self.extra.jet(*x)[0]))
    }

    fn grad(&self, calls: &Calls, x: &[f64], g: &mut [f64]) {
        if let Some(gives) = self.wrong(What::Gradient, calls.next(), x) {
            return gives.fill(g);
        }
        (0..x.len()).for_each(|i| g[i] = self.scale * (self.a[i] + self.b[i] * x[i]));
        if x.len() > 1 {
            g[0] += self.scale * self.c * x[1];
            g[1] += self.scale * self.c * x[0];
        }
        if let (Some(g), Some(x)) = (g.first_mut(), x.first()) {
            *g += self.scale * self.extra.jet(*x)[1];
        }
    }

    fn hess_vec(&self, calls: &Calls, x: &[f64], v: &[f64], out: &mut [f64]) {
        if let Some(gives) = self.wrong(What::Curvature, calls.next(), x) {
            return gives.fill(out);
        }
        (0..x.len()).for_each(|i| out[i] = self.scale * self.b[i] * v[i]);
        if x.len() > 1 {
            out[0] += self.scale * self.c * v[1];
            out[1] += self.scale * self.c * v[0];
        }
        if let (Some(out), Some(x)) = (out.first_mut(), x.first()) {
            *out += self.scale * self.extra.jet(*x)[2] * v[0];
        }
    }

    /// Whether it is one and the same function throughout a run.
    fn changes(&self) -> bool {
        matches!(self.fault, Some(Fault { when: When::Later(_), .. }))
    }
}

/// Limits of constraints and bounds.
fn limits() -> impl Strategy<Value = (f64, f64)> {
    let (none, absent) = (f64::NEG_INFINITY, f64::INFINITY);
    prop_oneof![
        6 => (-1.0..1.0f64, 0.0..2.0f64).prop_map(|(lower, width)| (lower, lower + width)),
        3 => (-1.0..1.0f64).prop_map(move |upper| (none, upper)),
        3 => (-1.0..1.0f64).prop_map(move |lower| (lower, absent)),
        6 => (-1.0..1.0f64).prop_map(|at| (at, at)),
        1 => Just((none, absent)),
        1 => Just((-1e300, 1e300)),
        1 => Just((1e300, absent)),
    ]
}

/// The same, or now and then some that no number satisfies.
fn odd_limits() -> impl Strategy<Value = (f64, f64)> {
    let wrong = select(vec![
        (1.0, 0.0),
        (f64::NAN, 0.0),
        (0.0, f64::NAN),
        (f64::INFINITY, f64::INFINITY),
        (f64::NEG_INFINITY, f64::NEG_INFINITY),
    ]);
    prop_oneof![40 => limits(), 1 => wrong]
}

fn bounds(n: usize) -> impl Strategy<Value = Simple> {
    prop::collection::vec(odd_limits(), n)
        .prop_map(|limits| limits.into_iter().unzip())
        .prop_map(|(lower, upper)| Bounds::new(lower, upper).into())
}

fn radius() -> impl Strategy<Value = f64> {
    prop_oneof![8 => 0.1..2.0f64, 1 => odd()]
}

/// Sets of one piece, and norms.
fn piece(n: usize) -> impl Strategy<Value = Simple> {
    let centre = prop::collection::vec(prop_oneof![16 => -1.0..1.0f64, 1 => odd()], n);
    let rows = (prop::collection::vec(-1.0..1.0f64, n), scale());
    prop_oneof![
        4 => Just(Simple::Free),
        4 => bounds(n),
        1 => Just(Simple::from(Simplex)),
        1 => (centre, radius()).prop_map(|(centre, radius)| Ball::new(centre, radius).into()),
        1 => rows.prop_map(move |(row, scale)| {
            let row: Vec<f64> = row.into_iter().map(|a| scale * a).collect();
            Affine::new(&row, &[1.0], n).map_or(Simple::Free, Simple::from)
        }),
        1 => radius().prop_map(|weight| L1::new(weight).into()),
    ]
}

pub(crate) fn simple(n: usize) -> impl Strategy<Value = Simple> {
    let wrong = (0..MOST + 2).prop_flat_map(bounds);
    let product = (0..=n).prop_flat_map(move |k| {
        (piece(k), piece(n - k)).prop_map(move |(a, b)| Simple::Product(vec![(k, a), (n - k, b)]))
    });
    prop_oneof![20 => piece(n), 4 => product, 1 => wrong]
}

/// A problem and a start.
#[derive(Debug, Clone)]
struct Case {
    n: usize,
    objective: Function,
    constraints: Vec<(Function, (f64, f64))>,
    /// Derivatives by differences.
    differences: bool,
    same_names: bool,
    simple: Simple,
    x0: Vec<f64>,
}

fn case() -> impl Strategy<Value = Case> {
    (0..=MOST).prop_flat_map(|n| {
        let constraints = prop_oneof![
            1 => Just(Vec::new()).boxed(),
            2 => prop::collection::vec((function(n), odd_limits()), 1..4).boxed(),
            1 => prop::collection::vec((function(n), (-1.0..1.0f64).prop_map(|at| (at, at))), 1..4).boxed(),
        ];
        let switches = (prop::bool::weighted(0.1), prop::bool::weighted(0.02));
        let rest = (switches, prop_oneof![Just(Simple::Free), simple(n)], start(n));
        (function(n), constraints, rest).prop_map(
            move |(objective, constraints, ((differences, same_names), simple, x0))| Case {
                n,
                objective,
                constraints,
                differences,
                same_names,
                simple,
                x0,
            },
        )
    })
}

impl Case {
    fn problem<'a>(&'a self, calls: &'a Calls) -> Problem<'a> {
        let f = &self.objective;
        let objective = minimize(self.n, |x| f.value(calls, x));
        let mut problem = if self.differences {
            objective.grad_fd()
        } else {
            objective.grad(|x, g| f.grad(calls, x, g)).hess_vec(|x, v, out| f.hess_vec(calls, x, v, out))
        };
        for (i, (c, (lower, upper))) in self.constraints.iter().enumerate() {
            let name = if self.same_names { "c".to_owned() } else { format!("c{i}") };
            let restriction = between(name, *lower, |x| c.value(calls, x), *upper);
            problem = problem.subject_to(if self.differences {
                restriction.grad_fd()
            } else {
                restriction
                    .grad(|x, g| c.grad(calls, x, g))
                    .hess_vec(|x, v, out| c.hess_vec(calls, x, v, out))
            });
        }
        problem.hess_fd().within(self.simple.clone())
    }

    fn functions(&self) -> impl Iterator<Item = &Function> {
        std::iter::once(&self.objective).chain(self.constraints.iter().map(|(c, _)| c))
    }

    /// Whether everything is finite at all points from which a run may start.
    fn tame(&self) -> bool {
        let tame = |f: &Function| {
            let everywhere = matches!(f.extra, Extra::Nothing | Extra::Fourth);
            f.fault.is_none() && f.scale.abs() <= 1e8 && everywhere
        };
        let mut start = self.x0.clone();
        self.simple.prox(1.0, &mut start);
        // Squares of violations have to be finite as well.
        let limits = self.constraints.iter().flat_map(|(_, (l, u))| [*l, *u]);
        let near = |x: f64| x.abs() <= 1e3;
        self.functions().all(tame)
            && start.into_iter().all(near)
            && limits.filter(|x| x.is_finite()).all(near)
    }

    /// Words of one of which a refusal has to consist, whatever the solver.
    fn wrong(&self) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let possible = |l: f64, u: f64| l <= u && l < f64::INFINITY && u > f64::NEG_INFINITY;
        if self.constraints.iter().any(|(_, (l, u))| !possible(*l, *u)) {
            wrong.push("of constraint `c");
        }
        if self.same_names && self.constraints.len() > 1 {
            wrong.push("two constraints are named `c`");
        }
        if self.x0.len() != self.n || self.x0.iter().any(|x| !x.is_finite()) {
            wrong.push("starting point");
        }
        unfit(&self.simple, self.n, &mut wrong);
        wrong
    }
}

pub(crate) fn positive(value: f64) -> bool {
    value > 0.0 && value.is_finite()
}

pub(crate) fn not_negative(value: f64) -> bool {
    value >= 0.0 && value.is_finite()
}

/// What is wrong with a simple part of `n` variables.
pub(crate) fn unfit(simple: &Simple, n: usize, wrong: &mut Vec<&'static str>) {
    match simple {
        Simple::Bounds(bounds) => {
            if bounds.lower.len() != n {
                wrong.push("lower bounds");
            }
            let pairs = bounds.lower.iter().zip(&bounds.upper);
            if pairs.clone().any(|(l, u)| !(l <= u && *l < f64::INFINITY && *u > f64::NEG_INFINITY)) {
                wrong.push("bounds [");
            }
        }
        Simple::Simplex(_) if n == 0 => wrong.push("the simplex of no variables"),
        Simple::Ball(ball) => {
            if !positive(ball.radius) {
                wrong.push("the radius of the ball");
            }
            if ball.centre.iter().any(|c| !c.is_finite()) {
                wrong.push("centre of the ball");
            }
        }
        Simple::L1(norm) if !positive(norm.weight) => wrong.push("the weight of the norm"),
        Simple::Product(parts) => parts.iter().for_each(|(len, part)| unfit(part, *len, wrong)),
        _ => {}
    }
}

/// Whether a point is farther from a set than rounding explains.
pub(crate) fn outside(simple: &Simple, x: &[f64]) -> bool {
    simple.distance(x) > 1e-9 * x.iter().fold(1.0, |most, x| x.abs().max(most))
}

/// Adds the name of a setting that is out of its range.
pub(crate) fn require(wrong: &mut Vec<&'static str>, ok: bool, key: &'static str) {
    if !ok {
        wrong.push(key);
    }
}

/// Limits that a run ends within.
pub(crate) fn stop() -> impl Strategy<Value = Stop> {
    let tolerance = prop_oneof![16 => Just(1e-6), 4 => select(vec![1e-3, 1e-12, 1.0, 1e300]), 1 => odd()];
    (tolerance, prop_oneof![8 => Just(25_u64), 1 => 0..3_u64])
        .prop_map(|(tolerance, iterations)| Stop { tolerance, iterations })
}

pub(crate) fn stops(stop: Stop, wrong: &mut Vec<&'static str>) {
    require(wrong, positive(stop.tolerance), "tolerance: ");
}

fn penalty() -> impl Strategy<Value = Penalty> {
    (setting(10.0), setting(10.0), setting(0.25), setting(1e12))
        .prop_map(|(rho, growth, share, rho_max)| Penalty { rho, growth, share, rho_max })
}

fn augmented() -> impl Strategy<Value = AugmentedLagrangian> {
    (stop(), penalty(), prop_oneof![8 => Just(40_u64), 1 => 0..2_u64])
        .prop_map(|(stop, penalty, inner)| AugmentedLagrangian { stop, penalty, inner })
}

fn ascent() -> impl Strategy<Value = DualAscent> {
    let rule = (setting(0.0), setting(0.1), setting(0.0), setting(0.0)).prop_map(|(kp, ki, kd, nu)| NuPi {
        kp,
        ki,
        kd,
        nu,
        ..NuPi::default()
    });
    (stop(), rule, prop_oneof![8 => Just(40_u64), 1 => 0..2_u64]).prop_map(|(stop, rule, inner)| DualAscent {
        stop,
        rule,
        inner,
    })
}

fn interior() -> impl Strategy<Value = InteriorPoint> {
    let shares = (setting(0.2), setting(1.5), setting(0.99), setting(0.01));
    (stop(), setting(0.1), shares, 0..5_u64).prop_map(
        |(stop, mu, (kappa_mu, theta_mu, tau, push), corrections)| InteriorPoint {
            stop,
            mu,
            kappa_mu,
            theta_mu,
            tau,
            push,
            corrections,
        },
    )
}

fn sketched() -> impl Strategy<Value = SketchedNewton> {
    let system = select(vec![
        System::GaussianVector,
        System::Kaczmarz,
        System::CountSketch { width: 0 },
        System::CountSketch { width: 2 },
        System::CountSketch { width: 40 },
        System::Minres,
        System::Gmres { restart: 0 },
        System::Gmres { restart: 2 },
        System::Gmres { restart: usize::MAX },
        System::Direct,
        System::Direct,
    ]);
    let default = SketchedNewton::default();
    let penalties = (setting(default.eta1), setting(default.eta2), setting(default.delta));
    let rest = (setting(default.curvature), setting(default.singular), setting(0.0));
    let steps = (setting(default.beta), setting(default.nu), setting(default.xi_b));
    (stop(), system, 0..4_u64, penalties, rest, steps, prop_oneof![8 => Just(300_u64), 1 => 0..2_u64])
        .prop_map(
            move |(
                stop,
                system,
                seed,
                (eta1, eta2, delta),
                (curvature, singular, multiplier),
                (beta, nu, xi_b),
                sketches,
            )| SketchedNewton {
                stop,
                system,
                seed,
                beta,
                nu,
                xi_b,
                eta1,
                eta2,
                delta,
                curvature,
                singular,
                sketches,
                multiplier,
                ..default
            },
        )
}

/// Runs a solver and says what is not as it has to be.
fn complaint<S>(case: &Case, solver: &S, mut wrong: Vec<&'static str>) -> Result<(), String>
where
    S: for<'a> Solver<Problem<'a>>,
{
    let calls = Calls::default();
    let problem = case.problem(&calls);
    wrong.extend(case.wrong());
    let stop = Solver::<Problem>::stop(solver);
    stops(stop, &mut wrong);
    let out = match solver.solve(&problem, &case.x0) {
        Err(error) => {
            let told = error.to_string();
            let named = wrong.iter().any(|wrong| told.contains(wrong));
            return if named { Ok(()) } else { Err(format!("refused by {told:?}, and wrong is {wrong:?}")) };
        }
        Ok(_) if !wrong.is_empty() => return Err(format!("taken, and wrong is {wrong:?}")),
        Ok(out) => out,
    };
    let lie = untrue(case, &problem, &out, stop);
    lie.map_or(Ok(()), |lie| Err(format!("{lie}: {out:?}")))
}

/// What an outcome says that is not so.
fn untrue(case: &Case, problem: &Problem, out: &Outcome, stop: Stop) -> Option<&'static str> {
    let said = |lie: bool, what| lie.then_some(what);
    let optimal = out.status == Status::Optimal;
    said(out.x.len() != case.n || out.x.iter().any(|x| !x.is_finite()), "a point that is not finite")
        .or(said(optimal && out.kkt.error().is_nan(), "optimal without residuals"))
        .or(said(optimal && out.kkt.error() > stop.tolerance, "optimal above the tolerance"))
        .or(said(!out.kkt.scale.is_finite(), "a scale that excuses everything"))
        .or(said(optimal && !out.objective.is_finite(), "optimal without an objective"))
        .or(said(out.status == Status::Unbounded && out.objective > -1e15, "unbounded at a finite objective"))
        .or(said(
            (out.status == Status::Infeasible) != out.infeasibility.is_some(),
            "infeasible without a certificate",
        ))
        .or(said(out.iterations > stop.iterations, "more iterations than asked for"))
        .or(said(outside(&case.simple, &out.x), "a point outside of its set"))
        .or(said(case.tame() && out.status == Status::NotFinite, "not finite where everything is"))
        .or({
            let fixed = !case.functions().any(Function::changes);
            let duals: Vec<f64> = out.duals.iter().map(|dual| dual.value).collect();
            let judged = problem.judge(&out.x, &duals);
            let same =
                format!("{:?}", (judged.kkt, judged.objective)) == format!("{:?}", (out.kkt, out.objective));
            said(fixed && !same, "residuals of another point")
        })
}

/// A complaint as a failure of the property.
pub(crate) fn told(
    name: &str,
    solver: &impl Debug,
    case: &impl Debug,
    found: Result<(), String>,
) -> Result<(), TestCaseError> {
    found.map_err(|why| TestCaseError::fail(format!("{name}, {why}\n{solver:?}\n{case:?}")))
}

proptest! {
    #[test]
    fn the_augmented_lagrangian_ends_with_the_truth(case in case(), solver in augmented()) {
        let mut wrong = penalties(solver.penalty);
        require(&mut wrong, solver.inner > 0, "inner: ");
        told("augmented Lagrangian", &solver, &case, complaint(&case, &solver, wrong))?;
    }

    #[test]
    fn dual_ascent_ends_with_the_truth(case in case(), solver in ascent()) {
        let mut wrong = Vec::new();
        for (key, gain) in [("kp: ", solver.rule.kp), ("ki: ", solver.rule.ki), ("kd: ", solver.rule.kd)] {
            require(&mut wrong, not_negative(gain), key);
        }
        require(&mut wrong, (0.0..1.0).contains(&solver.rule.nu), "nu: ");
        require(&mut wrong, solver.inner > 0, "inner: ");
        told("dual ascent", &solver, &case, complaint(&case, &solver, wrong))?;
    }

    #[test]
    fn gradient_steps_end_with_the_truth(case in case(), stop in stop(), accelerated in any::<bool>()) {
        let mut wrong = Vec::new();
        require(&mut wrong, case.constraints.is_empty(), "takes no constraints");
        let solver = ProjectedGradient { stop };
        told("projected gradient", &solver, &case, complaint(&case, &solver, wrong.clone()))?;
        let solver = ProximalGradient { stop, accelerated };
        told("proximal gradient", &solver, &case, complaint(&case, &solver, wrong))?;
    }

    #[test]
    fn the_interior_point_ends_with_the_truth(case in case(), solver in interior()) {
        let mut wrong = Vec::new();
        let inside = |x: f64, low: f64, high: f64| x > low && x < high;
        require(&mut wrong, positive(solver.mu), "mu: ");
        require(&mut wrong, inside(solver.kappa_mu, 0.0, 1.0), "kappa_mu: ");
        require(&mut wrong, inside(solver.theta_mu, 1.0, 2.0), "theta_mu: ");
        require(&mut wrong, inside(solver.tau, 0.0, 1.0), "tau: ");
        require(&mut wrong, inside(solver.push, 0.0, 0.5), "push: ");
        require(&mut wrong, case.simple.as_bounds(case.n).is_some(), "takes bounds and no other set");
        told("interior point", &solver, &case, complaint(&case, &solver, wrong))?;
    }

    #[test]
    fn sketched_newton_ends_with_the_truth(case in case(), solver in sketched()) {
        let mut wrong = Vec::new();
        require(&mut wrong, solver.beta > 0.0 && solver.beta < 0.5, "beta: ");
        require(&mut wrong, solver.nu > 1.0 && solver.nu.is_finite(), "nu: ");
        require(&mut wrong, solver.delta > 0.0 && solver.delta < 1.0, "delta: ");
        for (key, value) in [("xi_b: ", solver.xi_b), ("eta1: ", solver.eta1), ("eta2: ", solver.eta2)] {
            require(&mut wrong, positive(value), key);
        }
        require(&mut wrong, positive(solver.curvature), "curvature: ");
        require(&mut wrong, positive(solver.singular), "singular: ");
        require(&mut wrong, solver.multiplier.is_finite(), "multiplier: ");
        require(&mut wrong, solver.sketches > 0, "sketches: ");
        require(&mut wrong, solver.system != System::CountSketch { width: 0 }, "system.width: ");
        require(&mut wrong, solver.system != System::Gmres { restart: 0 }, "system.restart: ");
        let free = case.simple.as_bounds(case.n).is_some_and(|bounds| bounds == Bounds::none(case.n));
        let equalities = case.constraints.iter().all(|(_, (lower, upper))| lower.to_bits() == upper.to_bits());
        require(&mut wrong, free && equalities, "takes equalities alone");
        told("sketched Newton", &solver, &case, complaint(&case, &solver, wrong))?;
    }
}

fn penalties(penalty: Penalty) -> Vec<&'static str> {
    let Penalty { rho, growth, share, rho_max } = penalty;
    let mut wrong = Vec::new();
    require(&mut wrong, positive(rho), "rho: ");
    require(&mut wrong, growth >= 1.0 && growth.is_finite(), "growth: ");
    require(&mut wrong, (0.0..=1.0).contains(&share), "share: ");
    require(&mut wrong, rho_max >= rho && rho_max.is_finite(), "rho_max: ");
    wrong
}
