// Line charts and histograms in SVG, drawn at the width they have, redrawn when it changes.
"use strict";
const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 52, right: 12, top: 8, bottom: 34 };
const HEIGHT = 220;

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function html(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function shortNumber(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e4) return (value / 1e3).toLocaleString("en", { maximumFractionDigits: 1 }) + "k";
  return size >= 1e-3 ? String(Number(value.toPrecision(4))) : value.toExponential(1);
}

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
    const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    const every = Math.ceil(inside.length / 6);
    return inside.length > 1 ? inside.filter((_, at) => at % every === 0) : [low, high];
  }
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(Number((at * step).toPrecision(12)));
  return found;
}

function scale(low, high, from, to, log) {
  const f = log ? Math.log : (value) => value;
  const spread = f(high) - f(low) || 1;
  return (value) => from + ((f(value) - f(low)) / spread) * (to - from);
}

function axes(svg, width, x, y, xTicks, yTicks, xName) {
  for (const value of yTicks) {
    svg.append(element("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }));
    svg.append(element("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, shortNumber(value)));
  }
  let taken = -Infinity;
  for (const value of xTicks) {
    if (x(value) - taken < 34) continue;
    taken = x(value);
    svg.append(element("text", { x: taken, y: HEIGHT - MARGIN.bottom + 15, "text-anchor": "middle" }, shortNumber(value)));
  }
  svg.append(element("text", { x: (MARGIN.left + width - MARGIN.right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, xName));
}

// spec: title, x (name of the axis), log (x), logY, markers, key (draw a legend),
// series: [{name, colour, dash, points: [[x, y, sd]]}]
function lineChart(host, spec) {
  const figure = html("figure", "chart");
  figure.append(html("figcaption", "", spec.title));
  const svg = element("svg", { height: HEIGHT, tabindex: 0, role: "img", "aria-label": `${spec.title}, ${spec.series.length} curves over ${spec.x}` });
  const tip = html("div", "tip");
  tip.hidden = true;
  figure.append(svg, tip);
  if (spec.key) figure.append(legend(spec.series));
  host.append(figure);
  let read = null;

  function draw() {
    const width = svg.clientWidth || 320;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const series = spec.series.filter((one) => one.points.length && !one.hidden?.());
    const points = series.flatMap((one) => one.points);
    if (!points.length) return;
    const xs = points.map((point) => point[0]);
    const ys = points.flatMap((point) => [point[1] - (point[2] || 0), point[1] + (point[2] || 0)]);
    const logY = (spec.logY?.() ?? false) && Math.min(...ys) > 0;
    let low = Math.min(...ys), high = Math.max(...ys);
    if (low === high) { low -= Math.abs(low) * 0.05 || 0.5; high += Math.abs(high) * 0.05 || 0.5; }
    if (!logY) { const room = (high - low) * 0.05; low -= room; high += room; }
    let left = Math.min(...xs), right = Math.max(...xs);
    if (left === right) { left -= 0.5; right += 0.5; }
    const logX = spec.log && left > 0;
    const x = scale(left, right, MARGIN.left, width - MARGIN.right, logX);
    const y = scale(low, high, HEIGHT - MARGIN.bottom, MARGIN.top, logY);
    const places = [...new Set(xs)].sort((a, b) => a - b);
    axes(svg, width, x, y, spec.markers ? places : ticks(left, right, logX), ticks(low, high, logY), spec.x);
    for (const one of series) {
      const line = one.points.map((point, at) => `${at ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
      svg.append(element("path", { class: `c${one.colour}`, d: line, ...(one.dash ? { "stroke-dasharray": one.dash } : {}) }));
      if (!spec.markers && one.points.length > 1) continue;
      for (const [px, py, sd] of one.points) {
        if (sd) svg.append(element("line", { class: `bar-sd c${one.colour}`, x1: x(px), x2: x(px), y1: y(py - sd), y2: y(py + sd) }));
        svg.append(element("circle", { class: `c${one.colour}`, cx: x(px), cy: y(py), r: 3 }));
      }
    }
    const cross = element("line", { class: "cross", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    svg.append(cross);
    read = (at) => {
      const value = places[Math.max(0, Math.min(places.length - 1, at))];
      cross.setAttribute("x1", x(value));
      cross.setAttribute("x2", x(value));
      cross.setAttribute("visibility", "visible");
      tip.replaceChildren(html("div", "", `${spec.x} ${shortNumber(value)}`));
      for (const one of series) {
        const near = one.points.reduce((best, point) => (Math.abs(point[0] - value) < Math.abs(best[0] - value) ? point : best));
        tip.append(html("div", `chip c${one.colour}`, `${one.name}: ${shortNumber(near[1])}${near[2] ? ` ± ${shortNumber(near[2])}` : ""}`));
      }
      tip.hidden = false;
      tip.style.top = "2rem";
      tip.style.left = x(value) > width / 2 ? ".5rem" : "auto";
      tip.style.right = x(value) > width / 2 ? "auto" : ".5rem";
    };
    svg.onpointermove = (event) => {
      const box = svg.getBoundingClientRect();
      const at = places.map((value) => Math.abs(x(value) - (event.clientX - box.left)));
      svg.dataset.at = at.indexOf(Math.min(...at));
      read(Number(svg.dataset.at));
    };
    svg.onpointerleave = svg.onblur = () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); };
    svg.onkeydown = (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      svg.dataset.at = Math.max(0, Math.min(places.length - 1, Number(svg.dataset.at ?? -1) + move));
      read(Number(svg.dataset.at));
    };
  }
  whenWide(figure, draw);
  return draw;
}

// layer: name, edges, positive and negative (densities), overlap
function histogram(host, layer) {
  const figure = html("figure", "chart");
  figure.append(html("figcaption", "", `${layer.name}: overlap ${layer.overlap.toFixed(2)}, rank ${layer.rank.toFixed(3)}`));
  const svg = element("svg", { height: HEIGHT, role: "img", "aria-label": `${layer.name}: positives and negatives overlap by ${layer.overlap.toFixed(2)}` });
  figure.append(svg, legend([{ name: `positives, mean ${layer.positive_mean.toFixed(2)}`, colour: 0 }, { name: `negatives, mean ${layer.negative_mean.toFixed(2)}`, colour: 1 }]));
  host.append(figure);
  const used = layer.edges.slice(0, -1).map((_, at) => at).filter((at) => layer.positive[at] > 0 || layer.negative[at] > 0);
  const first = used[0] ?? 0, last = used.at(-1) ?? layer.positive.length - 1;
  whenWide(figure, () => {
    const width = svg.clientWidth || 320;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const top = Math.max(...layer.positive, ...layer.negative);
    const x = scale(layer.edges[first], layer.edges[last + 1], MARGIN.left, width - MARGIN.right);
    const y = scale(0, top || 1, HEIGHT - MARGIN.bottom, MARGIN.top);
    axes(svg, width, x, y, ticks(layer.edges[first], layer.edges[last + 1]), ticks(0, top || 1), "cosine similarity");
    for (const [values, colour] of [[layer.negative, 1], [layer.positive, 0]]) {
      let path = `M${x(layer.edges[first])} ${y(0)}`;
      for (let at = first; at <= last; at++) path += `L${x(layer.edges[at]).toFixed(1)} ${y(values[at]).toFixed(1)}L${x(layer.edges[at + 1]).toFixed(1)} ${y(values[at]).toFixed(1)}`;
      svg.append(element("path", { class: `area c${colour}`, d: `${path}L${x(layer.edges[last + 1])} ${y(0)}Z` }));
    }
  });
}

function legend(series) {
  const keys = html("div", "keys");
  for (const one of series) keys.append(html("span", `chip c${one.colour}`, one.name));
  return keys;
}

function whenWide(figure, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (figure.clientWidth !== width) { width = figure.clientWidth; draw(); }
  }).observe(figure);
}
