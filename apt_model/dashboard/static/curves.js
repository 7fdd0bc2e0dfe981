/**
 * The curves: what each is called, how it is drawn, and its points in one lesson. apt_model/review/curves.py gives the same
 * points under the same names.
 */
import {partsOf} from "./card.js";
import {reach, readingsOf, summaryOf} from "./fixed_rows.js";

/** The charts of the view "why lazy", each with its curves in order. `log`: its values are above 0, so a log scale shows them. */
export const CHARTS = [
  {
    name: "parts",
    unit: "percent",
    curves: [
      ofCards("laziness", "lazy.laziness", "pen", "solid", (card) => card.laziness),
      ofCards("laziness_text", "lazy.text", "gold", "dashed", shareOf("text")),
      ofCards("laziness_kl", "lazy.kl", "teacher", "dotted", shareOf("kl")),
    ],
  },
  {
    name: "readings",
    unit: "percent",
    curves: [
      ofReadings("unseen", "agreement", "accent", "solid"),
      ofReadings("unseen", "laziness", "pen", "dashed"),
      ofReadings("learned", "agreement", "teacher", "mixed"),
      ofReadings("learned", "laziness", "gold", "dotted"),
    ],
  },
  {
    name: "losses",
    unit: "nat",
    log: true,
    curves: [
      ofSteps("loss", "lazy.total", "ink", "solid", "loss"),
      ofSteps("kd", "now.kd", "teacher", "dashed", "kd"),
      ofSteps("ce", "now.ce", "student", "dotted", "ce"),
    ],
  },
  { name: "agreement", unit: "percent", curves: [ofCards("agreement", "lazy.agreement", "accent", "solid", (card) => card.agreement)] },
  { name: "gap", unit: "nat", curves: [ofCards("entropy_gap", "lazy.gap", "student", "solid", (card) => card.entropy_gap)] },
  {
    name: "pulls",
    unit: "norm",
    log: true,
    curves: [
      ofCards("kd_pull", "lazy.kdpull", "teacher", "dashed", (card) => card.kd_pull),
      ofCards("ce_pull", "lazy.cepull", "student", "dotted", (card) => card.ce_pull),
    ],
  },
  { name: "softness", unit: "percent", curves: [ofCards("softness", "lazy.softness", "gold", "solid", (card) => card.softness)] },
  { name: "rate", unit: "rate", log: true, curves: [ofSteps("learning_rate", "lazy.rate", "accent", "solid", "learning_rate")] },
  { name: "norm", unit: "norm", log: true, curves: [ofSteps("grad_norm", "lazy.norm", "gold", "solid", "grad_norm")] },
  { name: "speed", unit: "speed", log: true, curves: [ofSteps("tokens_per_second", "now.speed", "teacher", "solid", "speed")] },
];

function ofSteps(name, word, tone, dash, column) {
  return { name, word, tone, dash, pointed: false, read: (lesson) => ({ x: lesson.columns.step, y: lesson.columns[column] }) };
}

/** Several cards of one step count as their mean: a curve has one value a step. */
function ofCards(name, word, tone, dash, pick) {
  const read = (lesson) => {
    const byStep = new Map();
    lesson.cards.forEach((card) => {
      const value = pick(card, lesson.scale);
      if (!Number.isFinite(value)) return;
      const seen = byStep.get(card.step) || [0, 0];
      byStep.set(card.step, [seen[0] + value, seen[1] + 1]);
    });
    return { x: Array.from(byStep.keys()), y: Array.from(byStep.values(), ([sum, samples]) => sum / samples) };
  };
  return { name, word, tone, dash, pointed: true, read };
}

/** The mean of each reading of the rows of one kind, with its interval; of two after the same step the last one's. */
function ofReadings(kind, what, tone, dash) {
  const read = (lesson) => {
    const found = readingsOf(lesson, kind === "unseen", lesson.lastStep).map((one) => [one.step, (summaryOf(one) || {})[what]]);
    const means = Array.from(new Map(found).entries()).filter(([, mean]) => mean && Number.isFinite(mean.value));
    return { x: means.map(([step]) => step), y: means.map(([, mean]) => mean.value), band: means.map(([, mean]) => reach(mean)) };
  };
  return { name: `${kind}_${what}`, word: `lazy.${kind}.${what}`, tone, dash, pointed: true, read };
}

/** One part of a card's laziness; null where its lesson's record does not tell of what it is made. */
function shareOf(name) {
  return (card, scale) => scale && partsOf(card, scale)[name];
}

/**
 * The values smoothed as TensorBoard does it: an exponential moving average, freed of the pull of its start; `weight` 0 to 1
 * is what is kept of the average at each value. Values that are missing stay so.
 */
export function smoothed(values, weight) {
  let [mean, known] = [0, 0];
  return values.map((value) => {
    if (!Number.isFinite(value)) return null;
    known += 1;
    mean = weight * mean + (1 - weight) * value;
    return mean / (1 - weight ** known);
  });
}

/** The points of a chart's curves as CSV, in the form of `apt-model report --csv`. */
export function csvOf(curves, lessons) {
  const rows = lessons.flatMap((lesson) =>
    curves.flatMap((curve) => {
      const { x, y, band } = curve.read(lesson);
      const known = x.map((step, index) => [step, y[index], ...(band ? band[index] : ["", ""])]);
      return known.filter(([, value]) => Number.isFinite(value)).map((point) => [lesson.name, curve.name, ...point]);
    }),
  );
  const head = ["run", "curve", "step", "value", "low", "high"];
  return [head, ...rows].map((row) => `${row.map(csvField).join(",")}\r\n`).join("");
}

function csvField(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}
