//! Problems stated by formulas, as in a TOML file:
//!
//! ```toml
//! minimize = "(x - 2)**2 + (y - 1)**2"
//!
//! [variables]
//! x = { start = 0.0 }
//! y = { start = 0.0, lower = 0.0 }
//!
//! [constraints]
//! budget = { function = "x + y", upper = 1.0 }
//! curve = { function = "y - x**2", equals = 0.0 }
//! ```
//!
//! Formulas are in Fortran's notation ([`expression`](super::expression)); first and second derivatives are exact.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::expression::{Jet, Scope, Scratch, Tape};
use crate::problem::{Bounds, Constrained, Constraint, Curved, Objective, Simple};
use crate::{Error, Result};

/// A problem as it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// The objective.
    pub minimize: String,
    /// The variables by name; their order is that of their names.
    pub variables: BTreeMap<String, Variable>,
    /// The constraints by name.
    pub constraints: BTreeMap<String, Limits>,
}

/// A variable as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Variable {
    /// Its value at the start.
    pub start: f64,
    /// Its lower bound.
    pub lower: Option<f64>,
    /// Its upper bound.
    pub upper: Option<f64>,
}

/// A constraint as it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The function.
    pub function: String,
    /// The value that it has to have.
    pub equals: Option<f64>,
    /// The least value.
    pub lower: Option<f64>,
    /// The largest value.
    pub upper: Option<f64>,
}

/// A problem of formulas.
#[derive(Debug, Clone)]
pub struct Formula {
    variables: Vec<String>,
    start: Vec<f64>,
    simple: Simple,
    objective: Tape,
    constraints: Vec<Constraint>,
    functions: Vec<Tape>,
}

impl Formula {
    /// Reads the formulas.
    ///
    /// # Errors
    /// One cannot be read, or limits contradict each other.
    pub fn new(model: &Model) -> Result<Self> {
        let variables: Vec<String> = model.variables.keys().cloned().collect();
        let mut folded: Vec<String> = variables.iter().map(|name| name.to_ascii_uppercase()).collect();
        folded.sort_unstable();
        folded.dedup();
        if folded.len() < variables.len() {
            return Err(wrong("two variables differ only in case, which formulas do not see".to_owned()));
        }
        if let Some(name) = variables.iter().find(|name| !is_name(name)) {
            return Err(wrong(format!(
                "`{name}` is not the name of a variable: letters and digits, a letter first"
            )));
        }
        let objective = tape("minimize", &model.minimize, &variables)?;
        let (mut constraints, mut functions) = (Vec::new(), Vec::new());
        for (name, limits) in &model.constraints {
            let (lower, upper) = match (limits.equals, limits.lower, limits.upper) {
                (Some(value), None, None) => (value, value),
                (None, None, None) => {
                    return Err(wrong(format!(
                        "constraint `{name}` has no limit; give equals, lower or upper"
                    )));
                }
                (None, lower, upper) => (lower.unwrap_or(f64::NEG_INFINITY), upper.unwrap_or(f64::INFINITY)),
                _ => return Err(wrong(format!("constraint `{name}` has equals beside another limit"))),
            };
            constraints.push(Constraint { name: name.clone(), lower, upper });
            functions.push(tape(&format!("constraints.{name}"), &limits.function, &variables)?);
        }
        let start = model.variables.values().map(|v| v.start).collect();
        let lower = model.variables.values().map(|v| v.lower.unwrap_or(f64::NEG_INFINITY)).collect();
        let upper = model.variables.values().map(|v| v.upper.unwrap_or(f64::INFINITY)).collect();
        Ok(Self {
            variables,
            start,
            simple: Bounds::new(lower, upper).into(),
            objective,
            constraints,
            functions,
        })
    }

    /// Names of the variables.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// The starting point.
    pub fn start(&self) -> &[f64] {
        &self.start
    }

    fn jets(&self, x: &[f64], w: &[f64], second: bool, mut each: impl FnMut(f64, &Jet)) {
        let (mut scratch, mut jet) = (Scratch::default(), Jet::default());
        self.objective.jet(x, second, &mut scratch, &mut jet);
        each(1.0, &jet);
        for (w, function) in w.iter().zip(&self.functions).filter(|(w, _)| **w != 0.0) {
            function.jet(x, second, &mut scratch, &mut jet);
            each(*w, &jet);
        }
    }
}

fn wrong(problem: String) -> Error {
    Error::Problem { problem }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn tape(key: &str, text: &str, variables: &[String]) -> Result<Tape> {
    let mut scope = Scope::new(variables, variables.len());
    scope.result(text).map_err(|(at, problem)| {
        wrong(format!("{key}, character {}: {problem}; it is \"{text}\"", at + 1))
    })?;
    Ok(scope.into_tape())
}

fn value(tape: &Tape, x: &[f64]) -> f64 {
    let mut out = Vec::with_capacity(1);
    tape.values(x, &mut Vec::new(), &mut out);
    out[0]
}

impl Objective for Formula {
    fn dim(&self) -> usize {
        self.variables.len()
    }

    fn value(&self, x: &[f64]) -> f64 {
        value(&self.objective, x)
    }

    fn grad(&self, x: &[f64], g: &mut [f64]) {
        self.jets(x, &[], false, |_, jet| g.copy_from_slice(&jet.gradient));
    }

    fn simple(&self) -> &Simple {
        &self.simple
    }
}

impl Constrained for Formula {
    fn constraints(&self) -> &[Constraint] {
        &self.constraints
    }

    fn residuals(&self, x: &[f64], c: &mut [f64]) {
        c.iter_mut().zip(&self.functions).for_each(|(c, function)| *c = value(function, x));
    }

    fn vjp(&self, x: &[f64], w: &[f64], out: &mut [f64]) {
        let (mut scratch, mut jet) = (Scratch::default(), Jet::default());
        for (w, function) in w.iter().zip(&self.functions).filter(|(w, _)| **w != 0.0) {
            function.jet(x, false, &mut scratch, &mut jet);
            crate::linalg::add_scaled(out, *w, &jet.gradient);
        }
    }
}

impl Curved for Formula {
    fn hess_vec(&self, x: &[f64], w: &[f64], v: &[f64], out: &mut [f64]) {
        out.fill(0.0);
        let n = x.len();
        self.jets(x, w, true, |w, jet| {
            for i in 0..n {
                out[i] += w * crate::linalg::dot(&jet.hessian[i * n..(i + 1) * n], v);
            }
        });
    }

    fn hessian(&self, x: &[f64], w: &[f64]) -> crate::linalg::Triplets {
        let n = x.len();
        let mut hessian = crate::linalg::Triplets::new(n, n);
        self.jets(x, w, true, |w, jet| {
            for i in 0..n {
                for j in (0..=i).filter(|j| jet.hessian[i * n + j] != 0.0) {
                    hessian.push(i, j, w * jet.hessian[i * n + j]);
                }
            }
        });
        hessian
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Status;
    use crate::solver::{AugmentedLagrangian, Solver as _};

    fn model() -> Model {
        let variable = |start| Variable { start, ..Variable::default() };
        Model {
            minimize: "(x - 2)**2 + (y - 1)**2".into(),
            variables: [("x".into(), variable(0.0)), ("y".into(), variable(0.0))].into(),
            constraints: [(
                "budget".into(),
                Limits { function: "x + y".into(), upper: Some(1.0), ..Limits::default() },
            )]
            .into(),
        }
    }

    #[test]
    fn formulas_make_a_problem() {
        let problem = Formula::new(&model()).expect("valid");
        let out = AugmentedLagrangian::default().solve(&problem, problem.start()).expect("valid");
        assert_eq!(out.status, Status::Optimal);
        assert!((out.dual("budget") - 2.0).abs() < 1e-5 && (out.x[0] - 1.0).abs() < 1e-6, "{out:?}");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let told = |change: &dyn Fn(&mut Model)| {
            let mut model = model();
            change(&mut model);
            Formula::new(&model).expect_err("refused").to_string()
        };
        assert_eq!(
            told(&|m| m.minimize = "x + z".into()),
            "the problem: minimize, character 5: z is not known here; it is \"x + z\""
        );
        let none = |m: &mut Model| m.constraints.get_mut("budget").expect("there").upper = None;
        assert_eq!(told(&none), "the problem: constraint `budget` has no limit; give equals, lower or upper");
        let both = |m: &mut Model| m.constraints.get_mut("budget").expect("there").equals = Some(1.0);
        assert_eq!(told(&both), "the problem: constraint `budget` has equals beside another limit");
        let odd = |m: &mut Model| m.variables.extend([("2x".into(), Variable::default())]);
        assert!(told(&odd).contains("`2x` is not the name of a variable"));
    }
}
