//! `saddle methods`.

use anyhow::Result;
use clap::Args;
use saddlepoint_lm::method::{self, Meta};
use serde::Serialize;

use crate::exit::Verdict;
use crate::output::{Output, table, word};

/// List the methods
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle methods --json")]
pub(crate) struct Arguments {}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    family: String,
    paper: &'a str,
    status: String,
    slug: Option<&'a str>,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let Arguments {} = self;
        let list = method::list();
        for meta in &list {
            output.object(&line(meta))?;
        }
        if !output.json() {
            let rows = list.iter().map(|meta| {
                let line = line(meta);
                let slug = line.slug.unwrap_or_default();
                [line.name, &line.family, line.paper, &line.status, slug, meta.summary].map(str::to_owned)
            });
            output.say(table(["name", "family", "paper", "status", "reproduction", "what it does"], rows))?;
        }
        Ok(Verdict::Done)
    }
}

fn line(meta: &'static Meta) -> Line<'static> {
    Line {
        name: meta.name,
        family: word(&meta.family),
        paper: meta.paper,
        status: word(&meta.status),
        slug: meta.slug,
    }
}
