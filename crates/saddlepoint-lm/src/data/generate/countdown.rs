//! Countdown: `3,7,2>8=` is continued by a formula with the value 8 that uses each of the numbers once, such as `(7-3)*2`.
//!
//! The difficulty `d` gives `d + 2` numbers, from 1 to 9 plus `d`. As in the game of that name and its use for training
//! (TinyZero): any formula of `+ - * /` and brackets counts, with exact fractions on the way, written alone or followed by `=` and
//! the target.

use num_rational::Ratio;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::formula::formula;
use super::puzzle::{Problem, Puzzle, joined, numbers};

/// Largest target: what children can do in their heads.
const MOST: i64 = 100;

#[derive(Debug)]
pub(super) struct Countdown;

impl Puzzle for Countdown {
    fn hardest(&self) -> u32 {
        6
    }

    fn alphabet(&self) -> &'static str {
        "0123456789,>=+-*/()"
    }

    fn draw(&self, difficulty: u32, rng: &mut ChaCha8Rng) -> Problem {
        let count = difficulty as usize + 2;
        loop {
            let given: Vec<i64> =
                (0..count).map(|_| rng.random_range(1..=9 + i64::from(difficulty))).collect();
            if let Some((solution, target)) = combined(&given, rng) {
                return Problem { statement: format!("{}>{target}=", joined(&given)), solution };
            }
        }
    }

    /// The solution with one operation changed or one bracket moved, so that its value is another one.
    fn slip(&self, problem: &Problem, rng: &mut ChaCha8Rng) -> String {
        let signs = ['+', '-', '*', '/'];
        let places: Vec<usize> = problem.solution.match_indices(&signs[..]).map(|(at, _)| at).collect();
        loop {
            let at = places[rng.random_range(0..places.len())];
            let sign = signs[rng.random_range(0..signs.len())].to_string();
            let mut changed = problem.solution.clone();
            changed.replace_range(at..=at, &sign);
            if self.judge(&problem.statement, &changed) == Some(false) {
                return changed;
            }
        }
    }

    fn judge(&self, statement: &str, answer: &str) -> Option<bool> {
        let (mut given, target) = read(statement)?;
        let formula = match answer.split_once('=') {
            None => formula(answer),
            Some((left, right)) => formula(left).filter(|_| right.trim() == target.to_string()),
        };
        given.sort_unstable();
        Some(formula.is_some_and(|formula| {
            let mut used = formula.numbers;
            used.sort_unstable();
            formula.value == Ratio::from_integer(target) && used == given
        }))
    }

    fn english(&self, statement: &str) -> Option<String> {
        let (given, target) = read(statement)?;
        let given = joined(&given).replace(',', ", ");
        Some(format!(
            "Using each of the numbers {given} exactly once and the operations + - * / with brackets, write a formula \
             whose value is {target}."
        ))
    }

    #[cfg(test)]
    fn size(&self, statement: &str) -> usize {
        read(statement).map_or(0, |(given, _)| given.len())
    }
}

fn read(statement: &str) -> Option<(Vec<i64>, i64)> {
    let (given, target) = statement.strip_suffix('=')?.split_once('>')?;
    Some((numbers(given)?, target.parse().ok()?))
}

/// Joins the numbers two by two in a random order; none if the value is no whole number from 1 to [`MOST`].
fn combined(given: &[i64], rng: &mut ChaCha8Rng) -> Option<(String, i64)> {
    let mut parts: Vec<(String, i64)> = given.iter().map(|number| (number.to_string(), *number)).collect();
    while parts.len() > 1 {
        let (left, a) = parts.swap_remove(rng.random_range(0..parts.len()));
        let (right, b) = parts.swap_remove(rng.random_range(0..parts.len()));
        let (sign, value) = match rng.random_range(0..4_u32) {
            0 => ('+', a + b),
            1 => ('-', a - b),
            2 => ('*', a.checked_mul(b)?),
            _ if b != 0 && a % b == 0 => ('/', a / b),
            _ => return None,
        };
        let outer = parts.is_empty();
        let text = format!("{left}{sign}{right}");
        parts.push((if outer { text } else { format!("({text})") }, value));
    }
    parts.pop().filter(|(_, value)| (1..=MOST).contains(value))
}
