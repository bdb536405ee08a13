//! Random graphs and samples of the models on them, in the conventions of NOTEARS.
//!
//! # Reference
//! Zheng et al. 2018, arXiv:1803.01422, §5, and Zheng et al. 2020, arXiv:1909.13189, §5, for the nonlinear mechanisms.
//!
//! # Differences
//! Poisson counts and mechanisms drawn from Gaussian processes are left out.

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Bernoulli, Distribution, Exp1, Gumbel, StandardNormal, Uniform};
use saddlepoint_core::seed::Seed;

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
}

/// How a node depends on its parents, with normal noise of variance 1 added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// A random network with 100 hidden sigmoid units.
    Mlp,
    /// `tanh(x w₁) + cos(x w₂) + sin(x w₃)`.
    Mim,
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

/// `n` samples of `x_j = Σ_i W_ij x_i + noise`, or of labels with these log-odds.
///
/// # Errors
/// A graph with a cycle; fewer than 2 samples; labels that are all equal.
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
            for x in &mut x {
                *x = match noise {
                    Noise::Gaussian => *x + rng_normal(rng),
                    Noise::Exponential => *x + <Exp1 as Distribution<f64>>::sample(&Exp1, rng),
                    Noise::Gumbel => *x + Gumbel::new(0.0, 1.0).expect("a scale").sample(rng),
                    Noise::Uniform => *x + Uniform::new(-1.0, 1.0).expect("an interval").sample(rng),
                    Noise::Logistic => {
                        let p = 1.0 / (1.0 + (-*x).exp());
                        f64::from(u8::from(Bernoulli::new(p).expect("a probability").sample(rng)))
                    }
                };
            }
            x
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
            if p > 0 {
                match mechanism {
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
                }
            }
            for x in &mut x {
                *x += rng_normal(rng);
            }
            x
        },
        seed,
    )
}

fn rng_normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

/// Samples column by column along the graph; `node` makes one of its parents' columns.
fn sample(
    graph: &Weights,
    n: usize,
    mut node: impl FnMut(usize, &[(usize, &Vec<f64>)], &mut ChaCha8Rng) -> Vec<f64>,
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
        let column = node(j, &parents, &mut rng);
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
}
