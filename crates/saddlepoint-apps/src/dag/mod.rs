//! Directed acyclic graphs learned from data.
//!
//! ```text
//! minimise  F(W) = Σ_j F_j(column j of W)   subject to   the graph of W has no cycle
//! ```
//! The edge `i -> j` is `W_ij`: column `j` holds the parents of `j`.
//!
//! ```
//! use saddlepoint_apps::dag::{Data, Scaling, Topo, compare, random_order, score::LeastSquares, simulate};
//!
//! let truth = simulate::weighted(&simulate::erdos_renyi(10, 10, 7)?, 7);
//! let data = simulate::linear(&truth, 1000, simulate::Noise::Gaussian, 7)?.scaled(Scaling::Centre)?;
//! let found = Topo::default().run(&LeastSquares::new(&data)?, &random_order(10, 7, 0))?;
//! assert!(found.kkt.holds());
//! let metrics = compare(&found.weights.thresholded(0.3), &truth);
//! println!("score {:.4}, SHD {}", found.score(), metrics.shd);
//! # assert!(metrics.shd <= 2, "{metrics:?}");
//! # Ok::<(), saddlepoint_apps::Error>(())
//! ```
//!
//! | module or type | what it gives |
//! |---|---|
//! | [`Data`], [`Scaling`] | samples from tables |
//! | [`score`] | what is minimised, and the regressions |
//! | [`Topo`] | the search over orders by topological swaps |
//! | [`Notears`], [`Dagma`] | graphs by continuous optimisation, also as starts of the search |
//! | [`Acyclicity`], [`walks`] | functions that are 0 without a cycle, and their gradients |
//! | [`Kkt`] | the first-order conditions, by common code |
//! | [`simulate`], [`compare`], [`known`] | random graphs and samples, distances from the truth, true graphs from files |
//! | [`draw`] | DOT and SVG |

mod acyclicity;
mod continuous;
mod dagma;
mod data;
pub mod draw;
mod graph;
mod kkt;
pub mod known;
mod metrics;
mod notears;
pub mod score;
pub mod simulate;
mod topo;

pub use acyclicity::{Acyclicity, walks};
pub use continuous::Relaxed;
pub use dagma::Dagma;
pub use data::{Data, Scaling};
pub use graph::{Swap, Weights, check_order};
pub use kkt::Kkt;
pub use metrics::{Metrics, compare};
pub use notears::Notears;
pub use topo::{Choice, Found, Topo, random_order};
