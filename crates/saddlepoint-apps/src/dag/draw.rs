//! Graphs as pictures: DOT for Graphviz, and SVG by itself.

use std::fmt::Write as _;

use super::graph::Weights;

/// In the language of Graphviz, with the weights as labels.
pub fn dot(graph: &Weights, names: &[String]) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = "digraph {\n".to_owned();
    for name in names {
        let _ = writeln!(text, "  {};", quoted(name));
    }
    for (i, j, w) in graph.edges() {
        let _ = writeln!(text, "  {} -> {} [label=\"{w:.3}\"];", quoted(&names[i]), quoted(&names[j]));
    }
    text.push_str("}\n");
    text
}

/// Places of the nodes in the picture, in its units.
const COLUMN: f64 = 150.0;
const ROW: f64 = 90.0;
const HEIGHT: f64 = 32.0;

/// As a picture: each node one layer below the lowest of its parents, edges as thick as their weights, negative ones dashed. A graph with a
/// cycle stands in one row.
pub fn svg(graph: &Weights, names: &[String]) -> String {
    let layers = layers(graph);
    let widest = layers.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let mut centre = vec![(0.0, 0.0); names.len()];
    for (k, layer) in layers.iter().enumerate() {
        let left = (widest - layer.len()) as f64 / 2.0;
        for (place, &node) in layer.iter().enumerate() {
            centre[node] = ((left + place as f64 + 0.5) * COLUMN, (k as f64 + 0.5) * ROW);
        }
    }
    let (width, height) = (widest as f64 * COLUMN, layers.len().max(1) as f64 * ROW);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<defs><marker id=\"tip\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" \
         markerWidth=\"10\" markerHeight=\"10\" markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0 10 5 0 10z\" \
         fill=\"#555\"/></marker></defs>\n"
    );
    let largest = graph.values().iter().fold(f64::MIN_POSITIVE, |most, w| most.max(w.abs()));
    for (i, j, w) in graph.edges() {
        let ((x1, y1), (x2, y2)) = (centre[i], centre[j]);
        let thickness = 0.8 + 2.2 * w.abs() / largest;
        let dashes = if w < 0.0 { " stroke-dasharray=\"6 4\"" } else { "" };
        // Between layers from the lower side to the upper one, bent so that edges over several layers part; in a row in an arc above.
        let path = if y2 > y1 {
            let (from, to) = (y1 + HEIGHT / 2.0, y2 - HEIGHT / 2.0);
            let bend = (to - from) / 2.0;
            format!("M{x1:.1} {from:.1}C{x1:.1} {:.1} {x2:.1} {:.1} {x2:.1} {to:.1}", from + bend, to - bend)
        } else {
            let top = y1.min(y2) - HEIGHT / 2.0;
            format!("M{x1:.1} {top:.1}Q{:.1} {:.1} {x2:.1} {top:.1}", f64::midpoint(x1, x2), top - 30.0)
        };
        let [from, to] = [i, j].map(|k| escaped(&names[k]));
        let _ = writeln!(
            text,
            "<path d=\"{path}\" fill=\"none\" stroke=\"#555\" stroke-width=\"{thickness:.2}\"{dashes} marker-end=\"url(#tip)\">\
             <title>{from} → {to}: {w:.4}</title></path>"
        );
    }
    for (name, (x, y)) in names.iter().zip(&centre) {
        let (box_width, name) = (COLUMN * 0.8, escaped(&shortened(name)));
        let _ = writeln!(
            text,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{box_width}\" height=\"{HEIGHT}\" rx=\"8\" fill=\"#eef3fa\" stroke=\"#7a8fb0\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            x - box_width / 2.0,
            y - HEIGHT / 2.0,
            y + 4.5
        );
    }
    text.push_str("</svg>\n");
    text
}

/// The nodes by the length of the longest path to them.
fn layers(graph: &Weights) -> Vec<Vec<usize>> {
    let d = graph.nodes();
    let Some(order) = graph.order() else { return vec![(0..d).collect()] };
    let mut depth = vec![0; d];
    for &j in &order {
        let parents = (0..d).filter(|&i| graph.get(i, j) != 0.0);
        depth[j] = parents.map(|i| depth[i] + 1).max().unwrap_or(0);
    }
    let count = depth.iter().max().map_or(0, |most| most + 1);
    (0..count).map(|layer| (0..d).filter(|&j| depth[j] == layer).collect()).collect()
}

/// What fits into a box.
fn shortened(name: &str) -> String {
    if name.chars().count() <= 15 { name.to_owned() } else { name.chars().take(14).chain(['…']).collect() }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Not allowed in XML at all.
            c if c < ' ' && !"\t\n\r".contains(c) => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> [String; 3] {
        ["a", "b \"<&>\" \u{1}", "a name that is too long for its box"].map(str::to_owned)
    }

    #[test]
    fn dot_has_every_node_and_edge_with_quotes_escaped() {
        let graph = Weights::from_edges(3, &[(0, 1, 1.5), (1, 2, -0.25)]).expect("a graph");
        let text = dot(&graph, &names());
        assert!(text.contains("  \"a\" -> \"b \\\"<&>\\\" \u{1}\" [label=\"1.500\"];\n"), "{text}");
        assert!(
            text.starts_with("digraph {\n  \"a\";\n") && text.ends_with("[label=\"-0.250\"];\n}\n"),
            "{text}"
        );
    }

    #[test]
    fn a_picture_has_a_layer_for_each_step_and_escapes_names() {
        let graph = Weights::from_edges(3, &[(0, 1, 1.5), (1, 2, -0.25), (0, 2, 1.0)]).expect("a graph");
        let text = svg(&graph, &names());
        assert_eq!((text.matches("<path d=\"M").count(), text.matches("<rect").count()), (4, 3), "{text}");
        assert_eq!(text.matches("stroke-dasharray").count(), 1);
        assert!(
            text.contains("b &quot;&lt;&amp;&gt;&quot; \u{fffd}</text>") && text.contains("height=\"270\""),
            "{text}"
        );
        assert!(text.contains("a name that is…</text>"), "{text}");
        assert_eq!(layers(&graph), [[0], [1], [2]]);
        let cycle = Weights::from_edges(2, &[(0, 1, 1.0), (1, 0, 1.0)]).expect("a graph");
        assert!(svg(&cycle, &names()[..2]).contains("Q150.0"));
        assert!(svg(&Weights::none(0), &[]).starts_with("<svg"));
    }
}
