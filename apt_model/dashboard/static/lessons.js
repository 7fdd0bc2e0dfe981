/** The table of all lessons: sort it, search it, pin a baseline, choose which one to watch and which to compare with it. */
import {damageLine, damageOf} from "./damage.js";
import {el, keep, part} from "./dom.js";
import {brisk, count, number, percent} from "./format.js";
import {matches, runRowOf, sorted} from "./run_rows.js";
import {MOST_COMPARED, refresh, room} from "./state.js";
import {say, speech} from "./words.js";

const FIGURES = ["date", "models", "temperature", "alpha", "rate", "steps", "loss", "agreement", "laziness", "verdict"];
const GROWS = ["date", "steps", "agreement"]; // where more is what one looks for first
const DIRECTION = { loss: -1, agreement: 1, laziness: -1 };
const FIGURE_TEXTS = {
  date: (value) => dateText(value),
  models: (value) => value,
  temperature: brisk,
  alpha: brisk,
  rate: brisk,
  steps: count,
  loss: (value) => number(value, 3),
  agreement: (value) => percent(value, 1),
  laziness: (value) => percent(value, 1),
  verdict: (value) => value || "–",
};

/** Draw the table into `box`; `watch` and `compare` are told of the lesson chosen. */
export function drawLessons(box, watch, compare) {
  keep(part(box, "lessons-head"), speech.language, () => [el("h2", {}, say("lessons.title")), el("p", { class: "quiet" }, say("lessons.note")), searchBox()]);
  const rows = room.lessons.map(runRowOf);
  const found = sorted(rows.filter((row) => matches(row, room.sought)), room.sort);
  const base = rows.find((row) => row.lesson.id === room.baseline) || null;
  const shown = base ? [base, ...found.filter((row) => row !== base)] : found;
  box.querySelector(".found").textContent = say("lessons.found", { shown: found.length, all: rows.length });
  const chosen = [room.current && room.current.id, room.others.map((one) => one.id), room.sort, room.baseline];
  const told = shown.map((row) => [Object.assign({}, row, { lesson: row.lesson.id }), damageOf(row.lesson)]);
  const table = part(box, "scroller");
  Object.entries({ tabindex: "0", role: "region", "aria-label": say("lessons.title") }).forEach(([name, value]) => table.setAttribute(name, value));
  const focused = document.activeElement && table.contains(document.activeElement) ? document.activeElement.getAttribute("data-act") : null;
  const anew = keep(table, [speech.language, chosen, told], () => (shown.length ? runTable(shown, base, watch, compare) : el("p", { class: "waiting" }, say("lessons.none"))));
  const again = anew && focused ? table.querySelector(`[data-act="${CSS.escape(focused)}"]`) : null;
  if (again) again.focus();
}

function searchBox() {
  const seek = (event) => {
    room.sought = event.target.value.trim();
    refresh();
  };
  const input = el("input", { type: "search", class: "sought", placeholder: say("lessons.hint"), value: room.sought, on: { input: seek } });
  return el("p", { class: "search" }, el("label", {}, say("lessons.search"), " ", input), el("span", { class: "quiet found", role: "status" }));
}

function runTable(rows, base, watch, compare) {
  return el(
    "table",
    { class: "runs" },
    el("thead", {}, el("tr", {}, ["name", ...FIGURES].map(sortHead), el("td"))),
    el("tbody", {}, rows.map((row) => runRow(row, base, watch, compare))),
  );
}

function sortHead(name) {
  const mine = room.sort.by === name;
  const turn = () => {
    room.sort = { by: name, down: mine ? !room.sort.down : GROWS.includes(name) };
    refresh();
  };
  const sign = el("span", { class: "sign", "aria-hidden": "true" }, mine ? (room.sort.down ? " ↓" : " ↑") : "");
  const order = mine ? (room.sort.down ? "descending" : "ascending") : null;
  return el("th", { scope: "col", "aria-sort": order, class: `figure-${name}` }, el("button", { type: "button", class: "sort", "data-act": `sort ${name}`, on: { click: turn } }, say(`lessons.${name}`), sign));
}

function runRow(row, base, watch, compare) {
  const { lesson } = row;
  const damage = damageOf(lesson);
  const going = row.over || (damage && damage.line === null) ? null : el("span", { class: "quiet" }, ` … ${say("lessons.going")}`);
  const cells = FIGURES.map((name) => el("td", { "data-head": say(`lessons.${name}`), class: `figure-${name}` }, FIGURE_TEXTS[name](row[name]), name === "verdict" ? going : sourceOf(row, name), apart(row, base, name)));
  const place = lesson.place === null || !room.others.length ? null : el("span", { class: `run-mark run-${lesson.place}`, "aria-hidden": "true" }, lesson.place + 1);
  return el(
    "tr",
    { class: row === base ? "baseline" : "" },
    el("th", { scope: "row" }, place, row.name, damage && damageLine(damage)),
    cells,
    el("td", {}, el("span", { class: "acts" }, actions(row, base, watch, compare))),
  );
}

function sourceOf(row, name) {
  return name === "laziness" && row.ofCards && row.laziness !== null ? el("span", { class: "quiet" }, ` ${say("lessons.cards")}`) : null;
}

/** By how much a figure differs from the baseline's, and whether that is for the better. */
function apart(row, base, name) {
  if (!base || row === base || !(name in DIRECTION) || row[name] === null || base[name] === null) return null;
  if (name === "laziness" && row.ofCards !== base.ofCards) return null; // two measures
  const change = row[name] - base[name];
  const text = name === "loss" ? number(change, 3) : number(100 * change, 1);
  const kind = change === 0 ? "same" : change * DIRECTION[name] > 0 ? "better" : "worse";
  return el("span", { class: `apart outcome ${kind}` }, change > 0 ? `+${text}` : text);
}

function actions(row, base, watch, compare) {
  const { lesson } = row;
  const watched = lesson === room.current;
  const compared = room.others.includes(lesson);
  const pinned = row === base;
  const pin = () => {
    room.baseline = pinned ? null : lesson.id;
    refresh();
  };
  const button = (word, act, pressed, said, disabled) =>
    el("button", { type: "button", class: "chip", "data-act": `${word} ${lesson.id}`, "aria-pressed": String(pressed), "aria-label": say("lessons.acton", { act: say(said), name: row.name }), disabled, on: { click: act } }, say(said));
  const full = !compared && room.others.length + 1 >= MOST_COMPARED;
  return [
    button("watch", () => watch(lesson), watched, watched ? "lessons.watching" : "lessons.watch", false),
    button("compare", () => compare(lesson), compared, "lessons.compare", watched || full),
    button("baseline", pin, pinned, pinned ? "lessons.isbaseline" : "lessons.baseline", false),
  ];
}

/** Day and time where the reader is. */
function dateText(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const date = new Date(1000 * seconds);
  const two = (value) => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
}
