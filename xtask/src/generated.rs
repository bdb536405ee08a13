//! The parts of documents that are written from the code.
//!
//! Such a part stands between two comments, `<!-- generated: NAME -->` and `<!-- end of NAME -->`; what is around
//! it is written by people.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use saddlepoint_core::reproduce::{Claim, Outcome};
use saddlepoint_core::{atomic, config};
use saddlepoint_lm::method::{self, Meta};
use saddlepoint_lm::recipe::Recipe;

use crate::crates::rank;
use crate::workspace::{Crate, Workspace};

/// What `saddle reproduce SLUG --json` printed, one line a reproduction.
const MEASURED: &str = "docs/reproductions.jsonl";

/// A part of a document, as it should be.
struct Part {
    file: &'static str,
    name: &'static str,
    text: String,
}

fn parts(workspace: &Workspace) -> Result<Vec<Part>> {
    let measured = workspace.text(MEASURED)?;
    Ok(vec![
        Part { file: "ARCHITECTURE.md", name: "crates", text: crates_table(workspace) },
        Part { file: "README.md", name: "methods", text: methods_table() },
        Part { file: "docs/recipes.md", name: "keys", text: keys_table() },
        Part {
            file: "docs/reproductions.md",
            name: "reproductions",
            text: reproductions(&measured).context(MEASURED)?,
        },
    ])
}

/// Rewrites every part that is not fresh.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    for part in parts(workspace)? {
        let old = workspace.text(part.file)?;
        let new = splice(&old, &part).with_context(|| part.file)?;
        if new != old {
            atomic::write(&workspace.root.join(part.file), new.as_bytes())?;
            eprintln!("rewrote {} in {}", part.name, part.file);
        }
    }
    Ok(())
}

pub(crate) fn problems(workspace: &Workspace) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for part in parts(workspace)? {
        let old = workspace.text(part.file)?;
        if splice(&old, &part).with_context(|| part.file)? != old {
            problems.push(format!("{}: {} is not fresh; run cargo xtask gen", part.file, part.name));
        }
    }
    Ok(problems)
}

/// The document with the part's text between its two comments.
fn splice(document: &str, part: &Part) -> Result<String> {
    let (start, end) =
        (format!("<!-- generated: {} -->\n", part.name), format!("<!-- end of {} -->", part.name));
    let missing = || format!("needs the lines `{}` and `{end}`", start.trim());
    let (before, rest) = document.split_once(&start).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok(format!("{before}{start}{}\n{end}{after}", part.text.trim_end()))
}

fn methods_table() -> String {
    let mut text =
        "| method | family | paper | status | reproduction | what it does |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for meta in method::list() {
        let Meta { name, paper, summary, .. } = meta;
        let [family, status] =
            [format!("{:?}", meta.family), format!("{:?}", meta.status)].map(|word| word.to_lowercase());
        let reproduction =
            meta.slug.map_or(String::new(), |slug| format!("[`{slug}`](docs/reproductions.md#{slug})"));
        let _ = writeln!(text, "| `{name}` | {family} | {paper} | {status} | {reproduction} | {summary} |");
    }
    text
}

/// A section for each reproduction, with the claims as they were last measured.
fn reproductions(measured: &str) -> Result<String> {
    let outcomes: Vec<Outcome> = measured.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut text = String::new();
    let lm =
        saddlepoint_lm::reproduce::LIST.iter().map(|r| (r.slug, r.title, r.paper, r.experiment, r.seeds));
    let opt =
        saddlepoint_opt::reproduce::LIST.iter().map(|r| (r.slug, r.title, r.paper, r.experiment, r.seeds));
    let apps =
        saddlepoint_apps::reproduce::LIST.iter().map(|r| (r.slug, r.title, r.paper, r.experiment, r.seeds));
    for (slug, title, paper, experiment, seeds) in lm.chain(opt).chain(apps) {
        let outcome = outcomes.iter().find(|outcome| outcome.slug == slug).with_context(|| {
            format!("has no line for {slug}: add the one that `saddle reproduce {slug} --json` prints")
        })?;
        let held = outcome.claims.iter().filter(|claim| claim.holds).count();
        let (count, minutes) = (outcome.claims.len(), outcome.seconds / 60.0);
        let _ = write!(
            text,
            "\n## {slug}\n\n{title} ({paper}). {experiment}\n\n{held} of {count} claims hold; {seeds} seeds by default, \
             {minutes:.1} minutes.\n\n| claim | in the paper | here | 95 % interval | |\n|---|---|---|---|---|\n"
        );
        for Claim { claim, paper, measured, interval: [low, high], holds } in &outcome.claims {
            let [claim, paper] = [claim, paper].map(|text| text.replace('|', "\\|"));
            let verdict = if *holds { "holds" } else { "**does not hold**" };
            let interval = format!("[{}, {}]", short(*low), short(*high));
            let _ = writeln!(text, "| {claim} | {paper} | {} | {interval} | {verdict} |", short(*measured));
        }
    }
    Ok(text)
}

/// A number with four significant digits.
fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.3e}").parse().expect("a number that was just written");
    if rounded != 0.0 && rounded.abs() < 1e-4 { format!("{rounded:e}") } else { rounded.to_string() }
}

/// A table for each section of a recipe.
fn keys_table() -> String {
    let mut text = String::new();
    let mut section = String::new();
    for key in config::keys::<Recipe>() {
        let (first, rest) = key.path.split_once('.').unwrap_or((&key.path, ""));
        if first != section {
            first.clone_into(&mut section);
            let _ =
                write!(text, "\n## `[{section}]`\n\n| key | type | default | meaning |\n|---|---|---|---|\n");
        }
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let name = if rest.is_empty() { first } else { rest };
        let (kind, default, doc) = (cell(&key.kind), cell(&key.default), cell(&key.doc));
        let _ = writeln!(text, "| `{name}` | {kind} | `{default}` | {doc} |");
    }
    text
}

fn crates_table(workspace: &Workspace) -> String {
    let mut listed: Vec<_> = workspace.crates.iter().filter_map(|each| Some((rank(each)?, each))).collect();
    listed.sort_by_key(|(rank, _)| *rank);
    let row =
        |each: &Crate| format!("| `{}` | {} |\n", each.name, each.description.as_deref().unwrap_or_default());
    let rows = listed.into_iter().map(|(_, each)| row(each));
    ["| crate | what it is |\n|---|---|\n".to_owned()].into_iter().chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_replaced_and_nothing_else() {
        let part = Part { file: "a.md", name: "keys", text: "| new |\n".into() };
        let document = "top\n<!-- generated: keys -->\n| old |\n| old |\n<!-- end of keys -->\nbottom\n";
        let fresh = "top\n<!-- generated: keys -->\n| new |\n<!-- end of keys -->\nbottom\n";
        assert_eq!(splice(document, &part).unwrap(), fresh);
        assert_eq!(splice(fresh, &part).unwrap(), fresh);
    }

    #[test]
    fn a_document_without_the_comments_is_told() {
        let part = Part { file: "a.md", name: "keys", text: String::new() };
        let told = "needs the lines `<!-- generated: keys -->` and `<!-- end of keys -->`";
        for document in ["", "<!-- generated: keys -->\n", "<!-- end of keys -->"] {
            assert_eq!(splice(document, &part).unwrap_err().to_string(), told);
        }
    }
}
