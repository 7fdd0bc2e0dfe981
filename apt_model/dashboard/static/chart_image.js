/** A chart as one SVG drawing, made by hand from its plot: with its title, key, axes and scales, in the colours of the page. */
import {clean} from "./clean.js";
import {DASHES, lastShown, onPaper, stretchShown} from "./chart.js";
import {colour, svg} from "./dom.js";
import {say} from "./words.js";

const PAPER_WIDE = 960;
const FRAME = { left: 76, right: 24, bottom: 52, high: 360 };
const KEY_PLACE = { line: 22, column: 304 };
const TICKS = 6;
const SLACK = 0.08;

/** The drawing of a plot (see `drawChart`) over the stretch that is shown: {text, width, height}. */
export function chartSvg(plot) {
  const columns = Math.max(1, Math.min(3, plot.quantities.length));
  const top = 48 + KEY_PLACE.line * Math.ceil(plot.lines.length / columns) + 12;
  const height = top + FRAME.high + FRAME.bottom;
  const place = placesOf(plot, top);
  const drawing = svg(
    "svg",
    { width: PAPER_WIDE, height, viewBox: `0 0 ${PAPER_WIDE} ${height}`, "font-family": colour("sans"), "font-size": 13 },
    svg("rect", { width: PAPER_WIDE, height, fill: colour("card") }),
    svg("text", { x: 24, y: 34, "font-size": 18, "font-weight": 650, fill: colour("ink") }, clean(plot.title)),
    plot.lines.map((line, index) => keyLine(line, 24 + KEY_PLACE.column * (index % columns), 60 + KEY_PLACE.line * Math.floor(index / columns))),
    svg("defs", {}, svg("clipPath", { id: "frame" }, svg("rect", { x: FRAME.left, y: top - 4, width: place.wide, height: FRAME.high + 8 }))),
    axes(plot, place),
    svg("g", { "clip-path": "url(#frame)", fill: "none" }, epochs(plot, place), plot.lines.map((line) => bandOf(line, place)), onPaper(plot).map((line) => drawnLine(line, place))),
    plot.lines.map((line) => numberOf(line, place)),
  );
  return { text: new XMLSerializer().serializeToString(drawing), width: PAPER_WIDE, height };
}

/** Where a step and a value lie, and the ticks of both axes. */
function placesOf(plot, top) {
  const [from, to] = stretchShown();
  const shown = onPaper(plot).flatMap((line) => line.y.filter((value, index) => value !== null && line.x[index] >= from && line.x[index] <= to));
  const [low, high] = plot.log ? decades(shown) : plot.range || spreadOf(shown);
  const level = plot.log ? Math.log10 : (value) => value;
  const wide = PAPER_WIDE - FRAME.left - FRAME.right;
  return {
    top,
    wide,
    from,
    to,
    x: (step) => FRAME.left + (wide * (step - from)) / (to - from),
    y: (value) => top + FRAME.high * (1 - (level(value) - level(low)) / (level(high) - level(low))),
    steps: roundTicks(from, to).filter(Number.isInteger),
    values: plot.log ? powers(low, high) : roundTicks(low, high),
  };
}

function endsOf(values) {
  const finite = values.filter(Number.isFinite);
  return finite.length ? finite.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]) : [0, 1];
}

function spreadOf(values) {
  const [low, high] = endsOf(values);
  const over = (high - low || Math.abs(high) || 1) * SLACK;
  return [low >= 0 ? 0 : low - over, high + over];
}

function decades(values) {
  const [low, high] = endsOf(values.map(Math.log10));
  const floor = Math.floor(low);
  return [10 ** floor, 10 ** Math.max(floor + 1, Math.ceil(high))];
}

/** The powers of ten from one to another; of few, two and five times each as well. */
function powers(low, high) {
  const [first, last] = [low, high].map((value) => Math.round(Math.log10(value)));
  const whole = Array.from({ length: last - first + 1 }, (hole, index) => 10 ** (first + index));
  return last - first > 2 ? whole : whole.flatMap((power) => [1, 2, 5].map((times) => times * power)).filter((value) => value <= high);
}

/** About six round numbers from `low` to `high`. */
function roundTicks(low, high) {
  const rough = (high - low) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const apart = power * [1, 2, 5, 10].find((one) => one * power >= rough);
  const first = Math.ceil(low / apart);
  return Array.from({ length: Math.floor(high / apart + 1e-9) - first + 1 }, (hole, index) => Number(((first + index) * apart).toPrecision(12)));
}

function axes(plot, place) {
  const { top, wide } = place;
  const [foot, ink, hair] = [top + FRAME.high, colour("quiet"), colour("hair")];
  const label = (x, y, anchor, text) => svg("text", { x, y, "text-anchor": anchor, fill: ink }, text);
  const upright = svg("text", { transform: `translate(18 ${top + FRAME.high / 2}) rotate(-90)`, "text-anchor": "middle", fill: ink }, plot.unit);
  return [
    place.values.map((value) => [svg("line", { x1: FRAME.left, x2: FRAME.left + wide, y1: place.y(value), y2: place.y(value), stroke: hair }), label(FRAME.left - 8, place.y(value) + 4, "end", plot.show(value))]),
    place.steps.map((step) => [svg("line", { x1: place.x(step), x2: place.x(step), y1: top, y2: foot, stroke: hair }), label(place.x(step), foot + 20, "middle", String(step))]),
    label(FRAME.left + wide / 2, foot + 42, "middle", say("charts.step")),
    upright,
  ];
}

function epochs(plot, place) {
  const shown = plot.epochs.filter((step) => step >= place.from && step <= place.to);
  return shown.map((step) => svg("line", { x1: place.x(step), x2: place.x(step), y1: place.top, y2: place.top + FRAME.high, stroke: colour("line"), "stroke-dasharray": "2 4" }));
}

function bandOf(line, place) {
  const known = line.band ? line.x.map((step, index) => [step, ...line.band[index]]).filter((point) => point.every(Number.isFinite)) : [];
  if (!known.length) return null;
  const outline = [...known.map(([step, low]) => [step, low]), ...known.map(([step, , high]) => [step, high]).reverse()];
  return svg("polygon", { points: outline.map(([step, value]) => at(place, step, value)).join(" "), fill: colour(line.tone), opacity: 0.15 });
}

function at(place, step, value) {
  return `${place.x(step).toFixed(1)},${place.y(value).toFixed(1)}`;
}

function drawnLine(line, place) {
  const tone = colour(line.tone);
  const faint = line.behind ? 0.4 : 1;
  let pen = "M";
  const path = [];
  line.y.forEach((value, index) => {
    if (value === null && !line.pointed) pen = "M";
    if (value === null) return;
    path.push(`${pen}${at(place, line.x[index], value)}`);
    pen = "L";
  });
  const dash = line.behind ? null : DASHES[line.dash].join(" ") || null;
  const dots = line.points ? line.x.map((step, index) => (line.y[index] === null ? null : svg("circle", { cx: place.x(step), cy: place.y(line.y[index]), r: 3, fill: tone, opacity: faint }))) : [];
  return [svg("path", { d: path.join(""), stroke: tone, "stroke-width": line.behind ? 1 : 2, "stroke-dasharray": dash, opacity: faint }), dots];
}

function numberOf(line, place) {
  const last = line.number ? lastShown(line, place.from, place.to) : -1;
  if (last < 0) return null;
  return svg("text", { x: place.x(line.x[last]) - 2, y: place.y(line.y[last]) - 6, "text-anchor": "end", "font-weight": 700, fill: colour(line.tone) }, line.number);
}

function keyLine(line, x, y) {
  const stroke = { x1: x, x2: x + 28, y1: y - 4, y2: y - 4, stroke: colour(line.tone), "stroke-width": 2.5, "stroke-dasharray": DASHES[line.dash].join(" ") || null };
  return [svg("line", stroke), svg("text", { x: x + 36, y, fill: colour("ink") }, fitted(line.name, KEY_PLACE.column - 48))];
}

/** A text cut to a width, with an ellipsis that says so. */
function fitted(text, wide) {
  const ruler = document.createElement("canvas").getContext("2d");
  ruler.font = `13px ${colour("sans")}`;
  const letters = Array.from(text);
  while (letters.length > 1 && ruler.measureText(`${letters.join("")}…`).width > wide) letters.pop();
  return letters.length < Array.from(text).length ? `${letters.join("")}…` : text;
}
