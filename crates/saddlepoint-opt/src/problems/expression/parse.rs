//! Expressions in Fortran's notation, onto a tape.
//!
//! From loosest to tightest: `.OR.`, `.AND.`, `.NOT.`, comparisons, `+ -`, `* /`, `**` (from the right, and before a sign). Blanks mean
//! nothing, letters mean the same in either case. A number without point and exponent is an integer, and integers divide to an
//! integer.

use std::collections::BTreeMap;

use super::tape::{Binary, Op, Register, Tape, Unary};

/// What Fortran makes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Real,
    Logical,
}

/// A tape that grows, and what names stand for on it.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    tape: Tape,
    /// The register that holds a name's value now, once it has one.
    names: BTreeMap<String, (Option<Register>, Kind)>,
}

/// What is wrong with an expression, and at which of its characters.
pub(crate) type Fault = (usize, String);

/// Parentheses, signs and powers within each other.
const DEEPEST: usize = 100;

impl Scope {
    /// With inputs, the first `variables` of which are differentiated.
    pub(crate) fn new(inputs: &[String], variables: usize) -> Self {
        let mut scope = Self { tape: Tape::new(inputs.len(), variables), names: BTreeMap::new() };
        for (i, name) in inputs.iter().enumerate() {
            let register = scope.tape.push(Op::Input(i));
            scope.names.insert(name.to_ascii_uppercase(), (Some(register), Kind::Real));
        }
        scope
    }

    /// Declares a temporary; an input keeps its meaning.
    pub(crate) fn declare(&mut self, name: &str, kind: Kind) {
        self.names.entry(name.to_ascii_uppercase()).or_insert((None, kind));
    }

    /// `name = text`.
    pub(crate) fn assign(&mut self, name: &str, text: &str) -> Result<(), Fault> {
        let (register, kind) = self.parse(text)?;
        self.store(name, register, kind);
        Ok(())
    }

    /// `if (condition is wanted) name = text`, where the condition is a name.
    pub(crate) fn assign_if(
        &mut self,
        condition: &str,
        wanted: bool,
        name: &str,
        text: &str,
    ) -> Result<(), Fault> {
        let at = |problem: String| (0, problem);
        let condition = self.read(condition).map_err(at)?.0;
        let (register, kind) = self.parse(text)?;
        let old = self.names.get(&name.to_ascii_uppercase()).and_then(|known| known.0);
        // Without an earlier value there is none where the condition does not choose this one.
        let old = old.unwrap_or_else(|| self.tape.push(Op::Constant(f64::NAN)));
        let (yes, no) = if wanted { (register, old) } else { (old, register) };
        let chosen = self.tape.push(Op::Select(condition, yes, no));
        self.store(name, chosen, kind);
        Ok(())
    }

    /// Makes the value of `text` the next result of the tape.
    pub(crate) fn result(&mut self, text: &str) -> Result<(), Fault> {
        let (register, _) = self.parse(text)?;
        self.tape.result(register);
        Ok(())
    }

    pub(crate) fn into_tape(self) -> Tape {
        self.tape
    }

    fn store(&mut self, name: &str, register: Register, of: Kind) {
        let known = self.names.entry(name.to_ascii_uppercase()).or_insert((None, of));
        // Fortran converts to the kind of the name.
        let register = if known.1 == Kind::Integer && of == Kind::Real {
            self.tape.push(Op::Unary(Unary::Truncate, register))
        } else {
            register
        };
        known.0 = Some(register);
    }

    fn read(&self, name: &str) -> Result<(Register, Kind), String> {
        match self.names.get(&name.to_ascii_uppercase()) {
            Some((Some(register), kind)) => Ok((*register, *kind)),
            Some((None, _)) => Err(format!("{name} has no value here")),
            None => Err(format!("{name} is not known here")),
        }
    }

    fn parse(&mut self, text: &str) -> Result<(Register, Kind), Fault> {
        let mut parser = Parser { scope: self, text: text.as_bytes(), at: 0, depth: 0 };
        let value = parser.disjunction()?;
        match parser.peek() {
            None => Ok(value),
            Some(c) => Err((parser.at, format!("unexpected `{}`", char::from(c)))),
        }
    }
}

struct Parser<'a> {
    scope: &'a mut Scope,
    text: &'a [u8],
    at: usize,
    depth: usize,
}

type Value = (Register, Kind);

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(|c| *c == b' ') {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        self.peek();
        let rest = &self.text[self.at..];
        let found = rest.len() >= token.len() && rest[..token.len()].eq_ignore_ascii_case(token.as_bytes());
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Takes `**`, or `* *`.
    fn take_power(&mut self) -> bool {
        let start = self.at;
        let found = self.take("*") && self.take("*");
        if !found {
            self.at = start;
        }
        found
    }

    fn fault<T>(&self, problem: impl Into<String>) -> Result<T, Fault> {
        Err((self.at, problem.into()))
    }

    fn binary(&mut self, op: Binary, a: Value, b: Value) -> Value {
        let integers = a.1 == Kind::Integer && b.1 == Kind::Integer;
        let op = if op == Binary::Div && integers { Binary::Quotient } else { op };
        let kind = match op {
            _ if op.is_logical() => Kind::Logical,
            _ if integers => Kind::Integer,
            _ => Kind::Real,
        };
        let mut register = self.scope.tape.push(Op::Binary(op, a.0, b.0));
        if op == Binary::Pow && integers {
            register = self.scope.tape.push(Op::Unary(Unary::Truncate, register));
        }
        (register, kind)
    }

    fn disjunction(&mut self) -> Result<Value, Fault> {
        let mut value = self.conjunction()?;
        while self.take(".OR.") {
            let other = self.conjunction()?;
            value = self.binary(Binary::Or, value, other);
        }
        Ok(value)
    }

    fn conjunction(&mut self) -> Result<Value, Fault> {
        let mut value = self.negation()?;
        while self.take(".AND.") {
            let other = self.negation()?;
            value = self.binary(Binary::And, value, other);
        }
        Ok(value)
    }

    fn negation(&mut self) -> Result<Value, Fault> {
        let mut negated = false;
        while self.take(".NOT.") {
            negated = !negated;
        }
        let value = self.comparison()?;
        if !negated {
            return Ok(value);
        }
        Ok((self.scope.tape.push(Op::Unary(Unary::Not, value.0)), Kind::Logical))
    }

    fn comparison(&mut self) -> Result<Value, Fault> {
        const COMPARISONS: [(&str, Binary); 12] = [
            (".LT.", Binary::Lt),
            (".LE.", Binary::Le),
            (".GT.", Binary::Gt),
            (".GE.", Binary::Ge),
            (".EQ.", Binary::Eq),
            (".NE.", Binary::Ne),
            ("<=", Binary::Le),
            (">=", Binary::Ge),
            ("==", Binary::Eq),
            ("/=", Binary::Ne),
            ("<", Binary::Lt),
            (">", Binary::Gt),
        ];
        let value = self.sum()?;
        match COMPARISONS.into_iter().find(|(token, _)| self.take(token)) {
            None => Ok(value),
            Some((_, op)) => {
                let other = self.sum()?;
                Ok(self.binary(op, value, other))
            }
        }
    }

    fn sum(&mut self) -> Result<Value, Fault> {
        let mut value = self.term()?;
        loop {
            let op = match self.peek() {
                Some(b'+') => Binary::Add,
                Some(b'-') => Binary::Sub,
                _ => return Ok(value),
            };
            self.at += 1;
            let other = self.term()?;
            value = self.binary(op, value, other);
        }
    }

    fn term(&mut self) -> Result<Value, Fault> {
        // A sign belongs to the whole term: −x * y is −(x * y), −x ** 2 is −(x ** 2).
        if matches!(self.peek(), Some(b'+' | b'-')) {
            let negative = self.text[self.at] == b'-';
            self.at += 1;
            self.deeper()?;
            let value = self.term()?;
            self.depth -= 1;
            let negated = |scope: &mut Scope| scope.tape.push(Op::Unary(Unary::Neg, value.0));
            return Ok(if negative { (negated(self.scope), value.1) } else { value });
        }
        let mut value = self.power()?;
        loop {
            let here = self.peek();
            let next = self.text.get(self.at + 1).copied();
            let op = match here {
                Some(b'*') => Binary::Mul,
                // "/=" is a comparison.
                Some(b'/') if next != Some(b'=') => Binary::Div,
                _ => return Ok(value),
            };
            self.at += 1;
            let other = self.signed_power()?;
            value = self.binary(op, value, other);
        }
    }

    /// A factor, or one with a sign of its own (`A * -B`, which compilers accept).
    fn signed_power(&mut self) -> Result<Value, Fault> {
        let mut negative = false;
        while let Some(sign @ (b'+' | b'-')) = self.peek() {
            negative ^= sign == b'-';
            self.at += 1;
        }
        let value = self.power()?;
        if !negative {
            return Ok(value);
        }
        Ok((self.scope.tape.push(Op::Unary(Unary::Neg, value.0)), value.1))
    }

    fn power(&mut self) -> Result<Value, Fault> {
        let base = self.primary()?;
        if !(self.take_power() || self.take("^")) {
            return Ok(base);
        }
        self.deeper()?;
        let exponent = self.signed_power()?;
        self.depth -= 1;
        Ok(self.binary(Binary::Pow, base, exponent))
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.fault(format!("more than {DEEPEST} levels of parentheses, signs and powers"));
        }
        Ok(())
    }

    fn primary(&mut self) -> Result<Value, Fault> {
        match self.peek() {
            None => self.fault("the expression ends where a value is expected"),
            Some(b'(') => {
                self.at += 1;
                self.deeper()?;
                let value = self.disjunction()?;
                self.depth -= 1;
                if self.take(")") { Ok(value) } else { self.fault("expected `)`") }
            }
            Some(c) if c.is_ascii_digit() => self.number(),
            Some(b'.') if self.text.get(self.at + 1).is_some_and(u8::is_ascii_digit) => self.number(),
            Some(b'.') if self.take(".TRUE.") => Ok(self.constant(1.0, Kind::Logical)),
            Some(b'.') if self.take(".FALSE.") => Ok(self.constant(0.0, Kind::Logical)),
            Some(c) if c.is_ascii_alphabetic() => self.name(),
            Some(c) => self.fault(format!("expected a value, found `{}`", char::from(c))),
        }
    }

    fn constant(&mut self, value: f64, kind: Kind) -> Value {
        (self.scope.tape.push(Op::Constant(value)), kind)
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        let (mut text, mut kind) = (String::new(), Kind::Integer);
        self.digits(&mut text);
        // "1.EQ.X" is a comparison, "1.E5" a number.
        let rest = &self.text[self.at..];
        let operator = rest.first() == Some(&b'.')
            && rest.get(1).is_some_and(u8::is_ascii_alphabetic)
            && rest.get(2).is_some_and(u8::is_ascii_alphabetic);
        if rest.first() == Some(&b'.') && !operator {
            self.at += 1;
            text.push('.');
            kind = Kind::Real;
            let digit_after_blanks = self.peek().is_some_and(|c| c.is_ascii_digit());
            if digit_after_blanks {
                self.digits(&mut text);
            }
        }
        if matches!(self.text.get(self.at), Some(b'D' | b'E' | b'd' | b'e')) {
            let sign = usize::from(matches!(self.text.get(self.at + 1), Some(b'+' | b'-')));
            if self.text.get(self.at + 1 + sign).is_some_and(u8::is_ascii_digit) {
                text.push('e');
                text.extend(self.text[self.at + 1..self.at + 1 + sign].iter().map(|c| char::from(*c)));
                self.at += 1 + sign;
                kind = Kind::Real;
                self.digits(&mut text);
            }
        }
        match text.parse() {
            Ok(value) => Ok(self.constant(value, kind)),
            Err(_) => Err((start, format!("{text} is no number"))),
        }
    }

    fn digits(&mut self, text: &mut String) {
        while let Some(c) = self.text.get(self.at).filter(|c| c.is_ascii_digit()) {
            text.push(char::from(*c));
            self.at += 1;
        }
    }

    fn name(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        let is_part = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
        while self.text.get(self.at).is_some_and(is_part) {
            self.at += 1;
        }
        let name = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
        // A name that is known hides the function of the same name, unless it is called.
        if self.peek() != Some(b'(') {
            return self.scope.read(&name).map_err(|problem| (start, problem));
        }
        self.at += 1;
        self.deeper()?;
        let mut arguments = vec![self.disjunction()?];
        while self.take(",") {
            arguments.push(self.disjunction()?);
        }
        self.depth -= 1;
        if !self.take(")") {
            return self.fault("expected `)`");
        }
        self.call(&name, &arguments).ok_or_else(|| {
            (start, format!("{name} is not a function of {} arguments that is known here", arguments.len()))
        })
    }

    fn call(&mut self, name: &str, arguments: &[Value]) -> Option<Value> {
        let name = name.to_ascii_uppercase();
        // The specific names of older Fortran: DSQRT, ALOG, AMAX1, DMIN1.
        let generic = match name.as_str() {
            "ALOG" | "DLOG" => "LOG",
            "ALOG10" | "DLOG10" => "LOG10",
            "AMAX1" | "DMAX1" | "MAX0" => "MAX",
            "AMIN1" | "DMIN1" | "MIN0" => "MIN",
            "IABS" => "ABS",
            other => other
                .strip_prefix('D')
                .filter(|rest| {
                    [
                        "SQRT", "EXP", "SIN", "COS", "TAN", "ABS", "SIGN", "MOD", "ATAN", "ATAN2", "TANH",
                        "SINH", "COSH",
                    ]
                    .contains(rest)
                })
                .unwrap_or(other),
        };
        let unary = match generic {
            "SQRT" => Some(Unary::Sqrt),
            "EXP" => Some(Unary::Exp),
            "LOG" => Some(Unary::Log),
            "LOG10" => Some(Unary::Log10),
            "SIN" => Some(Unary::Sin),
            "COS" => Some(Unary::Cos),
            "TAN" => Some(Unary::Tan),
            "ASIN" => Some(Unary::Asin),
            "ACOS" => Some(Unary::Acos),
            "ATAN" => Some(Unary::Atan),
            "SINH" => Some(Unary::Sinh),
            "COSH" => Some(Unary::Cosh),
            "TANH" => Some(Unary::Tanh),
            "ABS" => Some(Unary::Abs),
            "INT" | "IDINT" | "IFIX" => Some(Unary::Truncate),
            _ => None,
        };
        match (generic, arguments) {
            ("DBLE" | "REAL" | "FLOAT" | "DFLOAT" | "SNGL", [a]) => Some((a.0, Kind::Real)),
            (_, [a]) => {
                let unary = unary?;
                let kind = match unary {
                    Unary::Truncate => Kind::Integer,
                    Unary::Abs => a.1,
                    _ => Kind::Real,
                };
                Some((self.scope.tape.push(Op::Unary(unary, a.0)), kind))
            }
            ("SIGN", [a, b]) => Some(self.binary(Binary::Sign, *a, *b)),
            ("ATAN2", [a, b]) => Some(self.binary(Binary::Atan2, *a, *b)),
            ("MOD", [a, b]) => Some(self.binary(Binary::Mod, *a, *b)),
            ("MIN" | "MAX", [first, rest @ ..]) if !rest.is_empty() => {
                let op = if generic == "MIN" { Binary::Min } else { Binary::Max };
                Some(rest.iter().fold(*first, |value, other| self.binary(op, value, *other)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saddlepoint_core::test::assert_close;

    use super::super::{Jet, Scratch};
    use super::*;

    fn tape(text: &str) -> Result<Tape, Fault> {
        let mut scope = Scope::new(&["X".into(), "Y".into(), "P".into()], 2);
        scope.declare("UNSET", Kind::Real);
        scope.result(text)?;
        Ok(scope.into_tape())
    }

    fn jet(text: &str, at: [f64; 3]) -> Jet {
        let mut jet = Jet::default();
        tape(text).expect(text).jet(&at, true, &mut Scratch::default(), &mut jet);
        jet
    }

    #[test]
    fn values_are_those_of_fortran() {
        for (text, value) in [
            ("-X**2", -4.0),
            ("2**3**2", 512.0),
            ("X ** -1", 0.5),
            ("X * * 2 - 1. 5", 2.5),
            ("X * -Y", -6.0),
            ("1/2", 0.0),
            ("1./2", 0.5),
            ("7/2*1.0D0", 3.0),
            ("-7/2", -3.0),
            ("2.5D-1 + 1.E1", 10.25),
            ("INT(-2.7)", -2.0),
            ("max(x, y, 5)", 5.0),
            ("SIGN(X, -1.0)", -2.0),
            ("DBLE(1) / 2", 0.5),
            ("(X.LT.Y).AND..NOT.(X.EQ.1)", 1.0),
            ("MOD(7, 4)", 3.0),
            ("10 - 3 - 2", 5.0),
            ("DSQRT(X * 8.0) - ATAN2(0.0, 1.0)", 4.0),
        ] {
            assert_close!(jet(text, [2.0, 3.0, 0.0]).value, value, atol = 1e-15);
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        for (text, at, message) in [
            ("X +", 3, "the expression ends where a value is expected"),
            ("X + Z", 4, "Z is not known here"),
            ("1 + UNSET", 4, "UNSET has no value here"),
            ("(X", 2, "expected `)`"),
            ("X Y", 2, "unexpected `Y`"),
            ("2 * FOO(X)", 4, "FOO is not a function of 1 arguments that is known here"),
            ("ATAN2(X)", 0, "ATAN2 is not a function of 1 arguments that is known here"),
            ("X + $", 4, "expected a value, found `$`"),
        ] {
            assert_eq!(tape(text).expect_err(text), (at, message.to_owned()));
        }
        let deep = format!("{}X{}", "(".repeat(5000), ")".repeat(5000));
        assert!(tape(&deep).expect_err("too deep").1.contains("levels of parentheses"));
        let long = format!("X{}", "+1.0".repeat(50_000));
        assert_close!(jet(&long, [2.0, 0.0, 0.0]).value, 50_002.0, atol = 0.0);
    }

    #[test]
    fn names_take_values_by_condition() {
        let mut scope = Scope::new(&["X".into()], 1);
        scope.declare("POS", Kind::Logical);
        scope.declare("N", Kind::Integer);
        scope.assign("POS", "X .GE. 0.0").expect("assigns");
        scope.assign("N", "2.9").expect("assigns");
        scope.assign_if("POS", true, "F", "X**N").expect("assigns");
        scope.assign_if("POS", false, "F", "-3.0*X").expect("assigns");
        scope.result("F").expect("a value");
        let tape = scope.into_tape();
        let mut jet = Jet::default();
        for (x, expected) in [(2.0, [4.0, 4.0, 2.0]), (-1.0, [3.0, -3.0, 0.0])] {
            tape.jet(&[x], true, &mut Scratch::default(), &mut jet);
            assert_close!([jet.value, jet.gradient[0], jet.hessian[0]], expected, atol = 1e-15);
        }
    }

    #[test]
    fn a_power_at_zero_has_the_derivatives_of_a_polynomial() {
        for (text, expected) in
            [("X**2", [0.0, 0.0, 2.0]), ("X**1", [0.0, 1.0, 0.0]), ("X**2.0 + 0*Y", [0.0, 0.0, 2.0])]
        {
            let jet = jet(text, [0.0, 1.0, 0.0]);
            assert_close!([jet.value, jet.gradient[0], jet.hessian[0]], expected, atol = 0.0);
        }
    }

    proptest! {
        /// First and second derivatives of every operation against differences.
        #[test]
        fn derivatives_are_those_of_differences(x in 0.3..0.9f64, y in 1.1..1.9f64, p in 0.5..1.5f64) {
            // There MOD jumps.
            prop_assume!((y / x - (y / x).round()).abs() > 1e-3);
            for text in [
                "X*Y - Y/X + P", "SQRT(X*Y)", "EXP(X - Y*P)", "LOG(X + Y)", "LOG10(X*P)", "SIN(X*Y)", "COS(X/Y)", "TAN(X*P)",
                "ASIN(X/Y)", "ACOS(X/Y)", "ATAN(X*Y)", "SINH(X*Y)", "COSH(X-Y)", "TANH(X*Y)", "ABS(X-Y)*X", "X**Y", "X**3*Y**(-2)",
                "Y**P", "MIN(X*X, Y)", "MAX(X*X, Y*X)", "SIGN(X*Y, X-Y)", "ATAN2(X, Y)", "MOD(Y, X)", "-(X**2 + Y)**2",
            ] {
                let at = jet(text, [x, y, p]);
                for i in 0..2 {
                    let h = 1e-5;
                    let side = |s: f64| { let mut at = [x, y, p]; at[i] += s * h; jet(text, at) };
                    let (up, down) = (side(1.0), side(-1.0));
                    let slope = (up.value - down.value) / (2.0 * h);
                    prop_assert!((slope - at.gradient[i]).abs() < 1e-6 * (1.0 + slope.abs()), "{text}: {slope} {at:?}");
                    for j in 0..2 {
                        let bend = (up.gradient[j] - down.gradient[j]) / (2.0 * h);
                        prop_assert!((bend - at.hessian[2 * i + j]).abs() < 1e-5 * (1.0 + bend.abs()), "{text}: {bend} {at:?}");
                    }
                }
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+*/().,XYP0-9DE<>= A-Z]{0,60}") {
            if let Ok(tape) = tape(&text) {
                tape.values(&[0.5, -1.0, 2.0], &mut Vec::new(), &mut Vec::new());
            }
        }
    }
}
