//! Examples in a table: a first line with names, then a line an example, numbers separated by commas.

use std::path::Path;

use csv::{ErrorKind, Position, ReaderBuilder, Trim};
use saddlepoint_core::config::nearest;
use saddlepoint_core::quote::word;

use super::{Examples, ReadError};

/// Reads a text; `path` is what errors name. Labels are in the column of that name, or in the last.
///
/// # Errors
/// With line and column.
pub fn parse(text: &str, path: &Path, label: Option<&str>) -> Result<Examples, ReadError> {
    let file = |problem: String| ReadError::File { path: path.to_owned(), problem };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(text.as_bytes());
    let names: Vec<String> = match reader.headers() {
        Ok(names) => names.iter().map(str::to_owned).collect(),
        Err(error) => return Err(file(error.to_string())),
    };
    let at = columns(&names, label).map_err(file)?;
    let features: Vec<String> =
        names.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, name)| name.clone()).collect();
    let mut examples = Examples::none(features.len(), features);
    for record in reader.records() {
        let record = record.map_err(|error| broken(&error, text, path))?;
        let line = line_of(text, record.position());
        let mut values = Vec::with_capacity(names.len());
        for (cell, name) in record.iter().zip(&names) {
            let value = cell.parse().ok().filter(|value: &f64| value.is_finite());
            values.push(value.ok_or_else(|| {
                let problem = if cell.is_empty() {
                    "it is empty; fill it in or leave the line out".to_owned()
                } else {
                    format!("expected a number, got {}; code categories and classes as numbers", word(cell))
                };
                ReadError::Cell { path: path.to_owned(), line, name: name.clone(), problem }
            })?);
        }
        let label = values.remove(at);
        examples.push(label, (0..).zip(values));
    }
    if examples.is_empty() {
        return Err(file("there is no example in it".to_owned()));
    }
    Ok(examples)
}

/// The column of the labels, of names that can be told apart.
fn columns(names: &[String], label: Option<&str>) -> Result<usize, String> {
    if names.len() < 2 {
        let problem = format!(
            "the first line must name a column for the labels and at least one for features, separated by commas; it names {names:?}"
        );
        return Err(problem);
    }
    if names.iter().all(|name| name.parse::<f64>().is_ok()) {
        return Err(
            "the first line must name the columns, and has numbers only; add a line of names".to_owned()
        );
    }
    if let Some((i, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return Err(format!("column {} has the name `{name}` again; names must differ", i + 1));
    }
    let Some(label) = label else { return Ok(names.len() - 1) };
    names.iter().position(|name| name == label).ok_or_else(|| {
        let known = names.iter().map(String::as_str);
        let meant = nearest(label, known)
            .map_or(format!("there are {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
        format!("no column is called `{label}`; {meant}")
    })
}

/// The line in which a record begins: where the reader stands before it, blank lines and the rest of a line's end are still to come.
fn line_of(text: &str, place: Option<&Position>) -> usize {
    let at = place.map_or(0, |place| place.byte() as usize).min(text.len());
    let (before, after) = text.as_bytes().split_at(at);
    let blank = after.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    1 + before.iter().chain(blank).filter(|byte| **byte == b'\n').count()
}

fn broken(error: &csv::Error, text: &str, path: &Path) -> ReadError {
    let line = line_of(text, error.position());
    let problem = match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} cells, and the first line has {expected_len}")
        }
        _ => error.to_string(),
    };
    ReadError::Line { path: path.to_owned(), line, column: 1, problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str, label: Option<&str>) -> Result<Examples, ReadError> {
        parse(text, Path::new("a.csv"), label)
    }

    #[test]
    fn labels_are_in_the_last_column_or_in_the_named_one() {
        let text = "\u{feff}age,\"height, cm\", y\r\n1,2e1,+3\r\n\r\n4,0,-6\r\n";
        let examples = of(text, None).expect("reads");
        let dots = |examples: &Examples| [0, 1].map(|i| examples.dot(i, &[1.0, 100.0]));
        assert_eq!(format!("{:?} {:?}", examples.labels, dots(&examples)), "[3.0, -6.0] [2001.0, 4.0]");
        assert_eq!((examples.name(0), examples.name(1)), ("age".to_owned(), "height, cm".to_owned()));
        let examples = of(text, Some("age")).expect("reads");
        assert_eq!(format!("{:?} {:?}", examples.labels, dots(&examples)), "[1.0, 4.0] [320.0, -600.0]");
        assert_eq!(examples.names, ["height, cm", "y"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, label, message) in [
            (
                "a,b\n1,x\n",
                None,
                "a.csv:2: column `b`: expected a number, got `x`; code categories and classes as numbers",
            ),
            ("a,b\n1,2\n,2\n", None, "a.csv:3: column `a`: it is empty; fill it in or leave the line out"),
            (
                "a\u{1b}[2J,b\n1\0,2\n",
                None,
                "a.csv:2: column `a\\u{1b}[2J`: expected a number, got `1\\0`; code categories and classes as numbers",
            ),
            (
                "a,b\n1,inf\n",
                None,
                "a.csv:2: column `b`: expected a number, got `inf`; code categories and classes as numbers",
            ),
            ("a,b\r\n1,2\r\n\r\n1\r\n", None, "a.csv:4:1: 1 cells, and the first line has 2"),
            (
                "1,2\n3,4\n",
                None,
                "a.csv: the first line must name the columns, and has numbers only; add a line of names",
            ),
            ("a,b,a\n1,2,3\n", None, "a.csv: column 3 has the name `a` again; names must differ"),
            ("a,b\n1,2\n", Some("price"), "a.csv: no column is called `price`; there are a, b"),
            ("age,label\n1,2\n", Some("labl"), "a.csv: no column is called `labl`; did you mean `label`?"),
            ("a,b\n", None, "a.csv: there is no example in it"),
        ] {
            assert_eq!(of(text, label).expect_err("refused").to_string(), message);
        }
        let told = of("a;b\n1;2\n", None).expect_err("refused").to_string();
        assert!(told.contains("separated by commas; it names [\"a;b\"]"), "{told}");
        assert!(of("", None).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.,\"a-c \\n\\r\\texinf]{0,80}", label in prop::option::of("[a-c]")) {
            if let Ok(examples) = of(&text, label.as_deref()) {
                let w = vec![1.0; examples.features];
                for i in 0..examples.len() {
                    prop_assert!(!examples.dot(i, &w).is_nan());
                }
            }
        }
    }
}
