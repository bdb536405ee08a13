//! Integer and real parameters, arrays of them, and the names that are made of them.

use std::collections::HashMap;

use super::line::{Field, Line};
use crate::Result;

/// The values of the parameters so far.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    integers: HashMap<String, i64>,
    reals: HashMap<String, f64>,
}

impl Parameters {
    pub(super) fn set_integer(&mut self, name: &str, value: i64) {
        self.integers.insert(name.to_owned(), value);
    }

    pub(super) fn integer(&self, name: Field) -> Result<i64> {
        match self.integers.get(name.text) {
            Some(value) => Ok(*value),
            None => name.error(format!("the integer parameter `{}` has no value", name.text)),
        }
    }

    /// The name with its indices replaced by their values: `X(I,J)` is `X3,4`.
    pub(super) fn expand(&self, name: Field) -> Result<String> {
        let Some((base, indices)) = name.text.split_once('(') else { return Ok(name.text.to_owned()) };
        let Some((indices, rest)) = indices.split_once(')') else {
            return name.error(format!("the indices of `{}` do not end with `)`", name.text));
        };
        let mut expanded = base.to_owned();
        for (i, index) in indices.split(',').enumerate() {
            let value = self.integer(name.part(index.trim()))?;
            if i > 0 {
                expanded.push(',');
            }
            expanded.push_str(&value.to_string());
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    /// The value of a real parameter, whose name may have indices.
    pub(super) fn real(&self, name: Field) -> Result<f64> {
        // Parentheses may be a part of a name: `2(N+1)`.
        if let Some(value) = self.reals.get(name.text) {
            return Ok(*value);
        }
        let key = self.expand(name)?;
        match self.reals.get(&key) {
            Some(value) => Ok(*value),
            None => name.error(format!("the real parameter `{key}` has no value")),
        }
    }

    /// Carries out a line whose code assigns a parameter; `false` if it has another code.
    pub(super) fn assign(&mut self, line: &Line) -> Result<bool> {
        let code = line.code();
        let mut letters = code.chars();
        let (Some(kind @ ('I' | 'R' | 'A')), Some(op), None) =
            (letters.next(), letters.next(), letters.next())
        else {
            return Ok(false);
        };
        if !"EIRASMD=+-*/F(".contains(op) {
            return Ok(false);
        }
        let name = line.name();
        if name.is_empty() {
            return name.error("the name of a parameter is missing");
        }
        if kind == 'I' {
            let value = self.integer_value(op, line)?;
            self.integers.insert(name.text.to_owned(), value);
        } else {
            let value = self.real_value(op, line)?;
            if !value.is_finite() {
                return name.error(format!("the parameter `{}` would be {value}", name.text));
            }
            let key = if kind == 'A' { self.expand(name)? } else { name.text.to_owned() };
            self.reals.insert(key, value);
        }
        Ok(true)
    }

    fn integer_value(&self, op: char, line: &Line) -> Result<i64> {
        let number = || line.number_of_second().integer();
        let second = || self.integer(line.second());
        let third = || self.integer(line.third());
        let value = match op {
            'E' => Some(number()?),
            'R' => Some(self.real(line.second())?.trunc() as i64),
            'A' => second()?.checked_add(number()?),
            'S' => number()?.checked_sub(second()?),
            'M' => second()?.checked_mul(number()?),
            'D' => number()?.checked_div(second()?),
            '=' => Some(second()?),
            '+' => second()?.checked_add(third()?),
            '-' => second()?.checked_sub(third()?),
            '*' => second()?.checked_mul(third()?),
            '/' => second()?.checked_div(third()?),
            _ => return line.error(format!("unknown code `{}`", line.code())),
        };
        value.map_or_else(|| line.error("integers do not hold the result"), Ok)
    }

    fn real_value(&self, op: char, line: &Line) -> Result<f64> {
        let number = || line.number_of_second().number();
        let second = || self.real(line.second());
        let third = || self.real(line.third());
        Ok(match op {
            'E' => number()?,
            'I' => self.integer(line.second())? as f64,
            'A' => second()? + number()?,
            'S' => number()? - second()?,
            'M' => second()? * number()?,
            'D' => number()? / second()?,
            '=' => second()?,
            '+' => second()? + third()?,
            '-' => second()? - third()?,
            '*' => second()? * third()?,
            '/' => second()? / third()?,
            'F' => function(line.second())?(number()?),
            '(' => function(line.second())?(third()?),
            _ => return line.error(format!("unknown code `{}`", line.code())),
        })
    }
}

fn function(name: Field) -> Result<fn(f64) -> f64> {
    Ok(match name.text {
        "ABS" => f64::abs,
        "SQRT" => f64::sqrt,
        "EXP" => f64::exp,
        "LOG" => f64::ln,
        "LOG10" => f64::log10,
        "SIN" => f64::sin,
        "COS" => f64::cos,
        "TAN" => f64::tan,
        "ARCSIN" => f64::asin,
        "ARCCOS" => f64::acos,
        "ARCTAN" => f64::atan,
        "HYPSIN" => f64::sinh,
        "HYPCOS" => f64::cosh,
        "HYPTAN" => f64::tanh,
        other => return name.error(format!("`{other}` is not a function of parameters")),
    })
}
