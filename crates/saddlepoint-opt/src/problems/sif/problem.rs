//! A problem of groups and elements, and its derivatives.

use std::collections::BTreeMap;

use super::functions::{Derivative, Function};
use super::section::Data;
use crate::Result;
use crate::linalg::Triplets;
use crate::problem::{Bounds, Constrained, Constraint, Curved, Objective, Simple};
use crate::problems::expression::{Jet, Scratch};

/// A problem that was read from a file.
#[derive(Debug, Clone)]
pub struct Sif {
    name: String,
    variables: Vec<String>,
    start: Vec<f64>,
    multipliers: Vec<f64>,
    simple: Simple,
    constraints: Vec<Constraint>,
    groups: Vec<Group>,
    /// Groups of the objective, and the group of each constraint.
    objective: Vec<usize>,
    held: Vec<usize>,
    elements: Vec<Element>,
    element_types: Vec<(String, Function)>,
    group_types: Vec<(String, Function)>,
    /// Lower triangle of the matrix `Q` in `xᵀ Q x / 2`, a part of the objective.
    quadratic: Triplets,
}

#[derive(Debug, Clone)]
struct Group {
    linear: Vec<(usize, f64)>,
    constant: f64,
    scale: f64,
    /// Elements with their weights.
    elements: Vec<(usize, f64)>,
    /// Without a type the group is its argument.
    of: Option<usize>,
    parameters: Vec<f64>,
}

#[derive(Debug, Clone)]
struct Element {
    of: usize,
    variables: Vec<usize>,
    parameters: Vec<f64>,
}

impl Group {
    /// The argument `α` of a group's function.
    fn argument(&self, x: &[f64], local: &Local) -> f64 {
        let nonlinear: f64 = self.elements.iter().map(|&(e, w)| w * local.elements[e].value).sum();
        let linear: f64 = self.linear.iter().map(|&(i, a)| a * x[i]).sum();
        nonlinear + linear - self.constant
    }
}

impl Element {
    /// The arguments of an element's expression: internal variables if there are any, and parameters.
    fn inputs(&self, function: &Function, x: &[f64], inputs: &mut Vec<f64>) {
        inputs.clear();
        if function.range.is_empty() {
            inputs.extend(self.variables.iter().map(|&i| x[i]));
        } else {
            inputs.resize(function.tape.variables(), 0.0);
            for &(internal, elemental, factor) in &function.range {
                inputs[internal] += factor * x[self.variables[elemental]];
            }
        }
        inputs.extend(&self.parameters);
    }
}

/// Joins what the data part says with the functions.
pub(super) fn assemble(
    data: Data,
    element_functions: BTreeMap<String, Function>,
    group_functions: BTreeMap<String, Function>,
) -> Result<Sif> {
    let element_types: Vec<_> = element_functions.into_iter().collect();
    let group_types: Vec<_> = group_functions.into_iter().collect();
    let place = |types: &[(String, Function)], name: &str| types.iter().position(|(known, _)| known == name);
    let mut elements = Vec::with_capacity(data.elements.items.len());
    for (name, element) in data.elements.names.iter().zip(&data.elements.items) {
        let declared = &data.element_types[&element.of];
        let Some(of) = place(&element_types, &element.of) else {
            return element
                .at
                .error(format!("the element type `{}` is not defined in the part ELEMENTS", element.of));
        };
        let mut variables = Vec::with_capacity(element.variables.len());
        for (variable, known) in element.variables.iter().zip(&declared.variables) {
            let Some(variable) = variable else {
                return element
                    .at
                    .error(format!("the variable `{known}` of element `{name}` is not assigned"));
            };
            variables.push(*variable);
        }
        let mut parameters = Vec::new();
        for parameter in &declared.parameters {
            let Some(value) = element.parameters.get(parameter) else {
                return element
                    .at
                    .error(format!("the parameter `{parameter}` of element `{name}` has no value"));
            };
            parameters.push(*value);
        }
        elements.push(Element { of, variables, parameters });
    }
    let (mut groups, mut objective, mut held) = (Vec::new(), Vec::new(), Vec::new());
    let (mut constraints, mut multipliers) = (Vec::new(), Vec::new());
    for (i, (name, group)) in data.groups.names.iter().zip(&data.groups.items).enumerate() {
        let mut parameters = Vec::new();
        let of = group.of.as_deref().or(data.default_group_type());
        let of = match of {
            None => None,
            Some(of) => {
                let Some(found) = place(&group_types, of) else {
                    return group
                        .at
                        .error(format!("the group type `{of}` is not defined in the part GROUPS"));
                };
                for parameter in &data.group_types[of].parameters {
                    let Some(value) = group.parameters.get(parameter) else {
                        return group
                            .at
                            .error(format!("the parameter `{parameter}` of group `{name}` has no value"));
                    };
                    parameters.push(*value);
                }
                Some(found)
            }
        };
        let infinity = f64::INFINITY;
        let range = group.range;
        let (lower, upper) = match (group.sense, range) {
            ('E', Some(r)) => (r.min(0.0), r.max(0.0)),
            ('E', None) => (0.0, 0.0),
            ('L', _) => (range.map_or(-infinity, |r| -r.abs()), 0.0),
            _ => (0.0, range.map_or(infinity, f64::abs)),
        };
        if group.sense == 'N' {
            objective.push(i);
        } else {
            held.push(i);
            constraints.push(Constraint { name: name.clone(), lower, upper });
            multipliers.push(group.multiplier);
        }
        let (linear, elements) = (group.linear.clone(), group.elements.clone());
        groups.push(Group { linear, constant: group.constant, scale: group.scale, elements, of, parameters });
    }
    let n = data.variables.items.len();
    let mut quadratic = Triplets::new(n, n);
    data.quadratic.iter().for_each(|&(i, j, value)| quadratic.push(i, j, value));
    let bound = |value: f64| if value.abs() >= 1e20 { value.signum() * f64::INFINITY } else { value };
    let lower = data.variables.items.iter().map(|v| bound(v.lower)).collect();
    let upper = data.variables.items.iter().map(|v| bound(v.upper)).collect();
    let start = data.variables.items.iter().map(|v| v.start).collect();
    Ok(Sif {
        name: data.name,
        variables: data.variables.names,
        start,
        multipliers,
        simple: Bounds::new(lower, upper).into(),
        constraints,
        groups,
        objective,
        held,
        elements,
        element_types,
        group_types,
        quadratic,
    })
}

/// Values of elements and groups at a point, with as many derivatives as were asked for.
struct Local {
    /// One an element; those that are not needed stay empty.
    elements: Vec<Jet>,
    scratch: Scratch,
    inputs: Vec<f64>,
}

impl Sif {
    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The starting point.
    pub fn start(&self) -> &[f64] {
        &self.start
    }

    /// The multipliers of the starting point, in the file's own sign.
    pub fn start_multipliers(&self) -> &[f64] {
        &self.multipliers
    }

    /// Names of the variables.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    fn local(&self) -> Local {
        Local {
            elements: vec![Jet::default(); self.elements.len()],
            scratch: Scratch::default(),
            inputs: Vec::new(),
        }
    }

    /// Evaluates the elements of those groups that have no value yet.
    fn evaluate(&self, groups: impl Iterator<Item = usize>, x: &[f64], order: Order, local: &mut Local) {
        let mut done = vec![false; self.elements.len()];
        for group in groups {
            for &(element, _) in &self.groups[group].elements {
                if !std::mem::replace(&mut done[element], true) {
                    self.element(element, x, order, local);
                }
            }
        }
    }

    /// An element as a function of its elemental variables.
    fn element(&self, index: usize, x: &[f64], order: Order, local: &mut Local) {
        let element = &self.elements[index];
        let function = &self.element_types[element.of].1;
        let Local { elements, scratch, inputs } = local;
        element.inputs(function, x, inputs);
        let out = &mut elements[index];
        if order == Order::Value {
            let mut values = Vec::with_capacity(1);
            function.tape.values(inputs, &mut scratch.values, &mut values);
            out.value = values[0];
            return;
        }
        function.tape.jet(inputs, order == Order::Second, scratch, out);
        if !function.range.is_empty() {
            *out = pulled_back(out, function, element.variables.len());
        }
    }

    /// Value, first and second derivative of a group with respect to its argument, divided by its scale.
    fn group(&self, group: &Group, x: &[f64], local: &mut Local) -> (f64, f64, f64) {
        let argument = group.argument(x, local);
        let (value, first, second) = match group.of {
            None => (argument, 1.0, 0.0),
            Some(of) => {
                let Local { scratch, inputs, .. } = local;
                inputs.clear();
                inputs.push(argument);
                inputs.extend(&group.parameters);
                let mut jet = Jet::default();
                self.group_types[of].1.tape.jet(inputs, true, scratch, &mut jet);
                (jet.value, jet.gradient[0], jet.hessian[0])
            }
        };
        (value / group.scale, first / group.scale, second / group.scale)
    }

    /// `∇α` as a list of elements; a variable may come more than once.
    fn argument_gradient(&self, group: &Group, local: &Local, mut each: impl FnMut(usize, f64)) {
        group.linear.iter().for_each(|&(i, a)| each(i, a));
        for &(e, w) in &group.elements {
            let variables = &self.elements[e].variables;
            variables.iter().zip(&local.elements[e].gradient).for_each(|(&i, g)| each(i, w * g));
        }
    }

    /// Groups with the weight that they have in the Lagrangian `f + Σ w_i c_i`.
    fn weighted<'a>(&'a self, w: &'a [f64]) -> impl Iterator<Item = (usize, f64)> + Clone + 'a {
        let held = self.held.iter().zip(w).map(|(&group, &w)| (group, w));
        self.objective.iter().map(|&group| (group, 1.0)).chain(held).filter(|(_, w)| *w != 0.0)
    }

    fn add_gradient(&self, groups: impl Iterator<Item = (usize, f64)> + Clone, x: &[f64], out: &mut [f64]) {
        let mut local = self.local();
        self.evaluate(groups.clone().map(|(group, _)| group), x, Order::First, &mut local);
        for (index, weight) in groups {
            let group = &self.groups[index];
            let (_, first, _) = self.group(group, x, &mut local);
            self.argument_gradient(group, &local, |i, g| out[i] += weight * first * g);
        }
    }

    /// Compares the derivatives that the file gives with those of its values, at `x`: of each function where they differ by more
    /// than `tolerance`, relative to the larger of the two and 1, the first place.
    pub fn faults_of_given_derivatives(&self, x: &[f64], tolerance: f64) -> Vec<String> {
        let mut faults = BTreeMap::new();
        let mut local = self.local();
        for element in &self.elements {
            let (name, function) = &self.element_types[element.of];
            let mut inputs = Vec::new();
            element.inputs(function, x, &mut inputs);
            if let Some(fault) = fault(function, &inputs, tolerance) {
                faults.entry(format!("element type {name}")).or_insert(fault);
            }
        }
        self.evaluate(0..self.groups.len(), x, Order::Value, &mut local);
        for group in &self.groups {
            let Some(of) = group.of else { continue };
            let (name, function) = &self.group_types[of];
            let mut inputs = vec![group.argument(x, &local)];
            inputs.extend(&group.parameters);
            if let Some(fault) = fault(function, &inputs, tolerance) {
                faults.entry(format!("group type {name}")).or_insert(fault);
            }
        }
        faults.into_iter().map(|(name, fault)| format!("{name}: {fault}")).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Value,
    First,
    Second,
}

/// From derivatives with respect to internal variables `u = W v` to those with respect to `v`: `Wᵀ g` and `Wᵀ H W`.
fn pulled_back(jet: &Jet, function: &Function, n: usize) -> Jet {
    let inner = function.tape.variables();
    let mut out = Jet { value: jet.value, gradient: vec![0.0; n], hessian: Vec::new() };
    for &(u, v, factor) in &function.range {
        out.gradient[v] += factor * jet.gradient[u];
    }
    if !jet.hessian.is_empty() {
        out.hessian = vec![0.0; n * n];
        for &(u, v, factor) in &function.range {
            for &(u2, v2, factor2) in &function.range {
                out.hessian[v * n + v2] += factor * factor2 * jet.hessian[u * inner + u2];
            }
        }
    }
    out
}

fn fault(function: &Function, inputs: &[f64], tolerance: f64) -> Option<String> {
    let (mut jet, mut given) = (Jet::default(), Vec::new());
    function.tape.jet(inputs, true, &mut Scratch::default(), &mut jet);
    function.given.values(inputs, &mut Vec::new(), &mut given);
    let n = function.tape.variables();
    for (derivative, given) in function.order.iter().zip(given) {
        let (exact, what) = match *derivative {
            Derivative::First(i) => (jet.gradient[i], format!("derivative {i}")),
            Derivative::Second(i, j) => (jet.hessian[i * n + j], format!("second derivative {i}, {j}")),
        };
        let scale = exact.abs().max(given.abs()).max(1.0);
        if exact.is_finite() && given.is_finite() && (exact - given).abs() > tolerance * scale {
            return Some(format!("{what} is given as {given} and is {exact}"));
        }
    }
    None
}

impl Objective for Sif {
    fn dim(&self) -> usize {
        self.variables.len()
    }

    fn value(&self, x: &[f64]) -> f64 {
        let mut local = self.local();
        self.evaluate(self.objective.iter().copied(), x, Order::Value, &mut local);
        let groups: f64 = self.objective.iter().map(|&g| self.group(&self.groups[g], x, &mut local).0).sum();
        let terms = self.quadratic.elements().iter();
        groups
            + terms
                .map(|&(i, j, q)| if i == j { 0.5 * q * x[i] * x[i] } else { q * x[i] * x[j] })
                .sum::<f64>()
    }

    fn grad(&self, x: &[f64], g: &mut [f64]) {
        g.fill(0.0);
        self.add_gradient(self.objective.iter().map(|&group| (group, 1.0)), x, g);
        add_quadratic(&self.quadratic, x, g);
    }

    fn simple(&self) -> &Simple {
        &self.simple
    }
}

/// `out += Q v`.
fn add_quadratic(quadratic: &Triplets, v: &[f64], out: &mut [f64]) {
    for &(i, j, q) in quadratic.elements() {
        out[i] += q * v[j];
        if i != j {
            out[j] += q * v[i];
        }
    }
}

impl Constrained for Sif {
    fn constraints(&self) -> &[Constraint] {
        &self.constraints
    }

    fn residuals(&self, x: &[f64], c: &mut [f64]) {
        let mut local = self.local();
        self.evaluate(self.held.iter().copied(), x, Order::Value, &mut local);
        c.iter_mut().zip(&self.held).for_each(|(c, &g)| *c = self.group(&self.groups[g], x, &mut local).0);
    }

    fn vjp(&self, x: &[f64], w: &[f64], out: &mut [f64]) {
        let groups = self.held.iter().zip(w).map(|(&group, &w)| (group, w)).filter(|(_, w)| *w != 0.0);
        self.add_gradient(groups, x, out);
    }

    fn jacobian(&self, x: &[f64]) -> Triplets {
        let mut local = self.local();
        self.evaluate(self.held.iter().copied(), x, Order::First, &mut local);
        let mut jacobian = Triplets::new(self.held.len(), x.len());
        for (row, &index) in self.held.iter().enumerate() {
            let group = &self.groups[index];
            let (_, first, _) = self.group(group, x, &mut local);
            self.argument_gradient(group, &local, |i, g| jacobian.push(row, i, first * g));
        }
        jacobian
    }
}

impl Curved for Sif {
    fn hess_vec(&self, x: &[f64], w: &[f64], v: &[f64], out: &mut [f64]) {
        out.fill(0.0);
        let mut local = self.local();
        self.evaluate(self.weighted(w).map(|(group, _)| group), x, Order::Second, &mut local);
        let mut along = vec![0.0; self.elements.len()];
        for (index, weight) in self.weighted(w) {
            let group = &self.groups[index];
            let (_, first, second) = self.group(group, x, &mut local);
            group.elements.iter().for_each(|&(e, w)| along[e] += weight * first * w);
            if second != 0.0 {
                let mut slope = 0.0;
                self.argument_gradient(group, &local, |i, g| slope += g * v[i]);
                self.argument_gradient(group, &local, |i, g| out[i] += weight * second * slope * g);
            }
        }
        for (element, (jet, along)) in self.elements.iter().zip(local.elements.iter().zip(along)) {
            if along != 0.0 {
                let n = element.variables.len();
                for (a, &i) in element.variables.iter().enumerate() {
                    let row = &jet.hessian[a * n..(a + 1) * n];
                    let product: f64 = row.iter().zip(&element.variables).map(|(h, &j)| h * v[j]).sum();
                    out[i] += along * product;
                }
            }
        }
        add_quadratic(&self.quadratic, v, out);
    }

    fn hessian(&self, x: &[f64], w: &[f64]) -> Triplets {
        let mut hessian = self.quadratic.clone();
        let mut local = self.local();
        self.evaluate(self.weighted(w).map(|(group, _)| group), x, Order::Second, &mut local);
        let mut along = vec![0.0; self.elements.len()];
        for (index, weight) in self.weighted(w) {
            let group = &self.groups[index];
            let (_, first, second) = self.group(group, x, &mut local);
            group.elements.iter().for_each(|&(e, w)| along[e] += weight * first * w);
            if second != 0.0 {
                let mut gradient = BTreeMap::new();
                self.argument_gradient(group, &local, |i, g| *gradient.entry(i).or_insert(0.0) += g);
                for (&i, a) in &gradient {
                    gradient.range(..=i).for_each(|(&j, b)| hessian.push(i, j, weight * second * a * b));
                }
            }
        }
        for (element, (jet, along)) in self.elements.iter().zip(local.elements.iter().zip(along)) {
            let n = element.variables.len();
            if along == 0.0 {
                continue;
            }
            for (a, &i) in element.variables.iter().enumerate() {
                for (b, &j) in element.variables.iter().enumerate() {
                    // A variable that an element has twice meets itself in both orders.
                    if i >= j {
                        hessian.push(i, j, along * jet.hessian[a * n + b]);
                    }
                }
            }
        }
        hessian
    }
}
