/** What a reader can do with the charts, by keyboard too: which stretch, how smooth, which scale, and to take one along. */
import {chartSvg} from "./chart_image.js";
import {csvOf} from "./curves.js";
import {el, keep} from "./dom.js";
import {percent} from "./format.js";
import {fileName, savePng, saveText} from "./save.js";
import {extent, lessonsInView, refresh, room} from "./state.js";
import {say, speech} from "./words.js";

const SMOOTHEST = 0.95;

/** The line over all charts: the stretch that they show, and how smooth they are. */
export function chartBench(box) {
  keep(box, speech.language, () => [
    stepInput("from", 0),
    stepInput("to", 1),
    el("button", { type: "button", class: "chip whole", on: { click: () => show(null) } }, say("charts.whole")),
    el("label", {}, say("charts.smooth"), el("input", { type: "range", class: "smoothing", min: 0, max: SMOOTHEST, step: 0.05, on: { input: smooth } })),
    el("output", { class: "quiet reading" }),
  ]);
  const last = Math.max(1, extent().last);
  const ends = room.zoom || [0, last];
  box.querySelectorAll(".stretch").forEach((input, index) => {
    input.max = last;
    if (input !== document.activeElement) input.value = ends[index];
  });
  box.querySelector(".whole").disabled = !room.zoom;
  const slider = box.querySelector(".smoothing");
  const said = room.smoothing ? say("charts.smoothed", { share: percent(room.smoothing, 0) }) : say("charts.unsmoothed");
  slider.value = room.smoothing;
  slider.setAttribute("aria-valuetext", said);
  box.querySelector(".reading").textContent = said;
}

function stepInput(word, index) {
  const change = (event) => {
    const ends = room.zoom ? [...room.zoom] : [0, Math.max(1, extent().last)];
    ends[index] = Math.round(Number(event.target.value));
    if (Number.isFinite(ends[index]) && ends[0] >= 0 && ends[0] < ends[1]) show(ends);
  };
  return el("label", {}, say(`charts.${word}`), el("input", { type: "number", class: "stretch", min: 0, step: 1, on: { change } }));
}

function show(ends) {
  const whole = !ends || (ends[0] <= 0 && ends[1] >= extent().last);
  room.zoom = whole ? null : ends;
  refresh();
}

function smooth(event) {
  room.smoothing = Number(event.target.value);
  refresh();
}

/** What stands beside a chart's title; `latest` gives its plot as it is when a button is pressed. */
export function chartTools(plot, latest) {
  return el("span", { class: "chart-tools" }, plot.canLog ? logButton(plot) : null, saveMenu(plot, latest));
}

function logButton({ name, title }) {
  const turn = (event) => {
    const on = room.logs.includes(name);
    room.logs = on ? room.logs.filter((one) => one !== name) : [...room.logs, name];
    event.currentTarget.setAttribute("aria-pressed", String(!on));
    refresh();
  };
  const pressed = String(room.logs.includes(name));
  return el("button", { type: "button", class: "tool", "aria-pressed": pressed, "aria-label": `${say("charts.log")} · ${title}`, on: { click: turn } }, say("charts.log"));
}

function saveMenu({ title }, latest) {
  const kinds = { PNG: savePicture(true), SVG: savePicture(false), CSV: saveValues };
  const button = (kind) => {
    const take = () => kinds[kind](latest(), nameOf(latest()));
    return el("button", { type: "button", class: "tool", "aria-label": say("charts.as", { title, kind }), on: { click: take } }, kind);
  };
  return el("details", { class: "save" }, el("summary", { "aria-label": `${say("charts.save")} · ${title}` }, say("charts.save")), el("span", {}, Object.keys(kinds).map(button)));
}

function savePicture(asPng) {
  return (plot, name) => {
    const drawing = chartSvg(plot);
    if (asPng) savePng(`${name}.png`, drawing);
    else saveText(`${name}.svg`, drawing.text, "image/svg+xml");
  };
}

function saveValues(plot, name) {
  saveText(`${name}.csv`, `\ufeff${csvOf(plot.curves, lessonsInView())}`, "text/csv"); // with its mark a spreadsheet knows it is UTF-8
}

function nameOf(plot) {
  return fileName(room.current.name, plot.name);
}
