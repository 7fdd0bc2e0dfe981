/** The card: what both said on one sample, how lazy the student is, on which topic, with a remark. */
import {brief, clean, tongue} from "./clean.js";
import {el, meter} from "./dom.js";
import {brisk, fieldOf, number, percent} from "./format.js";
import {tokenLegend, tokenRows} from "./tokens.js";
import {say, topicWord} from "./words.js";

const LIGHTS = { green: "●", yellow: "▲", red: "■" };

/** The light as a shape, a colour and, if `worded`, words. */
export function lightMark(light, worded) {
  const known = light in LIGHTS ? light : "red";
  const shape = el("span", { class: "shape", "aria-hidden": "true" }, LIGHTS[known]);
  return el("span", { class: `light ${known}` }, shape, worded ? say(`light.${known}`) : null);
}

/** The light that goes with a laziness, as apt_model/teaching/laziness.py sets it. */
export function lightOf(laziness) {
  if (laziness < 0.3) return "green";
  return laziness < 0.6 ? "yellow" : "red";
}

/** A whole card as an article. */
export function cardArticle(card) {
  const rows = card.detail ? tokenRows(card.detail) : plainRows(card);
  return el(
    "article",
    { class: `card ${card.light in LIGHTS ? card.light : "red"}`, "data-step": card.step },
    cardHead(card),
    el(
      "dl",
      { class: "voices" },
      card.given ? voice("given", el("span", {}, clean(card.given))) : null,
      voice("teacher", rows.teacher),
      voice("student", rows.student),
    ),
    card.detail ? el("p", { class: "quiet hint" }, say("now.hint")) : el("p", { class: "quiet hint" }, say("now.plain")),
    judgement(card),
    el("p", { class: "remark" }, el("span", { class: "remark-by" }, say("now.remark")), el("q", { lang: tongue(card.remark) }, clean(card.remark, 500))),
    card.detail ? tokenLegend() : null,
  );
}

function cardHead(card) {
  const source = `now.source.${["train", "validation", "probe"].includes(card.source) ? card.source : "train"}`;
  return el(
    "header",
    { class: "card-head" },
    el("h2", {}, say("now.step", { step: card.step })),
    el("span", { class: "quiet" }, say("now.epoch", { epoch: card.epoch }), " · ", say("now.batch", { batch: card.batch })),
    el("span", { class: "quiet" }, say(source)),
    el("span", { class: "topic", title: say("now.topic") }, topicWord(card.topic)),
  );
}

function voice(role, said) {
  return el("div", { class: `voice ${role}` }, el("dt", {}, say(`now.${role}`)), el("dd", { dir: "auto", lang: tongue(said.textContent) }, said));
}

function plainRows(card) {
  const row = (text) => el("span", { class: "strip" }, clean(text) || "·");
  return { teacher: row(card.teacher_text), student: row(card.student_text) };
}

function judgement(card) {
  const parts = { text: 0.6 * (1 - card.similarity), kl: 0.4 * card.normalised_kl };
  const bar = meter(card.laziness, say("now.laziness"), "laziness");
  bar.replaceChildren(
    ...Object.entries(parts).map(([name, share]) =>
      el("span", { class: `fill ${name}`, style: { width: `${(100 * Math.max(0, share)).toFixed(2)}%` } }),
    ),
    el("span", { class: "bound at-30" }),
    el("span", { class: "bound at-60" }),
  );
  const key = (name, share) => el("span", {}, el("span", { class: `swatch ${name}` }), say(`now.part.${name}`), " ", percent(share, 1));
  return el(
    "section",
    { class: "judged" },
    el(
      "p",
      { class: "judged-line" },
      el("span", {}, say("now.laziness")),
      el("strong", {}, percent(card.laziness)),
      lightMark(card.light, true),
    ),
    bar,
    el("p", { class: "quiet parts" }, key("text", parts.text), key("kl", parts.kl)),
    el(
      "p",
      { class: "quiet" },
      say("now.formula", {
        similarity: number(card.similarity, 3),
        kl: number(card.normalised_kl, 3),
        laziness: percent(card.laziness),
      }),
    ),
    cardFigures(card),
  );
}

function cardFigures(card) {
  const gap = "entropy_gap" in card && (card.entropy_gap !== null || (card.nonfinite && "entropy_gap" in card.nonfinite));
  const figures = [
    ["now.sampleloss", fieldOf(card, "loss", number)],
    ["now.agreement", fieldOf(card, "agreement", (value) => percent(value, 1))],
    gap ? ["now.gap", fieldOf(card, "entropy_gap", brisk)] : null,
  ];
  return figureList(figures.filter(Boolean));
}

/** Pairs of a word and a figure. */
export function figureList(figures) {
  return el(
    "dl",
    { class: "figures" },
    figures.map(([word, figure]) => el("div", {}, el("dt", {}, say(word)), el("dd", {}, figure))),
  );
}
