//! On penalty methods for nonconvex bilevel optimization and first-order stochastic approximation (Kwon, Kwon, Wright & Nowak 2024,
//! arXiv:2309.01753).

use rand_distr::{Distribution as _, StandardNormal};
use rayon::prelude::*;
use saddlepoint_core::reproduce::{Bound, Claim, Curve, Figure, Findings, Observer, Setting};
use saddlepoint_core::seed::Seed;

use super::{Reproduction, machine, slope};
use crate::Result;
use crate::bilevel::tuning::Method;
use crate::bilevel::{
    By, Form, Hypergradient, Loops, PenaltyBilevel, Quadratic, Solver as _, diagnose, penalised,
};
use crate::linalg::norm;
use crate::problem::{Affine, Ball, Bounds, Simple, minimize};
use crate::solver::{Flow, ProjectedGradient, Stop};

/// The paper.
pub(super) const REPRODUCTION: Reproduction = Reproduction {
    slug: "penalty-bilevel",
    title: "On penalty methods for nonconvex bilevel optimization and first-order stochastic approximation",
    paper: "arXiv:2309.01753",
    experiment: "Random quadratics of 20 and 20 variables: in a ball and a box, in the whole space, and with a lower level whose minimisers are a \
                 subspace. Their exact solutions and hyper-gradients come from implicit differentiation, or from minimising over all of those pairs. Then \
                 gradients with noise, and the weights of a support vector machine's examples on the data of the paper on LV-HBA, where these \
                 are at hand (`opt/bilevel` in `$SADDLE_DATA`). The paper has no experiments; its claims are orders. Ball and box of the \
                 first were changed after a trial.",
    seeds: 20,
    run,
};

/// What changes the solver: nothing, or a corruption.
type Change<'a> = &'a (dyn Fn(PenaltyBilevel) -> PenaltyBilevel + Sync);

/// Variables of each level.
const SIZE: usize = 20;

/// Penalties by which orders are measured.
const SIGMAS: [f64; 4] = [0.08, 0.04, 0.02, 0.01];

/// What is small enough to be the solution: a tenth of what is claimed.
const TIGHT: f64 = 1e-7;

fn run(setting: &Setting, observer: Observer) -> Result<Findings> {
    findings(setting.seeds, &|solver| solver, observer)
}

fn findings(seeds: usize, change: Change, observer: Observer) -> Result<Findings> {
    let total = 4 * seeds as u64;
    observer(0, total, "orders in sigma");
    let each: Vec<Orders> =
        (0..seeds as u64).into_par_iter().map(|seed| orders(seed, change)).collect::<Result<_>>()?;
    let mut claims = of_orders(&each);
    observer(seeds as u64, total, "noise");
    let noisy: Vec<Noisy> =
        (0..seeds as u64).into_par_iter().map(|seed| noisy(seed, change)).collect::<Result<_>>()?;
    claims.push(Claim::mean(
        "noisy gradients, one sample a step, σ = 0.1: distance to the solution over that of the exact minimiser of ψ_σ",
        "reaches the neighbourhood of the order σ with O(1) samples a step",
        &noisy.iter().map(|noisy| noisy.distance).collect::<Vec<_>>(),
        Bound::Below(2.0),
    ));
    claims.push(Claim::mean(
        "noisy gradients: distance to the minimiser of ψ_σ with momentum over that without",
        "below 1: momentum makes O(1) samples a step enough",
        &noisy.iter().map(|noisy| noisy.momentum).collect::<Vec<_>>(),
        Bound::Below(1.0),
    ));
    let solver = change(PenaltyBilevel {
        stop: Stop { iterations: 20_000, ..PenaltyBilevel::default().stop },
        ..PenaltyBilevel::default()
    });
    let mut done = seeds as u64;
    let mut tell = |what: &str| {
        done += seeds as u64;
        observer(done.min(total), total, what);
    };
    claims.extend(machine::claims("the penalty method", seeds, &Method::PenaltyBilevel(solver), &mut tell)?);
    let curve = |name: &str, values: &dyn Fn(&Orders) -> Vec<f64>| {
        let of_first = each.first().map(values).unwrap_or_default();
        let mut points: Vec<(f64, f64)> =
            SIGMAS.iter().zip(of_first).map(|(sigma, gap)| (sigma.log10(), gap.log10())).collect();
        points.retain(|point| point.1.is_finite());
        points.reverse();
        Curve { name: name.into(), points }
    };
    let figures = vec![Figure {
        title: "lg of the distance to the solution".into(),
        x: "lg σ".into(),
        curves: vec![
            curve("ball and box", &|orders| orders.sets.clone()),
            curve("whole space", &|orders| orders.free.clone()),
            curve("subspace of minimisers", &|orders| orders.subspace.clone()),
        ],
        limit: None,
    }];
    Ok(Findings { claims, figures })
}

/// What one seed gave, for each of [`SIGMAS`].
struct Orders {
    /// `|x(σ) − x*|`, of the solution that is found from the smallest `σ`'s.
    sets: Vec<f64>,
    free: Vec<f64>,
    subspace: Vec<f64>,
    /// At a random `x`: `|ψ_σ − ψ|` and `|∇ψ_σ − ∇ψ|`.
    value: Vec<f64>,
    grad: Vec<f64>,
    /// Runs whose `∇ψ_σ` ends above 1e-6.
    above: usize,
    /// Gradients until `|∇ψ| <= ε`, for each of [`ACCURACIES`], of both algorithms.
    work: [Vec<f64>; 2],
}

fn of_orders(each: &[Orders]) -> Vec<Claim> {
    let order = |values: &dyn Fn(&Orders) -> Vec<f64>| -> Vec<f64> {
        each.iter().map(|orders| slope(SIGMAS.into_iter().zip(values(orders)))).collect()
    };
    let from_one = |orders: Vec<f64>| orders.into_iter().map(|order| (order - 1.0).abs()).collect::<Vec<_>>();
    let near = |quantity: &str, paper: &str, orders: Vec<f64>| {
        let quantity = format!("{quantity}: distance of the order in σ from 1");
        Claim::mean(&quantity, paper, &from_one(orders), Bound::Below(0.1))
    };
    let work = |k: usize| -> Vec<f64> {
        let of =
            |orders: &Orders| slope(ACCURACIES.iter().map(|e| 1.0 / e).zip(orders.work[k].iter().copied()));
        each.iter().map(of).collect()
    };
    vec![
        near("|x(σ) − x*| in a ball and a box", "1", order(&|orders| orders.sets.clone())),
        near("|x(σ) − x*| in the whole space", "1", order(&|orders| orders.free.clone())),
        near(
            "|x(σ) − x*| with a subspace of lower minimisers",
            "1",
            order(&|orders| orders.subspace.clone()),
        ),
        near("|ψ_σ − ψ| at a random point", "O(σ/μ)", order(&|orders| orders.value.clone())),
        near("|∇ψ_σ − ∇ψ| at a random point", "O(σ/μ³)", order(&|orders| orders.grad.clone())),
        Claim::never(
            "exact gradients: an end with |∇ψ_σ| above 1e-6",
            "converges to stationary points of ψ_σ",
            each.iter().map(|orders| orders.above).sum(),
        ),
        Claim::mean(
            "exact gradients, double loop: order in 1/ε of the gradients until |∇ψ| <= ε",
            "at most 3: O(ε⁻³)",
            &work(0),
            Bound::Below(3.0),
        ),
        Claim::mean(
            "exact gradients, single loop: order in 1/ε of the gradients until |∇ψ| <= ε",
            "at most 3: O(ε⁻³)",
            &work(1),
            Bound::Below(3.0),
        ),
    ]
}

/// A random problem, with the rows of its lower level.
struct Random {
    problem: Quadratic,
    /// `(−B, R)`, one row after the other.
    rows: Vec<f64>,
    /// `(b, a)`.
    centre: Vec<f64>,
}

/// `F = |x − b|²/4 + |y − a|²/2`, `f = |R y − B x|²/2 + μ|y|²/2`, `R` with so many rows.
fn quadratic(count: usize, mu: f64, seed: u64) -> Result<Random> {
    let mut rng = Seed::new(seed).stream("reproduce/penalty-bilevel", &[count as u64]);
    let scale = 1.0 / (SIZE as f64).sqrt();
    let mut normal = |count: usize, scale: f64| -> Vec<f64> {
        (0..count)
            .map(|_| {
                let normal: f64 = StandardNormal.sample(&mut rng);
                scale * normal
            })
            .collect()
    };
    let all = 2 * SIZE;
    let rows = normal(count * all, scale);
    let (mut lower, mut upper) = (vec![0.0; all * all], vec![0.0; all * all]);
    for row in rows.chunks_exact(all) {
        for (j, a) in row.iter().enumerate() {
            crate::linalg::add_scaled(&mut lower[j * all..(j + 1) * all], *a, row);
        }
    }
    for j in 0..SIZE {
        lower[(SIZE + j) * (all + 1)] += mu;
        upper[j * (all + 1)] = 0.5;
        upper[(SIZE + j) * (all + 1)] = 1.0;
    }
    let centre = normal(all, 1.0);
    let linear = (0..all).map(|j| -upper[j * (all + 1)] * centre[j]).collect::<Vec<f64>>();
    let constant = 0.5 * (0..all).map(|j| upper[j * (all + 1)] * centre[j] * centre[j]).sum::<f64>();
    let upper = Form::new(upper, linear, constant);
    let problem = Quadratic::new(SIZE, SIZE, upper, Form::new(lower, vec![0.0; all], 0.0))?;
    Ok(Random { problem, rows, centre })
}

fn start(seed: u64) -> Vec<f64> {
    let mut rng = Seed::new(seed).stream("reproduce/penalty-bilevel/start", &[]);
    (0..SIZE).map(|_| StandardNormal.sample(&mut rng)).collect()
}

/// The solution by implicit differentiation, to [`TIGHT`].
fn solution(problem: &Quadratic, x: &[f64]) -> Result<Vec<f64>> {
    let solver = Hypergradient {
        by: By::Implicit { tolerance: 1e-12 },
        stop: Stop { tolerance: 1e-9, iterations: 100_000 },
    };
    Ok(solver.solve(problem, x, &[0.0; SIZE])?.x)
}

/// The solution where `R y = B x` has a subspace of solutions: `F` is least over all of these pairs.
fn subspace_solution(random: &Random) -> Result<Vec<f64>> {
    let Random { rows, centre, .. } = random;
    let all = 2 * SIZE;
    let weight = |j: usize| if j < SIZE { 0.5 } else { 1.0 };
    let problem = minimize(all, |w| (0..all).map(|j| 0.5 * weight(j) * (w[j] - centre[j]).powi(2)).sum())
        .grad(|w, g| (0..all).for_each(|j| g[j] = weight(j) * (w[j] - centre[j])))
        .within(Affine::new(rows, &vec![0.0; rows.len() / all], all)?);
    let solver = ProjectedGradient { stop: Stop { tolerance: 1e-10, iterations: 10_000 } };
    let mut x = crate::solver::Solver::solve(&solver, &problem, &vec![0.0; all])?.x;
    x.truncate(SIZE);
    Ok(x)
}

fn constant(sigma: f64, loops: Loops) -> PenaltyBilevel {
    PenaltyBilevel {
        loops,
        sigma,
        power: 0.0,
        floor: sigma,
        stop: Stop { tolerance: TIGHT, iterations: 2_000_000 },
        ..PenaltyBilevel::default()
    }
}

const DOUBLE: Loops = Loops::Double { inner: 5, batch: 1 };
const SINGLE: Loops = Loops::Single { eta: None };

/// Runs to the end without a diagnosis, which would cost more than the run.
fn end(solver: &PenaltyBilevel, problem: &Quadratic, x: &[f64]) -> Result<Vec<f64>> {
    let mut state = solver.init(problem, x, &[0.0; SIZE])?;
    while state.k < solver.stop.iterations {
        if let Flow::Stop(_) = solver.step(problem, &mut state)? {
            break;
        }
    }
    Ok(state.x)
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

fn orders(seed: u64, change: Change) -> Result<Orders> {
    let from = start(seed);
    let free = quadratic(SIZE, 0.5, seed)?.problem;
    let sets: [Simple; 2] =
        [Ball::new(vec![0.0; SIZE], 2.0).into(), Bounds::new(vec![-0.5; SIZE], vec![0.5; SIZE]).into()];
    let [ball, bounds] = sets.clone();
    let within = free.clone().within(ball, bounds)?;
    let subspace = quadratic(SIZE / 2, 0.0, seed)?;
    let (mut gaps, mut above) = ([Vec::new(), Vec::new(), Vec::new()], 0);
    for (k, problem) in [&within, &free, &subspace.problem].into_iter().enumerate() {
        let mut ends = Vec::new();
        for sigma in SIGMAS {
            let x = end(&change(constant(sigma, DOUBLE)), problem, &from)?;
            // In the whole space the end must be stationary.
            if k > 0 {
                let left = norm(&penalised(problem, &x, sigma, (&[0.0; SIZE], &[])).grad);
                above += usize::from(left > 1e-6 || left.is_nan());
            }
            ends.push(x);
        }
        // In a box the hyper-objective has several valleys: the one of the weakest bias is meant.
        let nearest = ends.last().unwrap_or(&from);
        let exact = if k == 2 { subspace_solution(&subspace)? } else { solution(problem, nearest)? };
        gaps[k].extend(ends.iter().map(|x| apart(x, &exact)));
    }
    let (diagnosis, response) = diagnose(&free, &from, &[0.0; SIZE], &[]);
    let exact = diagnosis.hypergradient;
    let (mut value, mut grad) = (Vec::new(), Vec::new());
    for sigma in SIGMAS {
        let found = penalised(&free, &from, sigma, (&response.y, &[]));
        value.push((found.value - response.upper).abs());
        grad.push(apart(&found.grad, &exact));
    }
    let work = [work(DOUBLE, &free, &from, change)?, work(SINGLE, &free, &from, change)?];
    let [sets, free, subspace] = gaps;
    Ok(Orders { sets, free, subspace, value, grad, above, work })
}

/// How small the hyper-gradient is to become.
const ACCURACIES: [f64; 4] = [0.4, 0.2, 0.1, 0.05];

/// Gradients until the exact hyper-gradient is small, with a penalty in proportion to that.
fn work(loops: Loops, problem: &Quadratic, x: &[f64], change: Change) -> Result<Vec<f64>> {
    let mut work = Vec::new();
    for accuracy in ACCURACIES {
        let solver = change(constant(0.1 * accuracy, loops));
        let mut state = solver.init(problem, x, &[0.0; SIZE])?;
        // Looked at every hundredth step: a look costs more than that.
        while state.k < solver.stop.iterations {
            if state.k % 100 == 0
                && norm(&diagnose(problem, &state.x, &state.z, &[]).0.hypergradient) <= accuracy
            {
                break;
            }
            if let Flow::Stop(_) = solver.step(problem, &mut state)? {
                break;
            }
        }
        work.push(state.gradients as f64);
    }
    Ok(work)
}

/// What one seed gave with noise.
struct Noisy {
    distance: f64,
    momentum: f64,
}

/// Deviation of the noise in every element of a gradient, steps of a run.
const NOISE: f64 = 0.1;
const STEPS: u64 = 40_000;

fn noisy(seed: u64, change: Change) -> Result<Noisy> {
    let sigma = 0.1;
    let (from, exact) = (start(seed), quadratic(SIZE, 0.5, seed)?.problem);
    let x_star = solution(&exact, &from)?;
    let problem = exact.clone().noisy(NOISE);
    let target = end(&constant(sigma, DOUBLE), &exact, &from)?;
    let run = |eta: Option<f64>| -> Result<Vec<f64>> {
        let solver = change(PenaltyBilevel {
            sampled: Some(seed),
            stop: Stop { tolerance: TIGHT, iterations: STEPS },
            ..constant(sigma, Loops::Single { eta })
        });
        end(&solver, &problem, &from)
    };
    let (with, without) = (run(None)?, run(Some(1.0))?);
    Ok(Noisy {
        distance: apart(&with, &x_star) / apart(&target, &x_star),
        momentum: apart(&with, &target) / apart(&without, &target),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_fail_if_the_penalty_does_not_fall() {
        let failed = |change: Change| -> Vec<String> {
            let each: Vec<Orders> = (0..2).map(|seed| orders(seed, change).expect("runs")).collect();
            // Two seeds are too few for an interval: what was measured is compared.
            let bound =
                |claim: &Claim| claim.claim.rsplit(' ').next().and_then(|b| b.parse().ok()).unwrap_or(0.5);
            let missed = |claim: &&Claim| claim.measured >= bound(claim) || claim.measured.is_nan();
            of_orders(&each).iter().filter(missed).map(|c| c.claim.clone()).collect()
        };
        // With constraints the order is near its bound, on either side of it by the seed.
        let own = failed(&|solver| solver);
        assert!(own.iter().all(|claim| claim.contains("in a ball and a box")), "{own:?}");
        // The bias of a penalty that stays is of no order.
        let stays = failed(&|solver| PenaltyBilevel { sigma: 0.1, floor: 0.1, ..solver });
        let told: Vec<_> = stays.iter().filter(|claim| !own.contains(claim)).collect();
        assert!(told.len() >= 3, "{told:?}");
    }
}
