//! Equality of answers.

use num_rational::Ratio;
use num_traits::CheckedMul;

use super::expression::Expression;
use super::parse::{Answer, Kind, parse};
use super::value::{POINTS, close};

/// Whether two answers, as they were written, mean the same. Symmetric.
pub fn equal(a: &str, b: &str) -> bool {
    same(&parse(a), &parse(b))
}

fn same(a: &Answer, b: &Answer) -> bool {
    if a.text == b.text && !a.text.is_empty() {
        return true;
    }
    match (&a.kind, &b.kind) {
        (Kind::Expression(x), Kind::Expression(y)) | (Kind::Percent(x), Kind::Percent(y)) => x.equals(y),
        (Kind::Percent(percent), Kind::Expression(number))
        | (Kind::Expression(number), Kind::Percent(percent)) => {
            percent.equals(number) || hundredth(percent).is_some_and(|share| share.equals(number))
        }
        (Kind::Equation(left, right), Kind::Expression(value))
        | (Kind::Expression(value), Kind::Equation(left, right)) => {
            matches!(left, Expression::Symbol(_)) && right.equals(value)
        }
        (Kind::Equation(..), Kind::Equation(..)) => same_equation(&a.kind, &b.kind),
        (Kind::Set(items), Kind::Set(others)) => same_set(items, others),
        (Kind::Set(items), _) if items.len() == 1 => same(&items[0], b),
        (_, Kind::Set(items)) if items.len() == 1 => same(a, &items[0]),
        (Kind::Tuple { open, close, items }, Kind::Tuple { open: o, close: c, items: others }) => {
            (open, close) == (o, c) && same_list(items, others)
        }
        (Kind::Matrix(rows), Kind::Matrix(others)) => {
            rows.len() == others.len() && rows.iter().zip(others).all(|(row, other)| same_list(row, other))
        }
        (Kind::Text, _) | (_, Kind::Text) => {
            let (a, b) = (words(&a.text), words(&b.text));
            !a.is_empty() && a == b
        }
        _ => false,
    }
}

fn same_list(items: &[Answer], others: &[Answer]) -> bool {
    items.len() == others.len() && items.iter().zip(others).all(|(a, b)| same(a, b))
}

/// Each element has its own partner.
fn same_set(items: &[Answer], others: &[Answer]) -> bool {
    let mut free: Vec<&Answer> = others.iter().collect();
    let mut take = |item: &Answer| match free.iter().position(|other| same(item, other)) {
        Some(at) => {
            free.swap_remove(at);
            true
        }
        None => false,
    };
    items.len() == others.len() && items.iter().all(&mut take)
}

/// Equations whose sides differ by amounts in a constant ratio have the same solutions.
fn same_equation(a: &Kind, b: &Kind) -> bool {
    let (Kind::Equation(l, r), Kind::Equation(m, s)) = (a, b) else { return false };
    if let (Expression::Symbol(x), Expression::Symbol(y)) = (l, m)
        && x == y
    {
        return r.equals(s);
    }
    let ratios = (0..POINTS).map(|point| (l.at(point) - r.at(point)) / (m.at(point) - s.at(point)));
    let ratios: Vec<_> = ratios.filter(|ratio| ratio.is_finite()).collect();
    ratios.len() > 1 && ratios[0].norm() > 0.0 && ratios.iter().all(|ratio| close(*ratio, ratios[0]))
}

fn hundredth(percent: &Expression) -> Option<Expression> {
    if let Some(value) = percent.exact() {
        return value.checked_mul(&Ratio::new(1, 100)).map(Expression::Number);
    }
    let hundred = Expression::Number(Ratio::from_integer(100));
    Some(Expression::Quotient(percent.clone().into(), hundred.into()))
}

/// In lower case, without quotes, braces and the brackets around the letter of a choice.
fn words(text: &str) -> String {
    let inner =
        text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).filter(|inner| inner.len() == 1);
    let kept = |c: &char| !matches!(c, '\'' | '"' | '{' | '}' | '\\');
    inner.unwrap_or(text).to_lowercase().chars().filter(kept).collect()
}
