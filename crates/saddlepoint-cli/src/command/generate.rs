//! `saddle generate`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anstyle::Style;
use anyhow::Result;
use clap::Args;
use saddlepoint_core::progress::Progress;
use saddlepoint_core::seed::Seed;
use saddlepoint_lm::data::{
    self, Codec, DecodeStream, PrepareConfig, ReadConfig, prepare, read_json, read_records,
};
use saddlepoint_lm::engine::{self, Finish, GenerateConfig, Generator};
use serde::Serialize;
use serde_json::json;

use crate::exit::{Usage, Verdict};
use crate::loaded::{ModelArguments, Weights};
use crate::output::{Output, note, piece};
use crate::stop::UntilStop;

const GIVEN: Style = Style::new().dimmed();

/// Generate completions; on a terminal a single one streams
#[derive(Debug, Args)]
#[command(
    after_help = "Example: saddle generate --model models/smollm2 --chat --prompt \"Why is the sky blue?\""
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Text to continue; may be given several times
    #[arg(long, value_name = "TEXT", required_unless_present = "prompts")]
    prompt: Vec<String>,
    /// Data file whose prompts are continued
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// Put each --prompt as a user's turn into the model's chat template
    #[arg(long, conflicts_with = "prompts")]
    chat: bool,
    /// Longest completion in tokens
    #[arg(long, value_name = "N", default_value = "128")]
    max_new_tokens: NonZeroUsize,
    /// Sampling temperature; 0 always takes the most probable token
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// Sample from the most probable tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Sample from this many most probable tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Sample from tokens at least this fraction as probable as the most probable one
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f64,
    /// End a completion before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Completions of each prompt
    #[arg(long, value_name = "N", default_value = "1")]
    num_samples: NonZeroUsize,
    /// Completions computed at the same time
    #[arg(long, value_name = "N", default_value = "16")]
    batch_size: NonZeroUsize,
    /// Precision of the weights while generating
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    weights: Weights,
}

#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    prompt: &'a str,
    completion: &'a str,
    token_ids: &'a [u32],
    logps: &'a [f64],
    finish_reason: &'static str,
}

impl Arguments {
    pub(crate) fn run(self, output: Output) -> Result<Verdict> {
        let opened = self.model.open()?;
        let codec = &opened.codec;
        let prompts = self.read(codec)?;
        let (samples, most) = (self.num_samples.get(), self.max_new_tokens.get());
        let context = opened.folder.shape.context;
        for (i, prompt) in prompts.iter().enumerate() {
            let tokens = prompt.ids.len();
            if most > context.saturating_sub(tokens) {
                let problem = format!(
                    "prompt {i} has {tokens} tokens; with --max-new-tokens {most} they exceed the model's context of \
                     {context}: shorten one of them"
                );
                return Err(Usage(problem).into());
            }
        }
        let total = prompts.len().saturating_mul(samples);
        let policy = opened.policy(None, (1, 1))?;
        let config = GenerateConfig {
            max_new_tokens: most,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            stop_ids: codec.eos.clone(),
            max_batch: self.batch_size.get().min(total),
            weights: self.weights.into(),
            adapter: self.model.adapter.is_some(),
            tempered: false,
        };
        let asked: Vec<engine::Prompt> =
            prompts.iter().map(|prompt| engine::Prompt { ids: prompt.ids.clone(), samples }).collect();
        let streams = total == 1 && output.streams();
        let mut lives: BTreeMap<(usize, usize), Live<'_>> = BTreeMap::new();
        let mut trouble = Ok(());
        let bar = Progress::new((total as u64).saturating_mul(most as u64), "generate", !streams);
        let mut count = 0;
        let drawn = Generator::new(&policy, config)?.run(&asked, Seed::new(self.seed), &mut |event| {
            count += 1;
            bar.set(count, "");
            let live =
                lives.entry((event.prompt, event.index)).or_insert_with(|| Live::new(codec, &self.stop));
            let new = live.push(event.id);
            if streams && trouble.is_ok() {
                trouble = piece(&new);
            }
            live.text += &new;
            if live.until.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        bar.finish();
        trouble?;
        for sample in &drawn {
            let live = lives.remove(&(sample.prompt, sample.index)).expect("a sample has a first token");
            let (completion, rest) = live.finish();
            let prompt = &prompts[sample.prompt].text;
            output.object(&Line {
                index: sample.prompt * samples + sample.index,
                prompt,
                completion: &completion,
                token_ids: &sample.ids,
                logps: &sample.logps,
                finish_reason: match sample.finish {
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                },
            })?;
            if streams {
                output.say(rest)?;
            } else if !output.json() {
                output.say(format!("{GIVEN}{prompt}{GIVEN:#}{completion}"))?;
            }
        }
        Ok(Verdict::Done)
    }

    /// The prompts with their texts; what is left out of a file is said.
    fn read(&self, codec: &Codec) -> Result<Vec<data::Prompt>> {
        let whole = PrepareConfig { max_length: None, ..PrepareConfig::default() };
        let (records, _) = if let Some(path) = &self.prompts {
            read_records(path)?
        } else {
            let turn = |text| json!([{ "role": "user", "content": text }]);
            let content = |text| if self.chat { turn(text) } else { json!(text) };
            let lines: Vec<String> =
                self.prompt.iter().map(|text| json!({ "prompt": content(text) }).to_string()).collect();
            read_json(Path::new("--prompt"), lines.join("\n").as_bytes(), &ReadConfig::default())?
        };
        let (prompts, report) = prepare::prompts(codec, &records, &whole)?;
        for (reason, (count, first)) in report.dropped_by_reason() {
            note(format!("left out: {count} x {} (first: line {})", reason.text(), first.line))?;
        }
        Ok(prompts)
    }
}

/// Ids as text while they come, up to a stop text.
struct Live<'a> {
    ids: DecodeStream<'a>,
    until: UntilStop<'a>,
    /// What has come and is certain.
    text: String,
}

impl<'a> Live<'a> {
    fn new(codec: &'a Codec, stops: &'a [String]) -> Self {
        Live { ids: codec.tokenizer.stream(), until: UntilStop::new(stops), text: String::new() }
    }

    fn push(&mut self, id: u32) -> String {
        self.until.push(&self.ids.push(id))
    }

    /// The whole text, and the last of it that was not certain before.
    fn finish(mut self) -> (String, String) {
        let rest = self.until.push(&self.ids.finish()) + &self.until.finish();
        (self.text + &rest, rest)
    }
}
