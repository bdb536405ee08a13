//! The two commands of the README, which a newcomer copies.

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

pub(crate) const QUICK_START: &str = "Quick start";
pub(crate) const TESTS: &str = "Tests";

pub(crate) fn problems(workspace: &Workspace) -> Result<Vec<String>> {
    let readme = workspace.text("README.md")?;
    let problem = |section| command(&readme, section).err().map(|error| format!("{error:#}"));
    Ok([QUICK_START, TESTS].into_iter().filter_map(problem).collect())
}

/// The one command of a section `## NAME`.
pub(crate) fn command<'a>(readme: &'a str, section: &str) -> Result<&'a str> {
    let mut lines = readme.lines().skip_while(|line| *line != format!("## {section}")).skip(1);
    let body: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("## ")).collect();
    let blocks: Vec<&[&str]> = body.split(|line| line.starts_with("```")).skip(1).step_by(2).collect();
    match blocks[..] {
        [[command]] => Ok(command.strip_prefix("$ ").unwrap_or(command)),
        _ => bail!("README.md: the section `## {section}` needs one fenced block that holds one command"),
    }
}

/// The command of the section on tests.
pub(crate) fn tests(workspace: &Workspace) -> Result<String> {
    command(&workspace.text("README.md")?, TESTS).map(str::to_owned).context("cannot find the test command")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_section_is_found() {
        let readme =
            "# S\n## Quick start\ntext\n```sh\ncargo run\n```\nmore\n## Tests\n```\ncargo test\n```\n";
        assert_eq!(command(readme, QUICK_START).unwrap(), "cargo run");
        assert_eq!(command(readme, TESTS).unwrap(), "cargo test");
    }

    #[test]
    fn a_section_without_one_command_is_told() {
        let told = "README.md: the section `## Tests` needs one fenced block that holds one command";
        for readme in [
            "",
            "## Tests\n",
            "## Tests\n```\na\nb\n```\n",
            "## Tests\n```\na\n```\n```\nb\n```\n",
            "## Tests\n## A\n```\na\n```\n",
        ] {
            assert_eq!(command(readme, TESTS).unwrap_err().to_string(), told, "{readme:?}");
        }
    }
}
