//! Random graphs and samples of the models on them, in the conventions of NOTEARS.
//!
//! # Reference
//! Zheng et al. 2018, arXiv:1803.01422, §5, and Zheng et al. 2020, arXiv:1909.13189, §5, for the nonlinear mechanisms.
//!
//! # Differences
//! The released simulation ends with an error of its generator where the mean of a count is too large for it; here the error says which column
//! and sample, and what to do.

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Bernoulli, Distribution, Exp1, Gumbel, Poisson, StandardNormal, Uniform};
use saddlepoint_core::seed::Seed;
use saddlepoint_opt::linalg::{Cholesky, dot};

use super::data::Data;
use super::graph::Weights;
use crate::{Error, Result};

/// What is added at each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Normal with mean 0 and variance 1.
    Gaussian,
    /// Exponential with mean 1.
    Exponential,
    /// Gumbel with place 0 and scale 1.
    Gumbel,
    /// Uniform on (−1, 1).
    Uniform,
    /// None: the node is 1 with probability `σ(Σ W_ij x_i)`, else 0.
    Logistic,
    /// None: the node is a count with mean `exp(Σ W_ij x_i)`. Where positive weights follow each other, means grow beyond all bounds.
    Poisson,
}

/// How a node depends on its parents, with normal noise of variance 1 added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// A random network with 100 hidden sigmoid units.
    Mlp,
    /// `tanh(x w₁) + cos(x w₂) + sin(x w₃)`.
    Mim,
    /// A path of a Gaussian process over all parents at once, with mean 0 and covariance `exp(−|x − x'|²/2)`. Takes `n²` numbers of memory and
    /// `O(n³)` operations a node.
    Gp,
    /// A sum of such paths, one over each parent by itself.
    GpAdd,
}

fn stream(name: &str, seed: u64) -> ChaCha8Rng {
    Seed::new(seed).stream(name, &[])
}

/// A random permutation of `0..d`.
fn permutation(d: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..d).collect();
    order.shuffle(rng);
    order
}

/// A graph of `d` nodes with `edges` of the pairs, all equally likely, directed along a random order. Weights are 1.
///
/// # Errors
/// More edges than pairs.
pub fn erdos_renyi(d: usize, edges: usize, seed: u64) -> Result<Weights> {
    let most = d * d.saturating_sub(1) / 2;
    if edges > most {
        let problem = format!("must be at most {most}, the pairs of {d} nodes, got {edges}");
        return Err(Error::Setting { key: "edges", problem });
    }
    let mut rng = stream("dag/erdos-renyi", seed);
    let order = permutation(d, &mut rng);
    let mut pairs: Vec<(usize, usize)> = (0..d).flat_map(|j| (0..j).map(move |i| (i, j))).collect();
    pairs.shuffle(&mut rng);
    let chosen: Vec<_> = pairs[..edges].iter().map(|&(i, j)| (order[i], order[j], 1.0)).collect();
    Weights::from_edges(d, &chosen)
}

/// A graph of Barabási and Albert: each new node has edges to `degree` earlier ones (all, while there are fewer), chosen with probability
/// proportional to 1 plus the edges that they have got so far. Nodes are permuted, weights are 1.
///
/// # Errors
/// A degree of 0.
pub fn scale_free(d: usize, degree: usize, seed: u64) -> Result<Weights> {
    if degree == 0 {
        return Err(Error::Setting { key: "degree", problem: "must be at least 1, got 0".into() });
    }
    let mut rng = stream("dag/scale-free", seed);
    let order = permutation(d, &mut rng);
    let mut attraction = vec![1.0; d];
    let mut edges = Vec::new();
    for new in 1..d {
        let mut left: Vec<usize> = (0..new).collect();
        let mut chosen = Vec::new();
        for _ in 0..degree.min(new) {
            let sum: f64 = left.iter().map(|&i| attraction[i]).sum();
            let mut at = Uniform::new(0.0, sum).expect("a positive sum").sample(&mut rng);
            let found = left.iter().position(|&i| {
                at -= attraction[i];
                at < 0.0
            });
            chosen.push(left.remove(found.unwrap_or(left.len() - 1)));
        }
        // What a node gets counts from the next one on.
        for old in chosen {
            attraction[old] += 1.0;
            edges.push((order[new], order[old], 1.0));
        }
    }
    Weights::from_edges(d, &edges)
}

/// The same edges with weights drawn evenly from (−2, −0.5) and (0.5, 2).
pub fn weighted(graph: &Weights, seed: u64) -> Weights {
    let mut rng = stream("dag/weights", seed);
    let mut weighted = graph.clone();
    for (i, j, _) in graph.edges() {
        weighted.set(i, j, signed(0.5, 2.0, &mut rng));
    }
    weighted
}

fn signed(least: f64, most: f64, rng: &mut ChaCha8Rng) -> f64 {
    let size = Uniform::new(least, most).expect("an interval").sample(rng);
    if Bernoulli::new(0.5).expect("a probability").sample(rng) { size } else { -size }
}

/// `n` samples of `x_j = Σ_i W_ij x_i + noise`, or of labels with these log-odds, or of counts with these logarithms of their means.
///
/// # Errors
/// A graph with a cycle; fewer than 2 samples; labels or counts that are all equal; counts with a mean above 1e15.
pub fn linear(w: &Weights, n: usize, noise: Noise, seed: u64) -> Result<Data> {
    sample(
        w,
        n,
        |j, parents, rng| {
            let mut x = vec![0.0; n];
            for &(i, column) in parents {
                let weight = w.get(i, j);
                x.iter_mut().zip(column).for_each(|(x, parent)| *x += weight * parent);
            }
            for (r, x) in x.iter_mut().enumerate() {
                *x = match noise {
                    Noise::Gaussian => *x + rng_normal(rng),
                    Noise::Exponential => *x + <Exp1 as Distribution<f64>>::sample(&Exp1, rng),
                    Noise::Gumbel => *x + Gumbel::new(0.0, 1.0).expect("a scale").sample(rng),
                    Noise::Uniform => *x + Uniform::new(-1.0, 1.0).expect("an interval").sample(rng),
                    Noise::Logistic => {
                        let p = 1.0 / (1.0 + (-*x).exp());
                        f64::from(u8::from(Bernoulli::new(p).expect("a probability").sample(rng)))
                    }
                    Noise::Poisson => count(x.exp(), rng).map_err(|problem| {
                        Error::data(format!(
                            "the mean of the count of node {j} in sample {} {problem}",
                            r + 1
                        ))
                    })?,
                };
            }
            Ok(x)
        },
        seed,
    )
}

/// `n` samples of nonlinear mechanisms on the edges of a graph.
///
/// # Errors
/// A graph with a cycle; fewer than 2 samples.
pub fn nonlinear(graph: &Weights, n: usize, mechanism: Mechanism, seed: u64) -> Result<Data> {
    let hidden = 100;
    sample(
        graph,
        n,
        |_, parents, rng| {
            let layer = |count: usize, rng: &mut ChaCha8Rng| -> Vec<f64> {
                (0..count).map(|_| signed(0.5, 2.0, rng)).collect()
            };
            let along =
                |w: &[f64], r: usize| -> f64 { w.iter().zip(parents).map(|(w, (_, x))| w * x[r]).sum() };
            let p = parents.len();
            let mut x = vec![0.0; n];
            match mechanism {
                // Without parents all of them are 0.
                _ if p == 0 => {}
                Mechanism::Mlp => {
                    let first = layer(hidden * p, rng);
                    let second = layer(hidden, rng);
                    for (w, v) in first.chunks_exact(p).zip(&second) {
                        (0..n).for_each(|r| x[r] += v / (1.0 + (-along(w, r)).exp()));
                    }
                }
                Mechanism::Mim => {
                    let [a, b, c] = [layer(p, rng), layer(p, rng), layer(p, rng)];
                    for (r, x) in x.iter_mut().enumerate() {
                        *x = along(&a, r).tanh() + along(&b, r).cos() + along(&c, r).sin();
                    }
                }
                Mechanism::Gp => {
                    let columns: Vec<&[f64]> = parents.iter().map(|(_, column)| column.as_slice()).collect();
                    x = path(&columns, n, rng)?;
                }
                Mechanism::GpAdd => {
                    for (_, column) in parents {
                        let term = path(&[column], n, rng)?;
                        x.iter_mut().zip(term).for_each(|(x, term)| *x += term);
                    }
                }
            }
            for x in &mut x {
                *x += rng_normal(rng);
            }
            Ok(x)
        },
        seed,
    )
}

/// A count with this mean.
fn count(mean: f64, rng: &mut ChaCha8Rng) -> Result<f64, String> {
    /// Up to about nine times as much, every count is a number of its own.
    const MOST: f64 = 1e15;
    if mean > MOST || mean.is_nan() {
        return Err(format!(
            "is {mean:.1e}, above {MOST:.0e}; make the weights smaller or some of them negative"
        ));
    }
    // A mean that rounds to 0 is that of a count which is never anything else.
    Poisson::new(mean).map_or(Ok(0.0), |counts| Ok(counts.sample(rng)))
}

/// The values at `n` points, given by their coordinates, of one path of the Gaussian process with mean 0 and covariance `exp(−|x − x'|²/2)`.
fn path(coordinates: &[&[f64]], n: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f64>> {
    // The covariance of close points is singular to rounding, which is at most n² ε here; the variance that is added to lift it is nothing
    // beside that of the noise.
    let lift = (n as f64).powi(2) * f64::EPSILON + 1e-10;
    let mut covariance = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..i {
            let square: f64 = coordinates.iter().map(|x| (x[i] - x[j]).powi(2)).sum();
            covariance[i * n + j] = (-0.5 * square).exp();
        }
        covariance[i * n + i] = 1.0 + lift;
    }
    let factor = Cholesky::new(&covariance, n).ok_or_else(|| {
        Error::data("the covariance of a Gaussian process is not definite; take fewer samples")
    })?;
    let (lower, normal) = (factor.lower(), (0..n).map(|_| rng_normal(rng)).collect::<Vec<f64>>());
    Ok((0..n).map(|i| dot(&lower[i * n..=i * n + i], &normal[..=i])).collect())
}

fn rng_normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

/// Samples column by column along the graph; `node` makes one of its parents' columns.
fn sample(
    graph: &Weights,
    n: usize,
    mut node: impl FnMut(usize, &[(usize, &Vec<f64>)], &mut ChaCha8Rng) -> Result<Vec<f64>>,
    seed: u64,
) -> Result<Data> {
    let d = graph.nodes();
    let order =
        graph.order().ok_or_else(|| Error::graph("it has a cycle, and nothing can be sampled from it"))?;
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); d];
    for j in order {
        // A stream a node: its noise does not depend on the other nodes.
        let mut rng = Seed::new(seed).stream("dag/samples", &[j as u64]);
        let parents: Vec<(usize, &Vec<f64>)> =
            (0..d).filter(|&i| graph.get(i, j) != 0.0).map(|i| (i, &columns[i])).collect();
        let column = node(j, &parents, &mut rng)?;
        columns[j] = column;
    }
    debug_assert!(columns.iter().all(|column| column.len() == n));
    Data::unnamed(columns)
}

#[cfg(test)]
mod tests {
    use saddlepoint_core::test::assert_close;

    use super::*;
    use crate::dag::Scaling;

    #[test]
    fn graphs_have_their_edges_and_no_cycle() {
        for seed in 0..20 {
            let er = erdos_renyi(12, 30, seed).expect("a graph");
            assert!(er.edges().len() == 30 && er.order().is_some());
            let sf = scale_free(12, 2, seed).expect("a graph");
            assert!(sf.edges().len() == 1 + 2 * 10 && sf.order().is_some());
            let w = weighted(&er, seed);
            assert!(w.edges().iter().all(|edge| (0.5..2.0).contains(&edge.2.abs())));
        }
        assert_ne!(erdos_renyi(12, 30, 0), erdos_renyi(12, 30, 1));
        assert_eq!(erdos_renyi(12, 30, 1), erdos_renyi(12, 30, 1));
        let told = "edges: must be at most 3, the pairs of 3 nodes, got 4";
        assert_eq!(erdos_renyi(3, 4, 0).expect_err("refused").to_string(), told);
        assert!(scale_free(3, 0, 0).is_err());
        assert!(scale_free(1, 1, 0).expect("a graph").edges().is_empty());
    }

    #[test]
    fn rich_nodes_get_richer() {
        let most =
            |graph: &Weights| (0..100).map(|j| (0..100).filter(|&i| graph.get(i, j) != 0.0).count()).max();
        let (sf, er): (usize, usize) = (0..5)
            .map(|seed| {
                let edges = scale_free(100, 2, seed).expect("a graph");
                let even = erdos_renyi(100, edges.edges().len(), seed).expect("a graph");
                (most(&edges).expect("nodes"), most(&even).expect("nodes"))
            })
            .fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
        assert!(sf > er + 20, "{sf} {er}");
    }

    #[test]
    fn samples_have_the_moments_of_their_model() {
        let w = Weights::from_edges(2, &[(0, 1, 2.0)]).expect("a graph");
        // Mean and variance of the noise.
        let euler = 0.577_215_664_901_532_9;
        for (noise, mean, variance) in [
            (Noise::Gaussian, 0.0, 1.0),
            (Noise::Exponential, 1.0, 1.0),
            (Noise::Gumbel, euler, std::f64::consts::PI.powi(2) / 6.0),
            (Noise::Uniform, 0.0, 1.0 / 3.0),
        ] {
            let data = linear(&w, 40_000, noise, 1).expect("samples");
            let mean_of = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
            assert_close!(mean_of(&data.columns()[0]), mean, atol = 0.03);
            assert_close!(mean_of(&data.columns()[1]), 3.0 * mean, atol = 0.06);
            let gram = data.scaled(Scaling::Centre).expect("scales").gram().expect("finite");
            let expected = [variance, 2.0 * variance, 2.0 * variance, 5.0 * variance];
            assert_close!(gram, expected, rtol = 0.05);
        }
        let labels = linear(&w, 20_000, Noise::Logistic, 1).expect("samples");
        let share = |given: f64| {
            let pairs = labels.columns()[0].iter().zip(&labels.columns()[1]);
            let of: Vec<f64> = pairs.filter(|(x, _)| x.total_cmp(&given).is_eq()).map(|(_, y)| *y).collect();
            of.iter().sum::<f64>() / of.len() as f64
        };
        assert_close!([share(0.0), share(1.0)], [0.5, 1.0 / (1.0 + (-2.0_f64).exp())], atol = 0.02);
        for mechanism in [Mechanism::Mlp, Mechanism::Mim] {
            let data = nonlinear(&w, 5000, mechanism, 1).expect("samples");
            let gram = data.scaled(Scaling::Centre).expect("scales").gram().expect("finite");
            assert_close!(gram[0], 1.0, atol = 0.08);
            assert!(gram[3] > 1.1, "{mechanism:?} {}", gram[3]);
        }
        let cycle = Weights::from_edges(2, &[(0, 1, 2.0), (1, 0, 1.0)]).expect("a graph");
        assert!(
            linear(&cycle, 10, Noise::Gaussian, 0).is_err() && linear(&w, 1, Noise::Gaussian, 0).is_err()
        );
    }

    #[test]
    fn counts_have_the_moments_of_their_model() {
        // The parent is a count with mean 1, so that E e^(t parent) = exp(e^t − 1), and the mean of the child given the parent is e^(w parent).
        let w = -0.5_f64;
        let graph = Weights::from_edges(2, &[(0, 1, w)]).expect("a graph");
        let data = linear(&graph, 100_000, Noise::Poisson, 2).expect("samples");
        let mean = |x: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = x.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
            sum / count
        };
        let (parent, child) = (&data.columns()[0], &data.columns()[1]);
        assert!(parent.iter().chain(child).all(|x| *x >= 0.0 && x.fract() == 0.0));
        assert_close!(mean(&mut parent.iter().copied()), 1.0, atol = 0.015);
        assert_close!(mean(&mut parent.iter().map(|x| x * x)), 2.0, atol = 0.05);
        let moment = |t: f64| (t.exp() - 1.0).exp();
        assert_close!(mean(&mut child.iter().copied()), moment(w), atol = 0.015);
        assert_close!(mean(&mut child.iter().map(|x| x * x)), moment(w) + moment(2.0 * w), atol = 0.03);
        // E x e^(w x) is the derivative of the moment.
        let mixed = mean(&mut parent.iter().zip(child).map(|(x, y)| x * y));
        assert_close!(mixed, w.exp() * moment(w), atol = 0.02);
        let given = |k: f64| {
            let pairs = parent.iter().zip(child).filter(|(x, _)| x.total_cmp(&k).is_eq());
            mean(&mut pairs.map(|(_, y)| *y))
        };
        assert_close!([given(0.0), given(2.0)], [1.0, (2.0 * w).exp()], atol = 0.03);
    }

    #[test]
    fn counts_beyond_all_bounds_are_refused_with_their_place() {
        let edges: Vec<_> = (0..8).map(|i| (i, i + 1, 2.0)).collect();
        let chain = Weights::from_edges(9, &edges).expect("a graph");
        let error = linear(&chain, 100, Noise::Poisson, 0).expect_err("refused").to_string();
        assert!(error.starts_with("the data: the mean of the count of node "), "{error}");
        assert!(error.ends_with("above 1e15; make the weights smaller or some of them negative"), "{error}");
        let mut rng = stream("test", 0);
        assert_close!(count(0.0, &mut rng).expect("a count"), 0.0, atol = 0.0);
        assert!(count(f64::NAN, &mut rng).is_err() && count(f64::INFINITY, &mut rng).is_err());
    }

    /// Second moments of draws of `n` numbers, row-major.
    fn second_moments(n: usize, draws: usize, mut draw: impl FnMut() -> Vec<f64>) -> Vec<f64> {
        let mut moments = vec![0.0; n * n];
        for _ in 0..draws {
            let x = draw();
            (0..n * n).for_each(|at| moments[at] += x[at / n] * x[at % n] / draws as f64);
        }
        moments
    }

    #[test]
    fn paths_have_the_covariance_of_their_process() {
        let (a, b) = ([0.0, 1.0, -0.5, 1.0], [0.0, 0.0, 2.0, 1e-9]);
        let mut rng = stream("test", 3);
        let found = second_moments(4, 40_000, || path(&[&a, &b], 4, &mut rng).expect("a path"));
        let expected: Vec<f64> = (0..16)
            .map(|at| (-0.5 * ((a[at / 4] - a[at % 4]).powi(2) + (b[at / 4] - b[at % 4]).powi(2))).exp())
            .collect();
        assert_close!(found, expected, atol = 0.03);
        // Points of the same place have the same value, but for what is added to the diagonal.
        let one = path(&[&a, &b], 4, &mut rng).expect("a path");
        assert_close!(one[1], one[3], atol = 1e-4);
        // As many points as are usual, most of them close to each other.
        let close: Vec<f64> = (0..600).map(|i| 1e-3 * f64::from(i)).collect();
        let path = path(&[&close], 600, &mut rng).expect("a path");
        // Its slope is normal with variance 1.
        assert!(path.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 6e-3), "{path:?}");
    }

    #[test]
    fn nodes_on_processes_have_the_covariance_of_their_mechanism() {
        // Given the parents, whose columns do not depend on the mechanism, the values of two samples have a covariance in closed form. Its mean
        // over parents, normal and independent: E exp(−(x − x')²/2) = 1/√3 for each of the two.
        let graph = Weights::from_edges(3, &[(0, 2, 1.0), (1, 2, 1.0)]).expect("a graph");
        let third = 1.0 / 3.0_f64;
        for (mechanism, variance, covariance) in
            [(Mechanism::Gp, 2.0, third), (Mechanism::GpAdd, 3.0, 2.0 * third.sqrt())]
        {
            let mut seed = 0;
            let found = second_moments(2, 20_000, || {
                seed += 1;
                nonlinear(&graph, 2, mechanism, seed).expect("samples").columns()[2].clone()
            });
            assert_close!(found, [variance, covariance, covariance, variance], atol = 0.1);
        }
    }
}
