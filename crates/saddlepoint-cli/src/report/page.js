// Shows the values nearest to the pointer on every chart.
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const curves = JSON.parse(svg.dataset.chart);
  const figure = svg.parentElement;
  const tip = document.createElement("div");
  tip.className = "tip";
  const layer = document.createElementNS(svg.namespaceURI, "g");
  const add = (name, attributes) => {
    const element = document.createElementNS(svg.namespaceURI, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    layer.append(element);
  };
  const hide = () => { layer.remove(); tip.remove(); };
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const found = curves.map((curve) => {
      let best = 0;
      curve.at.forEach((p, i) => { if (Math.abs(p[0] - x) < Math.abs(curve.at[best][0] - x)) best = i; });
      return { curve, at: curve.at[best], text: curve.text[best] };
    });
    const nearest = found.reduce((a, b) => Math.abs(b.at[0] - x) < Math.abs(a.at[0] - x) ? b : a);
    layer.replaceChildren();
    add("line", { class: "hair", x1: nearest.at[0], x2: nearest.at[0], y1: 12, y2: svg.viewBox.baseVal.height - 28 });
    tip.replaceChildren(svg.dataset.x + "  " + nearest.text[0]);
    found.forEach(({ curve, at, text }, i) => {
      if (Math.abs(at[0] - nearest.at[0]) > 4) return;
      add("circle", { class: "c" + i, cx: at[0], cy: at[1], r: 3.5 });
      tip.append(document.createElement("br"), curve.name + "  " + text[1]);
    });
    svg.append(layer);
    figure.append(tip);
    const frame = figure.getBoundingClientRect();
    const left = box.left - frame.left + nearest.at[0] * box.width / svg.viewBox.baseVal.width;
    tip.style.left = Math.max(6, left > figure.clientWidth / 2 ? left - tip.offsetWidth - 12 : left + 12) + "px";
    tip.style.top = box.top - frame.top + 8 + "px";
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}
