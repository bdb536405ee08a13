//! A run as it stands between two steps: started, or brought back from a checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use saddlepoint_core::clock::{Stopwatch, unix_seconds};
use saddlepoint_core::record::Recorder;
use saddlepoint_core::run::RunDir;
use saddlepoint_core::seed::Seed;
use saddlepoint_core::{Error as CoreError, atomic};
use saddlepoint_opt::optimizer::Optimizer;
use saddlepoint_opt::schedule::Schedule;
use serde_json::json;

use super::before::Before;
use super::cached::Cached;
use super::checkpoint::{self, pretty};
use super::evaluate::Means;
use super::job::Job;
use super::order::Order;
use super::sampling::Sampling;
use super::state::{State, VERSION};
use super::{CONFIG, Event, Observer, settings, text};
use crate::engine::{Policy, TensorSpec, Want};
use crate::recipe::Recipe;
use crate::rollout::{Ahead, Server};
use crate::teacher;
use crate::tether::Tether;
use crate::{Error, Result};

/// Folder of the adapters that a server reads.
const SERVED: &str = "served";

/// Everything that a run works with.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) job: &'a Job,
    pub(super) dir: RunDir,
    pub(super) recorder: Recorder,
    pub(super) watch: Stopwatch,
    pub(super) seed: Seed,
    pub(super) policy: Policy,
    /// What the reference says of the examples, if it was computed before training.
    pub(super) cached: Option<Cached>,
    pub(super) tether: Option<Tether>,
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) order: Order,
    /// What samples in the place of this process.
    pub(super) server: Option<Server>,
    /// The first completions of the next round, which it is asked for already.
    pub(super) ahead: Option<Ahead>,
    /// What says of completions what a teacher does that is not in this process.
    pub(super) teacher: Option<teacher::Server>,
    pub(super) state: State,
    /// Weights of `state.kept`.
    pub(super) kept: Vec<f32>,
    /// The policy before its first step.
    pub(super) before: Before,
    /// The latest evaluation of this process and its step.
    pub(super) evaluated: Option<(u64, Means)>,
}

impl<'a> Run<'a> {
    /// Starts the run of `job` in `dir`, or continues it.
    pub(super) fn open(job: &'a Job, (dir, latest): (RunDir, Latest), observer: Observer) -> Result<Self> {
        let watch = Stopwatch::start();
        let train = &job.recipe.train;
        let seed = Seed::new(train.seed);
        let mut tether = job.tether()?;
        let schedule = train.schedule(job.steps())?;

        let mut policy = job.policy(job.setup(tether.as_ref()))?;
        let resumed = latest.as_ref().map(|(step, _)| *step);
        observer(&Event::Opened { job, run_dir: dir.path(), resumed });
        let folder = job.ref_logps(dir.path());
        let cached = folder.map(|folder| Cached::open(job, &mut policy, &folder, observer)).transpose()?;
        let tensors: Vec<_> = policy.trainable().tensors.iter().map(TensorSpec::optimized).collect();
        let mut optimizer = Optimizer::new(job.recipe.optimizer.rule, &tensors)?;

        let (state, kept, recorder) = if let Some((step, folder)) = &latest {
            let (state, kept) =
                checkpoint::read(folder, &job.recipe, &job.model, &mut policy, &mut optimizer)?;
            if let (Some(tether), Some(duals)) = (&mut tether, &state.duals) {
                tether.restore(Some(duals.clone()));
            }
            let mut recorder = Recorder::resume(dir.path(), *step)?;
            recorder.event("resumed", &json!({ "step": step }))?;
            (state, kept, recorder)
        } else {
            (fresh(), Vec::new(), Recorder::create(dir.path())?)
        };
        let server =
            job.rollout().server.map(|server| Server::new(server, dir.path().join(SERVED))).transpose()?;
        let teacher = job.teacher()?;
        Ok(Self {
            job,
            dir,
            server,
            ahead: None,
            teacher,
            recorder,
            watch,
            seed,
            policy,
            cached,
            tether,
            optimizer,
            schedule,
            order: Order::new(seed, job.train.len(), train.step_size()),
            state,
            kept,
            before: Before::default(),
            evaluated: None,
        })
    }

    /// The statistics that the step that is due needs of the policy.
    pub(super) fn want(&self) -> Want {
        let mut want = self.job.want(self.tether.as_ref());
        if self.job.method.teacher().is_some() && !self.job.method.is_taught(self.state.step) {
            (want.ref_logp, want.divergence) = (false, None);
        }
        Want { ref_logp: want.ref_logp && self.cached.is_none() && self.teacher.is_none(), ..want }
    }

    /// How samples are drawn.
    pub(super) fn sampling(&self) -> Sampling {
        let setup = self.job.setup(self.tether.as_ref());
        Sampling {
            samples: self.tether.as_ref().map_or(1, |tether| tether.config().samples),
            max_new_tokens: self.job.sample_length(),
            stop: self.job.codec.eos.clone(),
            room: (setup.max_tokens, setup.max_rows),
        }
    }

    /// Passes over the data so far.
    pub(super) fn epoch(&self) -> f64 {
        self.state.step as f64 / self.job.steps_per_epoch()
    }
}

/// The latest checkpoint of a run that is continued, and its step.
pub(super) type Latest = Option<(u64, PathBuf)>;

/// The folder of a run, which is that of `recipe`.
pub(super) fn folder(recipe: &Recipe, resume: bool) -> Result<(RunDir, Latest)> {
    let path = &recipe.train.output_dir;
    let dir = if resume { continued(path)? } else { RunDir::create(path)? };
    let latest = dir.latest()?;
    if latest.is_none() {
        // First of all, so that whatever else is in the folder belongs to a run that can be resumed.
        dir.checkpoint(0, |folder| checkpoint::write_first(folder, &fresh()))?;
    }
    same_recipe(dir.path(), recipe)?;
    Ok((dir, latest))
}

fn fresh() -> State {
    State { version: VERSION, ..State::default() }
}

/// The folder of a run that was begun. One in which a kill left nothing of use is begun anew.
fn continued(path: &Path) -> Result<RunDir> {
    match RunDir::resume(path) {
        Err(error @ CoreError::NoCheckpoint { .. }) => {
            let left: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().collect();
            let of_no_use = |name: &str| name == ".lock" || name.contains(".partial-");
            if left.iter().any(|entry| !of_no_use(&entry.file_name().to_string_lossy())) {
                return Err(error.into());
            }
            for entry in left.iter().filter(|entry| entry.path().is_dir()) {
                fs::remove_dir_all(entry.path()).map_err(|source| CoreError::Io {
                    action: "remove",
                    path: entry.path(),
                    source,
                })?;
            }
            Ok(RunDir::create(path)?)
        }
        other => Ok(other?),
    }
}

/// Writes the recipe into the run's folder, or compares it with the one that is there. The number of threads may
/// change, since nothing depends on it.
fn same_recipe(dir: &Path, recipe: &Recipe) -> Result<()> {
    let path = dir.join(CONFIG);
    let Ok(known) = fs::read_to_string(&path) else {
        let meta = json!({
            "format": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "seed": recipe.train.seed,
            "started": unix_seconds(),
        });
        atomic::write(&dir.join("meta.json"), &pretty(&meta))?;
        return Ok(atomic::write(&path, text(recipe).as_bytes())?);
    };
    let (known, now) = (settings(&known), settings(&text(recipe)));
    if known == now {
        return Ok(());
    }
    let changed = known.keys().chain(now.keys()).find(|&key| known.get(key) != now.get(key));
    let show = |settings: &BTreeMap<String, String>| {
        let line = changed.and_then(|key| settings.get(key).map(|value| format!("{key} = {value}")));
        line.unwrap_or_else(|| "nothing".to_owned())
    };
    let problem = format!(
        "the run was started with other settings (first difference: {} there, {} now); resume with {} or choose another output_dir",
        show(&known),
        show(&now),
        path.display()
    );
    Err(Error::Config { key: "train.output_dir".to_owned(), problem })
}
