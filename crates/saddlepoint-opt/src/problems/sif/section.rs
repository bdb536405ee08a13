//! The data part: sections in their order, loops, and what they make of groups, variables and elements.

use std::collections::{BTreeMap, HashMap};

use super::functions::{Declared, Preamble};
use super::line::{Field, Line};
use super::parameters::Parameters;
use super::problem::{Sif, assemble};
use crate::Result;

/// Lines that are carried out, loops unrolled, before a file is refused.
const MOST_LINES: u64 = 5_000_000;
/// Loops within each other.
const DEEPEST: usize = 10;

/// What the data part says, before the functions are known.
#[derive(Default)]
pub(super) struct Data<'a> {
    pub(super) name: String,
    pub(super) parameters: Parameters,
    pub(super) variables: Table<Variable>,
    pub(super) groups: Table<Group<'a>>,
    pub(super) elements: Table<Element<'a>>,
    pub(super) element_types: BTreeMap<String, Declared>,
    pub(super) group_types: BTreeMap<String, Declared>,
    /// `(i, j, value)` with `i >= j`.
    pub(super) quadratic: Vec<(usize, usize, f64)>,
    default: Defaults,
    default_element_type: Option<String>,
    default_group_type: Option<String>,
    /// The first set of constants, ranges, bounds and starting points.
    sets: BTreeMap<Section, &'a str>,
    lines: u64,
    depth: usize,
}

/// What new variables and groups start with.
#[derive(Clone, Copy)]
struct Defaults {
    lower: f64,
    upper: f64,
    start: f64,
    constant: f64,
    range: Option<f64>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { lower: 0.0, upper: f64::INFINITY, start: 0.0, constant: 0.0, range: None }
    }
}

pub(super) struct Variable {
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) start: f64,
}

pub(super) struct Group<'a> {
    /// `N`, `E`, `L` or `G`.
    pub(super) sense: char,
    pub(super) linear: Vec<(usize, f64)>,
    pub(super) constant: f64,
    pub(super) range: Option<f64>,
    pub(super) scale: f64,
    pub(super) multiplier: f64,
    pub(super) elements: Vec<(usize, f64)>,
    pub(super) of: Option<String>,
    pub(super) parameters: HashMap<String, f64>,
    /// Where it is declared.
    pub(super) at: Field<'a>,
}

pub(super) struct Element<'a> {
    pub(super) of: String,
    pub(super) variables: Vec<Option<usize>>,
    pub(super) parameters: HashMap<String, f64>,
    pub(super) at: Field<'a>,
}

/// Things with names, in the order in which they were declared.
pub(super) struct Table<T> {
    pub(super) names: Vec<String>,
    pub(super) items: Vec<T>,
    index: HashMap<String, usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { names: Vec::new(), items: Vec::new(), index: HashMap::new() }
    }
}

impl<T> Table<T> {
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn get_or(&mut self, name: String, new: impl FnOnce() -> T) -> usize {
        if let Some(&i) = self.index.get(&name) {
            return i;
        }
        self.index.insert(name.clone(), self.items.len());
        self.names.push(name);
        self.items.push(new());
        self.items.len() - 1
    }

    fn known(&self, name: &str, at: Field, what: &str) -> Result<usize> {
        self.find(name).map_or_else(|| at.error(format!("there is no {what} `{name}`")), Ok)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Parameters,
    Groups,
    Variables,
    Constants,
    Ranges,
    Bounds,
    Start,
    Quadratic,
    /// Both triangles are listed.
    FullMatrix,
    ElementType,
    ElementUses,
    GroupType,
    GroupUses,
    ObjectBound,
}

fn section(heading: &str) -> Option<Section> {
    let mut words = heading.split_whitespace();
    let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    Some(match (first, second) {
        ("NAME", _) => Section::Parameters,
        ("GROUPS" | "ROWS" | "CONSTRAINTS", _) => Section::Groups,
        ("VARIABLES" | "COLUMNS", _) => Section::Variables,
        ("CONSTANTS" | "RHS" | "RHS'", _) => Section::Constants,
        ("RANGES", _) => Section::Ranges,
        ("BOUNDS", _) => Section::Bounds,
        ("START", "POINT") => Section::Start,
        ("QUADRATIC" | "HESSIAN" | "QUADS" | "QUADOBJ" | "QSECTION", _) => Section::Quadratic,
        ("QMATRIX", _) => Section::FullMatrix,
        ("ELEMENT", "TYPE") => Section::ElementType,
        ("ELEMENT", "USES") => Section::ElementUses,
        ("GROUP", "TYPE") => Section::GroupType,
        ("GROUP", "USES") => Section::GroupUses,
        ("OBJECT", "BOUND") => Section::ObjectBound,
        _ => return None,
    })
}

pub(super) fn read(text: &str) -> Result<Sif> {
    let lines = Line::all(text);
    let Some(first) = lines.first() else {
        let nothing = Line { number: 1, text: "" };
        return nothing.error("the file is empty; a problem starts with NAME");
    };
    let mut data = Data::default();
    match first.text.strip_prefix("NAME") {
        Some(name) => name.split_whitespace().next().unwrap_or("").clone_into(&mut data.name),
        None => return first.error("a problem starts with NAME"),
    }
    let mut rest = &lines[..];
    loop {
        let Some((heading, after)) = rest.split_first() else {
            let last = lines.last().expect("not empty");
            return last.error("the data part has no ENDATA");
        };
        let body = after.iter().take_while(|line| !line.is_heading()).count();
        rest = &after[body..];
        if heading.text.starts_with("ENDATA") {
            break;
        }
        match section(heading.text) {
            Some(section) => data.run(section, &after[..body])?,
            None => return heading.error(format!("unknown section `{}`", heading.text)),
        }
    }
    let (mut element_functions, mut group_functions) = (BTreeMap::new(), BTreeMap::new());
    while let Some(start) = rest.iter().position(|line| {
        let first = line.text.split_whitespace().next().unwrap_or("");
        line.is_heading() && (first == "ELEMENTS" || first == "GROUPS")
    }) {
        let of_elements = rest[start].text.starts_with("ELEMENTS");
        let declared = if of_elements { &data.element_types } else { &data.group_types };
        let mut preamble = Preamble::default();
        rest = &rest[start + 1..];
        // Some files declare the types once more.
        rest = &rest[rest.iter().take_while(|line| !line.is_heading()).count()..];
        loop {
            let Some((heading, after)) = rest.split_first() else {
                return lines.last().expect("not empty").error("the part of functions has no ENDATA");
            };
            let body = after.iter().take_while(|line| !line.is_heading()).count();
            let body = &after[..body];
            rest = &after[body.len()..];
            match heading.text.split_whitespace().next().unwrap_or("") {
                "ENDATA" => break,
                "TEMPORARIES" => preamble.temporaries(body)?,
                "GLOBALS" => preamble.globals(body)?,
                "INDIVIDUALS" => {
                    let functions = preamble.individuals(body, declared)?;
                    let all = if of_elements { &mut element_functions } else { &mut group_functions };
                    all.extend(functions);
                }
                other => return heading.error(format!("unknown section `{other}`")),
            }
        }
    }
    assemble(data, element_functions, group_functions)
}

impl<'a> Data<'a> {
    fn run(&mut self, section: Section, lines: &[Line<'a>]) -> Result<()> {
        let mut i = 0;
        while i < lines.len() {
            let line = &lines[i];
            self.lines += 1;
            if self.lines > MOST_LINES {
                return line.error(format!("the loops come to more than {MOST_LINES} lines"));
            }
            match line.code() {
                "DO" => {
                    let body = &lines[i + 1..i + 1 + body_len(&lines[i + 1..])];
                    self.repeat(section, line, body)?;
                    i += body.len() + 1;
                }
                // The end of a loop, met after its body, or the increment that the loop has taken already.
                "OD" | "ND" | "DI" => {}
                _ => {
                    if !self.parameters.assign(line)? {
                        self.line(section, line)?;
                    }
                }
            }
            i += 1;
        }
        Ok(())
    }

    fn repeat(&mut self, section: Section, line: &Line<'a>, body: &[Line<'a>]) -> Result<()> {
        let index = line.name();
        if index.is_empty() {
            return index.error("the index of a loop is missing");
        }
        let (first, last) = (self.parameters.integer(line.second())?, self.parameters.integer(line.third())?);
        let by =
            body.iter().take_while(|line| line.code() == "DI").find(|line| line.name().text == index.text);
        let by = by.map_or(Ok(1), |line| self.parameters.integer(line.second()))?;
        if by == 0 {
            return index.error("the increment of a loop is 0");
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return line.error(format!("more than {DEEPEST} loops within each other"));
        }
        let mut value = first;
        while if by > 0 { value <= last } else { value >= last } {
            self.parameters.set_integer(index.text, value);
            // A loop over nothing has to end as well.
            self.lines += 1;
            if self.lines > MOST_LINES {
                return line.error(format!("the loops come to more than {MOST_LINES} lines"));
            }
            self.run(section, body)?;
            let Some(next) = value.checked_add(by) else { break };
            value = next;
        }
        self.depth -= 1;
        Ok(())
    }

    fn line(&mut self, section: Section, line: &Line<'a>) -> Result<()> {
        if matches!(section, Section::Constants | Section::Ranges | Section::Bounds | Section::Start) {
            // A file may have several sets of them, of which the first is meant.
            let first = *self.sets.entry(section).or_insert(line.name().text);
            if first != line.name().text {
                return Ok(());
            }
        }
        match section {
            Section::Parameters => line.error(format!("unknown code `{}` among the parameters", line.code())),
            Section::Groups => self.group(line),
            Section::Variables => self.variable(line),
            Section::Constants => {
                self.constant(line, |group, value| group.constant = value, |d, v| d.constant = v)
            }
            Section::Ranges => {
                self.constant(line, |group, value| group.range = Some(value), |d, v| d.range = Some(v))
            }
            Section::Bounds => self.bound(line),
            Section::Start => self.start(line),
            Section::Quadratic => self.quadratic(line, false),
            Section::FullMatrix => self.quadratic(line, true),
            Section::ElementType => declare(&mut self.element_types, line, "EV"),
            Section::GroupType => declare(&mut self.group_types, line, "GV"),
            Section::ElementUses => self.element_use(line),
            Section::GroupUses => self.group_use(line),
            Section::ObjectBound => Ok(()),
        }
    }

    /// A name as the line's code wants it: with its indices expanded if the code has an `X` or a `Z`.
    fn name(&self, code: &str, name: Field) -> Result<String> {
        if code.starts_with(['X', 'Z', 'A']) {
            self.parameters.expand(name)
        } else {
            Ok(name.text.to_owned())
        }
    }

    /// Names with numbers: one with the value of a parameter after `Z`, else one or two with their own.
    fn valued(&self, code: &str, line: &Line<'a>) -> Result<Vec<(Field<'a>, String, f64)>> {
        let quoted = |name: Field| -> Result<String> {
            if name.text.starts_with('\'') { Ok(name.text.to_owned()) } else { self.name(code, name) }
        };
        if code.starts_with('Z') {
            let name = line.second();
            if name.is_empty() {
                return Ok(Vec::new());
            }
            return Ok(vec![(name, quoted(name)?, self.parameters.real(line.third())?)]);
        }
        line.pairs().map(|(name, number)| Ok((name, quoted(name)?, number.number_or(0.0)?))).collect()
    }

    fn new_variable(&mut self, name: String) -> usize {
        let Defaults { lower, upper, start, .. } = self.default;
        self.variables.get_or(name, || Variable { lower, upper, start })
    }

    fn group(&mut self, line: &Line<'a>) -> Result<()> {
        let code = line.code();
        let sense = match code.trim_start_matches(['X', 'Z']) {
            "N" => 'N',
            "E" => 'E',
            "L" => 'L',
            "G" => 'G',
            _ => return line.error(format!("unknown code `{code}` for a group; there are N, E, L and G")),
        };
        let name = self.name(code, line.name())?;
        let (at, Defaults { constant, range, .. }) = (line.name(), self.default);
        let group = self.groups.get_or(name, || Group {
            sense,
            linear: Vec::new(),
            constant,
            range,
            scale: 1.0,
            multiplier: 0.0,
            elements: Vec::new(),
            of: None,
            parameters: HashMap::new(),
            at,
        });
        for (field, variable, value) in self.valued(code, line)? {
            if variable == "'SCALE'" {
                self.groups.items[group].scale = scale(field, value)?;
                continue;
            }
            let variable = self.variables.known(&variable, field, "variable")?;
            self.groups.items[group].linear.push((variable, value));
        }
        Ok(())
    }

    fn variable(&mut self, line: &Line<'a>) -> Result<()> {
        let code = line.code();
        if !matches!(code, "" | "X" | "Z") {
            return line.error(format!("unknown code `{code}` for a variable"));
        }
        if line.second().text == "'MARKER'" {
            return Ok(());
        }
        let name = self.name(code, line.name())?;
        let variable = self.new_variable(name);
        // Whether variables are integers is not what a continuous solver asks.
        for (field, group, value) in self.valued(code, line)? {
            match group.as_str() {
                "'SCALE'" | "'INTEGER'" => {}
                // Some files forget the quotes.
                "INTEGER" if self.groups.find("INTEGER").is_none() => {}
                "'ZERO-ONE'" => self.variables.items[variable].upper = 1.0,
                _ => {
                    let group = self.groups.known(&group, field, "group")?;
                    self.groups.items[group].linear.push((variable, value));
                }
            }
        }
        Ok(())
    }

    fn constant(
        &mut self,
        line: &Line<'a>,
        set: impl Fn(&mut Group<'a>, f64),
        set_default: impl Fn(&mut Defaults, f64),
    ) -> Result<()> {
        let code = line.code();
        for (field, group, value) in self.valued(code, line)? {
            if group == "'DEFAULT'" {
                set_default(&mut self.default, value);
                self.groups.items.iter_mut().for_each(|group| set(group, value));
                continue;
            }
            let group = self.groups.known(&group, field, "group")?;
            set(&mut self.groups.items[group], value);
        }
        Ok(())
    }

    fn bound(&mut self, line: &Line<'a>) -> Result<()> {
        let code = line.code();
        let (array, kind) = match code {
            "XL" => ("X", "LO"),
            "XU" => ("X", "UP"),
            "XX" => ("X", "FX"),
            "XR" => ("X", "FR"),
            "XM" => ("X", "MI"),
            "XP" => ("X", "PL"),
            "ZL" => ("Z", "LO"),
            "ZU" => ("Z", "UP"),
            "ZX" => ("Z", "FX"),
            other => ("", other),
        };
        let field = line.second();
        let value = match kind {
            "FR" | "MI" | "PL" | "BV" => 0.0,
            _ if array == "Z" => self.parameters.real(line.third())?,
            _ => line.number_of_second().number()?,
        };
        let set = |lower: &mut f64, upper: &mut f64| match kind {
            "LO" => *lower = value,
            "UP" => *upper = value,
            "FX" => (*lower, *upper) = (value, value),
            "FR" => (*lower, *upper) = (f64::NEG_INFINITY, f64::INFINITY),
            "MI" => *lower = f64::NEG_INFINITY,
            "PL" => *upper = f64::INFINITY,
            _ => (*lower, *upper) = (0.0, 1.0),
        };
        if !["LO", "UP", "FX", "FR", "MI", "PL", "BV"].contains(&kind) {
            return line.error(format!("unknown code `{code}` for a bound"));
        }
        if field.text == "'DEFAULT'" {
            set(&mut self.default.lower, &mut self.default.upper);
            self.variables.items.iter_mut().for_each(|v| set(&mut v.lower, &mut v.upper));
            return Ok(());
        }
        let name = self.name(array, field)?;
        let variable = self.variables.known(&name, field, "variable")?;
        let variable = &mut self.variables.items[variable];
        set(&mut variable.lower, &mut variable.upper);
        Ok(())
    }

    fn start(&mut self, line: &Line<'a>) -> Result<()> {
        let code = line.code();
        let (of_variables, of_multipliers) = match code.trim_start_matches(['X', 'Z']) {
            "" => (true, true),
            "V" => (true, false),
            "M" => (false, true),
            _ => return line.error(format!("unknown code `{code}` for a starting point")),
        };
        for (field, name, value) in self.valued(code, line)? {
            if name == "'DEFAULT'" {
                if of_variables {
                    self.default.start = value;
                    self.variables.items.iter_mut().for_each(|v| v.start = value);
                }
                if of_multipliers {
                    self.groups.items.iter_mut().for_each(|g| g.multiplier = value);
                }
                continue;
            }
            let variable = self.variables.find(&name).filter(|_| of_variables);
            let group = self.groups.find(&name).filter(|_| of_multipliers);
            match (variable, group) {
                (Some(i), _) => self.variables.items[i].start = value,
                (None, Some(i)) => self.groups.items[i].multiplier = value,
                (None, None) => return field.error(format!("there is no `{name}` to start")),
            }
        }
        Ok(())
    }

    fn quadratic(&mut self, line: &Line<'a>, both: bool) -> Result<()> {
        let code = line.code();
        if !matches!(code, "" | "X" | "Z") {
            return line.error(format!("unknown code `{code}` for a quadratic term"));
        }
        let first = self.name(code, line.name())?;
        let first = self.variables.known(&first, line.name(), "variable")?;
        for (field, second, value) in self.valued(code, line)? {
            let second = self.variables.known(&second, field, "variable")?;
            // Of a matrix that lists both triangles the lower one is taken.
            if !both || first >= second {
                self.quadratic.push((first.max(second), first.min(second), value));
            }
        }
        Ok(())
    }

    fn element_use(&mut self, line: &Line<'a>) -> Result<()> {
        let (code, field) = (line.code(), line.name());
        let kind = code.trim_start_matches(['X', 'Z']);
        if kind == "T" {
            let of = line.second();
            if !self.element_types.contains_key(of.text) {
                return of.error(format!("there is no element type `{}`", of.text));
            }
            if field.text == "'DEFAULT'" {
                self.default_element_type = Some(of.text.to_owned());
                return Ok(());
            }
            let name = self.name(code, field)?;
            self.new_element(name, of.text.to_owned(), field);
            return Ok(());
        }
        let name = self.name(code, field)?;
        let element = match (self.elements.find(&name), &self.default_element_type) {
            (Some(element), _) => element,
            (None, Some(of)) => self.new_element(name, of.clone(), field),
            (None, None) => return field.error(format!("there is no element `{name}`, and no default type")),
        };
        match kind {
            "V" => {
                let (place, variable) = (line.second(), line.third());
                if variable.is_empty() {
                    return variable.error("the variable of an element is missing");
                }
                let expanded = self.name(code, variable)?;
                // A variable that only elements use need not be declared.
                let variable = self.new_variable(expanded);
                let declared = &self.element_types[&self.elements.items[element].of];
                let Some(i) = declared.variables.iter().position(|known| known == place.text) else {
                    return place.error(format!("`{}` is not a variable of this element's type", place.text));
                };
                self.elements.items[element].variables[i] = Some(variable);
                Ok(())
            }
            "P" => {
                let values = self.parameter_values(code, line)?;
                self.elements.items[element].parameters.extend(values);
                Ok(())
            }
            _ => line.error(format!("unknown code `{code}` for an element")),
        }
    }

    fn new_element(&mut self, name: String, of: String, at: Field<'a>) -> usize {
        let count = self.element_types[&of].variables.len();
        let parameters = HashMap::new();
        self.elements.get_or(name, || Element { of, variables: vec![None; count], parameters, at })
    }

    fn parameter_values(&self, code: &str, line: &Line<'a>) -> Result<Vec<(String, f64)>> {
        if code.starts_with('Z') {
            return Ok(vec![(line.second().text.to_owned(), self.parameters.real(line.third())?)]);
        }
        line.pairs().map(|(name, number)| Ok((name.text.to_owned(), number.number()?))).collect()
    }

    fn group_use(&mut self, line: &Line<'a>) -> Result<()> {
        let (code, field) = (line.code(), line.name());
        let kind = code.trim_start_matches(['X', 'Z']);
        let by_default = field.text == "'DEFAULT'";
        let group = if by_default {
            None
        } else {
            let name = self.name(code, field)?;
            Some(self.groups.known(&name, field, "group")?)
        };
        match (kind, group) {
            ("T", _) => {
                let of = line.second();
                if !self.group_types.contains_key(of.text) {
                    return of.error(format!("there is no group type `{}`", of.text));
                }
                match group {
                    None => self.default_group_type = Some(of.text.to_owned()),
                    Some(group) => self.groups.items[group].of = Some(of.text.to_owned()),
                }
                Ok(())
            }
            ("E" | "", Some(group)) => {
                let weights: Vec<(Field, Field)> = line.pairs().collect();
                for (field, weight) in
                    if code == "ZE" { &weights[..weights.len().min(1)] } else { &weights[..] }
                {
                    let name = self.name(code, *field)?;
                    let element = self.elements.known(&name, *field, "element")?;
                    let weight = if code == "ZE" {
                        self.parameters.real(line.third())?
                    } else {
                        weight.number_or(1.0)?
                    };
                    self.groups.items[group].elements.push((element, weight));
                }
                Ok(())
            }
            ("P", _) => {
                let values = self.parameter_values(code, line)?;
                match group {
                    Some(group) => self.groups.items[group].parameters.extend(values),
                    None => {
                        self.groups
                            .items
                            .iter_mut()
                            .for_each(|group| group.parameters.extend(values.clone()));
                    }
                }
                Ok(())
            }
            _ => line.error(format!("unknown code `{code}` for a group")),
        }
    }

    /// The type of a group that none was given.
    pub(super) fn default_group_type(&self) -> Option<&str> {
        self.default_group_type.as_deref()
    }
}

fn scale(field: Field, value: f64) -> Result<f64> {
    if value == 0.0 { field.error("a group cannot be scaled by 0") } else { Ok(value) }
}

fn declare(types: &mut BTreeMap<String, Declared>, line: &Line, of_variables: &str) -> Result<()> {
    let code = line.code();
    let declared = types.entry(line.name().text.to_owned()).or_default();
    let names = if code == of_variables {
        &mut declared.variables
    } else if code == "IV" {
        &mut declared.internal
    } else if code == "EP" || code == "GP" {
        &mut declared.parameters
    } else {
        return line.error(format!("unknown code `{code}` in the declaration of a type"));
    };
    let given = [line.second(), line.third()];
    names.extend(given.iter().filter(|name| !name.is_empty()).map(|name| name.text.to_owned()));
    Ok(())
}

/// The lines of a loop: up to its own OD, or to an ND, which ends every loop.
fn body_len(lines: &[Line]) -> usize {
    let mut depth = 0_usize;
    for (i, line) in lines.iter().enumerate() {
        match line.code() {
            "DO" => depth += 1,
            "OD" if depth == 0 => return i,
            "OD" => depth -= 1,
            "ND" => return i,
            _ => {}
        }
    }
    lines.len()
}
