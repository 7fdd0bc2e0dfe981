/** Why the student is lazy: laziness split into its parts over time, losses, and what drives them. */
import {brief} from "./clean.js";
import {drawChart} from "./chart.js";
import {chartBench, chartTools} from "./chart_tools.js";
import {CHARTS} from "./curves.js";
import {el, keep, part} from "./dom.js";
import {brisk, count, percent} from "./format.js";
import {extent, lessonsInView, room} from "./state.js";
import {knows, say, speech} from "./words.js";

const MOST_POINTS = 90;
const UNIT_TEXTS = { percent: (value) => percent(value, 0), speed: count };
const SHARES = [0, 1];

/** Draw the curves into `box`. */
export function drawLazy(box) {
  const scale = room.current.scale;
  keep(part(box, "intro", "p"), [speech.language, scale], () => {
    const weights = scale && { similarity_weight: brisk(scale.similarity_weight), kl_weight: brisk(scale.kl_weight) };
    return el("span", {}, weights ? say("lazy.intro", weights) : null, " ", el("span", { class: "quiet" }, say("lazy.click")));
  });
  chartBench(part(box, "bench-line"));
  const grid = part(box, "charts");
  CHARTS.forEach((chart) => drawChart(grid, plotOf(chart), (plot) => chartTools(plot, () => plotOf(chart))));
}

/** A chart of the lessons in view, as `drawChart` takes it. */
function plotOf(chart) {
  const lessons = lessonsInView();
  const curves = chart.curves.filter((curve) => isDrawn(chart, curve, lessons));
  const lines = lessons.flatMap((lesson) => curves.map((curve, index) => lineOf(lesson, curve, lessons.length > 1, index === 0)));
  const epochs = room.current.openings.filter((one) => one.epoch > 1).map((one) => one.step);
  const parted = chart.name !== "parts" || curves.length > 1;
  const notes = [knows(`lazy.${chart.name}note`) ? say(`lazy.${chart.name}note`) : "", chart.name === "losses" && epochs.length ? say("charts.epochs") : ""];
  return {
    name: chart.name,
    title: say(parted ? `lazy.${chart.name}` : "now.laziness"),
    note: notes.join(""),
    none: knows(`lazy.none.${chart.name}`) ? say(`lazy.none.${chart.name}`) : null,
    unit: say(`charts.unit.${chart.unit}`),
    show: chart.name === "readings" ? (value) => percent(value, 1) : UNIT_TEXTS[chart.unit] || brisk,
    range: chart.unit === "percent" ? SHARES : null,
    log: Boolean(chart.log && room.logs.includes(chart.name)),
    canLog: Boolean(chart.log),
    runs: lessons.map(({ place, name }) => ({ place, name: brief(name, 24) })),
    quantities: curves.map(({ word, dash }) => ({ name: say(word), dash })),
    length: extent().last,
    curves,
    epochs,
    lines,
  };
}

/** Whether a curve has its place in the chart: the fixed rows of a kind that nobody read, and the parts of nothing, have none. */
function isDrawn(chart, curve, lessons) {
  if (chart.name === "readings") return lessons.some((lesson) => curve.read(lesson).x.length);
  return chart.name !== "parts" || curve.name === "laziness" || lessons.some((lesson) => lesson.scale);
}

/** Alone, a colour is a quantity; of several runs, a colour is a run and a dash a quantity. */
function lineOf(lesson, curve, many, first) {
  const values = curve.read(lesson);
  const name = many ? `${lesson.place + 1} ${brief(lesson.name, 24)} · ${say(curve.word)}` : say(curve.word);
  const tone = many ? `run-${lesson.place}` : curve.tone;
  const points = curve.pointed && values.x.length <= MOST_POINTS;
  return Object.assign({ name, tone, dash: curve.dash, pointed: curve.pointed, points, number: many && first ? String(lesson.place + 1) : null }, values);
}
