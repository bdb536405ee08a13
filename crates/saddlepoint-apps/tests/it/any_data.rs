//! Every search for graphs on whatever a table may hold: too few rows or columns, values that are not finite, columns that are constant or
//! follow from others, units at both ends of the numbers, settings out of range. What comes is a graph without a cycle, or an error that
//! names what is wrong.

use proptest::prelude::*;
use proptest::sample::select;
use saddlepoint_apps::Result;
use saddlepoint_apps::dag::score::{Lasso, LeastSquares, Logistic, Mlp, MlpConfig, Score};
use saddlepoint_apps::dag::{Choice, Dagma, Data, Found, Notears, Relaxed, Scaling, Swap, Topo, check_order};

const MOST_COLUMNS: usize = 4;
const MOST_ROWS: usize = 8;

/// What a column is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Numbers,
    Bits,
    Constant,
    /// The one before it.
    Copy,
    /// The sum of all before it.
    Sum,
}

/// A table that may be refused.
#[derive(Debug, Clone)]
struct Table {
    columns: Vec<Vec<f64>>,
}

fn odd() -> impl Strategy<Value = f64> {
    select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e-300, 1e-3, 1e300])
}

/// A setting at its usual value, or now and then at an odd one.
fn setting(usual: f64) -> impl Strategy<Value = f64> {
    prop_oneof![16 => Just(usual), 1 => odd()]
}

fn table() -> impl Strategy<Value = Table> {
    let kinds =
        vec![Kind::Numbers, Kind::Numbers, Kind::Numbers, Kind::Bits, Kind::Constant, Kind::Copy, Kind::Sum];
    let unit = prop_oneof![8 => Just(1.0), 1 => select(vec![1e-300, 1e-150, 1e-8, 1e8, 1e150, 1e300])];
    let shape =
        (prop_oneof![1 => Just(0), 16 => 1..=MOST_COLUMNS], prop_oneof![1 => 0..2_usize, 8 => 2..=MOST_ROWS]);
    let bits = prop_oneof![6 => Just(false), 1 => Just(true)];
    (shape, bits).prop_flat_map(move |((d, n), bits)| {
        let values = prop::collection::vec(prop::collection::vec(-1.0..1.0f64, n), d);
        let kind = if bits { Just(Kind::Bits).boxed() } else { select(kinds.clone()).boxed() };
        let made =
            prop::collection::vec((kind, if bits { Just(1.0).boxed() } else { unit.clone().boxed() }), d);
        let hole = (
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            select(vec![f64::NAN, f64::INFINITY]),
        );
        let hole = prop_oneof![16 => Just(None), 1 => hole.prop_map(Some)];
        (values, made, hole, prop::bool::weighted(0.03)).prop_map(|(mut columns, made, hole, ragged)| {
            for (j, (kind, unit)) in made.into_iter().enumerate() {
                for row in 0..columns[j].len() {
                    let value = match kind {
                        Kind::Numbers => unit * columns[j][row],
                        Kind::Bits => f64::from(u8::from(columns[j][row] > 0.0)),
                        Kind::Constant => unit,
                        Kind::Copy => columns[j.saturating_sub(1)][row],
                        Kind::Sum => (0..=j).map(|k| columns[k][row]).sum(),
                    };
                    columns[j][row] = value;
                }
            }
            if let Some((column, row, value)) =
                hole.filter(|_| columns.first().is_some_and(|c| !c.is_empty()))
            {
                let j = column.index(columns.len());
                let i = row.index(columns[j].len());
                columns[j][i] = value;
            }
            if let Some(last) = columns.last_mut().filter(|_| ragged) {
                last.push(0.5);
            }
            Table { columns }
        })
    })
}

impl Table {
    /// Words of one of which a refusal has to consist.
    fn wrong(&self) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let Some(first) = self.columns.first() else { return vec!["there is no column"] };
        require(&mut wrong, first.len() >= 2, "rows; at least 2 are needed");
        for column in &self.columns {
            require(&mut wrong, column.len() == first.len(), "rows, the first one has");
            require(&mut wrong, column.iter().all(|x| x.is_finite()), "values must be finite");
            #[allow(clippy::float_cmp, reason = "equal values are meant")]
            let constant = column.iter().all(|x| *x == column[0]);
            require(&mut wrong, !constant, "in every row and says nothing about edges");
        }
        wrong
    }

    /// Whether the units are such that nothing overflows or vanishes.
    fn tame(&self) -> bool {
        self.columns.iter().flatten().all(|x| *x == 0.0 || (1e-9..1e9).contains(&x.abs()))
    }
}

fn require(wrong: &mut Vec<&'static str>, ok: bool, key: &'static str) {
    if !ok {
        wrong.push(key);
    }
}

/// What may be refused once the table was taken.
fn units(tame: bool) -> Vec<&'static str> {
    if tame {
        Vec::new()
    } else {
        vec!["measure it in other units", "was not solved", "not positive definite"]
    }
}

/// Whether a result is one that the words allow; what is wrong with it.
fn allowed<T>(result: &Result<T>, wrong: &[&str], doubtful: &[&str]) -> std::result::Result<(), String> {
    match result {
        Ok(_) if wrong.is_empty() => Ok(()),
        Ok(_) => Err(format!("taken, and wrong is {wrong:?}")),
        Err(error) => {
            let told = error.to_string();
            let named = wrong.iter().chain(doubtful).any(|wrong| told.contains(wrong));
            if named {
                Ok(())
            } else {
                Err(format!("refused by {told:?}, and wrong is {wrong:?} or {doubtful:?}"))
            }
        }
    }
}

/// What a search over orders says that is not so.
fn untrue(found: &Found, d: usize) -> Option<&'static str> {
    let said = |lie: bool, what| lie.then_some(what);
    let mut place = vec![0; d];
    found.order.iter().enumerate().for_each(|(at, &node)| place[node] = at);
    said(check_order(&found.order, d).is_err(), "not an order")
        .or(said(
            found.weights.edges().iter().any(|&(i, j, _)| place[i] >= place[j]),
            "an edge against the order",
        ))
        .or(said(found.weights.values().iter().any(|w| !w.is_finite()), "weights that are not finite"))
        .or(said(!found.score().is_finite(), "no score"))
        .or(said(found.scores.windows(2).any(|pair| pair[1] > pair[0]), "a score that rises"))
        .or(said(!found.kkt.acyclic, "a cycle"))
}

/// The same of a method of continuous optimisation.
fn untrue_relaxed(found: &Relaxed, d: usize) -> Option<&'static str> {
    let said = |lie: bool, what| lie.then_some(what);
    said(found.weights.order().is_none(), "a cycle")
        .or(said(found.order().len() != d, "an order of other nodes"))
        .or(said(found.raw.values().iter().any(|w| !w.is_finite()), "weights that are not finite"))
        .or(said(found.h.is_nan() || found.h < -1e-9, "a measure of cycles that is none"))
}

fn search(
    score: &impl Score,
    topo: &Topo,
    start: &[usize],
    doubtful: &[&str],
) -> std::result::Result<(), String> {
    let d = score.nodes();
    let pairs = d * d.saturating_sub(1) / 2;
    let mut wrong = Vec::new();
    require(&mut wrong, check_order(start, d).is_ok(), "the graph: ");
    require(&mut wrong, topo.gain >= 0.0, "gain: ");
    if pairs > 0 {
        let large = topo.large.unwrap_or(pairs.min(400));
        let small = topo.small.unwrap_or((pairs / 4).clamp(1, 100).min(large.max(1)));
        require(&mut wrong, (1..=pairs).contains(&small), "small: ");
        require(&mut wrong, (small..=pairs).contains(&large), "large: ");
    }
    let found = topo.run(score, start);
    allowed(&found, &wrong, doubtful)?;
    found.ok().and_then(|found| untrue(&found, d)).map_or(Ok(()), |lie| Err(lie.to_owned()))
}

fn topo() -> impl Strategy<Value = (Topo, Vec<usize>)> {
    let size = || prop_oneof![3 => Just(None), 1 => (0..8_usize).prop_map(Some)];
    let order = prop_oneof![
        8 => Just((0..MOST_COLUMNS).collect::<Vec<_>>()).prop_shuffle(),
        1 => prop::collection::vec(0..MOST_COLUMNS, 0..MOST_COLUMNS + 2),
    ];
    let swap = select(vec![Swap::Exchange, Swap::Back, Swap::Forward]);
    let choice = select(vec![Choice::Greedy, Choice::First]);
    (
        size(),
        size(),
        0..2_usize,
        swap,
        choice,
        setting(1e-10),
        prop_oneof![8 => Just(100_usize), 1 => 0..2_usize],
        order,
    )
        .prop_map(|(small, large, rescues, swap, choice, gain, steps, order)| {
            (Topo { small, large, rescues, swap, choice, gain, steps }, order)
        })
}

/// A random order of the first nodes: what is left of one of more nodes; one that is none stays none.
fn shortened(order: &[usize], d: usize) -> Vec<usize> {
    if check_order(order, MOST_COLUMNS).is_ok() {
        return order.iter().copied().filter(|node| *node < d).collect();
    }
    order.to_vec()
}

fn told(name: &str, found: std::result::Result<(), String>) -> std::result::Result<(), TestCaseError> {
    found.map_err(|why| TestCaseError::fail(format!("{name}: {why}")))
}

/// The data, or nothing where they were rightly refused.
fn data(table: &Table, scaling: Scaling) -> std::result::Result<Option<Data>, TestCaseError> {
    let data = Data::unnamed(table.columns.clone());
    told("table", allowed(&data, &table.wrong(), &[]))?;
    let Ok(data) = data else { return Ok(None) };
    let scaled = data.scaled(scaling);
    told("scaling", allowed(&scaled, &[], &units(table.tame())))?;
    Ok(scaled.ok())
}

fn scaling() -> impl Strategy<Value = Scaling> {
    select(vec![Scaling::None, Scaling::Centre, Scaling::Standardise])
}

fn not_negative(value: f64) -> bool {
    value >= 0.0 && value.is_finite()
}

proptest! {
    #[test]
    fn the_search_over_orders_ends_with_a_graph(
        table in table(), scaling in scaling(), (topo, order) in topo(), lambda in setting(0.1), hidden in 0..3_usize,
        network in (setting(0.01), setting(0.01), setting(1e-3), prop_oneof![8 => Just(20_u64), 1 => 0..2_u64]),
    ) {
        let Some(data) = data(&table, scaling)? else { return Ok(()) };
        let order = shortened(&order, data.nodes());
        let units = units(table.tame());
        let score = LeastSquares::new(&data);
        told("least squares", allowed(&score, &[], &units))?;
        if let Ok(score) = score {
            told("least squares", search(&score, &topo, &order, &units))?;
        }

        let mut wrong = Vec::new();
        require(&mut wrong, not_negative(lambda), "lambda: ");
        let score = Lasso::new(&data, lambda);
        told("lasso", allowed(&score, &wrong, &units))?;
        if let Ok(score) = score {
            told("lasso", search(&score, &topo, &order, &units))?;
        }

        require(&mut wrong, lambda > 0.0, "lambda: ");
        #[allow(clippy::float_cmp, reason = "labels are exact")]
        let bits = data.columns().iter().flatten().all(|x| *x == 0.0 || *x == 1.0);
        require(&mut wrong, bits, "takes columns of 0 and 1");
        let score = Logistic::new(&data, lambda);
        told("logistic", allowed(&score, &wrong, &units))?;
        if let Ok(score) = score {
            told("logistic", search(&score, &topo, &order, &units))?;
        }

        let (lambda1, lambda2, tolerance, steps) = network;
        let mut wrong = Vec::new();
        require(&mut wrong, not_negative(lambda1), "lambda1: ");
        require(&mut wrong, not_negative(lambda2), "lambda2: ");
        require(&mut wrong, tolerance > 0.0 && tolerance.is_finite(), "tolerance: ");
        require(&mut wrong, hidden > 0, "hidden: ");
        require(&mut wrong, steps > 0, "steps: ");
        let config = MlpConfig { hidden, lambda1, lambda2, tolerance, steps, seed: 0 };
        let score = Mlp::new(&data, config);
        told("network", allowed(&score, &wrong, &units))?;
        if let Ok(score) = score {
            let few = Topo { steps: topo.steps.min(3), ..topo };
            told("network", search(&score, &few, &order, &units))?;
        }
    }

    #[test]
    fn continuous_methods_end_with_a_graph(
        table in table(), scaling in scaling(), (lambda, threshold, h, rho) in (setting(0.1), setting(0.3), setting(1e-8), setting(1e16)),
        mu in setting(1.0), s in prop_oneof![4 => Just(vec![1.0, 0.8]), 1 => prop::collection::vec(setting(1.0), 0..3)],
        steps in prop_oneof![8 => Just(40_u64), 1 => 0..2_u64],
    ) {
        let Some(data) = data(&table, scaling)? else { return Ok(()) };
        let units = units(table.tame());
        let mut both = Vec::new();
        require(&mut both, not_negative(lambda), "lambda: ");
        require(&mut both, not_negative(threshold), "threshold: ");
        require(&mut both, steps > 0, "steps: ");

        let mut wrong = both.clone();
        require(&mut wrong, h > 0.0 && h.is_finite(), "h: ");
        require(&mut wrong, rho > 1.0 && rho.is_finite(), "rho: ");
        let found = Notears { lambda, threshold, h, rho, steps }.run(&data);
        told("NOTEARS", allowed(&found, &wrong, &units))?;
        if let Some(lie) = found.ok().and_then(|found| untrue_relaxed(&found, data.nodes())) {
            return Err(TestCaseError::fail(format!("NOTEARS: {lie}")));
        }

        let mut wrong = both;
        require(&mut wrong, mu > 0.0 && mu.is_finite(), "mu: ");
        require(&mut wrong, !s.is_empty() && s.iter().all(|s| *s > 0.0 && s.is_finite()), "s: ");
        let found = Dagma { lambda, threshold, mu, s, steps }.run(&data);
        told("DAGMA", allowed(&found, &wrong, &units))?;
        if let Some(lie) = found.ok().and_then(|found| untrue_relaxed(&found, data.nodes())) {
            return Err(TestCaseError::fail(format!("DAGMA: {lie}")));
        }
    }
}
