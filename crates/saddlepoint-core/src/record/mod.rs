//! What a run leaves to be read while it goes on and afterwards.
//!
//! | file | one line or record is | times in it |
//! |---|---|---|
//! | `metrics.jsonl` | `{"step":N, "loss":..., ...}` | no: equal runs give equal bytes |
//! | `samples.jsonl` | `{"step":N, ...}`: a sample that was trained on; only where there are such | no |
//! | `events.jsonl` | `{"time":..., "kind":"...", "data":...}` | yes |
//! | `events.out.tfevents.*` | the metrics once more, for TensorBoard | yes |

mod lines;
mod tensorboard;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::clock::unix_seconds;
use crate::metrics::Metrics;
use crate::{Error, Result};
use tensorboard::EventFile;

/// Writes the records of one run. Every line is handed to the system at once, so a killed process loses none.
#[derive(Debug)]
pub struct Recorder {
    dir: PathBuf,
    metrics: Appender,
    samples: Option<Appender>,
    events: Appender,
    board: EventFile,
    non_finite: u64,
}

impl Recorder {
    /// Starts the records of a new run in `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        Self::open(dir, None)
    }

    /// Continues the records of a run from the checkpoint of `step`: later lines of `metrics.jsonl` are removed,
    /// since the run will write them again. A last line without its end, left by a kill, is removed as well.
    ///
    /// For equal bytes with an uninterrupted run, everything about a step is logged before its checkpoint.
    pub fn resume(dir: &Path, step: u64) -> Result<Self> {
        lines::keep(&dir.join(METRICS), |line| Ok(lines::step(line)? <= step))?;
        // What the end of a run has added has no step, and it will add it again.
        lines::keep(&dir.join(SAMPLES), |line| Ok(lines::step(line).is_ok_and(|of| of <= step)))?;
        lines::keep(&dir.join(EVENTS), |_| Ok(true))?;
        Self::open(dir, Some(step))
    }

    fn open(dir: &Path, resumed: Option<u64>) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            samples: None,
            metrics: Appender::open(dir.join(METRICS))?,
            events: Appender::open(dir.join(EVENTS))?,
            board: EventFile::create(dir, resumed.map(|step| step + 1))?,
            non_finite: 0,
        })
    }

    /// Records the metrics of a step. Values that are not finite are written as `null` and counted.
    pub fn log(&mut self, step: u64, metrics: &Metrics) -> Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            step: u64,
            #[serde(flatten)]
            metrics: &'a Metrics,
        }
        self.non_finite += metrics.iter().filter(|(_, value)| !value.is_finite()).count() as u64;
        self.metrics.line(&Line { step, metrics })?;
        self.board.scalars(step, metrics)
    }

    /// Records a sample, an object with its `step`.
    pub fn sample(&mut self, sample: &serde_json::Value) -> Result<()> {
        let samples = match &mut self.samples {
            Some(samples) => samples,
            none => none.insert(Appender::open(self.dir.join(SAMPLES))?),
        };
        samples.line(sample)
    }

    /// Records that something happened: a warning, a resumption, a sample that was dropped.
    pub fn event(&mut self, kind: &str, data: &serde_json::Value) -> Result<()> {
        self.events.line(&serde_json::json!({ "time": unix_seconds(), "kind": kind, "data": data }))
    }

    /// How many values that were not finite this recorder has met.
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }

    /// Forces everything recorded so far to the disk, so that a checkpoint never outlives the lines before it.
    pub fn sync(&self) -> Result<()> {
        self.metrics.sync()?;
        self.samples.as_ref().map_or(Ok(()), Appender::sync)?;
        self.events.sync()
    }
}

const METRICS: &str = "metrics.jsonl";
const SAMPLES: &str = "samples.jsonl";
const EVENTS: &str = "events.jsonl";

/// A file of JSON lines that only grows.
#[derive(Debug)]
struct Appender {
    path: PathBuf,
    file: File,
}

impl Appender {
    fn open(path: PathBuf) -> Result<Self> {
        let file =
            OpenOptions::new().append(true).create(true).open(&path).map_err(Error::io("write", &path))?;
        Ok(Self { path, file })
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value).expect("numbers under text keys are JSON");
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::io("write", &self.path))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn metrics(step: u64) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.set("loss", 1.0 / (step + 1) as f64);
        metrics.set("rewards/margins", if step == 3 { f64::NAN } else { step as f64 });
        metrics
    }

    fn boards(dir: &Path) -> usize {
        let is_board = |name: &str| name.starts_with("events.out.tfevents.");
        fs::read_dir(dir)
            .unwrap()
            .filter(|e| is_board(e.as_ref().unwrap().file_name().to_str().unwrap()))
            .count()
    }

    #[test]
    fn lines_hold_the_step_first_and_no_time() {
        let place = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(place.path()).unwrap();
        recorder.log(1, &metrics(1)).unwrap();
        recorder.log(3, &metrics(3)).unwrap();
        recorder.sync().unwrap();
        let expected = "{\"step\":1,\"loss\":0.5,\"rewards/margins\":1.0}\n\
                        {\"step\":3,\"loss\":0.25,\"rewards/margins\":null}\n";
        assert_eq!(fs::read_to_string(place.path().join(METRICS)).unwrap(), expected);
        assert_eq!(recorder.non_finite(), 1);
    }

    #[test]
    fn events_hold_time_kind_and_data() {
        let place = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(place.path()).unwrap();
        recorder.event("resumed", &serde_json::json!({ "step": 4 })).unwrap();
        let text = fs::read_to_string(place.path().join(EVENTS)).unwrap();
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["kind"], "resumed");
        assert_eq!(event["data"], serde_json::json!({ "step": 4 }));
        assert!(event["time"].as_f64().unwrap() > 1.7e9);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// However far a run got past its checkpoint and wherever its last line was torn, the resumed run
        /// ends with the bytes of the uninterrupted one.
        #[test]
        fn a_resumed_run_has_the_bytes_of_an_uninterrupted_one(
            steps in 1_u64..12, saved in 0_u64..12, past in 0_u64..12, torn in 0_usize..60,
        ) {
            let (saved, reached) = (saved.min(steps), (saved + past).min(steps));
            let whole = tempfile::tempdir().unwrap();
            let mut recorder = Recorder::create(whole.path()).unwrap();
            for step in 1..=steps {
                recorder.log(step, &metrics(step)).unwrap();
            }
            let broken = tempfile::tempdir().unwrap();
            let mut recorder = Recorder::create(broken.path()).unwrap();
            for step in 1..=reached {
                recorder.log(step, &metrics(step)).unwrap();
            }
            recorder.event("note", &serde_json::json!(1)).unwrap();
            drop(recorder);
            for name in [METRICS, EVENTS] {
                let mut file = OpenOptions::new().append(true).open(broken.path().join(name)).unwrap();
                let line = b"{\"step\":99,\"loss\":0.123456789012345,\"rewards/margins\":99.0}";
                file.write_all(&line[..torn.min(line.len())]).unwrap();
            }
            let mut recorder = Recorder::resume(broken.path(), saved).unwrap();
            for step in saved + 1..=steps {
                recorder.log(step, &metrics(step)).unwrap();
            }
            let read = |dir: &Path| fs::read_to_string(dir.join(METRICS)).unwrap();
            prop_assert_eq!(read(broken.path()), read(whole.path()));
            prop_assert_eq!(fs::read_to_string(broken.path().join(EVENTS)).unwrap().lines().count(), 1);
            prop_assert_eq!(boards(broken.path()), 2);
        }
    }

    #[test]
    fn samples_end_at_the_checkpoint_and_what_the_end_of_a_run_added_goes() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(SAMPLES);
        let mut recorder = Recorder::create(place.path()).unwrap();
        assert!(!path.exists(), "only where there are samples");
        for step in [1, 1, 2, 3] {
            recorder.sample(&serde_json::json!({ "step": step })).unwrap();
        }
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"prompt\":\"a\"}\n{\"step\":");
        fs::write(&path, text).unwrap();
        let mut recorder = Recorder::resume(place.path(), 2).unwrap();
        recorder.sample(&serde_json::json!({ "step": 3 })).unwrap();
        let lines = fs::read_to_string(&path).unwrap();
        assert_eq!(lines, "{\"step\":1}\n{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
    }

    #[test]
    fn a_line_damaged_from_outside_is_an_error_and_nothing_is_lost() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(METRICS);
        let text = "{\"step\":1}\n{\"step\":oops}\n{\"step\":3}\n";
        fs::write(&path, text).unwrap();
        let message = Recorder::resume(place.path(), 2).unwrap_err().to_string();
        let expected = "not a record of a step (expected value at line 1 column 9); the file was changed from \
                        outside: restore it or start a new run";
        assert_eq!(message, format!("{}:2: {expected}", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, b"").unwrap();
        let message = Recorder::create(&file).unwrap_err().to_string();
        let expected = "Not a directory (os error 20); a part of that path is a file; choose another place";
        assert_eq!(message, format!("cannot write {}: {expected}", file.join(METRICS).display()));
    }
}
