//! The protein network of Sachs et al. 2005: real data with a graph that experts agree on.

use saddlepoint_apps::dag::{Data, Scaling, Topo, compare, known, random_order, score};
use saddlepoint_core::test::data;

#[test]
fn the_cells_are_read_and_a_graph_at_the_conditions_is_found() {
    let Some(folder) = data("opt/dag") else { return };
    let cells = Data::read(&folder.join("sachs.2005.continuous.txt")).expect("reads");
    assert_eq!((cells.nodes(), cells.rows()), (11, 7466));
    let truth = known::read(&folder.join("sachs.2005.ground.truth.graph.txt"), cells.names()).expect("reads");
    assert_eq!(truth.edges().len(), 20);
    assert!(truth.order().is_some());
    let cells = cells.scaled(Scaling::Standardise).expect("scales");
    let squares = score::LeastSquares::new(&cells).expect("moments");
    let lasso = score::Lasso::new(&cells, 0.05).expect("moments");
    for score in [&squares as &dyn score::Score, &lasso] {
        let found = Topo::default().run(score, &random_order(11, 0, 0)).expect("runs");
        assert!(found.kkt.holds() && found.finished, "{:?}", found.kkt);
        let metrics = compare(&found.weights.thresholded(0.1), &truth);
        assert!(metrics.edges > 5 && metrics.shd < 40, "{metrics:?}");
    }
}
