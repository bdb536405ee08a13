//! Expressions in plain notation or LaTeX, read by recursive descent.
//!
//! ```text
//! sum     = ["+" | "-"] product { ("+" | "-") product }
//! product = signed { ["*" | "/" | \cdot | \times | \div] signed }        a sign only after an operator
//! power   = atom ["^" argument] { "!" }
//! atom    = number | letter ["_" argument] | "(" sum ")" | "|" sum "|" | \frac argument argument | \sqrt ["[" sum "]"] argument
//!         | function ["_" argument] ["^" argument] (argument | product without functions)
//! ```
//! An integer before a fraction of integers is a mixed number, as solutions of MATH have it.

use num_rational::Ratio;
use num_traits::{CheckedAdd, CheckedMul, Zero};

use super::value::Exact;

/// A quantity.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    Number(Exact),
    /// A variable or constant: `x`, `x_1`, `pi`, `i`, `e`, `infty`.
    Symbol(String),
    Sum(Vec<Expression>),
    Product(Vec<Expression>),
    Quotient(Box<Expression>, Box<Expression>),
    Power(Box<Expression>, Box<Expression>),
    Call(Function, Box<Expression>),
    /// Logarithm of the second in the base of the first.
    Log(Box<Expression>, Box<Expression>),
}

/// A function of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Ln,
    Exp,
    Abs,
    Factorial,
}

/// Nesting beyond this is no answer.
const DEPTH: usize = 48;

/// The expression that the whole text is, or none.
pub(super) fn expression(text: &str) -> Option<Expression> {
    let mut parser = Parser { rest: text, depth: 0 };
    let sum = parser.sum()?;
    parser.skip();
    parser.rest.is_empty().then_some(sum)
}

pub(super) fn integer(value: i128) -> Expression {
    Expression::Number(Ratio::from_integer(value))
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn peek(&mut self) -> Option<char> {
        self.skip();
        self.rest.chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip();
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        // A command ends where its letters end.
        if token.starts_with('\\') && rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return false;
        }
        self.rest = rest;
        true
    }

    fn sum(&mut self) -> Option<Expression> {
        self.depth += 1;
        if self.depth > DEPTH {
            return None;
        }
        let mut negative = self.sign();
        let mut terms = Vec::new();
        loop {
            let term = self.product(true)?;
            terms.push(if negative { negated(term) } else { term });
            if !matches!(self.peek(), Some('+' | '-')) {
                break;
            }
            negative = self.sign();
        }
        self.depth -= 1;
        Some(if terms.len() == 1 { terms.remove(0) } else { Expression::Sum(terms) })
    }

    /// Takes signs; whether they are a minus.
    fn sign(&mut self) -> bool {
        let mut negative = false;
        loop {
            if self.take("-") {
                negative = !negative;
            } else if !self.take("+") {
                return negative;
            }
        }
    }

    /// `functions`: whether a function may stand among the factors that are written without an operator.
    fn product(&mut self, functions: bool) -> Option<Expression> {
        let mut product = self.power()?;
        loop {
            if self.take("*") || self.take(r"\cdot") || self.take(r"\times") {
                let negative = self.sign();
                let factor = self.power()?;
                product = times(product, if negative { negated(factor) } else { factor });
            } else if self.take("/") || self.take(r"\div") {
                let negative = self.sign();
                let divisor = self.power()?;
                let divisor = if negative { negated(divisor) } else { divisor };
                product = Expression::Quotient(product.into(), divisor.into());
            } else if self.starts_factor() && (functions || self.function_ahead().is_none()) {
                // Two numbers side by side are no product.
                if self.peek().is_some_and(|c| c.is_ascii_digit() || c == '.') {
                    return None;
                }
                let mixed = self.rest.starts_with(r"\frac");
                let factor = self.power()?;
                product = match (whole(&product), mixed.then(|| proper(&factor)).flatten()) {
                    (Some(whole), Some(part)) => Expression::Number(whole.checked_add(&part)?),
                    _ => times(product, factor),
                };
            } else {
                return Some(product);
            }
        }
    }

    fn starts_factor(&mut self) -> bool {
        match self.peek() {
            Some('\\') => !["cup", "in", "le", "leq", "ge", "geq", "ne", "neq", "pm", "mp", "end", "\\"]
                .iter()
                .any(|word| self.rest[1..].starts_with(word) && !self.rest.starts_with(r"\infty")),
            Some(c) => c.is_ascii_alphanumeric() || matches!(c, '(' | '[' | '{' | '.'),
            None => false,
        }
    }

    fn power(&mut self) -> Option<Expression> {
        let mut base = self.atom()?;
        if self.take("^") {
            let negative = self.sign();
            // `2^10` outside LaTeX means what `2^{10}` means in it.
            let digit = self.peek().is_some_and(|c| c.is_ascii_digit());
            let exponent = if digit { self.number()? } else { self.argument()? };
            let exponent = if negative { negated(exponent) } else { exponent };
            base = Expression::Power(base.into(), exponent.into());
        }
        while self.take("!") {
            base = Expression::Call(Function::Factorial, base.into());
        }
        Some(base)
    }

    fn atom(&mut self) -> Option<Expression> {
        if let Some((function, len)) = self.function_ahead() {
            self.rest = &self.rest[len..];
            return self.call(function);
        }
        match self.peek()? {
            '(' => self.enclosed("(", ")"),
            '[' => self.enclosed("[", "]"),
            '{' => self.enclosed("{", "}"),
            '|' => Some(Expression::Call(Function::Abs, self.enclosed("|", "|")?.into())),
            '0'..='9' | '.' => self.number(),
            '\\' => self.command(),
            c if c.is_ascii_alphabetic() => {
                for (word, symbol) in [("pi", "pi"), ("infinity", "infty"), ("inf", "infty")] {
                    if self.take(word) {
                        return Some(Expression::Symbol(symbol.to_owned()));
                    }
                }
                self.rest = &self.rest[1..];
                self.symbol(c.to_string())
            }
            _ => None,
        }
    }

    fn enclosed(&mut self, open: &str, close: &str) -> Option<Expression> {
        let inner = self.take(open).then(|| self.sum())??;
        self.take(close).then_some(inner)
    }

    /// A letter with its subscript.
    fn symbol(&mut self, mut name: String) -> Option<Expression> {
        if self.rest.starts_with('_') {
            self.rest = &self.rest[1..];
            let index = match self.rest.strip_prefix('{') {
                Some(inner) => inner.split_once('}')?.0,
                None => self.rest.get(..1)?,
            };
            let braces = if self.rest.starts_with('{') { 2 } else { 0 };
            name = format!("{name}_{index}");
            self.rest = self.rest.get(index.len() + braces..)?;
        }
        Some(Expression::Symbol(name))
    }

    fn number(&mut self) -> Option<Expression> {
        let whole = self.digits();
        let mut value = decimal(whole, 0)?;
        if self.rest.starts_with('.') {
            self.rest = &self.rest[1..];
            let places = self.digits();
            if whole.is_empty() && places.is_empty() {
                return None;
            }
            value = value.checked_add(&decimal(places, places.len())?)?;
            if let Some(after) = self.rest.strip_prefix(r"\overline{") {
                let (cycle, rest) = after.split_once('}')?;
                let nines = 10_i128.checked_pow(cycle.len() as u32)? - 1;
                let shift = 10_i128.checked_pow(places.len() as u32)?;
                let cycle: i128 = cycle.parse().ok()?;
                let repeated = Ratio::new(cycle, nines.checked_mul(shift).filter(|&d| d != 0)?);
                value = value.checked_add(&repeated)?;
                self.rest = rest;
            }
        }
        // A subscript is a base, which is not read.
        (!self.rest.starts_with('_')).then_some(Expression::Number(value))
    }

    fn digits(&mut self) -> &'a str {
        let len = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(len);
        self.rest = rest;
        digits
    }

    fn command(&mut self) -> Option<Expression> {
        if self.take(r"\frac") {
            let (above, below) = (self.argument()?, self.argument()?);
            return Some(Expression::Quotient(above.into(), below.into()));
        }
        let letters = &self.rest[1..];
        let len = letters.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(letters.len());
        let name = &letters[..len];
        let known =
            ["pi", "infty", "alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "phi", "omega"];
        if !known.contains(&name) {
            return None;
        }
        self.rest = &letters[len..];
        self.symbol(name.to_owned())
    }

    /// What a command or a power takes: a group, one digit, one letter or one command.
    fn argument(&mut self) -> Option<Expression> {
        match self.peek()? {
            c if c.is_ascii_digit() => {
                self.rest = &self.rest[1..];
                Some(integer(i128::from(c.to_digit(10)?)))
            }
            _ => {
                self.depth += 1;
                let atom = if self.depth > DEPTH { None } else { self.atom() };
                self.depth -= 1;
                atom
            }
        }
    }

    /// The function whose name is next, and the length of the name.
    fn function_ahead(&mut self) -> Option<(Named, usize)> {
        self.skip();
        let slash = usize::from(self.rest.starts_with('\\'));
        let letters = &self.rest[slash..];
        let (name, function) = FUNCTIONS.iter().find(|(name, _)| letters.starts_with(name))?;
        Some((*function, slash + name.len()))
    }

    fn call(&mut self, named: Named) -> Option<Expression> {
        if let Named::Root = named {
            let index = if self.peek() == Some('[') { self.enclosed("[", "]")? } else { integer(2) };
            let exponent = Expression::Quotient(integer(1).into(), index.into());
            return Some(Expression::Power(self.argument()?.into(), exponent.into()));
        }
        let base = if self.rest.starts_with('_') {
            self.rest = &self.rest[1..];
            Some(self.argument()?)
        } else {
            None
        };
        let exponent = if self.take("^") { Some(self.argument()?) } else { None };
        self.depth += 1;
        let argument = match self.peek()? {
            _ if self.depth > DEPTH => return None,
            '(' => self.enclosed("(", ")")?,
            '{' => self.enclosed("{", "}")?,
            _ => self.product(false)?,
        };
        self.depth -= 1;
        let value = match (named, base) {
            (Named::Log, Some(base)) => Expression::Log(base.into(), argument.into()),
            (Named::Log, None) => Expression::Log(integer(10).into(), argument.into()),
            (Named::One(function), None) => Expression::Call(function, argument.into()),
            _ => return None,
        };
        Some(match exponent {
            Some(exponent) => Expression::Power(value.into(), exponent.into()),
            None => value,
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Named {
    One(Function),
    Log,
    Root,
}

/// Longer names before their beginnings.
const FUNCTIONS: [(&str, Named); 13] = [
    ("arcsin", Named::One(Function::Arcsin)),
    ("arccos", Named::One(Function::Arccos)),
    ("arctan", Named::One(Function::Arctan)),
    ("sqrt", Named::Root),
    ("sin", Named::One(Function::Sin)),
    ("cos", Named::One(Function::Cos)),
    ("tan", Named::One(Function::Tan)),
    ("cot", Named::One(Function::Cot)),
    ("sec", Named::One(Function::Sec)),
    ("csc", Named::One(Function::Csc)),
    ("log", Named::Log),
    ("ln", Named::One(Function::Ln)),
    ("exp", Named::One(Function::Exp)),
];

fn negated(term: Expression) -> Expression {
    match term {
        Expression::Number(value) => Expression::Number(-value),
        other => times(integer(-1), other),
    }
}

fn times(left: Expression, right: Expression) -> Expression {
    match left {
        Expression::Product(mut factors) => {
            factors.push(right);
            Expression::Product(factors)
        }
        left => Expression::Product(vec![left, right]),
    }
}

fn decimal(digits: &str, places: usize) -> Option<Exact> {
    if digits.is_empty() {
        return Some(Ratio::zero());
    }
    let value = Ratio::from_integer(digits.parse::<i128>().ok()?);
    value.checked_mul(&Ratio::new(1, 10_i128.checked_pow(places as u32)?))
}

/// A whole number, written as one.
fn whole(expression: &Expression) -> Option<Exact> {
    match expression {
        Expression::Number(value) if value.is_integer() => Some(*value),
        _ => None,
    }
}

/// A fraction of two whole numbers.
fn proper(expression: &Expression) -> Option<Exact> {
    let Expression::Quotient(above, below) = expression else { return None };
    let (above, below) = (whole(above)?, whole(below)?);
    (!below.is_zero()).then(|| above / below)
}
