//! Solves of one solver at many sizes: their times, what they counted, and the powers through both.

use saddlepoint_core::clock::Stopwatch;
use saddlepoint_core::interval::median;
use saddlepoint_core::power::Power;

/// What is said of an operation of a solver.
#[derive(Clone, Copy)]
pub(crate) struct Theory {
    /// In words of the sizes.
    pub(crate) says: &'static str,
    /// How the operations of the machine grow; the power through it over the measured sizes is what can be seen of it there.
    pub(crate) flops: fn(f64) -> f64,
}

/// What a solve counted, and whether it ended where it should.
#[derive(Clone, Copy)]
pub(crate) struct Solve {
    pub(crate) solved: bool,
    pub(crate) iterations: f64,
    pub(crate) operations: f64,
}

/// Repeated solves of one problem.
#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub(crate) size: f64,
    /// Median.
    pub(crate) seconds: f64,
    pub(crate) solve: Solve,
}

/// A solver at many sizes.
pub(crate) struct Series {
    pub(crate) solver: &'static str,
    /// What a problem is.
    pub(crate) on: &'static str,
    /// What an iteration is, and an operation.
    pub(crate) counted: (&'static str, &'static str),
    pub(crate) theory: Theory,
    pub(crate) points: Vec<Point>,
}

/// Solves are repeated for so long in all, within these numbers.
const SECONDS: f64 = 0.1;
const REPETITIONS: std::ops::RangeInclusive<usize> = 3..=25;

impl Point {
    /// Solves again and again.
    pub(crate) fn measured<E>(size: usize, mut solve: impl FnMut() -> Result<Solve, E>) -> Result<Self, E> {
        let mut seconds = Vec::new();
        loop {
            let watch = Stopwatch::start();
            let found = solve()?;
            seconds.push(watch.seconds());
            let enough = seconds.iter().sum::<f64>() >= SECONDS && seconds.len() >= *REPETITIONS.start();
            if enough || seconds.len() >= *REPETITIONS.end() {
                return Ok(Self { size: size as f64, seconds: median(seconds), solve: found });
            }
        }
    }
}

impl Series {
    /// The power through a quantity of those that were solved.
    pub(crate) fn power(&self, of: fn(&Point) -> f64) -> Power {
        let solved = self.points.iter().filter(|point| point.solve.solved);
        Power::of(&solved.map(|point| (point.size, of(point))).collect::<Vec<_>>())
    }

    /// What the theory gives over the same sizes.
    pub(crate) fn expected(&self) -> f64 {
        let flops = |point: &Point| (point.size, (self.theory.flops)(point.size));
        Power::of(&self.points.iter().map(flops).collect::<Vec<_>>()).exponent
    }

    /// The sizes in ascending order, with the points of each.
    pub(crate) fn sizes(&self) -> Vec<(f64, Vec<Point>)> {
        let mut sizes: Vec<(f64, Vec<Point>)> = Vec::new();
        for point in &self.points {
            match sizes.iter_mut().find(|(size, _)| size.total_cmp(&point.size).is_eq()) {
                Some((_, points)) => points.push(*point),
                None => sizes.push((point.size, vec![*point])),
            }
        }
        sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
        sizes
    }
}
