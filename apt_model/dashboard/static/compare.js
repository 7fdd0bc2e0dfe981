/** Over every view of several lessons: which colour and number is which, and in what their settings differ. */
import {brief, clean} from "./clean.js";
import {el, keep} from "./dom.js";
import {brisk} from "./format.js";
import {lessonsInView} from "./state.js";
import {say, speech} from "./words.js";

const MOST_COLUMNS = 6;
const PLACES = ["device", "dashboard", "report_to", "lang", "show_samples", "show_diff", "run_dir", "output_dir"]; // not of the lesson

/** Draw the comparison into `box`; `drop` takes a lesson out of it. Nothing while one lesson is alone. */
export function drawCompared(box, drop) {
  const lessons = lessonsInView();
  const key = [speech.language, lessons.map((lesson) => [lesson.id, lesson.place, lesson.name, lesson.started !== null])];
  keep(box, key, () => (lessons.length > 1 ? comparedTable(lessons, drop) : []));
}

function comparedTable(lessons, drop) {
  const differing = differences(lessons);
  const shown = differing.slice(0, MOST_COLUMNS);
  const more = differing.slice(MOST_COLUMNS).map(({ name }) => clean(name, 40));
  const row = (lesson, index) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("span", { class: `run-mark run-${lesson.place}` }, lesson.place + 1), brief(lesson.name, 40)),
      shown.map(({ name, values }) => el("td", { "data-head": name }, values[index])),
      el("td", {}, index ? dropButton(lesson, drop) : null),
    );
  const heads = [say("compare.run"), ...shown.map(({ name }) => clean(name, 40))].map((name) => el("th", { scope: "col" }, name));
  const note = differing.length ? say("compare.differs") : say("compare.same");
  return el(
    "div",
    { class: "compared" },
    el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": say("compare.title") }, el("table", { class: "runs" }, el("thead", {}, el("tr", {}, heads, el("td"))), el("tbody", {}, lessons.map(row)))),
    el("p", { class: "quiet" }, note, more.length ? ` ${say("compare.more", { count: more.length, names: more.join(say("lazy.joint")) })}` : null),
  );
}

/** Whose desk, shelf or bench this is: the lesson's number and name. */
export function nameTag(lesson) {
  return el("span", {}, el("b", { class: `run-mark run-${lesson.place}` }, lesson.place + 1), clean(lesson.name, 120));
}

function dropButton(lesson, drop) {
  const label = say("compare.remove", { name: clean(lesson.name, 60) });
  return el("button", { type: "button", class: "tool", "aria-label": label, title: label, on: { click: () => drop(lesson) } }, "✕");
}

/** The settings that are not the same in all lessons: [{name, values}], both models and the trainer among them. */
function differences(lessons) {
  const begun = lessons.map((lesson) => lesson.started || {});
  const names = new Set(begun.flatMap((started) => Object.keys(started.config || {})));
  const fields = [
    { name: say("compare.teacher"), read: (started) => modelText(started.teacher) },
    { name: say("compare.student"), read: (started) => modelText(started.student) },
    { name: say("compare.trainer"), read: (started) => started.trained_by || "" },
    ...Array.from(names, (name) => ({ name, read: (started) => settingText((started.config || {})[name]) })).filter(({ name }) => !PLACES.includes(name)),
  ];
  const read = fields.map(({ name, read: pick }) => ({ name, values: begun.map(pick) }));
  return read.filter(({ values }) => new Set(values).size > 1);
}

function modelText(model) {
  if (!model) return "–";
  return `${brief(model.name || "?", 32)}${model.parameters ? ` · ${(model.parameters / 1e6).toPrecision(3)} M` : ""}`;
}

function settingText(value) {
  if (value === undefined || value === null) return "–";
  if (typeof value === "number") return brisk(value);
  return brief(typeof value === "string" ? value : JSON.stringify(value), 32);
}
