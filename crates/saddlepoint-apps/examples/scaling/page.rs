//! The page: a table of exponents, then the pictures and the measurements behind them.

use std::fmt::Write as _;

use saddlepoint_core::interval::median;
use saddlepoint_core::power::Power;

use crate::series::{Point, Series};

/// What grows, and the solvers.
pub(crate) struct Section {
    /// In the name of the picture.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) label: &'static str,
    /// What the problems are.
    pub(crate) problems: &'static str,
    pub(crate) series: Vec<Series>,
}

impl Section {
    /// The name of the picture.
    pub(crate) fn file(&self) -> String {
        format!("scaling-{}.svg", self.name)
    }

    /// Refuses a solver without three sizes at which it solved something, through which no exponent goes.
    pub(crate) fn check(&self) -> Result<(), String> {
        for series in &self.series {
            let solved = |points: &[Point]| points.iter().any(|point| point.solve.solved);
            let sizes = series.sizes().iter().filter(|(_, points)| solved(points)).count();
            if sizes < 3 {
                return Err(format!(
                    "{} ({}) solved problems of {sizes} sizes only",
                    series.solver, series.on
                ));
            }
        }
        Ok(())
    }
}

const BEGINNING: &str = "\
# How time grows with the size

Written by `cargo run --release -p saddlepoint-apps --example scaling -- docs/scaling.md`; not by hand. Problems are drawn with fixed seeds, three of \
each size; everything runs on one thread from the defaults of each solver. A time is the median of 3 to 25 solves of one problem.

An exponent `p` is that of `time = a · sizeᵖ`, by least squares on the logarithms of all problems that were solved, with its standard error. *Operations* \
are counted, so they do not depend on the machine or on what else it does; what they are is said below each picture's table. Time grows as operations do \
times what one of them takes, and that is what theory speaks of: *in theory* is the leading term of one operation, and the exponent through \
that term over the same sizes. A measured exponent below it is the share of lower terms, which are larger at these sizes than they are in the limit; \
one above it is memory that no longer fits into a cache.

| solver | problems | sizes | exponent of time | of operations | of time an operation | in theory |
|---|---|---|---:|---:|---:|---|
";

/// The page.
pub(crate) fn write(sections: &[Section]) -> String {
    let mut text = BEGINNING.to_owned();
    for section in sections {
        for series in &section.series {
            let sizes = series.sizes();
            let [first, last] = [sizes.first(), sizes.last()].map(|size| size.map_or(0.0, |size| size.0));
            let _ = writeln!(
                text,
                "| {} | {} | {} = {first} to {last} | {} | {} | {} | {}: {:.2} |",
                series.solver,
                series.on,
                section.name,
                exponent(series.power(|point| point.seconds)),
                exponent(series.power(|point| point.solve.operations)),
                exponent(series.power(|point| point.seconds / point.solve.operations)),
                series.theory.says,
                series.expected()
            );
        }
    }
    for section in sections {
        measurements(section, &mut text);
    }
    text
}

fn exponent(power: Power) -> String {
    format!("{:.2} ± {:.2}", power.exponent, power.error)
}

fn measurements(section: &Section, text: &mut String) {
    let _ = write!(
        text,
        "\n## {}\n\n{}\n\n![seconds against {}]({})\n\n\
         Medians over the problems of a size that were solved.\n\n\
         | solver | problems | {} | solved | seconds | iterations | operations |\n|---|---|---:|---:|---:|---:|---:|\n",
        section.title,
        section.problems,
        section.label,
        section.file(),
        section.name
    );
    let mut counted: Vec<String> = Vec::new();
    for series in &section.series {
        for (size, points) in series.sizes() {
            let solved: Vec<&Point> = points.iter().filter(|point| point.solve.solved).collect();
            let of = |of: fn(&Point) -> f64| median(solved.iter().map(|point| of(point)).collect());
            let _ = writeln!(
                text,
                "| {} | {} | {size} | {} of {} | {} | {} | {} |",
                series.solver,
                series.on,
                solved.len(),
                points.len(),
                seconds(of(|point| point.seconds)),
                of(|point| point.solve.iterations),
                of(|point| point.solve.operations)
            );
        }
        let (iterations, operations) = series.counted;
        let name = series.solver;
        let told = if iterations == operations {
            format!("{name}: both are {iterations}")
        } else {
            format!("{name}: iterations are {iterations}, operations {operations}")
        };
        if !counted.contains(&told) {
            counted.push(told);
        }
    }
    let _ = writeln!(text, "\n{}.", counted.join(" · "));
}

/// With three digits.
fn seconds(value: f64) -> String {
    let digits = (2.0 - value.log10().floor()).clamp(0.0, 12.0) as usize;
    format!("{value:.digits$}")
}
