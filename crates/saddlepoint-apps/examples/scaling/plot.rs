//! Powers on logarithmic axes, as a picture by itself that reads in light and dark.

use std::fmt::Write as _;

use saddlepoint_core::axis::Axis;

use crate::series::{Point, Series};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
/// Where the axes end and the names begin.
const RIGHT: f64 = 470.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 336.0;

const STYLE: &str = "\
svg{--ink:#1c2024;--soft:#62707c;--rule:#e3e6e8;--c0:#2563eb;--c1:#d9660a;--c2:#0d9065;--c3:#9333ea;--c4:#be185d;--c5:#57606a;\
background:#fff;font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{--ink:#e6e9eb;--soft:#98a4ae;--rule:#2d3338;--c0:#6ea8fe;--c1:#f5a25d;--c2:#4cc38a;--c3:#c79bff;\
--c4:#f38ab8;--c5:#a8b3bd;background:#1b1f23}}
text{fill:var(--soft)}.name{fill:var(--ink)}.grid{stroke:var(--rule)}.fit{stroke:var(--c);stroke-width:1.4}circle{fill:var(--c)}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}";

/// Seconds against a size: a mark a problem, a line a power. At most six series have colours of their own.
pub(crate) fn svg(size: &str, series: &[Series]) -> String {
    let solved = |series: &Series| -> Vec<Point> {
        series.points.iter().filter(|point| point.solve.solved).copied().collect()
    };
    let points: Vec<Point> = series.iter().flat_map(solved).collect();
    let range = |of: fn(&Point) -> f64| {
        points
            .iter()
            .map(of)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (sizes, seconds) = (range(|p| p.size), range(|p| p.seconds));
    let x = Axis::new(sizes.0 / 1.1, sizes.1 * 1.1, true, LEFT, RIGHT);
    let y = Axis::new(seconds.0 / 1.5, seconds.1 * 1.5, true, BOTTOM, TOP);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="seconds against {size}"><style>{STYLE}</style>"#
    );
    svg.push('\n');
    for (value, label) in y.ticks(6) {
        let (at, text) = (y.place(value), LEFT - 7.0);
        let _ = writeln!(
            svg,
            r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1}" y2="{at:.1}"/><text x="{text}" y="{:.1}" text-anchor="end">{label}</text>"#,
            at + 4.0
        );
    }
    for (value, label) in x.ticks(6) {
        let at = x.place(value);
        let _ = writeln!(
            svg,
            r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{BOTTOM}"/><text x="{at:.1}" y="{}" text-anchor="middle">{label}</text>"#,
            BOTTOM + 17.0
        );
    }
    let _ = writeln!(
        svg,
        r#"<text x="{}" y="{}" text-anchor="middle">{size}</text><text transform="translate(14 {}) rotate(-90)" text-anchor="middle">seconds</text>"#,
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 36.0,
        f64::midpoint(TOP, BOTTOM)
    );
    for (index, each) in series.iter().enumerate() {
        let (points, power) = (solved(each), each.power(|point| point.seconds));
        let _ = write!(svg, r#"<g class="c{index}">"#);
        if power.exponent.is_finite() {
            let ends = each.sizes();
            let [(x1, y1), (x2, y2)] = [ends.first(), ends.last()].map(|end| {
                let size = end.map_or(1.0, |end| end.0);
                (x.place(size), y.place(power.at(size)))
            });
            let _ = write!(svg, r#"<line class="fit" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
        }
        for point in points {
            let (cx, cy) = (x.place(point.size), y.place(point.seconds));
            let _ = write!(svg, r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="3"/>"#);
        }
        let (mark, text, down) = (RIGHT + 24.0, RIGHT + 36.0, TOP + 16.0 + 40.0 * index as f64);
        let _ = writeln!(
            svg,
            r#"<circle cx="{mark}" cy="{}" r="4"/><text class="name" x="{text}" y="{down}">{}</text><text x="{text}" y="{}">{}, exponent {:.2}</text></g>"#,
            down - 4.0,
            each.solver,
            down + 15.0,
            each.on,
            power.exponent
        );
    }
    svg.push_str("</svg>\n");
    svg
}
