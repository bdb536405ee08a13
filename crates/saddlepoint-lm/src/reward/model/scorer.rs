//! A reward model, asked for the scores of sequences.

use std::path::{Path, PathBuf};

use crate::data::{Codec, Message};
use crate::engine::{Forest, Policy, Readout, Reference, Row, Setup, Storage, Want};
use crate::model::{ModelFolder, ScoreScale, Scored, adapter};
use crate::reward::Case;
use crate::trainer::{codec, last_token};
use crate::{Error, Result};

/// Tokens of one pass, unless a single sequence has more.
const PASS: usize = 2048;

/// A reward model on disk: its files, and its weights once they have been asked for.
#[derive(Debug)]
pub(super) struct Scorer {
    path: PathBuf,
    folder: ModelFolder,
    adapter: Option<adapter::Adapter>,
    codec: Codec,
    turn: Option<Turn>,
    /// The scale of its scores, if it was measured.
    pub(super) scale: Option<ScoreScale>,
    policy: Option<Policy>,
}

/// How a chat template frames what the assistant says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Turn {
    opening: String,
    closing: String,
}

impl Scorer {
    /// Opens the folder of a reward model, or of an adapter that makes one of the base model which it names. No weight is read yet.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let refused = |problem: &str| Error::Model { path: path.to_owned(), problem: problem.to_owned() };
        let is_adapter = path.join("adapter_config.json").is_file() && !path.join("config.json").is_file();
        let (folder, adapter) = if is_adapter {
            let adapter::Purpose { readout, base } = adapter::purpose(path)?;
            if readout != Readout::Score {
                return Err(refused("is an adapter of a language model and no reward model"));
            }
            let base = base.ok_or_else(|| refused("does not say which model it adapts"))?;
            let mut folder = ModelFolder::open(Path::new(&base))?;
            folder.set_readout(Readout::Score)?;
            let adapter = adapter::read(path, &folder.shape)?;
            (folder, Some(adapter))
        } else {
            (ModelFolder::open(path)?, None)
        };
        if folder.shape.readout != Readout::Score {
            return Err(refused(
                "is a language model and no reward model: train one with method.name = \"reward\"",
            ));
        }
        let codec = codec(&folder)?;
        let (turn, scale) = (Turn::of(&codec), ScoreScale::read(path)?);
        Ok(Self { path: path.to_owned(), folder, adapter, codec, turn, scale, policy: None })
    }

    /// Where it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Parameters.
    pub(super) fn parameters(&self) -> usize {
        self.folder.shape.parameters()
    }

    /// Bytes that it takes once it has been asked for this many scores at a time, of sequences of at most `longest` tokens.
    pub(super) fn bytes(&self, cases: usize, longest: usize, max_length: usize) -> u64 {
        let setup = setup(&self.folder, self.adapter.as_ref(), max_length);
        // Room that no pass comes to is never touched.
        let (max_tokens, max_rows) =
            (setup.max_tokens.min(cases.saturating_mul(longest)), setup.max_rows.min(cases));
        Policy::scoring_bytes(&self.folder.shape, &Setup { max_tokens, max_rows, ..setup })
    }

    /// The sequence of a case as the model was trained to read it: an end only where the completion was ended.
    fn ids(&self, case: &Case, max_length: usize) -> Result<Vec<u32>> {
        let turn = self.turn.as_ref().filter(|turn| case.prompt.ends_with(&turn.opening));
        let said = format!("{}{}", case.prompt, case.completion);
        let ids = if let Some(turn) = turn {
            let closing = if case.finished { &turn.closing[..] } else { "" };
            self.codec.tokenizer.encode(&format!("{said}{closing}"))?
        } else {
            let mut ids = self.codec.tokenizer.encode_document(&said)?;
            if case.finished {
                self.codec.end(&mut ids);
            }
            ids
        };
        let most = max_length.min(self.folder.shape.context);
        if ids.is_empty() || ids.len() > most {
            let problem = format!(
                "a prompt and its completion have {} tokens, the reward model reads 1 to {most} (max_length, and its context \
                 of {})",
                ids.len(),
                self.folder.shape.context
            );
            return Err(Error::Model { path: self.path.clone(), problem });
        }
        Ok(ids)
    }

    /// The score of each case.
    ///
    /// # Errors
    /// The weights cannot be read, or a sequence is empty or too long.
    pub(super) fn score(&mut self, cases: &[Case], max_length: usize) -> Result<Vec<f64>> {
        let sequences: Vec<Vec<u32>> =
            cases.iter().map(|case| self.ids(case, max_length)).collect::<Result<_>>()?;
        let pad = self.folder.scoring_pad();
        let policy = if let Some(policy) = &mut self.policy {
            policy
        } else {
            let setup = setup(&self.folder, self.adapter.as_ref(), max_length);
            self.policy.insert(load(&self.folder, self.adapter.as_ref(), setup)?)
        };
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        scores(policy, &sequences, pad, max_length)
    }
}

fn setup(folder: &ModelFolder, adapter: Option<&adapter::Adapter>, max_length: usize) -> Setup {
    Setup {
        lora: adapter.map(|adapter| adapter.config.clone()),
        frozen: Storage::F32,
        reference: Reference::None,
        recompute: false,
        max_tokens: PASS.max(max_length.min(folder.shape.context)),
        max_rows: PASS,
    }
}

fn load(folder: &ModelFolder, adapter: Option<&adapter::Adapter>, setup: Setup) -> Result<Policy> {
    let mut policy = Policy::new(folder.shape.clone(), setup)?;
    if folder.lacks_score() {
        // An adapter brings the weights of its own.
        policy.load(&Scored { model: folder, score: vec![0.0; folder.shape.hidden] })?;
    } else {
        policy.load(folder.source())?;
    }
    if let Some(adapter) = adapter {
        policy.load_adapter(adapter.source())?;
    }
    Ok(policy)
}

/// The score of each sequence of a reward model with room for passes of `room` tokens, at its last token that is not `pad`. Neighbours
/// share what they begin with.
///
/// # Errors
/// A sequence is empty or longer than `room`, or the model has no score.
pub fn scores(policy: &mut Policy, sequences: &[&[u32]], pad: Option<u32>, room: usize) -> Result<Vec<f64>> {
    let room = room.max(PASS);
    if sequences.iter().any(|ids| ids.is_empty() || ids.len() > room) {
        let problem = format!("a sequence to be scored needs 1 to {room} tokens");
        return Err(Error::Config { key: "data".to_owned(), problem });
    }
    let read: Vec<&[u32]> = sequences.iter().map(|ids| &ids[..=last_token(ids.iter(), pad)]).collect();
    let mut scores = Vec::with_capacity(read.len());
    let mut pass = Pass::default();
    for run in read.chunk_by(|a, b| 2 * shared(a, b) >= a.len().min(b.len())) {
        // Neighbours in a run begin with the same token, and so do all of it.
        let prefix = run.iter().map(|ids| shared(run[0], ids)).min().unwrap_or(0);
        let mut root = None;
        for ids in run {
            let (head, rest) = ids.split_at(prefix);
            if root.is_none() || !pass.fits(rest.len(), room) {
                if !pass.fits(ids.len(), room) {
                    pass.finish(policy, &mut scores)?;
                }
                root = Some(pass.0.root(head));
            }
            pass.add(root.expect("set above"), rest);
        }
    }
    pass.finish(policy, &mut scores)?;
    Ok(scores)
}

/// How many tokens both begin with.
fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Sequences that go through the model together.
#[derive(Debug, Default)]
struct Pass(Forest);

impl Pass {
    fn fits(&self, tokens: usize, room: usize) -> bool {
        self.0.len() + tokens <= room && self.0.rows.len() < PASS
    }

    /// A sequence that ends with `rest` after the segment `root`, scored at its last token.
    fn add(&mut self, root: usize, rest: &[u32]) {
        let last = if rest.is_empty() { root } else { self.0.child(root, rest) };
        let at = self.0.segments[last].tokens.end - 1;
        // Nothing is predicted; a score does not depend on the target.
        self.0.rows.push(Row { at, target: 0 });
    }

    fn finish(&mut self, policy: &mut Policy, scores: &mut Vec<f64>) -> Result<()> {
        let forest = std::mem::take(&mut self.0);
        if !forest.is_empty() {
            scores.extend(policy.evaluate(&forest, Want { score: true, ..Want::default() })?.score);
        }
        Ok(())
    }
}

impl Turn {
    /// What a template puts before and behind the assistant's words; none without a template, or where it renders a
    /// conversation differently alone than inside a longer one.
    fn of(codec: &Codec) -> Option<Self> {
        let template = codec.template.as_ref()?;
        let message = |role: &str, content: &str| {
            let mut message = Message::new();
            message.insert("role".to_owned(), role.into());
            message.insert("content".to_owned(), content.into());
            message
        };
        let (asked, said) = (message("user", "?"), message("assistant", "!"));
        let render = |messages: &[Message], prompt: bool| {
            template.render(messages, &Message::new(), prompt).ok().map(|rendered| rendered.text)
        };
        let (before, prompt) =
            (render(std::slice::from_ref(&asked), false)?, render(std::slice::from_ref(&asked), true)?);
        let whole = render(&[asked, said], false)?;
        let opening = prompt.strip_prefix(&before).filter(|opening| !opening.is_empty())?;
        let closing = whole.strip_prefix(&prompt)?.strip_prefix('!')?;
        Some(Self { opening: opening.to_owned(), closing: closing.to_owned() })
    }
}
