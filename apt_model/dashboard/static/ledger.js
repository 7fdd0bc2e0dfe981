/** The hard-question ledger: every sample by its text, how it went each time, and whether it stayed learned. */

import {levelOf} from "./format.js";
import {isSpeakable} from "./token_marks.js";

const TOKENS_KEPT = 3;
const [LEARNED_LEVEL, HARD_LEVEL] = [0, 3]; // of the marks of tokens: not marked at all, and far off

/**
 * The samples of `cards`, those seen more than once first, then the hardest: {text, topic, cards, peak, latest, state, tokens}.
 *
 * `state`: "mastered" (was lazy, is not now), "forgotten" (was not lazy once, is now), "hard" (its light was never green),
 * "once" (one card only). `tokens`: the hardest, {text, highest, latest, times} in nats, by their place in the sample.
 */
export function ledgerOf(cards) {
  const samples = new Map();
  cards.forEach((card) => {
    const place = placeOf(card);
    if (!samples.has(place)) samples.set(place, []);
    samples.get(place).push(card);
  });
  return Array.from(samples.values(), entry).sort(byInterest);
}

/** A card's sample: its text, of which a record keeps only the beginning, and where in it the card is. */
function placeOf(card) {
  return JSON.stringify([card.input_text, card.given, card.original, card.tokens]);
}

/** Those that came back first, for they show what became of them; among them the hardest. */
function byInterest(one, two) {
  return (one.state === "once") - (two.state === "once") || two.hardness - one.hardness;
}

function entry(seen) {
  const latest = seen[seen.length - 1];
  const peak = seen.reduce((worst, card) => (card.normalised_kl > worst.normalised_kl ? card : worst));
  const state = outcomeOf(seen.map((card) => card.light === "green"));
  return { text: latest.input_text, topic: latest.topic, cards: seen, latest, peak, tokens: tokenCourse(seen), state, hardness: peak.normalised_kl };
}

function outcomeOf(learned) {
  if (learned.length === 1) return "once";
  if (learned[learned.length - 1]) return "mastered";
  return learned.includes(true) ? "forgotten" : "hard";
}

/**
 * The tokens that were hard at least once (their mark said "far off"), hardest first, each by its place in its sample:
 * {text, times, peak: {kl, step}, latest: {kl, step}, state}; learned is a token without a mark. A state other than "once"
 * needs a later card with the same place on it: the same word elsewhere tells nothing of it.
 */
export function hardTokensOf(cards, levels) {
  return tokenPlaces(cards)
    .map((times) => ({
      text: times[0].text,
      times: times.length,
      peak: times.reduce((worst, one) => (one.kl > worst.kl ? one : worst)),
      latest: times[times.length - 1],
      state: outcomeOf(times.map((one) => levelOf(one.kl, levels) <= LEARNED_LEVEL)),
    }))
    .filter((one) => levelOf(one.peak.kl, levels) >= HARD_LEVEL)
    .sort((one, two) => (one.state === "once") - (two.state === "once") || two.peak.kl - one.peak.kl);
}

/**
 * The tokens that can be read out, each with all its times: [[{text, kl, step}]]. One place is one token behind the same
 * tokens of the same sample: what the teacher says before it tells samples apart that a record does not.
 */
function tokenPlaces(cards) {
  const found = [];
  const after = (nodes, key) => {
    if (!nodes.has(key)) {
      nodes.set(key, { next: new Map(), times: [] });
      found.push(nodes.get(key));
    }
    return nodes.get(key);
  };
  const samples = new Map();
  cards.filter((card) => card.detail).forEach((card) => {
    let place = after(samples, placeOf(card));
    card.detail.teacher.forEach((text, index) => {
      place = after(place.next, text);
      if (isSpeakable(text)) place.times.push({ text, kl: card.detail.kl_nats[index], step: card.step });
    });
  });
  return found.map((place) => place.times).filter((times) => times.length);
}

function tokenCourse(seen) {
  return tokenPlaces(seen)
    .map((times) => ({ text: times[0].text, highest: Math.max(...times.map((one) => one.kl)), latest: times[times.length - 1].kl, times: times.length }))
    .sort((one, two) => two.highest - one.highest)
    .slice(0, TOKENS_KEPT);
}

/** Mean laziness by topic and epoch: {topics, epochs, cells: Map("topic\nepoch" → {sum, samples})}. */
export function masteryOf(cards, mostColumns) {
  const last = cards.reduce((most, card) => Math.max(most, card.epoch), 1); // of all: a column may be empty
  const width = Math.ceil(last / mostColumns);
  const cells = new Map();
  const counts = new Map();
  cards.filter((card) => Number.isFinite(card.laziness)).forEach((card) => {
    const group = Math.floor((card.epoch - 1) / width);
    counts.set(card.topic, (counts.get(card.topic) || 0) + 1);
    for (const topic of [card.topic, null]) {
      const key = cellKey(topic, group);
      const cell = cells.get(key) || { sum: 0, samples: 0 };
      cells.set(key, { sum: cell.sum + card.laziness, samples: cell.samples + 1 });
    }
  });
  const topics = Array.from(counts.keys()).sort((one, two) => counts.get(two) - counts.get(one));
  const groups = Array.from({ length: Math.ceil(last / width) }, (hole, group) => {
    const [from, to] = [group * width + 1, Math.min(last, (group + 1) * width)];
    return from === to ? String(from) : `${from}–${to}`;
  });
  return { topics, groups, cells };
}

/** Where a topic (null: all of them) in a group of epochs stands in `cells`. */
export function cellKey(topic, group) {
  return JSON.stringify([topic, group]);
}
