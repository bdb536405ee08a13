//! CUTEst's problems for IPOPT and for Saddlepoint's solvers: the same functions, evaluated by the same code under the same clock.
//!
//! `nlp.py` loads this library. A problem is a pointer from [`nlp_open`], which is also what IPOPT passes to the functions
//! `nlp_f`, `nlp_grad_f`, `nlp_g`, `nlp_jac_g` and `nlp_h` as its `user_data`. [`nlp_solve`] runs one of ours on it, [`nlp_judge`] gives the KKT
//! residuals of any point and multipliers. Every pointer must be what the C interface of IPOPT 3.14 says it is.

mod ours;
mod timed;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::slice;

use saddlepoint_core::clock::Stopwatch;
use saddlepoint_opt::kkt::Judge as _;
use saddlepoint_opt::linalg::Triplets;
use saddlepoint_opt::problem::{Bounds, Constrained as _, Curved as _, Objective as _};
use saddlepoint_opt::problems::sif::{self, Sif};

/// A problem and what was measured on it.
pub(crate) struct Instance {
    problem: Sif,
    bounds: Bounds,
    /// Places of the Hessian's lower triangle, sorted.
    hessian: Vec<(usize, usize)>,
    /// Seconds of evaluation.
    evaluation: f64,
    /// Elements of a Hessian that have no place.
    missing: c_int,
    /// IPOPT's last iteration.
    iterations: c_int,
}

/// What is told of a solve.
#[repr(C)]
pub struct Told {
    /// Whether the solver says that it ended with a solution.
    pub optimal: c_int,
    /// Steps.
    pub iterations: i64,
    /// Seconds of everything, and of evaluation alone.
    pub seconds: f64,
    /// See `seconds`.
    pub evaluation: f64,
    /// `f(x)`.
    pub objective: f64,
    /// The three KKT residuals and the error that is compared with tolerances.
    pub kkt: [f64; 4],
}

/// Reads a problem; null if it cannot be.
///
/// # Safety
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_open(path: *const c_char) -> *mut c_void {
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy().into_owned();
    let Ok(text) = std::fs::read_to_string(path) else { return null_mut() };
    let Ok(problem) = sif::read(&text) else { return null_mut() };
    let Some(bounds) = problem.simple().as_bounds(problem.dim()) else { return null_mut() };
    let hessian = pattern(&problem);
    let instance = Instance { problem, bounds, hessian, evaluation: 0.0, missing: 0, iterations: 0 };
    Box::into_raw(Box::new(instance)).cast()
}

/// Places where the Hessian of the Lagrangian is not 0 at one of several points, with multipliers none of which is 0.
fn pattern(problem: &Sif) -> Vec<(usize, usize)> {
    let m = problem.constraints().len();
    let mut places = Vec::new();
    for k in 0..4 {
        let at = |i: usize| 0.1 * f64::from(k) * (1.0 + (1.7 * i as f64 + f64::from(k)).sin());
        let x: Vec<f64> = problem.start().iter().enumerate().map(|(i, x)| x + at(i)).collect();
        let w: Vec<f64> = (0..m).map(|i| 1.5 + (0.9 * i as f64).cos()).collect();
        places.extend(problem.hessian(&x, &w).elements().iter().map(|&(i, j, _)| (i, j)));
        places.sort_unstable();
        places.dedup();
    }
    places
}

/// # Safety
/// `user` is from [`nlp_open`].
unsafe fn instance<'a>(user: *mut c_void) -> &'a mut Instance {
    unsafe { &mut *user.cast::<Instance>() }
}

/// Frees a problem.
///
/// # Safety
/// `user` is from [`nlp_open`], and not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_close(user: *mut c_void) {
    drop(unsafe { Box::from_raw(user.cast::<Instance>()) });
}

/// Writes `n`, `m`, elements of the Jacobian and of the Hessian, and whether all constraints are equalities and no variable has a bound.
///
/// # Safety
/// `user` is from [`nlp_open`], `sizes` has five elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_sizes(user: *mut c_void, sizes: *mut c_int) {
    let (of, sizes) = unsafe { (instance(user), slice::from_raw_parts_mut(sizes, 5)) };
    let (n, constraints) = (of.problem.dim(), of.problem.constraints());
    let free = of.bounds == Bounds::none(n) && constraints.iter().all(|c| c.is_equality());
    let jacobian = of.problem.jacobian(of.problem.start()).elements().len();
    let found = [n, constraints.len(), jacobian, of.hessian.len(), usize::from(free)];
    sizes.iter_mut().zip(found).for_each(|(size, found)| *size = found as c_int);
}

/// Writes bounds of variables, limits of constraints and the start.
///
/// # Safety
/// `user` is from [`nlp_open`]; the others have as many elements as there are variables and constraints.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_bounds(
    user: *mut c_void,
    lower: *mut f64,
    upper: *mut f64,
    least: *mut f64,
    most: *mut f64,
    start: *mut f64,
) {
    let of = unsafe { instance(user) };
    let (n, m) = (of.problem.dim(), of.problem.constraints().len());
    let put = |to: *mut f64, len: usize, from: &mut dyn Iterator<Item = f64>| {
        let to = unsafe { slice::from_raw_parts_mut(to, len) };
        // What IPOPT takes for no limit.
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.clamp(-2e19, 2e19));
    };
    put(lower, n, &mut of.bounds.lower.iter().copied());
    put(upper, n, &mut of.bounds.upper.iter().copied());
    put(least, m, &mut of.problem.constraints().iter().map(|c| c.lower));
    put(most, m, &mut of.problem.constraints().iter().map(|c| c.upper));
    put(start, n, &mut of.problem.start().iter().copied());
}

/// Runs an evaluation under the clock.
fn timed<R>(of: &mut Instance, run: impl FnOnce(&Sif) -> R) -> R {
    let watch = Stopwatch::start();
    let result = run(&of.problem);
    of.evaluation += watch.seconds();
    result
}

/// IPOPT's `Eval_F_CB`.
///
/// # Safety
/// As IPOPT calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_f(n: c_int, x: *const f64, _: bool, f: *mut f64, user: *mut c_void) -> bool {
    let (of, x) = unsafe { (instance(user), slice::from_raw_parts(x, n as usize)) };
    let value = timed(of, |problem| problem.value(x));
    unsafe { *f = value };
    value.is_finite()
}

/// IPOPT's `Eval_Grad_F_CB`.
///
/// # Safety
/// As IPOPT calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_grad_f(n: c_int, x: *const f64, _: bool, g: *mut f64, user: *mut c_void) -> bool {
    let (of, x) = unsafe { (instance(user), slice::from_raw_parts(x, n as usize)) };
    let g = unsafe { slice::from_raw_parts_mut(g, n as usize) };
    timed(of, |problem| problem.grad(x, g));
    g.iter().all(|g| g.is_finite())
}

/// IPOPT's `Eval_G_CB`.
///
/// # Safety
/// As IPOPT calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_g(
    n: c_int,
    x: *const f64,
    _: bool,
    m: c_int,
    c: *mut f64,
    user: *mut c_void,
) -> bool {
    let (of, x) = unsafe { (instance(user), slice::from_raw_parts(x, n as usize)) };
    let c = unsafe { slice::from_raw_parts_mut(c, m as usize) };
    timed(of, |problem| problem.residuals(x, c));
    c.iter().all(|c| c.is_finite())
}

/// Writes places, from 0.
unsafe fn places(elements: impl Iterator<Item = (usize, usize)>, rows: *mut c_int, columns: *mut c_int) {
    for (k, (i, j)) in elements.enumerate() {
        unsafe {
            *rows.add(k) = i as c_int;
            *columns.add(k) = j as c_int;
        }
    }
}

/// IPOPT's `Eval_Jac_G_CB`.
///
/// # Safety
/// As IPOPT calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_jac_g(
    n: c_int,
    x: *const f64,
    _: bool,
    _m: c_int,
    elements: c_int,
    rows: *mut c_int,
    columns: *mut c_int,
    values: *mut f64,
    user: *mut c_void,
) -> bool {
    let of = unsafe { instance(user) };
    if values.is_null() {
        let jacobian = of.problem.jacobian(of.problem.start());
        unsafe { places(jacobian.elements().iter().map(|&(i, j, _)| (i, j)), rows, columns) };
        return true;
    }
    let (x, values) = unsafe {
        (slice::from_raw_parts(x, n as usize), slice::from_raw_parts_mut(values, elements as usize))
    };
    // The same elements in the same order everywhere: what a SIF problem's Jacobian keeps.
    let jacobian = timed(of, |problem| problem.jacobian(x));
    values.iter_mut().zip(jacobian.elements()).for_each(|(to, (_, _, value))| *to = *value);
    jacobian.elements().len() == elements as usize && values.iter().all(|v| v.is_finite())
}

/// IPOPT's `Eval_H_CB`.
///
/// # Safety
/// As IPOPT calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_h(
    n: c_int,
    x: *const f64,
    _: bool,
    factor: f64,
    m: c_int,
    multipliers: *const f64,
    _: bool,
    elements: c_int,
    rows: *mut c_int,
    columns: *mut c_int,
    values: *mut f64,
    user: *mut c_void,
) -> bool {
    let of = unsafe { instance(user) };
    if values.is_null() {
        unsafe { places(of.hessian.iter().copied(), rows, columns) };
        return true;
    }
    let (x, w, values) = unsafe {
        let w = slice::from_raw_parts(multipliers, m as usize);
        (slice::from_raw_parts(x, n as usize), w, slice::from_raw_parts_mut(values, elements as usize))
    };
    let hessian: Vec<(Triplets, f64)> = timed(of, |problem| {
        if factor == 0.0 {
            return vec![(problem.hessian(x, w), 1.0), (problem.hessian(x, &vec![0.0; w.len()]), -1.0)];
        }
        let scaled: Vec<f64> = w.iter().map(|w| w / factor).collect();
        vec![(problem.hessian(x, &scaled), factor)]
    });
    values.fill(0.0);
    for (part, factor) in &hessian {
        for &(i, j, value) in part.elements() {
            match of.hessian.binary_search(&(i, j)) {
                Ok(k) => values[k] += factor * value,
                Err(_) => of.missing += 1,
            }
        }
    }
    values.iter().all(|v| v.is_finite())
}

/// IPOPT's `Intermediate_CB`: remembers the iteration.
///
/// # Safety
/// As IPOPT calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_iteration(
    _mode: c_int,
    iteration: c_int,
    _: f64,
    _: f64,
    _: f64,
    _: f64,
    _: f64,
    _: f64,
    _: f64,
    _: f64,
    _: c_int,
    user: *mut c_void,
) -> bool {
    unsafe { instance(user) }.iterations = iteration;
    true
}

/// Iterations, missing elements of Hessians and seconds of evaluation since the last call.
///
/// # Safety
/// `user` is from [`nlp_open`]; the others are one element each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_counts(user: *mut c_void, iterations: *mut c_int, missing: *mut c_int) -> f64 {
    let of = unsafe { instance(user) };
    unsafe {
        *iterations = std::mem::take(&mut of.iterations);
        *missing = std::mem::take(&mut of.missing);
    }
    std::mem::take(&mut of.evaluation)
}

/// Objective and residuals at a point with multipliers.
///
/// # Safety
/// `user` is from [`nlp_open`]; `x` and `multipliers` have one element a variable and a constraint, `kkt` four, `objective` one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_judge(
    user: *mut c_void,
    x: *const f64,
    multipliers: *const f64,
    objective: *mut f64,
    kkt: *mut f64,
) {
    let of = unsafe { instance(user) };
    let (n, m) = (of.problem.dim(), of.problem.constraints().len());
    let (x, w) = unsafe { (slice::from_raw_parts(x, n), slice::from_raw_parts(multipliers, m)) };
    let found = of.problem.judge(x, w);
    unsafe {
        *objective = found.objective;
        slice::from_raw_parts_mut(kkt, 4).copy_from_slice(&ours::told(&found.kkt));
    }
}

/// Runs one of ours, named as on the command line; 0 if it refuses the problem.
///
/// # Safety
/// `user` is from [`nlp_open`], `method` a C string, `told` one element.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlp_solve(
    user: *mut c_void,
    method: *const c_char,
    tolerance: f64,
    seconds: f64,
    told: *mut Told,
) -> c_int {
    let of = unsafe { instance(user) };
    let method = unsafe { CStr::from_ptr(method) }.to_string_lossy().into_owned();
    match ours::solve(&of.problem, &method, tolerance, seconds) {
        None => 0,
        Some(found) => {
            unsafe { *told = found };
            1
        }
    }
}
