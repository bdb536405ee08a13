//! `saddle prepare longpo`.
//!
//! What is done is kept beside the output, a line a document, so that an interrupted run continues; the output appears whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use saddlepoint_core::atomic;
use saddlepoint_core::clock::Stopwatch;
use saddlepoint_core::progress::Progress;
use saddlepoint_lm::short_to_long::{Author, Document, Left, Made, Settings, documents};
use serde_json::{Value, json};

use crate::exit::{Usage, Verdict};
use crate::loaded::{ModelArguments, Weights};
use crate::output::{Output, duration, note, place};

/// Make pairs for `longpo` from long documents: answers after a chunk against answers after the whole
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle prepare longpo --model models/smollm2 --data documents --out pairs.jsonl\n\n\
                        An interrupted run continues when it is started again with the same options."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Folder of .txt files, one such file, or records with a column `text`
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// File of pairs to make (JSONL)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Longest chunk in tokens
    #[arg(long, value_name = "N", default_value_t = Settings::default().chunk_tokens)]
    chunk_tokens: usize,
    /// Most chunks of a document, each with one question
    #[arg(long, value_name = "N", default_value_t = Settings::default().chunks)]
    chunks: usize,
    /// Longest document in tokens; of a longer one the beginning is used [default: what the model's context has room for]
    #[arg(long, value_name = "N")]
    document_tokens: Option<usize>,
    /// Longest answer in tokens; one that has not ended by then is left out
    #[arg(long, value_name = "N", default_value_t = Settings::default().answer_tokens)]
    answer_tokens: usize,
    /// Temperature of questions; answers are always the most probable ones
    #[arg(long, value_name = "T", default_value_t = Settings::default().temperature)]
    temperature: f64,
    /// Draw questions from the most probable tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = Settings::default().top_p)]
    top_p: f64,
    /// Base of the rotary frequencies while whole documents are answered [default: the model's]
    #[arg(long, value_name = "BASE")]
    rope_theta: Option<f64>,
    /// Longest context in tokens, in place of the model's
    #[arg(long, value_name = "N")]
    max_position_embeddings: Option<usize>,
    /// Seed of chunks and questions
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Answers computed at the same time
    #[arg(long, value_name = "N", default_value = "4")]
    batch_size: std::num::NonZeroUsize,
    /// Precision of the weights
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    weights: Weights,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let watch = Stopwatch::start();
        if self.out.exists() {
            let problem = format!("{} exists already; remove it or choose another --out", self.out.display());
            return Err(Usage(problem).into());
        }
        let mut opened = self.model.open()?;
        let own = opened.folder.shape.context;
        opened.folder.set_positions(None, self.max_position_embeddings);
        let settings = self.settings(opened.folder.shape.context);
        settings.check(opened.folder.shape.context, own)?;
        let documents = documents(&self.data)?;
        let mut kept = Kept::open(&self.out, &self.of(&settings, &documents))?;
        if !kept.done.is_empty() {
            note(format!("continued: {} of {} documents are done", kept.done.len(), documents.len()))?;
        }
        let mut policy = opened.policy(None, (1, 1))?;
        let (weights, batch) = (self.weights.into(), self.batch_size.get());
        let mut author = Author::new(&mut policy, &opened.codec, own, settings, weights, batch)?;
        let bar = Progress::new(documents.len() as u64, "prepare", true);
        let mut pairs = kept.done.iter().map(|made| made.pairs).sum::<usize>();
        for (index, document) in documents.iter().enumerate().skip(kept.done.len()) {
            bar.set(index as u64, format!("{pairs} pairs, {}", document.name));
            let made = author.pairs(document, index as u64)?;
            pairs += made.pairs;
            kept.push(made)?;
        }
        bar.finish();
        self.report(&kept.done, watch.seconds(), output)?;
        if pairs > 0 {
            let records = kept.done.iter().filter_map(|made| made.record.as_ref());
            let lines: Vec<String> = records.map(Value::to_string).collect();
            atomic::write(&self.out, (lines.join("\n") + "\n").as_bytes())?;
        }
        kept.remove()?;
        Ok(if pairs > 0 { Verdict::Done } else { Verdict::Missed })
    }

    fn settings(&self, context: usize) -> Settings {
        let Self { chunk_tokens, chunks, answer_tokens, temperature, top_p, rope_theta, seed, .. } = *self;
        let document_tokens =
            self.document_tokens.unwrap_or_else(|| Settings::document_room(context, answer_tokens));
        Settings {
            chunk_tokens,
            chunks,
            document_tokens,
            answer_tokens,
            temperature,
            top_p,
            rope_theta,
            seed,
        }
    }

    /// What the result depends on.
    fn of(&self, settings: &Settings, documents: &[Document]) -> Value {
        json!({
            "model": self.model.model, "adapter": self.model.adapter, "data": self.data, "documents": documents.len(),
            "bytes": documents.iter().map(|document| document.text.len()).sum::<usize>(),
            "max_position_embeddings": self.max_position_embeddings, "weights": format!("{:?}", self.weights),
            "settings": settings,
        })
    }

    fn report(&self, done: &[Made], seconds: f64, output: Output) -> Result<()> {
        let mut left: BTreeMap<Left, usize> = BTreeMap::new();
        for (&reason, count) in done.iter().flat_map(|made| &made.left) {
            *left.entry(reason).or_default() += count;
        }
        let (pairs, cut) =
            (done.iter().map(|made| made.pairs).sum::<usize>(), done.iter().filter(|made| made.cut).count());
        let records = done.iter().filter(|made| made.record.is_some()).count();
        let out = (pairs > 0).then_some(&self.out);
        output.object(&json!({
            "out": out, "documents": done.len(), "cut": cut, "records": records, "pairs": pairs, "dropped": left,
            "seconds": seconds,
        }))?;
        let name = place(&self.out);
        let (documents, took) = (done.len(), duration(seconds));
        output.say(format!("{name}: {pairs} pairs about {records} of {documents} documents, in {took}"))?;
        if cut > 0 {
            output.say(format!(
                "{cut} documents were longer than --document-tokens: their beginnings were used"
            ))?;
        }
        for (reason, count) in left {
            output.say(format!("left out: {count} {}", reason.text()))?;
        }
        if pairs == 0 {
            note("no pair is left, so nothing was written")?;
        }
        Ok(())
    }
}

/// The documents that are done, as they stand in the file beside the output.
struct Kept {
    path: PathBuf,
    file: File,
    done: Vec<Made>,
}

impl Kept {
    /// Opens what an interrupted run of the same options left beside `out`, or begins.
    fn open(out: &Path, options: &Value) -> Result<Self> {
        let mut name = out.file_name().context("--out must name a file")?.to_owned();
        name.push(".progress");
        let path = out.with_file_name(name);
        let text = if path.exists() {
            fs::read_to_string(&path).with_context(|| path.display().to_string())?
        } else {
            String::new()
        };
        let mut done = Vec::new();
        let mut whole = 0;
        // A line that a kill cut short is done again.
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        if let Some(first) = lines.next() {
            if serde_json::from_str::<Value>(first).ok().as_ref() != Some(options) {
                let problem = format!(
                    "{} is of a run with other options; repeat those, remove it, or choose another --out",
                    path.display()
                );
                return Err(Usage(problem).into());
            }
            whole = first.len();
            for line in lines {
                let Ok(made) = serde_json::from_str(line) else { break };
                done.push(made);
                whole += line.len();
            }
        }
        if whole == 0 {
            atomic::write(&path, format!("{options}\n").as_bytes())?;
        } else if whole < text.len() {
            atomic::write(&path, &text.as_bytes()[..whole])?;
        }
        let file = OpenOptions::new().append(true).open(&path);
        Ok(Kept { file: file.with_context(|| format!("cannot write {}", path.display()))?, path, done })
    }

    fn push(&mut self, made: Made) -> Result<()> {
        let line = serde_json::to_string(&made)? + "\n";
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.done.push(made);
        Ok(())
    }

    fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_stays_done_and_a_torn_line_is_done_again() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let (out, options) = (place.path().join("pairs.jsonl"), json!({ "seed": 0 }));
        let made = |pairs| Made { pairs, ..Made::default() };
        let mut kept = Kept::open(&out, &options).expect("a new one");
        for pairs in [1, 2] {
            kept.push(made(pairs)).expect("written");
        }
        drop(kept);
        let path = place.path().join("pairs.jsonl.progress");
        let mut torn = fs::read_to_string(&path).expect("a file");
        torn.truncate(torn.len() - 4);
        fs::write(&path, torn).expect("written");

        let mut kept = Kept::open(&out, &options).expect("continued");
        assert_eq!(kept.done, [made(1)]);
        kept.push(made(3)).expect("written");
        drop(kept);
        assert_eq!(Kept::open(&out, &options).expect("continued").done, [made(1), made(3)]);

        let error = Kept::open(&out, &json!({ "seed": 1 })).err().expect("refused").to_string();
        assert!(
            error.ends_with(
                "is of a run with other options; repeat those, remove it, or choose another --out"
            )
        );
        Kept::open(&out, &options).expect("continued").remove().expect("removed");
        assert!(!path.exists());
    }
}
