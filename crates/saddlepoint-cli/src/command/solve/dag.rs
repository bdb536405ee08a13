//! The graph behind data: `saddle solve dag`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use saddlepoint_apps::dag::score::{Fit, Lasso, LeastSquares, Logistic, Mlp, MlpConfig, Score, total};
use saddlepoint_apps::dag::{
    Choice, Dagma, Data, Kkt, Metrics, Notears, Relaxed, Scaling, Topo, Weights, compare, draw, known,
    random_order,
};
use saddlepoint_core::atomic;
use saddlepoint_core::clock::Stopwatch;
use serde::Serialize;
use serde_json::json;

use crate::exit::{Usage, Verdict};
use crate::output::{Output, number, place, table, word};

/// Learn the directed acyclic graph behind a table of samples
#[derive(Debug, Args)]
#[command(after_help = "Example: saddle solve dag --data cells.csv --score lasso --svg graph.svg\n\n\
                        docs/dag.md says what the scores and methods are. Exit code 1: the search was cut off, or its result \
                        misses the first-order conditions; what was found is printed all the same.")]
pub(super) struct Arguments {
    /// A table: a line a sample, a column a variable; a first line of words holds the names
    #[arg(long, value_name = "FILE.csv")]
    data: PathBuf,
    /// How the graph is found
    #[arg(long, value_enum, default_value = "topo")]
    method: Method,
    /// What is minimised
    #[arg(long, value_enum, default_value = "least-squares")]
    score: Scored,
    /// What is done to the columns first [default: centre; none for the logistic score]
    #[arg(long, value_enum)]
    scale: Option<Scale>,
    /// Penalty on absolute weights [default: the score's or the method's own]
    #[arg(long, value_name = "X")]
    lambda: Option<f64>,
    /// Weights below it are no edges [default: 0.3; 0.5 for the nonlinear score]
    #[arg(long, value_name = "X")]
    threshold: Option<f64>,
    /// The order that topo starts from
    #[arg(long, value_enum, default_value = "random")]
    start: Start,
    /// Random orders that topo starts from; the best result is kept
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    restarts: u32,
    /// Pairs whose swaps topo tries first [default: min(100, d(d-1)/8)]
    #[arg(long, value_name = "N")]
    small: Option<usize>,
    /// Pairs whose swaps topo tries where those have no gain [default: min(400, d(d-1)/2)]
    #[arg(long, value_name = "N")]
    large: Option<usize>,
    /// How often the large set may lead on
    #[arg(long, value_name = "N", default_value = "1")]
    rescues: usize,
    /// Hidden units a node of the nonlinear score
    #[arg(long, value_name = "N", default_value = "40")]
    hidden: usize,
    /// Seed of random orders and networks
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
    /// Edges `from -> to`, a line each, to compare with
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Write the graph for Graphviz
    #[arg(long, value_name = "FILE.dot")]
    dot: Option<PathBuf>,
    /// Write a picture of the graph
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Method {
    /// Topological swaps: any score, ends at the first-order conditions
    Topo,
    /// One smooth constraint against cycles; least squares with a penalty
    Notears,
    /// A central path along a log-determinant; least squares with a penalty
    Dagma,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Scored {
    /// Squared residuals of linear regressions
    #[value(alias = "least_squares")]
    LeastSquares,
    /// The same with a penalty on absolute weights
    Lasso,
    /// Columns of 0 and 1, with a penalty on absolute weights
    Logistic,
    /// A small network a node
    Nonlinear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Scale {
    /// Nothing
    None,
    /// Mean 0
    Centre,
    /// Mean 0 and variance 1
    Standardise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Start {
    /// Random orders
    Random,
    /// The order of the columns
    Columns,
    /// By ascending variance
    Variance,
    /// That of a graph by NOTEARS
    Notears,
    /// That of a graph by DAGMA
    Dagma,
}

/// What came out, whatever the method.
struct Learned {
    /// After the threshold.
    graph: Weights,
    /// Of the fit before the threshold, or of the method's own graph.
    score: f64,
    kkt: Kkt,
    order: Vec<usize>,
    steps: usize,
    trials: Option<u64>,
    finished: bool,
    notes: Vec<String>,
}

impl Arguments {
    pub(super) fn run(self, output: Output) -> Result<Verdict> {
        self.check()?;
        let data = Data::read(&self.data)?;
        let truth = self.truth.as_deref().map(|path| known::read(path, data.names())).transpose()?;
        let scale = self.scale.unwrap_or(match self.score {
            Scored::Logistic => Scale::None,
            _ => Scale::Centre,
        });
        let watch = Stopwatch::start();
        let learned = self.learn(&data.scaled(scale.into())?)?;
        let seconds = watch.seconds();
        // What of the graph rests on the units of the columns: the same on standardised ones.
        let linear = matches!(self.score, Scored::LeastSquares | Scored::Lasso);
        let other = if linear && scale != Scale::Standardise {
            Some(self.learn(&data.scaled(Scaling::Standardise)?)?)
        } else {
            None
        };
        if let Some(path) = &self.dot {
            atomic::write(path, draw::dot(&learned.graph, data.names()).as_bytes())?;
        }
        if let Some(path) = &self.svg {
            atomic::write(path, draw::svg(&learned.graph, data.names()).as_bytes())?;
        }
        let reached = learned.finished && (self.method != Method::Topo || learned.kkt.holds());
        let compared = |learned: &Learned| truth.as_ref().map(|truth| compare(&learned.graph, truth));
        let metrics = compared(&learned);
        let standardised = other.as_ref().map(|other| {
            json!({
                "edges": edges(&other.graph, data.names()),
                "kept": kept(&learned.graph, &other.graph),
                "score": other.score,
                "kkt": other.kkt,
                "metrics": compared(other),
            })
        });
        output.object(&json!({
            "method": self.method,
            "score_name": self.score,
            "scale": scale,
            "nodes": data.nodes(),
            "rows": data.rows(),
            "edges": edges(&learned.graph, data.names()),
            "score": learned.score,
            "kkt": learned.kkt,
            "order": learned.order.iter().map(|&node| &data.names()[node]).collect::<Vec<_>>(),
            "steps": learned.steps,
            "trials": learned.trials,
            "finished": learned.finished,
            "seconds": seconds,
            "metrics": metrics,
            "standardised": standardised,
            "notes": learned.notes,
        }))?;
        if !output.json() {
            self.tell(&data, &learned, seconds, metrics, output)?;
            if let Some(other) = &other {
                let (kept, count) = (kept(&learned.graph, &other.graph), learned.graph.edges().len());
                let shd = compared(other).map_or(String::new(), |metrics| format!("; SHD {}", metrics.shd));
                output.say(format!(
                    "on standardised columns: {} edges, {kept} of these {count} among them{shd}",
                    other.graph.edges().len()
                ))?;
            }
            for path in [&self.dot, &self.svg].into_iter().flatten() {
                output.say(format!("wrote {}", place(path)))?;
            }
        }
        Ok(if reached { Verdict::Done } else { Verdict::Missed })
    }

    /// Refuses what does not go together.
    fn check(&self) -> Result<()> {
        let linear = matches!(self.score, Scored::LeastSquares | Scored::Lasso);
        if self.method != Method::Topo && !linear {
            let (method, score) = (word(&self.method), word(&self.score));
            return Err(Usage(format!(
                "--method {method} has least squares alone, and --score is {score}; use --method topo"
            ))
            .into());
        }
        if self.score == Scored::Logistic && self.scale.is_some_and(|scale| scale != Scale::None) {
            let scale = self.scale.map(|scale| word(&scale)).unwrap_or_default();
            return Err(Usage(format!(
                "--scale {scale} with --score logistic, which takes columns of 0 and 1; leave --scale out"
            ))
            .into());
        }
        if self.score == Scored::LeastSquares && self.method == Method::Topo && self.lambda.is_some() {
            let problem = "--lambda with --score least-squares, which has no penalty; use --score lasso";
            return Err(Usage(problem.to_owned()).into());
        }
        if self.start != Start::Random && self.restarts > 1 {
            let problem = "--restarts is for --start random; the other starts are one order";
            return Err(Usage(problem.to_owned()).into());
        }
        if self.threshold.is_some_and(|threshold| !(threshold >= 0.0 && threshold.is_finite())) {
            return Err(Usage("--threshold must be at least 0".to_owned()).into());
        }
        Ok(())
    }

    fn threshold(&self) -> f64 {
        self.threshold.unwrap_or(if self.score == Scored::Nonlinear { 0.5 } else { 0.3 })
    }

    fn notears(&self, data: &Data) -> Result<Relaxed> {
        let default = Notears::default();
        let lambda = self.lambda.unwrap_or(default.lambda);
        Ok(Notears { lambda, threshold: self.threshold(), ..default }.run(data)?)
    }

    fn dagma(&self, data: &Data) -> Result<Relaxed> {
        let default = Dagma::default();
        let lambda = self.lambda.unwrap_or(default.lambda);
        Ok(Dagma { lambda, threshold: self.threshold(), ..default }.run(data)?)
    }

    /// Runs the method on columns that are scaled already.
    fn learn(&self, data: &Data) -> Result<Learned> {
        match self.method {
            Method::Notears => self.judged(data, self.notears(data)?),
            Method::Dagma => self.judged(data, self.dagma(data)?),
            Method::Topo => match self.score {
                Scored::LeastSquares => self.search(data, &LeastSquares::new(data)?),
                Scored::Lasso => self.search(data, &Lasso::new(data, self.lambda.unwrap_or(Lasso::LAMBDA))?),
                Scored::Logistic => {
                    self.search(data, &Logistic::new(data, self.lambda.unwrap_or(Logistic::LAMBDA))?)
                }
                Scored::Nonlinear => {
                    let default = MlpConfig::default();
                    let lambda1 = self.lambda.unwrap_or(default.lambda1);
                    let config = MlpConfig { hidden: self.hidden, lambda1, seed: self.seed, ..default };
                    self.search(data, &Mlp::new(data, config)?)
                }
            },
        }
    }

    /// A graph of continuous optimisation under the eyes of the score.
    fn judged(&self, data: &Data, relaxed: Relaxed) -> Result<Learned> {
        let judge = |score: &dyn Score, fits: &[Fit]| (total(fits), Kkt::of(score, fits));
        let (score, kkt) = if self.score == Scored::Lasso {
            let score = Lasso::new(data, self.lambda.unwrap_or(Lasso::LAMBDA))?;
            judge(&score, &score.at(&relaxed.weights))
        } else {
            let score = LeastSquares::new(data)?;
            judge(&score, &score.at(&relaxed.weights))
        };
        let order = relaxed.order();
        let (steps, notes) = (relaxed.stages, relaxed.notes);
        Ok(Learned { graph: relaxed.weights, score, kkt, order, steps, trials: None, finished: true, notes })
    }

    fn search<S: Score>(&self, data: &Data, score: &S) -> Result<Learned> {
        let choice = if self.score == Scored::Nonlinear { Choice::First } else { Choice::Greedy };
        let topo =
            Topo { small: self.small, large: self.large, rescues: self.rescues, choice, ..Topo::default() };
        let d = data.nodes();
        let starts: Vec<Vec<usize>> = match self.start {
            Start::Random => (0..self.restarts).map(|k| random_order(d, self.seed, u64::from(k))).collect(),
            Start::Columns => vec![(0..d).collect()],
            Start::Variance => {
                let gram = data.scaled(Scaling::Centre)?.gram()?;
                let mut order: Vec<usize> = (0..d).collect();
                order.sort_by(|&a, &b| gram[a * d + a].total_cmp(&gram[b * d + b]));
                vec![order]
            }
            Start::Notears => vec![self.notears(data)?.order()],
            Start::Dagma => vec![self.dagma(data)?.order()],
        };
        let mut best = topo.run(score, &starts[0])?;
        let mut trials = best.trials;
        for start in &starts[1..] {
            let found = topo.run(score, start)?;
            trials += found.trials;
            if found.score() < best.score() {
                best = found;
            }
        }
        Ok(Learned {
            graph: best.weights.thresholded(self.threshold()),
            score: best.score(),
            kkt: best.kkt,
            steps: best.scores.len() - 1,
            trials: Some(trials),
            finished: best.finished,
            notes: best.notes,
            order: best.order,
        })
    }

    fn tell(
        &self,
        data: &Data,
        learned: &Learned,
        seconds: f64,
        metrics: Option<Metrics>,
        output: Output,
    ) -> Result<()> {
        let names = data.names();
        let found = learned.graph.edges();
        output.say(format!(
            "{} nodes, {} samples, {} edges of weight {} or more\n",
            data.nodes(),
            data.rows(),
            found.len(),
            number(self.threshold())
        ))?;
        let rows = found.iter().map(|&(i, j, w)| [names[i].clone(), names[j].clone(), number(w)]);
        output.say(table(["from", "to", ">weight"], rows))?;
        let kkt = &learned.kkt;
        let mut rows = vec![
            (format!("score ({})", word(&self.score)), format!("{:.10}", learned.score)),
            ("KKT residual".to_owned(), format!("{:.1e}", kkt.residual)),
            ("pairs that violate the conditions".to_owned(), format!("{} of {}", kkt.violations, kkt.pairs)),
            ("steps".to_owned(), learned.steps.to_string()),
            ("time".to_owned(), format!("{} s", number(seconds))),
        ];
        if let Some(trials) = learned.trials {
            rows.insert(4, ("swaps tried".to_owned(), trials.to_string()));
        }
        if let Some(metrics) = metrics {
            let Metrics { shd, fdr, tpr, fpr, .. } = metrics;
            rows.push(("SHD".to_owned(), shd.to_string()));
            rows.extend(
                [("FDR", fdr), ("TPR", tpr), ("FPR", fpr)].map(|(name, x)| (name.to_owned(), number(x))),
            );
        }
        output.say(table(
            [word(&self.method).as_str(), ">"],
            rows.into_iter().map(|(name, value)| [name, value]),
        ))?;
        let order: Vec<&str> = learned.order.iter().map(|&node| names[node].as_str()).collect();
        output.say(format!("order: {}", order.join(", ")))?;
        for note in &learned.notes {
            output.say(format!("note: {note}"))?;
        }
        Ok(())
    }
}

impl From<Scale> for Scaling {
    fn from(scale: Scale) -> Self {
        match scale {
            Scale::None => Scaling::None,
            Scale::Centre => Scaling::Centre,
            Scale::Standardise => Scaling::Standardise,
        }
    }
}

/// The edges for programs.
fn edges(graph: &Weights, names: &[String]) -> Vec<serde_json::Value> {
    let edge = |(i, j, w): (usize, usize, f64)| json!({ "from": names[i], "to": names[j], "weight": w });
    graph.edges().into_iter().map(edge).collect()
}

/// How many edges of the first graph the second one has, with their direction.
fn kept(first: &Weights, second: &Weights) -> usize {
    let of = |graph: &Weights| -> BTreeSet<(usize, usize)> {
        graph.edges().into_iter().map(|(i, j, _)| (i, j)).collect()
    };
    of(first).intersection(&of(second)).count()
}
