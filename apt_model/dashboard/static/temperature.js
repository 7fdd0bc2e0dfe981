/** Temperature: how T softens the teacher's distribution at a chosen token, with the shares of KD and CE beside it. */
import {tongue} from "./clean.js";
import {nameTag} from "./compare.js";
import {el, keep, part, rove} from "./dom.js";
import {brisk, chance, count, fieldOf, number, percent} from "./format.js";
import {lessonsInView, refresh, room} from "./state.js";
import {soften} from "./soften.js";
import {isSpeakable, tokenNodes, tokenRow, tokenText} from "./token_marks.js";
import {pieceNames, pieceOf} from "./tokens.js";
import {say, speech} from "./words.js";

const HOTTEST = 10;
const TOO_HOT = 6;
const COLDEST = 0.5;
const NAMED = 3; // candidates that the lesson on dark knowledge calls by name
const TELLING = 4; // where to begin when the lesson itself stays at 1, which softens nothing

/** Draw the view into `box`. */
export function drawTemperature(box) {
  const lesson = room.current;
  const newest = lesson.until("cards", room.step).reverse().find((one) => one.detail && one.detail.teacher_top.length);
  const card = room.held || newest; // whoever tries out a token keeps it, though the lesson goes on
  keep(part(box, "intro", "p"), speech.language, () => el("span", {}, say("temperature.intro")));
  const own = lesson.setting("temperature");
  const temperature = room.temperature === null ? (own > 1 ? own : TELLING) : room.temperature;
  const bench = part(box, "bench-top");
  if (!card) {
    keep(bench, [speech.language, "none"], () => el("p", { class: "waiting" }, say("temperature.none")));
  } else {
    const index = Math.min(room.token === null ? mostTelling(card.detail) : room.token, card.detail.teacher_top.length - 1);
    const owns = ownTemperatures();
    keep(bench, [speech.language, lesson.id, card.step, card.wall_time, owns], () => [
      picker(card),
      slider(owns, card),
      el("div", { class: "softened" }),
    ]);
    bench.querySelectorAll(".pick").forEach((one, at) => {
      one.setAttribute("aria-checked", String(at === index));
      one.setAttribute("tabindex", at === index ? "0" : "-1");
    });
    bench.querySelector("#temperature").value = temperature;
    bench.querySelector("#temperature").setAttribute("aria-valuetext", `T = ${brisk(temperature)}`);
    bench.querySelector(".reading").textContent = `T = ${temperature.toFixed(1)}`;
    const others = lesson.started && lesson.started.vocabulary ? lesson.started.vocabulary - card.detail.teacher_top[index].length : 0;
    const key = [speech.language, lesson.id, card.step, card.wall_time, index, temperature, others];
    keep(bench.querySelector(".softened"), key, () => softened(card.detail.teacher_top[index], others, temperature));
  }
  const lessons = lessonsInView();
  const steps = lessons.map((one) => one.latest("steps", room.step));
  const sharing = lessons.map((one, index) => [one.id, one.place, steps[index] && steps[index].step]);
  keep(part(box, "shares", "section"), [speech.language, sharing], () =>
    lessons.map((one, index) => [lessons.length > 1 ? el("p", { class: "lesson-name" }, nameTag(one)) : null, shares(one, steps[index])]),
  );
}

/** Where the teacher hesitates most, among tokens that can be read out: there is most to see. */
function mostTelling(detail) {
  const told = detail.teacher_top.map((top, index) => isSpeakable(detail.teacher[index]) && top.slice(0, NAMED).every(([text]) => isSpeakable(text)));
  const second = detail.teacher_top.map((top, index) => (top.length > 1 ? top[1][1] + (told[index] ? 1 : 0) : 0));
  return second.indexOf(Math.max(...second));
}

function picker(card) {
  const detail = card.detail;
  const choose = (item) => {
    Object.assign(room, { token: picks.indexOf(item), held: card });
    refresh();
  };
  const picks = detail.teacher.map((piece, index) =>
    el("span", { class: "pick", role: "radio", "aria-checked": "false", tabindex: "-1" }, pieceOf(detail, "teacher", index)),
  );
  const heard = {
    click: (event) => event.target.closest(".pick") && choose(event.target.closest(".pick")),
    keydown: (event) => {
      const item = rove(picks, event);
      if (item) choose(item);
    },
  };
  return el(
    "div",
    { class: "picker" },
    el("h2", { id: "pick-title" }, say("temperature.token")),
    el("p", { class: "picks", lang: tongue(detail.teacher.join("")), role: "radiogroup", "aria-labelledby": "pick-title", on: heard }, tokenRow(picks, pieceNames(detail, "teacher"))),
  );
}

/** The temperatures of the lessons in view, each once: [[temperature, the first such lesson's number where there are several]]. */
function ownTemperatures() {
  const lessons = lessonsInView().filter((lesson) => lesson.setting("temperature"));
  const seen = new Map();
  for (const lesson of lessons) {
    const own = lesson.setting("temperature");
    if (!seen.has(own)) seen.set(own, lessons.length > 1 ? lesson.place + 1 : null);
  }
  return Array.from(seen);
}

function slider(owns, card) {
  const set = (value) => {
    Object.assign(room, { temperature: Math.min(HOTTEST, Math.max(COLDEST, value)), held: card });
    refresh();
  };
  const input = el("input", {
    type: "range",
    id: "temperature",
    min: COLDEST,
    max: HOTTEST,
    step: 0.1,
    on: { input: (event) => set(Number(event.target.value)) },
  });
  const button = ([own, number]) =>
    el("button", { type: "button", class: "chip", on: { click: () => set(own) } }, say(number ? "compare.own" : "temperature.own", { number, temperature: brisk(own) }));
  return el(
    "div",
    { class: "heating" },
    el("label", { for: "temperature" }, say("temperature.slider")),
    input,
    el("output", { class: "reading", for: "temperature" }),
    el("span", { class: "owns" }, owns.map(button)),
  );
}

function softened(top, others, temperature) {
  const [hard, soft] = [soften(top, 0, 1), soften(top, 0, temperature)]; // among those that are known by name
  const shown = { temperature: brisk(temperature) };
  const rows = top.map(([text], rank) => pairRow(text, hard.shares[rank], soft.shares[rank], shown));
  return [
    el("h2", {}, say("temperature.bars", shown)),
    el("p", { class: "key-line" }, el("span", {}, el("span", { class: "swatch hard" }), say("temperature.hard")), el("span", {}, el("span", { class: "swatch soft" }), say("temperature.soft", shown))),
    el("ol", { class: "pairs" }, rows),
    el("p", { class: "quiet" }, say("temperature.entropy", { before: brisk(hard.entropy), after: brisk(soft.entropy) })),
    el("p", { class: "lesson-note" }, darkKnowledge(top, hard, soft, temperature)),
    others > 0 ? masses(top, others, temperature, shown) : null,
  ];
}

/** Known and unknown tokens as wholes. The unknown are taken as equally likely, which softens them the most. */
function masses(top, others, temperature, shown) {
  const row = (label, heat) => {
    const rest = soften(top, others, heat).rest;
    const piece = (name, share) => el("span", { class: `fill ${name}`, style: { width: `${(100 * share).toFixed(2)}%` } });
    const share = say(heat === 1 ? "temperature.share" : "temperature.most", { share: chance(rest) });
    return el("li", {}, el("span", { class: "mass-label" }, label), el("span", { class: "meter", "aria-hidden": "true" }, piece("known", 1 - rest), piece("others", rest)), el("span"), el("span", {}, share));
  };
  const key = (name, word) => el("li", {}, el("span", { class: `swatch ${name}` }), word);
  return el(
    "div",
    { class: "masses" },
    el("ul", { class: "key" }, key("known", say("temperature.known", { count: top.length })), key("others", say("temperature.rest", { count: count(others) }))),
    el("ul", { class: "rows" }, row(say("temperature.hard"), 1), temperature === 1 ? null : row(say("temperature.soft", shown), temperature)),
    el("p", { class: "quiet" }, say("temperature.even")),
  );
}

function pairRow(text, hard, soft, shown) {
  const bar = (kind, share, label) =>
    el(
      "span",
      { class: `pair-bar ${kind}` },
      el("span", { class: "bar", role: "img", "aria-label": `${label} ${chance(share)}`, style: { width: `${(100 * share).toFixed(2)}%` } }),
      el("span", { class: "share", "aria-hidden": "true" }, chance(share)),
    );
  return el("li", {}, el("span", { class: "pair-text", title: tokenText(text) }, tokenNodes(text)), el("span", { class: "pair-bars" }, bar("hard", hard, say("temperature.hard")), bar("soft", soft, say("temperature.soft", shown))));
}

function darkKnowledge(top, hard, soft, temperature) {
  const ranked = top.map(([text]) => tokenText(text));
  const words = {
    first: ranked[0],
    second: ranked[1],
    third: ranked[2],
    temperature: brisk(temperature),
    p1: chance(hard.shares[0]),
    q1: chance(1 - hard.shares[0]),
    p2: chance(soft.shares[0]),
    q2: chance(1 - soft.shares[0]),
  };
  if (temperature < 1) return say("temperature.sharp");
  if (temperature === 1 || ranked.length < 3) return say("temperature.same", words);
  return temperature < TOO_HOT ? say("temperature.dark", words) : [say("temperature.dark", words), " ", say("temperature.flat")];
}

function shares(lesson, step) {
  if (!step) return [];
  const head = el("h2", {}, say("temperature.shares", { step: step.step }));
  const [alpha, beta] = [lesson.setting("alpha"), lesson.setting("beta")];
  if (!Number.isFinite(step.kd) || !Number.isFinite(step.ce) || alpha === null || beta === null || step.kd === null || step.ce === null) {
    return [head, el("p", { class: "waiting" }, say("temperature.noshares"))];
  }
  const [kd, ce] = [alpha * step.kd, beta * step.ce];
  const whole = kd + ce || 1;
  const piece = (name, value) => el("span", { class: `fill ${name}`, style: { width: `${((100 * value) / whole).toFixed(2)}%` } });
  const key = (name, value) => el("li", {}, el("span", { class: `swatch ${name}` }), say(`temperature.${name}`), " ", el("b", {}, percent(value / whole, 1)));
  const words = {
    alpha: brisk(alpha),
    beta: brisk(beta),
    kd: number(step.kd),
    ce: number(step.ce),
    loss: fieldOf(step, "loss", number),
    temperature: brisk(lesson.setting("temperature")),
  };
  return [
    head,
    el("div", { class: "meter loss", "aria-hidden": "true" }, piece("kd", kd), piece("ce", ce)),
    el("ul", { class: "key" }, key("kd", kd), key("ce", ce)),
    el("p", { class: "quiet" }, say("temperature.sharenote", words)),
  ];
}
