/** Mastery and the ledger of the fixed rows: what the student really knows, read on the same texts each time. */
import {brief, tongue} from "./clean.js";
import {el} from "./dom.js";
import {percent} from "./format.js";
import {bestKind, interval, masteryOfRows, rowsOf} from "./fixed_rows.js";
import {cellKey} from "./ledger.js";
import {refresh, room} from "./state.js";
import {say, topicWord} from "./words.js";

const FIXED_ROWS_SHOWN = 40;
const READINGS_SHOWN = 14;
const FEW = 3; // texts: with fewer, a mean says too little to be given a colour (as in render/palette.py)
const CHANGES = { better: "↑", same: "≈", worse: "↓", once: "·" };

/** The heat of a share of agreement as it is written, in whole percent: 0 to 4. */
function heatOf(share) {
  return Math.min(4, Math.max(0, Math.floor(Math.round(100 * share) / 20)));
}

/** A cell of the heat map: a share, how many texts it rests on, and, if they are enough, its colour. */
export function masteryCell(share, texts, title) {
  const kind = texts < FEW ? "few" : `heat-${heatOf(share)}`;
  return el("td", { class: kind, title }, percent(share, 0), el("small", { class: "texts" }, texts));
}

/** What the colours mean, from low to high, and a cell without. */
function heatKey() {
  const step = (level) => el("li", {}, el("span", { class: `beat heat-${level}` }), `${20 * level}–${20 * (level + 1)}%`);
  return el(
    "ul",
    { class: "key heat-key", "aria-label": say("topics.fifths") },
    [0, 1, 2, 3, 4].map(step),
    el("li", {}, el("span", { class: "beat few" }), say("topics.few", { few: FEW })),
  );
}

/** A table of topics by epochs: `cellOf(topic, epoch, group)` makes its cells; topic null is all of them. */
export function heatTable(topics, groups, cellOf) {
  const columns = groups.map((group) => el("th", { scope: "col" }, group === "0" ? say("topics.before") : group));
  const row = (topic) =>
    el(
      "tr",
      { class: topic === null ? "total" : "" },
      el("th", { scope: "row" }, topic === null ? say("topics.all") : topicWord(topic)),
      groups.map((epoch, group) => cellOf(topic, epoch, group)),
    );
  const table = el(
    "table",
    { class: "heatmap", style: { "--columns": String(groups.length) } },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, say("topics.topic"), el("span", { class: "corner" }, say("reports.epoch"))), columns)),
    el("tbody", {}, topics.map(row), row(null)),
  );
  const scroller = el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": say("topics.heat") }, table);
  return [scroller, heatKey(), el("p", { class: "quiet" }, say("topics.fewnote", { few: FEW }))];
}

/** The heat map of the fixed rows; null where the lesson has none, or none with a topic. */
export function heatOfRows(lesson, step, mostColumns) {
  const unseen = bestKind(lesson);
  const found = unseen === null ? null : masteryOfRows(lesson, unseen, step, mostColumns, cellKey);
  if (!found) return null;
  const cell = (topic, epoch, group) => {
    const read = found.cells.get(cellKey(topic, group));
    if (!read) return el("td", { class: "blank" }, "–");
    const words = {
      topic: topic === null ? say("topics.all") : topicWord(topic),
      epoch: epoch === "0" ? say("topics.before") : `Epoch ${epoch}`,
      mastery: interval(read.mean, (value) => percent(value, 1)),
      rows: read.rows,
    };
    return masteryCell(read.mean.value, read.rows, say("topics.rowcell", words));
  };
  return [
    el("h2", {}, say("topics.heat")),
    el("p", { class: "quiet" }, say(unseen ? "topics.heatunseen" : "topics.heatlearned")),
    heatTable(found.topics, found.groups, cell),
  ];
}

/** The ledger of the fixed rows; null where the lesson has none. */
export function ledgerOfRows(lesson, step) {
  const rows = rowsOf(lesson, step);
  if (!rows.length) return null;
  const filter = room.filter in CHANGES ? room.filter : "all";
  const shown = rows.filter((row) => filter === "all" || row.state === filter);
  const words = ["sample", "agreements", "state"].map((word) => el("th", { scope: "col" }, say(`topics.${word}`)));
  return [
    el("h2", {}, say("topics.ledger")),
    el("p", { class: "quiet" }, say("topics.rowsnote")),
    filterChips(["all", ...Object.keys(CHANGES)], rows, CHANGES, filter),
    shown.length
      ? el("table", { class: "questions" }, el("thead", {}, el("tr", {}, words)), el("tbody", {}, shown.slice(0, FIXED_ROWS_SHOWN).map(rowOf)))
      : el("p", { class: "waiting" }, say("topics.none")),
    shown.length > FIXED_ROWS_SHOWN ? el("p", { class: "quiet" }, say("topics.more", { count: shown.length - FIXED_ROWS_SHOWN })) : null,
  ];
}

function rowOf({ text, topic, unseen, course, state }) {
  const beats = course.slice(-READINGS_SHOWN).map(({ step, agreement }) =>
    el("span", { class: `beat heat-${heatOf(agreement)}`, title: `${say("now.step", { step })} ${percent(agreement, 0)}` }),
  );
  const [first, last] = [course[0].agreement, course[course.length - 1].agreement];
  const ends = course.length > 1 ? `${percent(first, 0)} → ${percent(last, 0)}` : percent(first, 0);
  const kind = say(unseen ? "topics.unseen" : "topics.learned");
  return el(
    "tr",
    { class: state },
    el(
      "td",
      { "data-head": say("topics.sample") },
      el("p", { class: "question", dir: "auto", lang: tongue(text) }, brief(text, 60)),
      el("span", { class: "quiet" }, topic ? `${kind} · ${topicWord(topic)}` : kind),
    ),
    el("td", { "data-head": say("topics.agreements") }, el("span", { class: "course", "aria-hidden": "true" }, beats), el("span", {}, ends)),
    el("td", { "data-head": say("topics.state") }, el("span", { class: `outcome ${state}` }, CHANGES[state], " ", say(`topics.${state}`))),
  );
}

/** The chips that choose which entries of a ledger are shown, each with their number; `signs` by state. */
export function filterChips(names, entries, signs, chosen) {
  const chip = (name) => {
    const found = name === "all" ? entries : entries.filter((entry) => entry.state === name);
    const choose = () => {
      room.filter = name;
      refresh();
      requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector(`[data-filter=${name}]`).focus()));
    };
    return el(
      "button",
      { type: "button", class: "chip", "data-filter": name, "aria-pressed": String(chosen === name), on: { click: choose } },
      name === "all" ? say("topics.all.filter", { count: found.length }) : `${signs[name]} ${say(`topics.${name}`)} ${found.length}`,
    );
  };
  return el("div", { class: "chips", role: "group", "aria-label": say("topics.filter") }, names.map(chip));
}
