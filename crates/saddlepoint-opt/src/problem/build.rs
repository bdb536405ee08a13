//! Problems stated by closures.

use std::fmt;

use super::{Constrained, Constraint, Curved, Objective, Simple, check_constraints};
use crate::{Error, Result};

type Value<'a> = Box<dyn Fn(&[f64]) -> f64 + Send + Sync + 'a>;
type Gradient<'a> = Box<dyn Fn(&[f64], &mut [f64]) + Send + Sync + 'a>;
type Product<'a> = Box<dyn Fn(&[f64], &[f64], &mut [f64]) + Send + Sync + 'a>;

/// The problem of minimising `f` of `n` variables; what follows states its gradient.
///
/// ```
/// use saddlepoint_opt::prelude::*;
/// let problem = minimize(2, |x| x[0] * x[0] + x[1] * x[1])
///     .grad(|x, g| { g[0] = 2.0 * x[0]; g[1] = 2.0 * x[1]; })
///     .subject_to(eq("sum", |x| x[0] + x[1] - 1.0).grad(|_, g| g.fill(1.0)))
///     .within(Bounds::new(vec![0.0; 2], vec![f64::INFINITY; 2]));
/// ```
pub fn minimize<'a>(n: usize, f: impl Fn(&[f64]) -> f64 + Send + Sync + 'a) -> Minimize<'a> {
    Minimize { n, value: Box::new(f) }
}

/// The constraint `c(x) <= 0`.
pub fn le<'a>(name: impl Into<String>, c: impl Fn(&[f64]) -> f64 + Send + Sync + 'a) -> Bare<'a> {
    between(name, f64::NEG_INFINITY, c, 0.0)
}

/// The constraint `c(x) >= 0`.
pub fn ge<'a>(name: impl Into<String>, c: impl Fn(&[f64]) -> f64 + Send + Sync + 'a) -> Bare<'a> {
    between(name, 0.0, c, f64::INFINITY)
}

/// The constraint `c(x) = 0`.
pub fn eq<'a>(name: impl Into<String>, c: impl Fn(&[f64]) -> f64 + Send + Sync + 'a) -> Bare<'a> {
    between(name, 0.0, c, 0.0)
}

/// The constraint `lower <= c(x) <= upper`.
pub fn between<'a>(
    name: impl Into<String>,
    lower: f64,
    c: impl Fn(&[f64]) -> f64 + Send + Sync + 'a,
    upper: f64,
) -> Bare<'a> {
    Bare { limits: Constraint { name: name.into(), lower, upper }, value: Box::new(c) }
}

/// An objective without its gradient.
pub struct Minimize<'a> {
    n: usize,
    value: Value<'a>,
}

impl<'a> Minimize<'a> {
    /// States the gradient: `grad(x, g)` fills `g`, which is zero before.
    pub fn grad(self, grad: impl Fn(&[f64], &mut [f64]) + Send + Sync + 'a) -> Problem<'a> {
        self.with(Some(Box::new(grad)))
    }

    /// Asks for central differences instead; the outcome notes it. Their error is about `1e-10` of the scale of `f`, so that
    /// tolerances below `1e-7` are seldom reached.
    pub fn grad_fd(self) -> Problem<'a> {
        self.with(None)
    }

    fn with(self, grad: Option<Gradient<'a>>) -> Problem<'a> {
        let objective = Function { value: self.value, grad, curvature: Curvature::Unknown };
        let (limits, restrictions) = (Vec::new(), Vec::new());
        Problem { n: self.n, objective, limits, restrictions, simple: Vec::new() }
    }
}

/// A constraint without its gradient.
pub struct Bare<'a> {
    limits: Constraint,
    value: Value<'a>,
}

impl<'a> Bare<'a> {
    /// States the gradient: `grad(x, g)` fills `g`, which is zero before.
    pub fn grad(self, grad: impl Fn(&[f64], &mut [f64]) + Send + Sync + 'a) -> Restriction<'a> {
        self.with(Some(Box::new(grad)))
    }

    /// Asks for central differences instead; the outcome notes it.
    pub fn grad_fd(self) -> Restriction<'a> {
        self.with(None)
    }

    fn with(self, grad: Option<Gradient<'a>>) -> Restriction<'a> {
        let function = Function { value: self.value, grad, curvature: Curvature::Unknown };
        Restriction { limits: self.limits, function }
    }
}

/// A constraint.
pub struct Restriction<'a> {
    limits: Constraint,
    function: Function<'a>,
}

impl<'a> Restriction<'a> {
    /// States the second derivatives: `product(x, v, out)` fills `out`, which is zero before, with `∇²c(x) v`.
    #[must_use]
    pub fn hess_vec(mut self, product: impl Fn(&[f64], &[f64], &mut [f64]) + Send + Sync + 'a) -> Self {
        self.function.curvature = Curvature::Product(Box::new(product));
        self
    }

    /// Says that the function is affine: its second derivatives are 0.
    #[must_use]
    pub fn linear(mut self) -> Self {
        self.function.curvature = Curvature::Zero;
        self
    }
}

/// A problem stated by closures.
pub struct Problem<'a> {
    n: usize,
    objective: Function<'a>,
    limits: Vec<Constraint>,
    restrictions: Vec<Function<'a>>,
    /// At most one; more are refused when a solver starts.
    simple: Vec<Simple>,
}

impl<'a> Problem<'a> {
    /// Adds a constraint.
    #[must_use]
    pub fn subject_to(mut self, restriction: Restriction<'a>) -> Self {
        self.limits.push(restriction.limits);
        self.restrictions.push(restriction.function);
        self
    }

    /// Keeps `x` in a set, or adds a norm: the simple part of the problem.
    #[must_use]
    pub fn within(mut self, simple: impl Into<Simple>) -> Self {
        self.simple.push(simple.into());
        self
    }

    /// States the second derivatives of the objective: `product(x, v, out)` fills `out`, which is zero before, with `∇²f(x) v`.
    #[must_use]
    pub fn hess_vec(mut self, product: impl Fn(&[f64], &[f64], &mut [f64]) + Send + Sync + 'a) -> Self {
        self.objective.curvature = Curvature::Product(Box::new(product));
        self
    }

    /// Asks for differences of the gradient wherever second derivatives were not stated; the outcome notes it.
    #[must_use]
    pub fn hess_fd(mut self) -> Self {
        for function in std::iter::once(&mut self.objective).chain(&mut self.restrictions) {
            if matches!(function.curvature, Curvature::Unknown) {
                function.curvature = Curvature::Differences;
            }
        }
        self
    }

    /// The functions with their names.
    fn functions(&self) -> impl Iterator<Item = (String, &Function<'a>)> {
        let names = self.limits.iter().map(|limits| format!("constraint `{}`", limits.name));
        std::iter::once(("the objective".to_owned(), &self.objective)).chain(names.zip(&self.restrictions))
    }
}

impl Objective for Problem<'_> {
    fn dim(&self) -> usize {
        self.n
    }

    fn value(&self, x: &[f64]) -> f64 {
        (self.objective.value)(x)
    }

    fn grad(&self, x: &[f64], g: &mut [f64]) {
        g.fill(0.0);
        self.objective.add_grad(x, 1.0, g);
    }

    fn simple(&self) -> &Simple {
        self.simple.first().unwrap_or(&Simple::Free)
    }

    fn check(&self) -> Result<()> {
        if self.simple.len() > 1 {
            let problem = "`within` was given twice; join sets over different variables by Simple::Product";
            return Err(Error::Problem { problem: problem.to_owned() });
        }
        check_constraints(&self.limits)?;
        self.simple().check(self.n)
    }

    fn notes(&self) -> Vec<String> {
        let told = |what: &str, of: &dyn Fn(&Function<'_>) -> bool| {
            let names: Vec<String> = self.functions().filter(|(_, f)| of(f)).map(|(name, _)| name).collect();
            (!names.is_empty()).then(|| format!("{what} of {} by finite differences", names.join(", ")))
        };
        let first = told("gradient", &|f| f.grad.is_none());
        let second = told("second derivatives", &|f| matches!(f.curvature, Curvature::Differences));
        first.into_iter().chain(second).collect()
    }
}

impl Constrained for Problem<'_> {
    fn constraints(&self) -> &[Constraint] {
        &self.limits
    }

    fn residuals(&self, x: &[f64], c: &mut [f64]) {
        c.iter_mut().zip(&self.restrictions).for_each(|(c, function)| *c = (function.value)(x));
    }

    fn vjp(&self, x: &[f64], w: &[f64], out: &mut [f64]) {
        for (w, function) in w.iter().zip(&self.restrictions).filter(|(w, _)| **w != 0.0) {
            function.add_grad(x, *w, out);
        }
    }
}

impl Curved for Problem<'_> {
    fn hess_vec(&self, x: &[f64], w: &[f64], v: &[f64], out: &mut [f64]) {
        out.fill(0.0);
        self.objective.add_hess_vec(x, 1.0, v, out);
        for (w, function) in w.iter().zip(&self.restrictions).filter(|(w, _)| **w != 0.0) {
            function.add_hess_vec(x, *w, v, out);
        }
    }

    fn check_curvature(&self) -> Result<()> {
        match self.functions().find(|(_, f)| matches!(f.curvature, Curvature::Unknown)) {
            None => Ok(()),
            Some((name, _)) => {
                let problem = format!(
                    "{name} has no second derivatives, which this solver needs; state them by `hess_vec` (or `linear`), or \
                     ask for differences of the gradient by `hess_fd`"
                );
                Err(Error::Problem { problem })
            }
        }
    }
}

/// A function and what is known of its derivatives.
struct Function<'a> {
    value: Value<'a>,
    /// By central differences where there is none.
    grad: Option<Gradient<'a>>,
    curvature: Curvature<'a>,
}

enum Curvature<'a> {
    Unknown,
    Zero,
    Product(Product<'a>),
    Differences,
}

impl Function<'_> {
    /// `out += w ∇(x)`.
    fn add_grad(&self, x: &[f64], w: f64, out: &mut [f64]) {
        let mut g = vec![0.0; x.len()];
        match &self.grad {
            Some(grad) => grad(x, &mut g),
            None => central(x, &self.value, &mut g),
        }
        out.iter_mut().zip(g).for_each(|(out, g)| *out += w * g);
    }

    /// `out += w ∇²(x) v`.
    fn add_hess_vec(&self, x: &[f64], w: f64, v: &[f64], out: &mut [f64]) {
        match &self.curvature {
            Curvature::Zero => {}
            Curvature::Product(product) => {
                let mut along = vec![0.0; x.len()];
                product(x, v, &mut along);
                out.iter_mut().zip(along).for_each(|(out, h)| *out += w * h);
            }
            // Solvers refuse unknown second derivatives before they start (`check_curvature`).
            Curvature::Unknown | Curvature::Differences => {
                let size = v.iter().fold(0.0_f64, |size, v| size.max(v.abs()));
                if size == 0.0 {
                    return;
                }
                let scale = x.iter().fold(1.0_f64, |scale, x| scale.max(x.abs()));
                let h = f64::EPSILON.cbrt() * scale / size;
                for (side, weight) in [(h, w / (2.0 * h)), (-h, -w / (2.0 * h))] {
                    let at: Vec<f64> = x.iter().zip(v).map(|(x, v)| x + side * v).collect();
                    self.add_grad(&at, weight, out);
                }
            }
        }
    }
}

/// The gradient by central differences, whose best step is the cube root of the precision.
fn central(x: &[f64], f: &dyn Fn(&[f64]) -> f64, g: &mut [f64]) {
    let mut at = x.to_vec();
    for i in 0..x.len() {
        let h = f64::EPSILON.cbrt() * x[i].abs().max(1.0);
        at[i] = x[i] + h;
        let above = f(&at);
        at[i] = x[i] - h;
        g[i] = (above - f(&at)) / (2.0 * h);
        at[i] = x[i];
    }
}

macro_rules! opaque {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
opaque!(Minimize, Bare, Restriction, Problem);

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;

    fn problem(differences: bool) -> Problem<'static> {
        let f = minimize(2, |x| x[0].exp() + x[0] * x[1] * x[1]);
        let c = between("c", -1.0, |x| x[0] * x[0] - x[1], 4.0);
        if differences {
            return f.grad_fd().subject_to(c.grad_fd()).hess_fd();
        }
        f.grad(|x, g| {
            g[0] = x[0].exp() + x[1] * x[1];
            g[1] = 2.0 * x[0] * x[1];
        })
        .hess_vec(|x, v, out| {
            out[0] = x[0].exp() * v[0] + 2.0 * x[1] * v[1];
            out[1] = 2.0 * x[1] * v[0] + 2.0 * x[0] * v[1];
        })
        .subject_to(
            c.grad(|x, g| {
                g[0] = 2.0 * x[0];
                g[1] = -1.0;
            })
            .hess_vec(|_, v, out| out[0] = 2.0 * v[0]),
        )
    }

    #[test]
    fn differences_agree_with_what_is_stated_and_are_noted() {
        let (exact, differences) = (problem(false), problem(true));
        let (x, w, v) = ([0.3, -1.2], [0.7], [0.4, 1.1]);
        let all = |p: &Problem| {
            let (mut g, mut h) = (vec![0.0; 2], vec![0.0; 2]);
            p.grad(&x, &mut g);
            p.vjp(&x, &w, &mut g);
            p.hess_vec(&x, &w, &v, &mut h);
            [g, h].concat()
        };
        assert_close!(all(&differences), all(&exact), rtol = 1e-4);
        assert_eq!(exact.notes(), Vec::<String>::new());
        let noted = [
            "gradient of the objective, constraint `c` by finite differences",
            "second derivatives of the objective, constraint `c` by finite differences",
        ];
        assert_eq!(differences.notes(), noted);
        assert_close!(exact.jacobian(&x).dense(), [0.6, -1.0], rtol = 1e-15);
        let lower = exact.hessian(&x, &w);
        assert_close!(lower.dense(), [0.3_f64.exp() + 1.4, 0.0, -2.4, 0.6], rtol = 1e-15);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let one = || minimize(1, |x| x[0]).grad(|_, g| g[0] = 1.0);
        let c = |name: &str| le(name, |x| x[0]).grad(|_, g| g[0] = 1.0);
        for (problem, message) in [
            (
                one().subject_to(c("a")).subject_to(c("a")),
                "the problem: two constraints are named `a`; multipliers are told by name",
            ),
            (
                one().subject_to(between("b", 2.0, |x| x[0], 1.0).grad_fd()),
                "the problem: limits [2, 1] of constraint `b` hold for no number",
            ),
            (
                one().within(Simple::Free).within(Simple::Free),
                "the problem: `within` was given twice; join sets over different variables by Simple::Product",
            ),
        ] {
            assert_eq!(problem.check().expect_err("refused").to_string(), message);
        }
        let told = one().subject_to(c("a").linear()).check_curvature().expect_err("refused").to_string();
        assert!(told.starts_with("the problem: the objective has no second derivatives"), "{told}");
    }
}
