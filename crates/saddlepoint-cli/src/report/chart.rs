//! Line charts as inline SVG that read in light and dark; `page.js` adds the values under the pointer.

use std::fmt::Write as _;

use saddlepoint_core::axis::Axis;
use saddlepoint_core::reproduce::Curve;

use super::escape;
use crate::output::number;

/// Width of a chart in its own pixels; the page scales it.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// More points than this are averaged in groups, and the caption says so.
const POINTS: usize = 400;
/// With at least this many points a moving average is drawn over the raw line.
const SMOOTHED: usize = 60;

/// A chart of curves, each `(x, value)`.
#[derive(Debug, Clone)]
pub(super) struct Chart<'a> {
    /// What is shown.
    pub(super) title: &'a str,
    /// What is to the right; optimizer steps if it is not said.
    pub(super) x: Option<&'a str>,
    /// The curves, at most six.
    pub(super) curves: Vec<Curve>,
    /// Points with their intervals, drawn as crosses in the colour of the curve with that index.
    pub(super) crosses: Vec<Cross>,
    /// A horizontal line that the curves are held to, with its name.
    pub(super) limit: Option<(f64, &'a str)>,
    /// Whether a logarithmic axis may be used; it is, where the values are positive and span a factor of 30.
    pub(super) may_log: bool,
    /// Whether the curve scatters from step to step, so that a moving average helps.
    pub(super) noisy: bool,
}

/// A point with the intervals of both of its coordinates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cross {
    /// Which curve it belongs to.
    pub(super) curve: usize,
    /// To the right.
    pub(super) x: [f64; 2],
    /// Upwards.
    pub(super) y: [f64; 2],
    /// The point.
    pub(super) at: (f64, f64),
}

impl Chart<'_> {
    /// The chart as an HTML figure.
    pub(super) fn render(&self) -> String {
        let mut captions: Vec<String> = self.x.map(|x| format!("to the right: {x}")).into_iter().collect();
        let curves: Vec<Curve> = self
            .curves
            .iter()
            .map(|curve| {
                let (curve, group) = thin(curve);
                let note = format!("each point is the mean of {group} logged values");
                if group > 1 && !captions.contains(&note) {
                    captions.push(note);
                }
                curve
            })
            .collect();
        let steps = curves.iter().flat_map(|c| c.points.iter().map(|p| p.0));
        let steps = range(steps.chain(self.crosses.iter().flat_map(|cross| cross.x)));
        let values = curves.iter().flat_map(|c| c.points.iter().map(|p| p.1)).chain(self.limit.map(|l| l.0));
        let values = values.chain(self.crosses.iter().flat_map(|cross| cross.y));
        let (low, high) = range(values);
        let log = self.may_log && low > 0.0 && high / low >= 30.0;
        if log {
            captions.push("logarithmic scale".to_owned());
        }
        let x = Axis::new(steps.0, steps.1, false, LEFT, WIDTH - RIGHT);
        let pad = if log { 0.0 } else { (high - low) * 0.06 };
        let y = Axis::new(low - pad, high + pad, log, HEIGHT - BOTTOM, TOP);

        let mut svg = String::new();
        grid(&mut svg, &y, &x, &if self.x.is_some() { x.ticks(5) } else { x.whole_ticks(5) });
        if let Some((value, name)) = self.limit {
            let at = y.place(value);
            // The name stands above the line unless the line is at the top.
            let text = if at < TOP + 16.0 { at + 14.0 } else { at - 5.0 };
            let _ = write!(
                svg,
                r#"<line class="limit" x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}"/><text class="limit" x="{}" y="{text:.1}">{} {}</text>"#,
                WIDTH - RIGHT,
                LEFT + 4.0,
                escape(name),
                number(value),
            );
        }
        let mut averaged = 0;
        for (index, curve) in curves.iter().enumerate() {
            let window =
                if self.noisy && curve.points.len() >= SMOOTHED { curve.points.len() / 20 } else { 0 };
            averaged = averaged.max(window);
            line(&mut svg, &x, &y, index, &curve.points, if window > 0 { "raw" } else { "" });
            if window > 0 {
                line(&mut svg, &x, &y, index, &smooth(&curve.points, window), "smooth");
            }
        }
        for &Cross { curve, x: [left, right], y: [low, high], at } in &self.crosses {
            line(&mut svg, &x, &y, curve, &[(left, at.1), (right, at.1)], "bar");
            line(&mut svg, &x, &y, curve, &[(at.0, low), (at.0, high)], "bar");
            line(&mut svg, &x, &y, curve, &[at], "");
        }
        if averaged > 0 {
            captions.push(format!("strong line: moving average over {} points", 2 * averaged + 1));
        }
        format!(
            r#"<figure><figcaption><b>{}</b>{}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}" data-x="{}" data-chart="{}">{svg}</svg><p class="note">{}</p></figure>"#,
            escape(self.title),
            legend(&curves),
            escape(self.title),
            escape(self.x.unwrap_or("step")),
            escape(&data(&curves, &x, &y)),
            captions.join(" · "),
        )
    }
}

fn grid(svg: &mut String, y: &Axis, x: &Axis, right: &[(f64, String)]) {
    for (value, label) in y.ticks(4) {
        let at = y.place(value);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}"/><text x="{}" y="{:.1}" text-anchor="end">{label}</text>"#,
            WIDTH - RIGHT,
            LEFT - 7.0,
            at + 4.0,
        );
    }
    for (value, label) in right {
        let at = x.place(*value);
        // A label in the middle of the last tick would be cut at the edge.
        let anchor = if at > WIDTH - 2.0 * RIGHT { "end" } else { "middle" };
        let _ =
            write!(svg, r#"<text x="{at:.1}" y="{}" text-anchor="{anchor}">{label}</text>"#, HEIGHT - 8.0);
    }
}

fn line(svg: &mut String, x: &Axis, y: &Axis, index: usize, points: &[(f64, f64)], class: &str) {
    if let [(step, value)] = points {
        let _ = write!(
            svg,
            r#"<circle class="c{index}" cx="{:.1}" cy="{:.1}" r="3"/>"#,
            x.place(*step),
            y.place(*value)
        );
        return;
    }
    let _ = write!(svg, r#"<polyline class="c{index} {class}" points=""#);
    for (step, value) in points {
        let _ = write!(svg, "{:.1},{:.1} ", x.place(*step), y.place(*value));
    }
    svg.push_str(r#""/>"#);
}

fn legend(curves: &[Curve]) -> String {
    let mut html = String::new();
    for (index, curve) in curves.iter().enumerate() {
        let _ = write!(html, r#"<span class="key c{index}">{}</span>"#, escape(&curve.name));
    }
    html
}

/// What the script needs to show values: per curve the pixels and the numbers as they are to be read.
fn data(curves: &[Curve], x: &Axis, y: &Axis) -> String {
    let tenth = |v: f64| (v * 10.0).round() / 10.0;
    let curves: Vec<_> = curves
        .iter()
        .map(|curve| {
            let (mut at, mut text) = (Vec::new(), Vec::new());
            for (step, value) in &curve.points {
                at.push((tenth(x.place(*step)), tenth(y.place(*value))));
                text.push((number(*step), number(*value)));
            }
            serde_json::json!({ "name": curve.name, "at": at, "text": text })
        })
        .collect();
    serde_json::Value::from(curves).to_string()
}

/// The curve with at most [`POINTS`] points, and how many values each point is the mean of.
fn thin(curve: &Curve) -> (Curve, usize) {
    let group = curve.points.len().div_ceil(POINTS).max(1);
    let points = curve.points.chunks(group).map(|points| {
        let n = points.len() as f64;
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
    });
    (Curve { name: curve.name.clone(), points: points.collect() }, group)
}

/// Centred moving average over `2 window + 1` points; at the ends over those that there are.
fn smooth(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    (0..points.len())
        .map(|i| {
            let near = &points[i.saturating_sub(window)..(i + window + 1).min(points.len())];
            (points[i].0, near.iter().map(|p| p.1).sum::<f64>() / near.len() as f64)
        })
        .collect()
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: impl IntoIterator<Item = f64>) -> Curve {
        let points = points.into_iter().enumerate().map(|(i, v)| (i as f64 + 1.0, v)).collect();
        Curve { name: "loss".into(), points }
    }

    fn chart(curve: Curve) -> Chart<'static> {
        Chart {
            title: "Loss",
            x: None,
            curves: vec![curve],
            limit: None,
            crosses: Vec::new(),
            may_log: true,
            noisy: true,
        }
    }

    #[test]
    fn long_curves_are_averaged_and_the_caption_says_so() {
        let long = curve((0..1000).map(f64::from));
        let (short, group) = thin(&long);
        assert_eq!((short.points.len(), group), (334, 3));
        assert_eq!(short.points[0], (2.0, 1.0));
        assert!(chart(long).render().contains("each point is the mean of 3 logged values"));
    }

    #[test]
    fn the_moving_average_keeps_a_straight_line() {
        let line = curve((0..100).map(|i| 2.0 * f64::from(i)));
        let smoothed = smooth(&line.points, 5);
        for i in 5..95 {
            assert!((smoothed[i].1 - line.points[i].1).abs() < 1e-9);
        }
        assert!((smoothed[0].1 - 5.0).abs() < 1e-9, "the mean of the first six points");
    }

    #[test]
    fn a_wide_positive_range_is_drawn_on_a_logarithmic_axis() {
        assert!(chart(curve([1.0, 100.0])).render().contains("logarithmic"));
        assert!(!chart(curve([1.0, 10.0])).render().contains("logarithmic"));
        assert!(!chart(curve([-1.0, 100.0])).render().contains("logarithmic"));
    }

    #[test]
    fn one_point_and_a_limit_are_drawn() {
        let mut one = chart(curve([0.5]));
        one.limit = Some((2.0, "budget <b>"));
        let html = one.render();
        assert!(html.contains("<circle"), "{html}");
        assert!(html.contains("budget &lt;b&gt; 2"), "{html}");
    }
}
