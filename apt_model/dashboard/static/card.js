/** The card: what both said on one sample, how lazy the student is, on which topic, with a remark. */
import {clean, tongue} from "./clean.js";
import {el, meter} from "./dom.js";
import {brisk, fieldOf, levelsOf, number, percent} from "./format.js";
import {termed} from "./terms.js";
import {tokenLegend, tokenRows} from "./tokens.js";
import {remarkWord, say, topicWord} from "./words.js";

export const LIGHTS = { green: "●", yellow: "▲", red: "■" };

/** The light's colour; red where it is none of them. */
export function kindOf(light) {
  return light in LIGHTS ? light : "red";
}

/** The light as a shape, a colour and, if `worded`, words. */
export function lightMark(light, worded) {
  const shape = el("span", { class: "shape", "aria-hidden": "true" }, LIGHTS[kindOf(light)]);
  return el("span", { class: `light ${kindOf(light)}` }, shape, worded ? say(`light.${kindOf(light)}`) : null);
}

/** The light that goes with a laziness that has none of its own, by a lesson's `scale`; null where that is not known. */
export function lightOf(laziness, scale) {
  if (!scale) return null;
  if (laziness < scale.green_below) return "green";
  return laziness < scale.yellow_below ? "yellow" : "red";
}

/** Laziness as the sum of two parts by a lesson's `scale`: how far the texts differ, and KL. */
export function partsOf(card, scale) {
  if (!Number.isFinite(card.similarity)) return { text: null, kl: null }; // there was nothing to compare
  return { text: scale.similarity_weight * (1 - card.similarity), kl: scale.kl_weight * card.normalised_kl };
}

/** The sum of a card's laziness with its numbers, by a lesson's `scale`. */
export function formulaOf(card, scale) {
  return say("now.formula", {
    similarity_weight: brisk(scale.similarity_weight),
    kl_weight: brisk(scale.kl_weight),
    similarity: number(card.similarity, 3),
    kl: number(card.normalised_kl, 3),
    laziness: percent(card.laziness),
  });
}

/** A whole card as an article; `scale`: of its lesson, null where the record has none. */
export function cardArticle(card, scale) {
  const levels = levelsOf(scale);
  const strips = card.detail ? tokenRows(card.detail, levels) : null;
  const goesOn = card.card_text === "continued";
  const rows = strips && !goesOn ? strips : plainRows(card);
  return el(
    "article",
    { class: `card ${kindOf(card.light)}`, "data-step": card.step },
    cardHead(card),
    el(
      "dl",
      { class: "voices" },
      card.given ? voice("given", el("span", {}, clean(card.given))) : null,
      card.original ? voice("original", el("span", {}, clean(card.original))) : null,
      voice("teacher", rows.teacher),
      voice("student", rows.student),
    ),
    goesOn ? null : el("p", { class: "quiet hint" }, say("now.predicted"), " ", say(strips ? "now.hint" : "now.plain")),
    judgement(card, scale),
    el("p", { class: "remark" }, el("span", { class: "remark-by" }, say("now.remark")), remarkQuote(card)),
    goesOn && strips ? guesses(strips) : null,
    card.detail ? tokenLegend(levels, Boolean(scale)) : null,
  );
}

function remarkQuote(card) {
  const said = remarkWord(card);
  return el("q", { lang: tongue(said) }, said);
}

/** Where both texts are continuations: what each model expected at every token of the original. */
function guesses(strips) {
  return el(
    "section",
    { class: "guesses" },
    el("h3", {}, say("now.guesses")),
    el("dl", { class: "voices" }, voice("teacher", strips.teacher), voice("student", strips.student)),
    el("p", { class: "quiet hint" }, say("now.hint")),
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
  const row = (text) => (clean(text).trim() ? el("span", { class: "strip" }, clean(text)) : el("span", { class: "quiet" }, say("now.silence")));
  return { teacher: row(card.teacher_text), student: row(card.student_text) };
}

function judgement(card, scale) {
  return el(
    "section",
    { class: "judged" },
    el(
      "p",
      { class: "judged-line" },
      el("span", {}, termed(card.compared === "tokens" ? "now.oftokens" : "now.laziness")),
      el("strong", {}, percent(card.laziness)),
      lightMark(card.light, true),
      el("span", { class: "quiet" }, say("now.agree", { agreement: fieldOf(card, "agreement", (value) => percent(value, 0)) })),
    ),
    scale && Number.isFinite(card.laziness) ? madeOf(card, scale) : meter(card.laziness, say("now.laziness"), `laziness ${kindOf(card.light)}`),
    cardFigures(card, scale),
  );
}

/** The bar of both parts with the bounds of the lights, and the formula with its numbers. */
function madeOf(card, scale) {
  const parts = partsOf(card, scale);
  const bar = meter(card.laziness, say("now.laziness"), "laziness");
  const width = (share) => `${(100 * Math.max(0, share)).toFixed(2)}%`;
  bar.replaceChildren(
    ...Object.entries(parts).map(([name, share]) => el("span", { class: `fill ${name}`, style: { width: width(share) } })),
    ...[scale.green_below, scale.yellow_below].map((at) => el("span", { class: "bound", style: { "inset-inline-start": width(at) } })),
  );
  const key = (name, share) => el("span", {}, el("span", { class: `swatch ${name}` }), say(`now.part.${name}`), " ", percent(share, 1));
  return [
    bar,
    el("div", { class: "made" }, el("p", { class: "quiet parts" }, key("text", parts.text), key("kl", parts.kl)), el("p", { class: "quiet" }, formulaOf(card, scale))),
  ];
}

function cardFigures(card, scale) {
  const gap = "entropy_gap" in card && (card.entropy_gap !== null || (card.nonfinite && "entropy_gap" in card.nonfinite));
  const figures = [
    ["now.sampleloss", fieldOf(card, "loss", number)],
    Number.isFinite(card.gain) ? ["now.gain", number(Math.max(card.gain, 0), 2)] : null,
    gap ? ["now.gap", fieldOf(card, "entropy_gap", brisk)] : null,
    ...(scale ? [] : [["now.similarity", number(card.similarity, 3)], ["now.kl", number(card.normalised_kl, 3)]]),
  ];
  return figureList(figures.filter(Boolean));
}

/** Pairs of a word and a figure. */
export function figureList(figures) {
  return el(
    "dl",
    { class: "figures" },
    figures.map(([word, figure]) => el("div", {}, el("dt", {}, termed(word)), el("dd", {}, figure))),
  );
}
