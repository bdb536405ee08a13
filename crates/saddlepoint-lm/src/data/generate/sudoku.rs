//! Sudoku of 4 by 4: `1.34/34.2/.143/4321=` is continued by the full grid `1234/3412/2143/4321`. The difficulty is the
//! number of empty cells, and there is exactly one way to fill them.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::puzzle::{Problem, Puzzle};

/// Digits row by row; 0 is an empty cell.
type Grid = [u8; 16];

#[derive(Debug)]
pub(super) struct Sudoku;

impl Puzzle for Sudoku {
    fn hardest(&self) -> u32 {
        10
    }

    fn alphabet(&self) -> &'static str {
        "1234./="
    }

    fn draw(&self, difficulty: u32, rng: &mut ChaCha8Rng) -> Problem {
        loop {
            let full = filled(rng);
            let mut grid = full;
            let mut cells: Vec<usize> = (0..16).collect();
            cells.shuffle(rng);
            let mut left = difficulty;
            for cell in cells {
                let digit = std::mem::take(&mut grid[cell]);
                if left > 0 && solutions(&mut grid.clone(), 2) == 1 {
                    left -= 1;
                } else {
                    grid[cell] = digit;
                }
            }
            // Not every order of emptying leads as far.
            if left == 0 {
                return Problem { statement: text(&grid) + "=", solution: text(&full) };
            }
        }
    }

    /// One of the filled-in digits is another.
    fn slip(&self, problem: &Problem, rng: &mut ChaCha8Rng) -> String {
        let (grid, mut full) = (read(&problem.statement), read(&problem.solution).expect("a grid"));
        let grid = grid.expect("a grid");
        let empty: Vec<usize> = (0..16).filter(|&cell| grid[cell] == 0).collect();
        let cell = empty[rng.random_range(0..empty.len())];
        full[cell] = (full[cell] - 1 + rng.random_range(1..4_u8)) % 4 + 1;
        text(&full)
    }

    fn judge(&self, statement: &str, answer: &str) -> Option<bool> {
        let grid = read(statement.strip_suffix('=').map(|_| statement)?)?;
        Some(read(answer).is_some_and(|full| {
            let kept = (0..16).all(|cell| grid[cell] == 0 || grid[cell] == full[cell]);
            kept && (0..16).all(|cell| full[cell] != 0 && fits(&full, cell, full[cell]))
        }))
    }

    fn english(&self, statement: &str) -> Option<String> {
        let grid = statement.strip_suffix('=')?.replace('/', "\n");
        Some(format!(
            "Fill in the dots of this 4x4 sudoku, so that every row, column and 2x2 block has the digits 1 to 4 once. Write \
             the four rows separated by slashes.\n{grid}"
        ))
    }

    #[cfg(test)]
    fn size(&self, statement: &str) -> usize {
        statement.matches('.').count()
    }
}

fn text(grid: &Grid) -> String {
    let digit = |&digit: &u8| if digit == 0 { '.' } else { char::from(b'0' + digit) };
    grid.chunks(4).map(|row| row.iter().map(digit).collect::<String>()).collect::<Vec<_>>().join("/")
}

/// Rows separated by slashes or line breaks, a `=` after them left out.
fn read(text: &str) -> Option<Grid> {
    let rows: Vec<&str> = text.trim().trim_end_matches('=').split(['/', '\n']).map(str::trim).collect();
    if rows.len() != 4 || rows.iter().any(|row| row.len() != 4) {
        return None;
    }
    let mut grid = [0; 16];
    for (cell, c) in grid.iter_mut().zip(rows.iter().flat_map(|row| row.bytes())) {
        *cell = match c {
            b'.' => 0,
            b'1'..=b'4' => c - b'0',
            _ => return None,
        };
    }
    Some(grid)
}

/// Whether a digit is in no other cell of the row, the column and the block.
fn fits(grid: &Grid, cell: usize, digit: u8) -> bool {
    let (row, column) = (cell / 4, cell % 4);
    (0..16).filter(|&other| other != cell && grid[other] == digit).all(|other| {
        let (r, c) = (other / 4, other % 4);
        r != row && c != column && (r / 2, c / 2) != (row / 2, column / 2)
    })
}

/// The ways to fill a grid, counted up to `most`.
fn solutions(grid: &mut Grid, most: usize) -> usize {
    let Some(cell) = grid.iter().position(|&digit| digit == 0) else { return 1 };
    let mut count = 0;
    for digit in 1..=4 {
        if count < most && fits(grid, cell, digit) {
            grid[cell] = digit;
            count += solutions(grid, most - count);
        }
    }
    grid[cell] = 0;
    count
}

/// A random full grid.
fn filled(rng: &mut ChaCha8Rng) -> Grid {
    fn fill(grid: &mut Grid, rng: &mut ChaCha8Rng) -> bool {
        let Some(cell) = grid.iter().position(|&digit| digit == 0) else { return true };
        let mut digits = [1, 2, 3, 4];
        digits.shuffle(rng);
        for digit in digits {
            if fits(grid, cell, digit) {
                grid[cell] = digit;
                if fill(grid, rng) {
                    return true;
                }
            }
        }
        grid[cell] = 0;
        false
    }
    let mut grid = [0; 16];
    fill(&mut grid, rng);
    grid
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::seed::Seed;

    use super::*;

    /// All grids, by trying every way.
    fn ways(statement: &str) -> usize {
        let empty = statement.matches('.').count() as u32;
        let answers = (0..4_u32.pow(empty)).map(|way| {
            let mut way = way;
            let fill = |c: char| {
                if c != '.' {
                    return c;
                }
                let digit = char::from(b'1' + (way % 4) as u8);
                way /= 4;
                digit
            };
            statement.trim_end_matches('=').chars().map(fill).collect::<String>()
        });
        answers.filter(|answer| Sudoku.judge(statement, answer) == Some(true)).count()
    }

    #[test]
    fn there_is_one_way_to_fill_a_grid() {
        for difficulty in [1, 3, 6, 8] {
            let mut rng = Seed::new(7).stream("test/sudoku", &[u64::from(difficulty)]);
            assert_eq!(ways(&Sudoku.draw(difficulty, &mut rng).statement), 1);
        }
        assert_eq!(ways("12../34../..../4321="), 2, "the count can tell");
    }

    #[test]
    fn the_rule_keeps_what_is_given() {
        let statement = "1.34/34.2/.143/4321=";
        let statement = &statement.replace("34.2", "341.");
        for (answer, right) in [
            ("1234/3412/2143/4321", true),
            ("1234\n3412\n2143\n4321", true),
            ("1234/3412/2143/432", false),
            ("1234/3412/2143/4312", false),
            ("2134/3412/1243/4321", false),
        ] {
            assert_eq!(Sudoku.judge(statement, answer), Some(right), "{answer}");
        }
        assert_eq!(Sudoku.judge("1+1=", "2"), None);
    }
}
