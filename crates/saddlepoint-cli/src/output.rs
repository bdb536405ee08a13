//! Where a command's words go: text for people, or with `--json` one object a line for programs.
//!
//! With `--json` standard output holds objects only; everything else goes to standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde::Serialize;

/// Widest table in columns, when a cell holds running text.
const WIDTH: u16 = 110;

/// A rule under the headings and nothing else.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// The two streams of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Output { json }
    }

    /// Whether standard output is for programs.
    pub(crate) fn json(self) -> bool {
        self.json
    }

    /// Whether standard output is text that a person watches as it comes.
    pub(crate) fn streams(self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// Whether colours are shown: on a terminal, unless the user does not want them (`NO_COLOR`).
    pub(crate) fn colours(self) -> bool {
        !self.json && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
    }

    /// A line for people: a result. ANSI styles are dropped where the stream does not show them.
    pub(crate) fn say(self, text: impl Display) -> Result<()> {
        if self.json { note(text) } else { put(anstream::stdout().lock(), format!("{text}\n")) }
    }

    /// An object for programs; silent without `--json`.
    pub(crate) fn object(self, object: &impl Serialize) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut line = serde_json::to_string(object).context("an output object")?;
        line.push('\n');
        put(io::stdout().lock(), line)
    }
}

/// A line about the run rather than its result: always on standard error.
pub(crate) fn note(text: impl Display) -> Result<()> {
    put(anstream::stderr().lock(), format!("{text}\n"))
}

/// A piece of a line on standard output, shown at once.
pub(crate) fn piece(text: &str) -> Result<()> {
    put(anstream::stdout().lock(), text)
}

fn put(mut stream: impl Write, text: impl AsRef<str>) -> Result<()> {
    stream.write_all(text.as_ref().as_bytes()).and_then(|()| stream.flush()).context("writing the output")
}

/// A table; columns whose heading starts with `>` are aligned to the right.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH);
    table.set_header(headings.map(|heading| heading.trim_start_matches('>')));
    for row in rows {
        table.add_row(headings.iter().zip(row).map(|(heading, text)| {
            let side = if heading.starts_with('>') { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(side)
        }));
    }
    table
}

/// A variant without fields by its serialised name.
pub(crate) fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .expect("only variants without fields are given")
}

/// A number for people: four significant digits, no trailing zeros, exponents only at the extremes.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return format!("{value}");
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = if size == 0.0 { 0 } else { (3 - size.log10().floor() as i32).max(0) as usize };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// An interval for people.
pub(crate) fn interval([low, high]: [f64; 2]) -> String {
    format!("[{}, {}]", number(low), number(high))
}

/// A path for people: `examples/../runs/a`, as recipes make them, is `runs/a`.
pub(crate) fn place(path: &Path) -> impl Display {
    let mut short = PathBuf::new();
    for part in path.components() {
        let up = part == Component::ParentDir
            && matches!(short.components().next_back(), Some(Component::Normal(_)));
        if up {
            short.pop();
        } else {
            short.push(part);
        }
    }
    short.display().to_string()
}

/// Bytes in the unit that people read.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", count as f64 / 1_073_741_824.0),
    }
}

/// A duration in the units that people read.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.5, "0.5"),
            (std::f64::consts::PI, "3.142"),
            (-1234.56, "-1235"),
            (2e-5, "2.00e-5"),
            (0.000_123_45, "0.0001234"),
            (9_876_543.0, "9876543"),
            (1.5e9, "1.50e9"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_way_down_and_up_again_is_left_out_of_a_path() {
        for (path, shown) in [
            ("examples/../runs/a", "runs/a"),
            ("../runs/a", "../runs/a"),
            ("a/b/../../c", "c"),
            ("/x/./y", "/x/y"),
        ] {
            assert_eq!(place(Path::new(path)).to_string(), shown);
        }
    }

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(bytes(5 << 30), "5.00 GiB");
        assert_eq!(duration(4.26), "4.3 s");
        assert_eq!(duration(59.7), "1 min 00 s");
        assert_eq!(duration(3725.0), "1 h 02 min");
    }

    #[test]
    fn a_table_aligns_numbers_to_the_right() {
        let text = table(["name", ">value"], [["kl".into(), "0.1".into()], ["loss".into(), "12.5".into()]]);
        let text = text.to_string();
        assert!(text.contains("   0.1"), "{text}");
    }
}
