//! True graphs from files, to compare with.

use std::fs;
use std::path::Path;

use saddlepoint_core::quote::word;

use super::graph::Weights;
use crate::{Error, Result};

/// Reads edges between named nodes: a line an edge, `from --> to`, `from -> to` or `from,to`, with an optional number and period before
/// it, as in the graph files of Tetrad. Headings that end with a colon and the list of names after `Graph Nodes:` are passed over, and
/// so are empty lines and those that begin with `#`.
///
/// # Errors
/// With the line of what is no edge or names a node that is not there.
pub fn read(path: &Path, names: &[String]) -> Result<Weights> {
    let text = fs::read_to_string(path)
        .map_err(|error| Error::File { path: path.into(), problem: format!("cannot be read: {error}") })?;
    parse(&text, path, names)
}

/// Reads a text; `path` is what errors name.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, path: &Path, names: &[String]) -> Result<Weights> {
    let mut graph = Weights::none(names.len());
    let mut list = false;
    for (index, line) in text.lines().enumerate() {
        let wrong = |problem: String| Error::Line { path: path.into(), line: index as u64 + 1, problem };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.ends_with(':') {
            list = line.eq_ignore_ascii_case("graph nodes:");
            continue;
        }
        if std::mem::take(&mut list) {
            continue;
        }
        let numbered = line.split_once(". ").filter(|(number, _)| number.parse::<u64>().is_ok());
        let edge = numbered.map_or(line, |(_, edge)| edge);
        let ends = ["-->", "->", ","].into_iter().find_map(|arrow| edge.split_once(arrow));
        let (from, to) =
            ends.ok_or_else(|| wrong(format!("expected an edge `from -> to`, got {}", word(line))))?;
        let node = |name: &str| {
            let name = name.trim();
            let found = names.iter().position(|known| known == name);
            found.ok_or_else(|| {
                wrong(format!("there is no column {}; there are {}", word(name), names.join(", ")))
            })
        };
        let (from, to) = (node(from)?, node(to)?);
        if from == to {
            return Err(wrong(format!("`{}` has an edge to itself", names[from])));
        }
        graph.set(from, to, 1.0);
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Weights> {
        parse(text, Path::new("true.txt"), &["a", "b c", "d"].map(str::to_owned))
    }

    #[test]
    fn the_usual_ways_to_write_edges_are_read() {
        let text =
            "Graph Nodes:\na;b c;d\n\nGraph Edges:\n1. a --> b c\n2. d --> a\n\n# and\nb c->d\nd,b c\n";
        assert_eq!(of(text).expect("reads").edges(), [(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0), (2, 1, 1.0)]);
        assert!(of("").expect("reads").edges().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("a -> b c\n1. a\n", "true.txt:2: expected an edge `from -> to`, got `1. a`"),
            ("\na -> x\n", "true.txt:2: there is no column `x`; there are a, b c, d"),
            ("d -> d", "true.txt:1: `d` has an edge to itself"),
        ] {
            assert_eq!(of(text).expect_err("refused").to_string(), told);
        }
        assert!(
            read(Path::new("no such file"), &[])
                .expect_err("refused")
                .to_string()
                .starts_with("no such file: ")
        );
    }
}
