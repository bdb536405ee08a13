//! `saddle reproduce`.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use saddlepoint_core::clock::Stopwatch;
use saddlepoint_core::config::nearest;
use saddlepoint_core::progress::Progress;
use saddlepoint_core::reproduce::{Outcome, Reproduction, Setting};

use crate::exit::{Usage, Verdict};
use crate::output::{Output, duration, interval, note, number, place, table};
use crate::report::{self, About};

/// Measure the claims of a paper at a small size, and say of each whether it holds
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle reproduce lion\n\n\
                        docs/reproductions.md lists the papers, their claims and what was measured.")]
pub(crate) struct Arguments {
    /// Name of the reproduction, or `all`
    slug: String,
    /// Repetitions with other random numbers, at least 2 [default: the reproduction's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..))]
    seeds: Option<u16>,
    /// The larger setting, which may take hours
    #[arg(long)]
    full: bool,
    /// Folder in which SLUG/report.html is written
    #[arg(long, value_name = "DIR", default_value = "runs/reproduce")]
    output: PathBuf,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let cache = cache()?;
        let mut verdict = Verdict::Done;
        for reproduction in chosen(&self.slug)? {
            let seeds = self.seeds.map_or(reproduction.seeds(), usize::from);
            let setting = Setting { seeds, full: self.full, cache: cache.clone() };
            let held = match reproduction {
                Listed::Opt(reproduction) => one(reproduction, &setting, &self.output, output)?,
                Listed::Lm(reproduction) => one(reproduction, &setting, &self.output, output)?,
                Listed::Apps(reproduction) => one(reproduction, &setting, &self.output, output)?,
            };
            if !held {
                verdict = Verdict::Missed;
            }
        }
        Ok(verdict)
    }
}

/// A reproduction of one of the crates, each with errors of its own.
#[derive(Debug, Clone, Copy)]
enum Listed {
    Opt(&'static saddlepoint_opt::reproduce::Reproduction),
    Lm(&'static saddlepoint_lm::reproduce::Reproduction),
    Apps(&'static saddlepoint_apps::reproduce::Reproduction),
}

impl Listed {
    fn slug(self) -> &'static str {
        match self {
            Listed::Opt(reproduction) => reproduction.slug,
            Listed::Lm(reproduction) => reproduction.slug,
            Listed::Apps(reproduction) => reproduction.slug,
        }
    }

    fn seeds(self) -> usize {
        match self {
            Listed::Opt(reproduction) => reproduction.seeds,
            Listed::Lm(reproduction) => reproduction.seeds,
            Listed::Apps(reproduction) => reproduction.seeds,
        }
    }
}

/// Those of every crate.
fn all() -> Vec<Listed> {
    let lm = saddlepoint_lm::reproduce::LIST.iter().map(|reproduction| Listed::Lm(reproduction));
    let opt = saddlepoint_opt::reproduce::LIST.iter().map(|reproduction| Listed::Opt(reproduction));
    let apps = saddlepoint_apps::reproduce::LIST.iter().map(|reproduction| Listed::Apps(reproduction));
    lm.chain(opt).chain(apps).collect()
}

fn chosen(slug: &str) -> Result<Vec<Listed>> {
    let all = all();
    if slug == "all" {
        return Ok(all);
    }
    if let Some(&found) = all.iter().find(|reproduction| reproduction.slug() == slug) {
        return Ok(vec![found]);
    }
    let known = || all.iter().map(|reproduction| reproduction.slug());
    let meant = nearest(slug, known().chain(["all"])).map(|near| format!("; did you mean {near}?"));
    let list = known().collect::<Vec<_>>().join(", ");
    let problem =
        format!("there is no reproduction {slug}{}", meant.unwrap_or(format!("; there are {list}")));
    Err(Usage(problem).into())
}

/// Runs it, prints the claims and writes the page; whether all claims hold.
fn one<E: Into<anyhow::Error>>(
    reproduction: &Reproduction<E>,
    setting: &Setting,
    folder: &Path,
    output: Output,
) -> Result<bool> {
    let watch = Stopwatch::start();
    let findings = {
        let mut shown = Shown::new(reproduction.slug);
        let findings = (reproduction.run)(setting, &mut |done, total, what| shown.see(done, total, what));
        shown.finish();
        findings.map_err(Into::into)?
    };
    let outcome = Outcome::new(reproduction.slug, findings.claims, watch.seconds());
    let about = About {
        title: reproduction.title,
        paper: reproduction.paper,
        experiment: reproduction.experiment,
        seeds: setting.seeds,
        full: setting.full,
    };
    let page =
        report::write_reproduction(&folder.join(reproduction.slug), &about, &outcome, &findings.figures)?;
    output.object(&outcome)?;
    if !output.json() {
        output.say(format!("{}: {} ({})\n", reproduction.slug, reproduction.title, reproduction.paper))?;
        let rows = outcome.claims.iter().map(|claim| {
            let verdict = if claim.holds { "holds" } else { "does not hold" };
            let [claimed, paper] = [&claim.claim, &claim.paper].map(Clone::clone);
            [claimed, paper, number(claim.measured), interval(claim.interval), verdict.to_owned()]
        });
        output.say(table(["claim", "in the paper", ">here", "95 % interval", ""], rows))?;
        let held = outcome.claims.iter().filter(|claim| claim.holds).count();
        let (count, seconds) = (outcome.claims.len(), duration(outcome.seconds));
        output.say(format!("\n{held} of {count} claims hold, {} seeds, {seconds}", setting.seeds))?;
        output.say(format!("report  {}\n", place(&page)))?;
    }
    Ok(outcome.holds)
}

/// A bar on a terminal, else a line for each part of the work.
struct Shown {
    slug: &'static str,
    bar: Option<Progress>,
    part: String,
}

impl Shown {
    fn new(slug: &'static str) -> Self {
        Shown { slug, bar: None, part: String::new() }
    }

    fn see(&mut self, done: u64, total: u64, what: &str) {
        if self.part != what {
            what.clone_into(&mut self.part);
            self.finish();
            if io::stderr().is_terminal() {
                self.bar = Some(Progress::new(total, self.slug, true));
            } else {
                // Trouble with showing is no reason to stop.
                let _ = note(format!("{}: {what}", self.slug));
            }
        }
        if let Some(bar) = &self.bar {
            bar.set(done, what);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}

/// The folder in which models are kept that several reproductions start from.
#[allow(
    clippy::disallowed_methods,
    reason = "where files are kept is the user's; results do not depend on it"
)]
fn cache() -> Result<PathBuf> {
    let named = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let user = if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches"))
    } else if cfg!(windows) {
        named("LOCALAPPDATA")
    } else {
        named("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
    };
    let Some(user) = user else {
        return Err(
            Usage("there is no cache folder: set XDG_CACHE_HOME or HOME to an absolute path".into()).into()
        );
    };
    Ok(user.join("saddlepoint").join("reproduce"))
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::reproduce::{Bound, Claim, Curve, Figure, Findings};

    use super::*;

    /// Claims that hold with the first setting only.
    const FAKE: Reproduction<saddlepoint_lm::Error> = Reproduction {
        slug: "fake",
        title: "A paper",
        paper: "nowhere",
        experiment: "None.",
        seeds: 2,
        run: |setting, observer| {
            observer(1, 2, "pretending");
            let values: Vec<f64> = (0..setting.seeds).map(|seed| 1.0 + seed as f64 / 10.0).collect();
            let curve = Curve { name: "a".into(), points: vec![(0.0, 1.0), (1.0, 2.0)] };
            Ok(Findings {
                claims: vec![
                    Claim::mean("a quantity", "positive", &values, Bound::Above(-1.0)),
                    Claim::never("a slip", "never", usize::from(setting.full)),
                ],
                figures: vec![Figure {
                    title: "F".into(),
                    x: "steps".into(),
                    curves: vec![curve],
                    limit: None,
                }],
            })
        },
    };

    #[test]
    fn one_claim_that_does_not_hold_is_enough_and_the_page_says_which() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for full in [false, true] {
            let setting = Setting { seeds: 3, full, cache: folder.path().to_owned() };
            let held = one(&FAKE, &setting, folder.path(), Output::new(false)).expect("runs");
            assert_eq!(held, !full);
            let page = std::fs::read_to_string(folder.path().join("fake/report.html")).expect("a page");
            assert_eq!(page.contains("does not hold"), full);
            assert!(page.contains("a quantity &gt; -1") && page.contains("<svg"), "{page}");
        }
    }

    #[test]
    fn a_slug_is_found_and_a_slip_is_told() {
        assert_eq!(chosen("all").expect("all").len(), all().len());
        assert_eq!(chosen("lion").expect("known")[0].slug(), "lion");
        assert_eq!(chosen("sketched-newton").expect("known")[0].slug(), "sketched-newton");
        let message = chosen("loin").expect_err("refused").to_string();
        assert_eq!(message, "there is no reproduction loin; did you mean lion?");
        let message = chosen("perpetual-motion").expect_err("refused").to_string();
        assert!(message.starts_with("there is no reproduction perpetual-motion; there are "), "{message}");
    }
}
