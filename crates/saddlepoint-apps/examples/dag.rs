//! Three ways to a graph on samples of a random one: `cargo run --release -p saddlepoint-apps --example dag -- [NODES] [DEGREE] [SEED]`.
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use saddlepoint_apps::dag::{
    Dagma, Kkt, Notears, Scaling, Topo, Weights, compare, random_order, score, simulate,
};
use saddlepoint_core::clock::Stopwatch;

fn main() -> Result<(), saddlepoint_apps::Error> {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<usize>().ok());
    let mut next = |default: usize| arguments.next().flatten().unwrap_or(default);
    let (d, degree, seed) = (next(20), next(2), next(0) as u64);

    let truth = simulate::weighted(&simulate::erdos_renyi(d, degree * d, seed)?, seed);
    let data = simulate::linear(&truth, 1000, simulate::Noise::Gaussian, seed)?.scaled(Scaling::Centre)?;
    let squares = score::LeastSquares::new(&data)?;
    let tell = |name: &str, seconds: f64, graph: &Weights, score: f64, kkt: &Kkt| {
        let shd = compare(graph, &truth).shd;
        println!(
            "{name:14} score {score:9.4}  SHD {shd:3}  KKT residual {:7.1e}  {seconds:8.3} s",
            kkt.residual
        );
    };

    let watch = Stopwatch::start();
    let found = Topo::default().run(&squares, &random_order(d, seed, 0))?;
    tell("topo", watch.seconds(), &found.weights.thresholded(0.3), found.score(), &found.kkt);

    let watch = Stopwatch::start();
    let notears = Notears::default().run(&data)?;
    let dagma_from = watch.seconds();
    let dagma = Dagma::default().run(&data)?;
    let ended = watch.seconds();
    for (name, seconds, relaxed) in [("notears", dagma_from, notears), ("dagma", ended - dagma_from, dagma)] {
        let fits = squares.at(&relaxed.weights);
        tell(name, seconds, &relaxed.weights, score::total(&fits), &Kkt::of(&squares, &fits));
        relaxed.notes.iter().for_each(|note| println!("  note: {note}"));
        let watch = Stopwatch::start();
        let found = Topo::default().run(&squares, &relaxed.order())?;
        let graph = found.weights.thresholded(0.3);
        tell("  then topo", watch.seconds(), &graph, found.score(), &found.kkt);
    }
    Ok(())
}
