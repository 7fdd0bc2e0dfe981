/** The hard-question ledger: every sample by its text, how it went each time, and whether it stayed learned. */

const TOKENS_KEPT = 3;
const SURE_BELOW_NATS = 0.5;
const HARD_FROM_NATS = 2;

/**
 * The samples of `cards`, those seen more than once first, then the hardest: {text, topic, cards, peak, latest, state, tokens}.
 *
 * `state`: "mastered" (was lazy, is not now), "forgotten" (was not lazy once, is now), "hard" (its light was never green),
 * "once" (one card only). `tokens`: the hardest, {text, highest, latest} in nats, by position in the sample.
 */
export function ledgerOf(cards) {
  const samples = new Map();
  cards.forEach((card) => {
    const seen = samples.get(card.input_text) || [];
    seen.push(card);
    samples.set(card.input_text, seen);
  });
  return Array.from(samples, ([text, seen]) => entry(text, seen)).sort(byInterest);
}

/** Those that came back first, for they show what became of them; among them the hardest. */
function byInterest(one, two) {
  return (one.state === "once") - (two.state === "once") || two.hardness - one.hardness;
}

function entry(text, seen) {
  const latest = seen[seen.length - 1];
  const peak = seen.reduce((worst, card) => (card.normalised_kl > worst.normalised_kl ? card : worst));
  const tokens = tokenCourse(seen);
  return { text, topic: latest.topic, cards: seen, latest, peak, tokens, state: stateOf(seen), hardness: peak.normalised_kl };
}

function stateOf(seen) {
  return outcomeOf(seen.map((card) => card.light === "green"));
}

function outcomeOf(learned) {
  if (learned.length === 1) return "once";
  if (learned[learned.length - 1]) return "mastered";
  return learned.includes(true) ? "forgotten" : "hard";
}

/**
 * The tokens that were hard at least once (KL of 2 nats), hardest first, each by its place in its sample:
 * {text, times, peak: {kl, step}, latest: {kl, step}, state}; learned is a token below half a nat. A state other than "once"
 * needs a later card with the same place on it: the same word elsewhere tells nothing of it.
 */
export function hardTokensOf(cards) {
  const known = new Map();
  for (const card of cards.filter((one) => one.detail)) {
    card.detail.teacher.forEach((text, index) => {
      if (!text.trim()) return;
      const place = JSON.stringify([card.input_text, card.given, index, text]);
      const seen = known.get(place) || { text, times: [] };
      seen.times.push({ kl: card.detail.kl_nats[index], step: card.step });
      known.set(place, seen);
    });
  }
  return Array.from(known.values(), ({ text, times }) => ({
    text,
    times: times.length,
    peak: times.reduce((worst, one) => (one.kl > worst.kl ? one : worst)),
    latest: times[times.length - 1],
    state: outcomeOf(times.map((one) => one.kl < SURE_BELOW_NATS)),
  }))
    .filter((one) => one.peak.kl >= HARD_FROM_NATS)
    .sort((one, two) => (one.state === "once") - (two.state === "once") || two.peak.kl - one.peak.kl);
}

function tokenCourse(seen) {
  const places = new Map();
  seen.forEach((card) => {
    const detail = card.detail;
    if (!detail) return;
    detail.kl_nats.forEach((kl, index) => {
      const text = detail.teacher[index];
      const key = `${index}\n${text}`;
      const known = places.get(key) || { text, highest: -Infinity, latest: kl };
      places.set(key, { text, highest: Math.max(known.highest, kl), latest: kl });
    });
  });
  return Array.from(places.values()).sort((one, two) => two.highest - one.highest).slice(0, TOKENS_KEPT);
}

/** Mean laziness by topic and epoch: {topics, epochs, cells: Map("topic\nepoch" → {sum, samples})}. */
export function masteryOf(cards, mostColumns) {
  const last = cards.reduce((most, card) => Math.max(most, card.epoch), 1);
  const width = Math.ceil(last / mostColumns);
  const cells = new Map();
  const counts = new Map();
  cards.forEach((card) => {
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
