//! Chains of arithmetic: `3+4*2=` is continued by `11`. The difficulty is the number of operations.
//!
//! Operands are digits; a product binds tighter than sums and differences, and no two products are next to each other, so
//! that values stay within 81 times the number of operations.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::formula::formula;
use super::puzzle::{Problem, Puzzle};

#[derive(Debug)]
pub(super) struct Arithmetic;

impl Puzzle for Arithmetic {
    fn hardest(&self) -> u32 {
        32
    }

    fn alphabet(&self) -> &'static str {
        "0123456789+-*="
    }

    fn draw(&self, difficulty: u32, rng: &mut ChaCha8Rng) -> Problem {
        let mut statement = rng.random_range(0..10_u32).to_string();
        let mut after_product = false;
        for _ in 0..difficulty {
            let operation = ['+', '-', '*'][rng.random_range(0..if after_product { 2 } else { 3 })];
            after_product = operation == '*';
            statement.push(operation);
            statement += &rng.random_range(0..10_u32).to_string();
        }
        let value = formula(&statement).expect("just written").value;
        Problem { statement: statement + "=", solution: value.to_string() }
    }

    /// Off by one to nine.
    fn slip(&self, problem: &Problem, rng: &mut ChaCha8Rng) -> String {
        let right: i64 = problem.solution.parse().expect("a whole number");
        let by = rng.random_range(1..10_i64);
        (if rng.random::<bool>() { right + by } else { right - by }).to_string()
    }

    fn judge(&self, statement: &str, answer: &str) -> Option<bool> {
        let value = formula(statement.strip_suffix('=')?)?.value;
        Some(answer.trim().parse::<i64>().is_ok_and(|answer| value == answer.into()))
    }

    fn english(&self, statement: &str) -> Option<String> {
        Some(format!("What is {}?", statement.strip_suffix('=')?))
    }

    #[cfg(test)]
    fn size(&self, statement: &str) -> usize {
        statement.matches(['+', '-', '*']).count()
    }
}
