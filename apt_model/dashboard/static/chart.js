/** Curves by uPlot, with a legend that shape and dash tell apart, and the part of the lesson after the cursor veiled. */
import {drawForks} from "./branch_mark.js";
import {colour, el, keep, part} from "./dom.js";
import {extent, goTo, room} from "./state.js";
import {say, speech} from "./words.js";

const HEIGHT = 200;
const REACH = 5; // a point at the edge sticks out by so much
const DASHES = { solid: [], dashed: [8, 5], dotted: [2, 4], mixed: [10, 4, 2, 4] };
const charts = new Map();

/**
 * Draw one chart into `box`.
 *
 * `plot`: {name, title, note, unit, show, range, lines: [{name, tone, dash, ghost, pointed, points, x: [step], y: [value|null]}]};
 * a ghost is a line of the lesson compared with, thinner and paler. `show` makes text of a value. A line may have a `band`, the
 * [low, high] of each value, which is shaded.
 */
export function drawChart(box, plot) {
  const figure = part(box, `chart chart-${plot.name}`, "figure");
  const shape = [speech.language, room.theme, plot.title, plot.lines.map((line) => [line.name, line.ghost, line.points])];
  const fresh = keep(figure, shape, () => [
    el("figcaption", {}, el("h2", {}, plot.title), plot.unit ? el("span", { class: "quiet" }, plot.unit) : null),
    el("ul", { class: "key" }, plot.lines.map(keyEntry)),
    el("div", { class: "canvas" }),
    plot.note ? el("p", { class: "quiet" }, plot.note) : null,
  ]);
  const canvas = figure.querySelector(".canvas");
  if (!plot.lines.some((line) => line.y.some((value) => value !== null))) {
    canvas.replaceChildren(el("p", { class: "waiting" }, plot.none || say("lazy.none")));
    forget(plot.name);
    return;
  }
  let chart = charts.get(plot.name);
  if (fresh || !chart || !canvas.contains(chart.root)) {
    forget(plot.name);
    canvas.replaceChildren();
    const view = { plot };
    chart = new uPlot(settings(view, figure), table(plot), canvas);
    chart.view = view;
    charts.set(plot.name, chart);
    chart.watcher = new ResizeObserver(() => chart.setSize({ width: canvas.clientWidth, height: HEIGHT }));
    chart.watcher.observe(canvas);
  }
  const size = plot.lines.map((line) => [line.x.length, line.x[line.x.length - 1]]).join() + plot.length;
  chart.view.plot = plot;
  if (chart.apt !== size) chart.setData(table(plot));
  else if (chart.aptStep !== room.step) chart.redraw(false);
  Object.assign(chart, { apt: size, aptStep: room.step });
  readOut(figure, plot, room.step);
}

function forget(name) {
  const chart = charts.get(name);
  if (!chart) return;
  chart.watcher.disconnect();
  chart.destroy();
  charts.delete(name);
}

/** Let go of the charts that are not on the page any more. */
export function clearCharts() {
  Array.from(charts.keys()).forEach(forget);
}

function table(plot) {
  return uPlot.join(plot.lines.map((line) => [line.x, line.y]));
}

/** `view.plot`: the plot as it was drawn last; the hooks see the newest. */
function settings(view, figure) {
  const { plot } = view;
  const ink = colour("quiet");
  const axis = { stroke: ink, grid: { stroke: colour("hair"), width: 1 }, ticks: { show: false }, font: `12px ${colour("sans")}` };
  const canvas = figure.querySelector(".canvas");
  return {
    width: canvas.clientWidth || 320,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, sync: { key: "lesson", setSeries: false }, drag: { x: false, y: false } },
    scales: { x: { time: false, range: () => [0, Math.max(1, extent().last)] }, y: { range: plot.range || spread } },
    axes: [Object.assign({ size: 28 }, axis), Object.assign({ size: 52, values: (self, ticks) => ticks.map(plot.show) }, axis)],
    series: [{}].concat(plot.lines.map(series)),
    hooks: {
      drawAxes: [(chart) => view.plot.lines.filter((line) => line.band && !line.ghost).forEach((line) => shade(chart, line))],
      draw: [veil, drawForks],
      setCursor: [(chart) => readOut(figure, view.plot, chart.cursor.left >= 0 ? chart.posToVal(chart.cursor.left, "x") : room.step)],
      ready: [(chart) => chart.over.addEventListener("click", () => goTo(chart.posToVal(chart.cursor.left, "x")))],
    },
  };
}

function spread(chart, low, high) {
  if (low === null || high === null) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [low >= 0 ? 0 : low - room, high + room];
}

function series(line) {
  const tone = colour(line.tone);
  return {
    stroke: line.ghost ? `${tone}99` : tone,
    width: line.ghost ? 1.25 : 2,
    dash: DASHES[line.dash],
    spanGaps: line.pointed,
    points: { show: line.points, size: line.ghost ? 4 : 6, fill: line.ghost ? colour("card") : tone, stroke: tone },
  };
}

/** The band of a line, under the lines. */
function shade(chart, line) {
  const { ctx, bbox } = chart;
  const known = line.x.map((step, index) => [step, ...line.band[index]]).filter((point) => point.every(Number.isFinite));
  if (!known.length) return;
  const place = (step, value) => [chart.valToPos(step, "x", true), chart.valToPos(value, "y", true)];
  const outline = [...known.map(([step, low]) => place(step, low)), ...known.map(([step, , high]) => place(step, high)).reverse()];
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.beginPath();
  outline.forEach(([x, y], index) => (index ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  ctx.closePath();
  ctx.globalAlpha = 0.18;
  ctx.fillStyle = colour(line.tone);
  ctx.fill();
  ctx.restore();
}

function veil(chart) {
  const { ctx, bbox } = chart;
  const x = Math.min(bbox.left + bbox.width, Math.max(bbox.left, chart.valToPos(room.step, "x", true)));
  ctx.save();
  ctx.globalAlpha = 0.72;
  ctx.fillStyle = colour("card");
  ctx.fillRect(x, bbox.top - REACH, bbox.left + bbox.width - x + REACH, bbox.height + 2 * REACH);
  ctx.globalAlpha = 1;
  ctx.fillStyle = colour("accent");
  ctx.fillRect(x - devicePixelRatio / 2, bbox.top, Math.max(1, devicePixelRatio), bbox.height);
  ctx.restore();
}

function keyEntry(line, index) {
  const sample = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  sample.setAttribute("viewBox", "0 0 28 8");
  sample.setAttribute("aria-hidden", "true");
  const stroke = document.createElementNS("http://www.w3.org/2000/svg", "path");
  stroke.setAttribute("d", "M0 4H28");
  stroke.setAttribute("stroke-dasharray", DASHES[line.dash].join(" "));
  sample.append(stroke);
  sample.style.setProperty("stroke", `var(--${line.tone})`);
  sample.style.setProperty("stroke-width", line.ghost ? "1.5" : "2.5");
  return el("li", { "data-line": index }, sample, el("span", {}, line.name), el("b", { class: "value" }));
}

function readOut(figure, plot, at) {
  const values = plot.lines.map((line) => plot.show(valueAt(line, at)));
  figure.querySelectorAll(".key .value").forEach((box, index) => (box.textContent = values[index]));
  const words = plot.lines.map((line, index) => `${line.name} ${values[index]}`).join(say("lazy.joint"));
  const canvas = figure.querySelector(".canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", say("lazy.chart", { title: plot.title, step: Math.round(at), values: words }));
}

function valueAt(line, at) {
  let found = null;
  for (let index = 0; index < line.x.length && line.x[index] <= at; index += 1) found = line.y[index];
  return found;
}
