//! The parts ELEMENTS and GROUPS: functions as expressions.

use std::collections::BTreeMap;

use super::line::{Field, Line};
use crate::problems::expression::{Kind, Scope, Tape};
use crate::{Error, Result};

/// A function with what the file says of its derivatives.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub(super) tape: Tape,
    /// Internal variables as combinations of the elemental ones: `(internal, elemental, factor)`; none if they are the same.
    pub(super) range: Vec<(usize, usize, f64)>,
    /// The derivatives that the file gives: the results of `given`.
    pub(super) given: Tape,
    pub(super) order: Vec<Derivative>,
}

/// With respect to which arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Derivative {
    First(usize),
    Second(usize, usize),
}

/// What the data part declares of a function.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared {
    /// Elemental variables, or the one group variable.
    pub(super) variables: Vec<String>,
    /// Internal variables; none if they are the elemental ones.
    pub(super) internal: Vec<String>,
    pub(super) parameters: Vec<String>,
}

impl Declared {
    /// What the expressions are functions of.
    pub(super) fn arguments(&self) -> &[String] {
        if self.internal.is_empty() { &self.variables } else { &self.internal }
    }
}

/// An assignment with its continuations, as one text; of each line the place where its text starts in the whole.
struct Statement<'a> {
    code: &'a str,
    name: Field<'a>,
    second: Field<'a>,
    text: String,
    pieces: Vec<(usize, Field<'a>)>,
}

impl Statement<'_> {
    fn placed<T>(&self, done: Result<T, (usize, String)>) -> Result<T> {
        done.or_else(|(at, problem)| {
            let (start, field) =
                self.pieces.iter().rev().find(|(start, _)| *start <= at).expect("the first starts at 0");
            field.error_at(at - start, problem)
        })
    }

    /// Carries it out if it assigns a value to a name.
    fn assign(&self, scope: &mut Scope) -> Result<bool> {
        match self.code {
            "A" => self.placed(scope.assign(self.name.text, &self.text))?,
            "I" | "E" => {
                let wanted = self.code == "I";
                self.placed(scope.assign_if(self.name.text, wanted, self.second.text, &self.text))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Joins each line with the continuations after it.
fn statements<'a>(lines: &[Line<'a>]) -> Result<Vec<Statement<'a>>> {
    let mut statements: Vec<Statement> = Vec::new();
    for line in lines {
        let (code, expression) = (line.code(), line.expression());
        let Some(of) = code.strip_suffix('+') else {
            let (text, pieces) = (expression.text.to_owned(), vec![(0, expression)]);
            statements.push(Statement { code, name: line.name(), second: line.second(), text, pieces });
            continue;
        };
        match statements.last_mut().filter(|last| last.code == of) {
            None => return line.error(format!("`{code}` continues nothing")),
            Some(last) => {
                last.pieces.push((last.text.len(), expression));
                last.text.push_str(expression.text);
            }
        }
    }
    Ok(statements)
}

/// Temporaries and globals of a part.
#[derive(Default)]
pub(super) struct Preamble<'a> {
    temporaries: Vec<(Kind, &'a str)>,
    globals: Vec<Statement<'a>>,
}

impl<'a> Preamble<'a> {
    pub(super) fn temporaries(&mut self, lines: &[Line<'a>]) -> Result<()> {
        for line in lines {
            let kind = match line.code() {
                "R" => Kind::Real,
                "I" => Kind::Integer,
                "L" => Kind::Logical,
                // Functions of the language are known anyway; what calls another one fails where it does.
                "M" | "F" => continue,
                other => return line.error(format!("unknown code `{other}` in TEMPORARIES")),
            };
            self.temporaries.push((kind, line.name().text));
        }
        Ok(())
    }

    pub(super) fn globals(&mut self, lines: &[Line<'a>]) -> Result<()> {
        self.globals.extend(statements(lines)?);
        Ok(())
    }

    /// A scope in which the function of that declaration can be read.
    fn scope(&self, declared: &Declared) -> Result<Scope> {
        let arguments = declared.arguments();
        let inputs: Vec<String> = arguments.iter().chain(&declared.parameters).cloned().collect();
        let mut scope = Scope::new(&inputs, arguments.len());
        self.temporaries.iter().for_each(|(kind, name)| scope.declare(name, *kind));
        for statement in &self.globals {
            if !statement.assign(&mut scope)? {
                return statement.name.error(format!("unknown code `{}` in GLOBALS", statement.code));
            }
        }
        Ok(scope)
    }

    /// The functions of INDIVIDUALS, by the name of their type.
    pub(super) fn individuals(
        &self,
        lines: &[Line<'a>],
        declared: &BTreeMap<String, Declared>,
    ) -> Result<BTreeMap<String, Function>> {
        let mut functions = BTreeMap::new();
        let starts: Vec<usize> = (0..lines.len()).filter(|&i| lines[i].code() == "T").collect();
        if let Some(line) = lines.first().filter(|_| starts.first() != Some(&0)) {
            return line.error("a function has to start with a line of code `T`");
        }
        for (k, &start) in starts.iter().enumerate() {
            let end = starts.get(k + 1).copied().unwrap_or(lines.len());
            let name = lines[start].name();
            let Some(of) = declared.get(name.text) else {
                return name.error(format!("the type `{}` is not declared", name.text));
            };
            let function = self.function(&lines[start..end], of)?;
            if functions.insert(name.text.to_owned(), function).is_some() {
                return name.error(format!("the type `{}` is defined twice", name.text));
            }
        }
        Ok(functions)
    }

    fn function(&self, lines: &[Line<'a>], declared: &Declared) -> Result<Function> {
        let heading = lines[0].name();
        let mut range = Vec::new();
        let (mut value, mut given) = (self.scope(declared)?, self.scope(declared)?);
        let (mut order, mut found) = (Vec::new(), false);
        let ranges = lines[1..].iter().take_while(|line| line.code() == "R").count();
        for line in &lines[1..=ranges] {
            let internal = index(&declared.internal, line.name())?;
            for (elemental, factor) in line.pairs() {
                range.push((internal, index(&declared.variables, elemental)?, factor.number()?));
            }
        }
        let of = |name: Field| {
            // A group has one variable, which need not be named.
            if name.is_empty() && declared.arguments().len() == 1 {
                Ok(0)
            } else {
                index(declared.arguments(), name)
            }
        };
        for statement in statements(&lines[1 + ranges..])? {
            if statement.assign(&mut value)? {
                statement.assign(&mut given)?;
                continue;
            }
            match statement.code {
                "F" if !found => {
                    found = true;
                    statement.placed(value.result(&statement.text))?;
                    // Some derivatives call the value by its name.
                    statement.placed(given.assign("F", &statement.text))?;
                }
                "F" => return statement.name.error("the value is given twice"),
                "G" => {
                    order.push(Derivative::First(of(statement.name)?));
                    statement.placed(given.result(&statement.text))?;
                }
                "H" => {
                    order.push(Derivative::Second(of(statement.name)?, of(statement.second)?));
                    statement.placed(given.result(&statement.text))?;
                }
                other => return statement.name.error(format!("unknown code `{other}` in INDIVIDUALS")),
            }
        }
        if !found {
            return heading
                .error(format!("the type `{}` has no value: a line of code `F` is missing", heading.text));
        }
        if range.is_empty() && !declared.internal.is_empty() {
            return heading.error(format!("the internal variables of `{}` are not defined", heading.text));
        }
        Ok(Function { tape: value.into_tape(), range, given: given.into_tape(), order })
    }
}

fn index(names: &[String], name: Field) -> Result<usize, Error> {
    let found = names.iter().position(|known| known.eq_ignore_ascii_case(name.text));
    found.map_or_else(|| name.error(format!("`{}` is not a variable of this type", name.text)), Ok)
}
