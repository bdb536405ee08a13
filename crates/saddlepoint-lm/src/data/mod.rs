//! Data: from files to token ids, with nothing lost or trained silently.
//!
//! ```text
//! file --read_records--> Record --prepare::{sft, preference, long, unpaired, prompts}--> ids and masks
//!                                   with a Codec: Tokenizer, chat Template, end tokens
//! ```
//!
//! Every error names file, line and column; everything left out, cut or changed is counted in a report;
//! [`doctor`] says what looks wrong before a run starts.

mod codec;
mod convert;
pub mod doctor;
#[cfg(test)]
pub(crate) mod fixture;
pub mod fuzzing;
pub mod generate;
mod json;
mod mask;
pub mod prepare;
mod reader;
mod record;
mod row;
mod schema;
mod source;
mod stream;
mod template;
mod tokenizer;

pub use codec::Codec;
pub use prepare::{
    Answered, DropReason, Dropped, Labelled, LongPair, Pair, PrepareConfig, PrepareReport, Prompt,
    Supervised, TrainOn, Truncation,
};
pub use reader::{ReadConfig, ReadReport, read_json, read_records, read_records_as};
pub use record::{Body, Message, Record, Text, Turn};
pub use schema::Schema;
pub use source::Source;
pub use stream::DecodeStream;
pub use template::{Date, Rendered, Template, TemplateError};
pub use tokenizer::Tokenizer;
