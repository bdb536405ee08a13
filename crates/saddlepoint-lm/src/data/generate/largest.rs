//! The largest of four digits: `4,9,2,7=` is continued by `9`.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Split;
use super::puzzle::{Problem, Puzzle, joined, numbers};

#[derive(Debug)]
pub(super) struct Largest;

impl Puzzle for Largest {
    fn hardest(&self) -> u32 {
        1
    }

    fn alphabet(&self) -> &'static str {
        "0123456789,="
    }

    fn draw(&self, _: u32, rng: &mut ChaCha8Rng) -> Problem {
        let digits: [i64; 4] = std::array::from_fn(|_| i64::from(rng.random_range(0..10_u32)));
        let largest = digits.into_iter().max().expect("four digits");
        Problem { statement: joined(&digits) + "=", solution: largest.to_string() }
    }

    /// Any other digit.
    fn slip(&self, problem: &Problem, rng: &mut ChaCha8Rng) -> String {
        let right: u32 = problem.solution.parse().expect("a digit");
        ((right + rng.random_range(1..10_u32)) % 10).to_string()
    }

    fn judge(&self, statement: &str, answer: &str) -> Option<bool> {
        let largest = numbers(statement.strip_suffix('=')?)?.into_iter().max()?;
        Some(answer == largest.to_string())
    }

    fn english(&self, statement: &str) -> Option<String> {
        let digits = statement.strip_suffix('=')?;
        Some(format!("Which of these numbers is the largest: {}?", digits.replace(',', ", ")))
    }

    #[cfg(test)]
    fn size(&self, statement: &str) -> usize {
        statement.matches(',').count()
    }

    fn part(&self, statement: &str) -> Split {
        let digits = statement.strip_suffix('=').and_then(numbers).unwrap_or_default();
        let place: i64 = digits.iter().zip(1..).map(|(digit, weight)| digit * weight).sum();
        if place % 5 == 0 { Split::Eval } else { Split::Train }
    }
}
