/** Curves by uPlot, with a legend that shape and dash tell apart, and the part of the lesson after the cursor veiled. */
import {drawForks} from "./branch_mark.js";
import {smoothed} from "./curves.js";
import {colour, el, keep, part, svg} from "./dom.js";
import {extent, goTo, refresh, room} from "./state.js";
import {termsOfChart} from "./terms.js";
import {say, speech} from "./words.js";

const HEIGHT = 216;
const REACH = 5; // a point at the edge sticks out by so much
const HAND_MOVES = 6; // pixels: less than that is a click, not a drag
const MOST_EPOCHS = 60; // lines that the eye still tells apart
const FEW_POINTS = 30; // points: a line of fewer is drawn as it was measured, an average over so few would lag behind
const BEHIND = "66"; // opacity of the raw line behind a smoothed one, in hexadecimal
export const DASHES = { solid: [], dashed: [8, 5], dotted: [2, 4], mixed: [10, 4, 2, 4] };
const charts = new Map();
const hand = { chart: null, step: 0, follow: true };

/**
 * Draw one chart into `box`.
 *
 * `plot`: {name, title, note, none, unit, show, range, log, length, epochs: [step], runs: [{place, name}],
 * quantities: [{name, dash}], lines: [{name, tone, dash, pointed, points, number, x: [step], y: [value|null]}]}. `show` makes text of a value. A line may have a `band`, the [low, high] of each value,
 * which is shaded, and a `number`, which is drawn at its end. `tools` builds what stands beside the title.
 */
export function drawChart(box, plot, tools) {
  const figure = part(box, `chart chart-${plot.name}`, "figure");
  keep(part(figure, "chart-head", "figcaption"), [speech.language, plot.title], () => [el("h2", {}, plot.title), termsOfChart(plot.name), tools(plot)]);
  const lineup = plot.lines.map((line) => [line.name, line.tone, line.dash]);
  keep(part(figure, "legends"), [speech.language, lineup], () => chartKey(plot));
  const canvas = part(figure, "canvas");
  keep(part(figure, "quiet", "p"), [speech.language, plot.note], () => el("span", {}, plot.note || ""));
  const known = plot.lines.some((line) => line.y.some((value) => value !== null));
  figure.classList.toggle("bare", !known);
  if (!known) {
    forget(plot.name);
    canvas.replaceChildren(el("p", { class: "waiting" }, plot.none || say("lazy.none")));
    return;
  }
  const drawn = onPaper(plot);
  const shape = JSON.stringify([speech.language, room.theme, plot.log, lineup, drawn.map((line) => [line.behind, line.points])]);
  let chart = charts.get(plot.name);
  if (!chart || chart.aptShape !== shape || !canvas.contains(chart.root)) chart = made(plot, drawn, figure, shape);
  Object.assign(chart.view, { plot });
  bringUp(chart, plot, drawn);
  readOut(figure, plot, room.step);
}

function made(plot, drawn, figure, shape) {
  forget(plot.name);
  const canvas = figure.querySelector(".canvas");
  canvas.replaceChildren();
  const view = { plot };
  const chart = new uPlot(settings(view, drawn, figure), table(drawn), canvas);
  Object.assign(chart, { view, aptShape: shape });
  charts.set(plot.name, chart);
  chart.watcher = new ResizeObserver(() => chart.setSize({ width: canvas.clientWidth, height: HEIGHT }));
  chart.watcher.observe(canvas);
  return chart;
}

/** Only what changed since: data, the stretch shown, or the cursor. */
function bringUp(chart, plot, drawn) {
  const size = JSON.stringify([plot.lines.map((line) => [line.x.length, line.x[line.x.length - 1]]), plot.length, room.smoothing]);
  const stretch = JSON.stringify(room.zoom);
  if (chart.aptSize !== size || chart.aptStretch !== stretch) chart.setData(table(drawn));
  else if (chart.aptStep !== room.step) chart.redraw(false);
  Object.assign(chart, { aptSize: size, aptStretch: stretch, aptStep: room.step });
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

/** The steps that the charts show. */
export function stretchShown() {
  return room.zoom || [0, Math.max(1, extent().last)];
}

/** The lines as they are drawn: each measured one, and over it, where the reader asks for it, a smoothed one. */
export function onPaper(plot) {
  return plot.lines.flatMap((line) => {
    const y = plot.log ? line.y.map((value) => (value > 0 ? value : null)) : line.y;
    const own = Object.assign({}, line, { y, behind: false });
    if (!room.smoothing || line.x.length < FEW_POINTS) return [own];
    return [Object.assign({}, own, { behind: true }), Object.assign({}, own, { y: smoothed(y, room.smoothing), points: false })];
  });
}

function table(drawn) {
  return uPlot.join(drawn.map((line) => [line.x, line.y]));
}

/** `view.plot`: the plot as it was drawn last; the hooks see the newest. */
function settings(view, drawn, figure) {
  const { plot } = view;
  const ink = colour("quiet");
  const font = `12px ${colour("sans")}`;
  const axis = { stroke: ink, grid: { stroke: colour("hair"), width: 1 }, ticks: { show: false }, font, labelFont: font, labelGap: 2 };
  const values = (self, ticks) => ticks.map((tick) => (tick === null ? "" : plot.show(tick)));
  const range = plot.log ? (self, low, high) => uPlot.rangeLog(low, high, 10, false) : plot.range || spread;
  return {
    width: figure.querySelector(".canvas").clientWidth || 320,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, sync: { key: "lesson", setSeries: false }, drag: { x: true, y: false, setScale: false, dist: HAND_MOVES } },
    scales: { x: { time: false, range: stretchShown }, y: { range, distr: plot.log ? 3 : 1 } },
    axes: [Object.assign({ size: 26, label: say("charts.step"), labelSize: 18 }, axis), Object.assign({ size: 52, values, label: plot.unit, labelSize: 18 }, axis)],
    series: [{}].concat(drawn.map(series)),
    hooks: {
      drawAxes: [(chart) => epochLines(chart, view.plot.epochs), (chart) => view.plot.lines.filter((line) => line.band).forEach((line) => shade(chart, line))],
      draw: [veil, drawForks, (chart) => view.plot.lines.filter((line) => line.number).forEach((line) => numberAt(chart, line))],
      setCursor: [(chart) => readOut(figure, view.plot, chart.cursor.left >= 0 ? chart.posToVal(chart.cursor.left, "x") : room.step)],
      setSelect: [zoomIn],
      ready: [listenTo],
    },
  };
}

/** A click goes to a step, a drag shows a stretch, a double click the whole again: and its two clicks have gone nowhere. */
function listenTo(chart) {
  chart.over.addEventListener("mousedown", () => (hand.chart = chart));
  chart.over.addEventListener("click", (event) => {
    if (event.detail === 1) Object.assign(hand, { step: room.step, follow: room.follow });
    goTo(chart.posToVal(chart.cursor.left, "x"));
  });
  chart.over.addEventListener("dblclick", () => {
    Object.assign(room, { step: hand.step, follow: hand.follow, zoom: null });
    refresh();
  });
}

/** The other charts follow the hand too, but only the one under it says where. */
function zoomIn(chart) {
  const { left, width } = chart.select;
  if (!width) return;
  const ends = [left, left + width].map((at) => Math.round(chart.posToVal(at, "x")));
  chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  if (hand.chart !== chart || ends[1] <= ends[0]) return;
  room.zoom = ends;
  refresh();
}

function spread(chart, low, high) {
  if (low === null || high === null) return [0, 1];
  const over = (high - low || Math.abs(high) || 1) * 0.08;
  return [low >= 0 && !room.zoom ? 0 : low - over, high + over];
}

function series(line) {
  const tone = colour(line.tone);
  return {
    stroke: line.behind ? `${tone}${BEHIND}` : tone,
    width: line.behind ? 1 : 2,
    dash: line.behind ? [] : DASHES[line.dash],
    spanGaps: line.pointed,
    points: { show: line.points, size: line.behind ? 4 : 6, fill: line.behind ? colour("card") : tone, stroke: line.behind ? `${tone}${BEHIND}` : tone },
  };
}

/** Draw within the chart's frame only. */
function framed({ ctx, bbox }, draw) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  draw(ctx, bbox);
  ctx.restore();
}

/** A line where each epoch after the first begins; of very many, none. */
function epochLines(chart, epochs) {
  if (epochs.length > MOST_EPOCHS) return;
  framed(chart, (ctx, bbox) => {
    ctx.strokeStyle = colour("line");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([2 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const step of epochs) {
      const x = chart.valToPos(step, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
  });
}

/** The band of a line, under the lines. */
function shade(chart, line) {
  const known = line.x.map((step, index) => [step, ...line.band[index]]).filter((point) => point.every(Number.isFinite));
  if (!known.length) return;
  const place = (step, value) => [chart.valToPos(step, "x", true), chart.valToPos(value, "y", true)];
  const outline = [...known.map(([step, low]) => place(step, low)), ...known.map(([step, , high]) => place(step, high)).reverse()];
  framed(chart, (ctx) => {
    ctx.beginPath();
    outline.forEach(([x, y], index) => (index ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
    ctx.closePath();
    ctx.globalAlpha = 0.15;
    ctx.fillStyle = colour(line.tone);
    ctx.fill();
  });
}

function veil(chart) {
  const { ctx, bbox } = chart;
  const at = chart.valToPos(room.step, "x", true);
  const x = Math.min(bbox.left + bbox.width, Math.max(bbox.left, at));
  ctx.save();
  ctx.globalAlpha = 0.72;
  ctx.fillStyle = colour("card");
  ctx.fillRect(x, bbox.top - REACH, bbox.left + bbox.width - x + REACH, bbox.height + 2 * REACH);
  ctx.globalAlpha = 1;
  ctx.fillStyle = colour("accent");
  if (x === at) ctx.fillRect(x - devicePixelRatio / 2, bbox.top, Math.max(1, devicePixelRatio), bbox.height);
  ctx.restore();
}

/** The index of a line's last value between two steps; -1 without any. */
export function lastShown(line, from, to) {
  return line.x.reduce((found, step, index) => (step >= from && step <= to && line.y[index] !== null ? index : found), -1);
}

/** The run's number at the end of its line, for whoever cannot tell the colours apart. */
function numberAt(chart, line) {
  const [from, to] = stretchShown();
  const last = lastShown(line, from, to);
  if (last < 0) return;
  const { ctx } = chart;
  const [x, y] = [chart.valToPos(line.x[last], "x", true), chart.valToPos(line.y[last], "y", true)];
  ctx.save();
  ctx.font = `700 ${12 * devicePixelRatio}px ${colour("sans")}`;
  Object.assign(ctx, { textAlign: "right", textBaseline: "bottom", fillStyle: colour(line.tone), strokeStyle: colour("card"), lineWidth: 3 * devicePixelRatio });
  ctx.strokeText(line.number, x, y);
  ctx.fillText(line.number, x, y);
  ctx.restore();
}

/** What the lines are: alone, a list; of several runs a table, a row a run and a column a quantity. */
function chartKey({ lines, runs, quantities }) {
  if (runs.length < 2) return el("ul", { class: "key" }, lines.map((line) => el("li", {}, sample(line), el("span", {}, line.name), keyValue())));
  const heads = quantities.map(({ name, dash }) => el("th", { scope: "col" }, sample({ tone: "ink", dash }), name));
  const rows = runs.map((run) => el("tr", {}, el("th", { scope: "row" }, el("span", { class: `run-mark run-${run.place}` }, run.place + 1), el("span", { class: "run-name" }, run.name)), quantities.map(() => el("td", {}, keyValue()))));
  return el("table", { class: "key-table" }, el("thead", {}, el("tr", {}, el("td"), heads)), el("tbody", {}, rows));
}

function keyValue() {
  return el("b", { class: "value" });
}

function sample({ tone, dash }) {
  const stroke = svg("path", { d: "M0 4H28", "stroke-dasharray": DASHES[dash].join(" ") });
  return svg("svg", { viewBox: "0 0 28 8", "aria-hidden": "true", style: { stroke: `var(--${tone})`, "stroke-width": "2.5" } }, stroke);
}

function readOut(figure, plot, at) {
  const values = plot.lines.map((line) => plot.show(valueAt(line, at)));
  figure.querySelectorAll(".value").forEach((box, index) => (box.textContent = values[index]));
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
