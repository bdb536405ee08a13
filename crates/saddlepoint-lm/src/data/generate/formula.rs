//! Formulas of whole numbers with `+ - * /` and brackets, and their exact value.

use num_rational::Ratio;
use num_traits::{CheckedAdd, CheckedDiv, CheckedMul, CheckedSub};

/// A formula that was read.
#[derive(Debug, PartialEq)]
pub(super) struct Formula {
    pub(super) value: Ratio<i64>,
    /// The numbers in it, in their order.
    pub(super) numbers: Vec<i64>,
}

/// Numerators and denominators from here on are refused: what is computed with them would leave 64 bits.
const MOST: i64 = 1 << 60;
/// Brackets deeper than this are refused.
const DEPTH: usize = 32;

/// The formula that the whole text is; none where it is not one, divides by zero or has too large numbers.
pub(super) fn formula(text: &str) -> Option<Formula> {
    let mut reader = Reader { rest: text, numbers: Vec::new(), depth: 0 };
    let value = reader.sum()?;
    reader.rest.trim().is_empty().then_some(Formula { value, numbers: reader.numbers })
}

struct Reader<'a> {
    rest: &'a str,
    numbers: Vec<i64>,
    depth: usize,
}

impl Reader<'_> {
    /// The next character, if it is one of these.
    fn take(&mut self, of: &[char]) -> Option<char> {
        self.rest = self.rest.trim_start();
        let c = self.rest.chars().next().filter(|c| of.contains(c))?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn sum(&mut self) -> Option<Ratio<i64>> {
        let mut value = self.product()?;
        while let Some(sign) = self.take(&['+', '-']) {
            let term = self.product()?;
            value = bounded(if sign == '+' { value.checked_add(&term) } else { value.checked_sub(&term) })?;
        }
        Some(value)
    }

    fn product(&mut self) -> Option<Ratio<i64>> {
        let mut value = self.factor()?;
        while let Some(sign) = self.take(&['*', '/']) {
            let factor = self.factor()?;
            value =
                bounded(if sign == '*' { value.checked_mul(&factor) } else { value.checked_div(&factor) })?;
        }
        Some(value)
    }

    fn factor(&mut self) -> Option<Ratio<i64>> {
        if self.take(&['(']).is_some() {
            self.depth += 1;
            let value = if self.depth > DEPTH { None } else { self.sum() };
            self.depth -= 1;
            return value.filter(|_| self.take(&[')']).is_some());
        }
        let len = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(len);
        let number = digits.parse().ok().filter(|number| *number < MOST)?;
        self.rest = rest;
        self.numbers.push(number);
        Some(Ratio::from_integer(number))
    }
}

fn bounded(value: Option<Ratio<i64>>) -> Option<Ratio<i64>> {
    value.filter(|value| value.numer().abs() < MOST && *value.denom() < MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_exact_and_bad_texts_are_none() {
        for (text, value) in
            [("1+2*3", (7, 1)), ("(1+2)*3", (9, 1)), ("7 / 2 - 1", (5, 2)), ("8/(3-8/3)", (24, 1))]
        {
            assert_eq!(formula(text).map(|f| f.value), Some(Ratio::new(value.0, value.1)), "{text}");
        }
        assert_eq!(formula("(7-3)*12").map(|f| f.numbers), Some(vec![7, 3, 12]));
        let deep = "(".repeat(100_000) + "1";
        for text in ["", "1+", "(1", "1)", "1/0", "1//2", "x", "-1", "9223372036854775807+1", &deep] {
            assert_eq!(formula(text), None, "{:?}", &text[..text.len().min(20)]);
        }
    }
}
