//! Rules about source files: their size, who names reserved libraries, what a method file tells.

use std::fs;

use anyhow::Result;

use crate::crates::RESERVED;
use crate::workspace::Workspace;

/// Lines of a file, tests included.
const MOST_LINES: usize = 800;
const MOST_LINES_OF_A_METHOD: usize = 600;

/// The directories whose files hold one method each.
const METHODS: [&str; 1] = ["crates/saddlepoint-lm/src/method/"];

/// The page of a method file, in this order.
const HEADINGS: [&str; 6] =
    ["Objective", "Parameters", "Metrics", "Reference", "Differences", "Checked against"];

pub(crate) fn problems(workspace: &Workspace) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for path in [workspace.rust_files("crates")?, workspace.rust_files("xtask")?].concat() {
        let file = workspace.relative(&path);
        let text = fs::read_to_string(&path)?;
        let is_method =
            METHODS.iter().any(|methods| file.starts_with(methods)) && text.contains("pub const META: ");
        problems.extend(size(&file, &text, if is_method { MOST_LINES_OF_A_METHOD } else { MOST_LINES }));
        if is_method {
            problems.extend(headings(&file, &text));
        }
        let home =
            workspace.crates.iter().find(|each| path.starts_with(each.manifest_path.with_file_name("")));
        let used = home.into_iter().flat_map(|each| &each.dependencies).map(|used| used.name.as_str());
        problems.extend(used.filter_map(|library| reserved(&file, &text, library)));
    }
    Ok(problems)
}

fn size(file: &str, text: &str, most: usize) -> Option<String> {
    let lines = text.lines().count();
    (lines > most).then(|| format!("{file}: {lines} lines, at most {most} are allowed; split it by subject"))
}

fn headings(file: &str, text: &str) -> Option<String> {
    let page = text.lines().take_while(|line| line.starts_with("//!"));
    let found: Vec<&str> = page.filter_map(|line| line.strip_prefix("//! # ")).collect();
    let expected = HEADINGS.join(", ");
    (found != HEADINGS)
        .then(|| format!("{file}: its page must have the headings {expected}; it has {found:?}"))
}

/// Only asked for libraries that the crate depends on, so that a module may share a library's name elsewhere.
fn reserved(file: &str, text: &str, library: &str) -> Option<String> {
    let (_, directories) = RESERVED.iter().find(|(name, _)| *name == library)?;
    if directories.iter().any(|directory| file.starts_with(directory)) {
        return None;
    }
    let line = text.lines().position(|line| names(line, &library.replace('-', "_")))? + 1;
    Some(format!("{file}:{line}: names {library}, which is kept to {}", directories.join(", ")))
}

/// Whether a line of code, comments aside, starts a path with `library` or imports it.
fn names(line: &str, library: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default().trim();
    let imported = code.strip_prefix("use ").and_then(|path| path.strip_prefix(library));
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    imported.is_some_and(|rest| rest.starts_with([';', ' ', ':']))
        || code.match_indices(&format!("{library}::")).any(|(at, _)| !code[..at].ends_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_told() {
        let told = "a.rs: 3 lines, at most 2 are allowed; split it by subject";
        assert_eq!(size("a.rs", "1\n2\n3\n", 2).as_deref(), Some(told));
        assert_eq!(size("a.rs", "1\n2\n", 2), None);
    }

    #[test]
    fn a_method_page_has_its_headings_in_order() {
        let page = |headings: &[&str]| -> String {
            headings.iter().flat_map(|heading| ["//! # ", heading, "\n//! text\n"]).collect()
        };
        assert_eq!(headings("m.rs", &page(&HEADINGS)), None);
        let told = "m.rs: its page must have the headings Objective, Parameters, Metrics, Reference, Differences, \
                    Checked against; it has [\"Objective\", \"Reference\"]";
        assert_eq!(headings("m.rs", &page(&["Objective", "Reference"])).as_deref(), Some(told));
        let mut turned = HEADINGS;
        turned.swap(0, 1);
        assert!(headings("m.rs", &page(&turned)).is_some());
    }

    #[test]
    fn reserved_libraries_are_found_in_code_only() {
        for line in
            ["let a = pulp::Arch::new();", "use pulp;", "use pulp as p;", "use pulp::Simd;", "f(&pulp::x)"]
        {
            assert!(names(line, "pulp"), "{line}");
        }
        for line in ["// pulp::Arch", "let pulp = 1;", "crate::pulp::x()", "use pulpit::x;", "mypulp::x()"] {
            assert!(!names(line, "pulp"), "{line}");
        }
        let told = "crates/saddlepoint-lm/src/trainer.rs:2: names pulp, which is kept to \
                    crates/saddlepoint-lm/src/engine, crates/saddlepoint-opt/src";
        let text = "//! page\nuse pulp::Arch;\n";
        assert_eq!(reserved("crates/saddlepoint-lm/src/trainer.rs", text, "pulp").as_deref(), Some(told));
        assert_eq!(reserved("crates/saddlepoint-lm/src/engine/norm.rs", text, "pulp"), None);
        assert_eq!(reserved("crates/saddlepoint-lm/src/trainer.rs", "use serde::Serialize;", "serde"), None);
    }
}
