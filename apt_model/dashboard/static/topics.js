/** Topics: mastery as a heat map over the epochs, and the hard-question ledger under it. */
import {brief, tongue} from "./clean.js";
import {lightMark} from "./card.js";
import {el, keep, part} from "./dom.js";
import {levelsOf, number, percent} from "./format.js";
import {cellKey, hardTokensOf, ledgerOf, masteryOf} from "./ledger.js";
import {filterChips, heatOfRows, heatTable, ledgerOfRows, masteryCell} from "./mastery.js";
import {goTo, lessonsInView, room} from "./state.js";
import {nameTag} from "./compare.js";
import {tokenNodes, tokenText} from "./token_marks.js";
import {say, speakOf, speech, topicWord} from "./words.js";

const COLUMNS_SHOWN = 12;
const ROWS_SHOWN = 40;
const TOKENS_SHOWN = 24;
const TIMES_SHOWN = 14;
const OUTCOMES = { mastered: "✓", forgotten: "↩", hard: "✗", once: "·" };

/** Draw topics into `box`: by the fixed rows, or by the cards of a lesson without any. */
export function drawTopics(box) {
  const lessons = lessonsInView();
  const shelf = part(box, "shelf");
  shelf.classList.toggle("pair", lessons.length > 1);
  while (shelf.children.length > lessons.length) shelf.lastChild.remove();
  lessons.forEach((lesson, index) => {
    speakOf(lesson);
    const place = part(shelf, `topics-of topics-${index}`);
    keep(part(place, "lesson-name", "p"), [lessons.length > 1, lesson.place, lesson.name], () => (lessons.length > 1 ? nameTag(lesson) : []));
    drawTopicsOf(place, lesson);
    const heatmap = place.querySelector(".scroller");
    if (heatmap && lessons.length > 1) heatmap.setAttribute("aria-label", `${say("topics.heat")} · ${brief(lesson.name, 60)}`);
  });
  speakOf(room.current);
}

function drawTopicsOf(box, lesson) {
  const cards = lesson.until("cards", room.step);
  const seen = [speech.language, lesson.id, cards.length, cards.length && cards[cards.length - 1].wall_time, lesson.until("readings", room.step).length];
  keep(part(box, "heat", "section"), seen, () => heatOfRows(lesson, room.step, COLUMNS_SHOWN) || heat(cards));
  const levels = levelsOf(lesson.scale);
  keep(part(box, "hard-tokens", "section"), seen, () => tokenGrid(hardTokensOf(cards, levels), levels));
  keep(part(box, "ledger", "section"), [seen, room.filter], () => ledgerOfRows(lesson, room.step) || ledgerTable(ledgerOf(cards)));
}

function heat(cards) {
  const head = [el("h2", {}, say("topics.heat")), el("p", { class: "quiet" }, say("topics.heatnote"))];
  if (!cards.length) return [head, el("p", { class: "waiting" }, say("now.waiting"))];
  const { topics, groups, cells } = masteryOf(cards, COLUMNS_SHOWN);
  return [head, heatTable(topics, groups, (topic, epoch, group) => heatCell(topic, epoch, cells.get(cellKey(topic, group))))];
}

function heatCell(topic, epoch, cell) {
  if (!cell) return el("td", { class: "blank", title: say("topics.empty") }, "–");
  const mastery = 1 - cell.sum / cell.samples;
  const words = {
    topic: topic === null ? say("topics.all") : topicWord(topic),
    epoch,
    mastery: percent(mastery, 1),
    samples: cell.samples,
  };
  return masteryCell(mastery, cell.samples, say("topics.cell", words));
}

function tokenGrid(found, levels) {
  if (!found.length) return [];
  const count = (state) => found.filter((one) => one.state === state).length;
  const totals = ["mastered", "forgotten", "hard", "once"].map((state) =>
    el("span", { class: `outcome ${state}` }, OUTCOMES[state], " ", say(`topics.${state}`), " ", count(state)),
  );
  return [
    el("h2", {}, say("topics.words")),
    el("p", { class: "quiet" }, say("topics.wordsnote", { hard: number(levels[2], 1), learned: number(levels[0], 2) })),
    el("p", { class: "totals" }, totals),
    el("ul", { class: "tokens" }, found.slice(0, TOKENS_SHOWN).map(tokenTile)),
  ];
}

function tokenTile(one) {
  const visit = el(
    "button",
    { type: "button", class: "link", on: { click: () => visitCard(one.peak.step) } },
    say("topics.goto", { step: one.peak.step }),
  );
  const course = one.times > 1 ? `${number(one.peak.kl, 2)} → ${number(one.latest.kl, 2)}` : number(one.peak.kl, 2);
  const state = el("span", { class: `outcome ${one.state}` }, OUTCOMES[one.state], " ", say(`topics.${one.state}`));
  return el("li", {}, el("b", { class: "piece", title: tokenText(one.text) }, tokenNodes(one.text)), state, el("span", {}, course), visit);
}

function ledgerTable(entries) {
  const head = [el("h2", {}, say("topics.ledger")), el("p", { class: "quiet" }, say("topics.ledgernote"))];
  const filter = room.filter in OUTCOMES ? room.filter : "all";
  const shown = entries.filter((entry) => filter === "all" || entry.state === filter);
  const words = ["sample", "course", "tokens", "state"].map((word) => el("th", { scope: "col" }, say(`topics.${word}`)));
  const table = el(
    "table",
    { class: "questions" },
    el("thead", {}, el("tr", {}, words)),
    el("tbody", {}, shown.slice(0, ROWS_SHOWN).map(questionRow)),
  );
  const more = shown.length - ROWS_SHOWN;
  return [
    head,
    filterChips(["all", ...Object.keys(OUTCOMES)], entries, OUTCOMES, filter),
    shown.length ? table : el("p", { class: "waiting" }, say("topics.none")),
    more > 0 ? el("p", { class: "quiet" }, say("topics.more", { count: more })) : null,
  ];
}

function visitCard(step) {
  goTo(step);
  location.hash = "now";
}

function questionRow(entry) {
  const visit = el(
    "button",
    { type: "button", class: "link", on: { click: () => visitCard(entry.peak.step) } },
    say("topics.goto", { step: entry.peak.step }),
  );
  const course = entry.cards.slice(-TIMES_SHOWN).map((card) => {
    const words = `${say("now.step", { step: card.step })} ${percent(card.laziness, 0)}`;
    return el("span", { title: words }, lightMark(card.light, false));
  });
  const first = entry.cards[0];
  const ends = entry.cards.length > 1 ? `${percent(first.laziness, 0)} → ${percent(entry.latest.laziness, 0)}` : percent(first.laziness, 0);
  const tokens = entry.tokens.map((one) =>
    el("li", {}, el("b", { class: "piece", title: tokenText(one.text) }, tokenNodes(one.text)), " ", one.times > 1 ? `${number(one.highest, 2)} → ${number(one.latest, 2)}` : number(one.highest, 2)),
  );
  return el(
    "tr",
    { class: entry.state },
    el("td", { "data-head": say("topics.sample") }, el("p", { class: "question", dir: "auto", lang: tongue(entry.text) }, brief(entry.text, 60)), el("span", { class: "quiet" }, topicWord(entry.topic), " · "), visit),
    el("td", { "data-head": say("topics.course") }, el("span", { class: "course", "aria-hidden": "true" }, course), el("span", {}, ends)),
    el("td", { "data-head": say("topics.tokens") }, tokens.length ? el("ul", { class: "hardest" }, tokens) : "–"),
    el("td", { "data-head": say("topics.state") }, el("span", { class: `outcome ${entry.state}` }, OUTCOMES[entry.state], " ", say(`topics.${entry.state}`))),
  );
}
