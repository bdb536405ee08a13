//! Whether two answers to a question of mathematics mean the same, as in GSM8K and MATH.
//!
//! ```text
//! solution, completion --extract--> the answer in it --clean--> plain notation --parse--> Answer --compare--> equal or not
//! ```
//! Equal are: numbers of the same value, exactly, as integers, fractions, mixed numbers and (repeating) decimals; with or
//! without thousands separators, currency, unit or degrees; a percentage and its number or its hundredth; expressions of
//! the same value at three points of their variables, to 1e-9; equations up to a factor, and `x = 5` with `5`; tuples,
//! intervals and matrices element by element; lists, sets and unions in any order, `a \pm b` being a list of two; text
//! without case and punctuation.
//!
//! Not equal are an irrational number and its rounded value, and numbers in another base (`52_8` is text). What cannot be
//! read as mathematics is compared as text. Nothing here can hang: an answer of more than 2000 bytes, or nested deeper than 48,
//! is text.
//!
//! The rules were checked on all solutions of GSM8K and MATH-500 (see the tests). Differences from `math_verify`, which
//! TRL asks: inequalities are text, and no symbolic algebra is done beyond values at points.

mod clean;
mod compare;
mod expression;
mod extract;
mod parse;
mod value;

pub use compare::equal;
pub use extract::{Unmarked, answer, solution};

#[cfg(test)]
mod tests;
