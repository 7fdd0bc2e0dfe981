/** Why the student is lazy: laziness split into its parts over time, losses, and what drives them. */
import {partsOf} from "./card.js";
import {clean} from "./clean.js";
import {drawChart} from "./chart.js";
import {el, keep, part} from "./dom.js";
import {brisk, count, percent} from "./format.js";
import {reach, readingsOf, summaryOf} from "./fixed_rows.js";
import {extent, lessonsInView, room} from "./state.js";
import {say, speech} from "./words.js";

const MOST_POINTS = 90;

/** Draw the curves into `box`. */
export function drawLazy(box) {
  const scale = room.current.scale;
  keep(part(box, "intro", "p"), [speech.language, scale], () => {
    const weights = scale && { similarity_weight: brisk(scale.similarity_weight), kl_weight: brisk(scale.kl_weight) };
    return el("span", {}, weights ? say("lazy.intro", weights) : null, " ", el("span", { class: "quiet" }, say("lazy.click")));
  });
  const grid = part(box, "charts");
  plots().forEach((plot) => drawChart(grid, plot));
}

function plots() {
  const parted = lessonsInView().some((lesson) => lesson.scale);
  const whole = (value) => percent(value, 0);
  const cards = (name, tone, dash, pick) => lines(name, tone, dash, true, (lesson) => ofCards(lesson, pick));
  const steps = (name, tone, dash, column) =>
    lines(name, tone, dash, false, (lesson) => ({ x: lesson.columns.step, y: lesson.columns[column] }));
  return [
    {
      name: "parts",
      title: parted ? say("lazy.parts") : say("now.laziness"),
      show: whole,
      range: [0, 1],
      lines: [
        cards("lazy.laziness", "pen", "solid", (card) => card.laziness),
        parted
          ? [cards("lazy.text", "gold", "dashed", shareOf("text")), cards("lazy.kl", "teacher", "dotted", shareOf("kl"))]
          : [],
      ],
    },
    {
      name: "readings",
      title: say("lazy.readings"),
      note: say("lazy.readingsnote"),
      none: say("lazy.none.readings"),
      show: (value) => percent(value, 1),
      range: [0, 1],
      lines: [true, false].map(readingLines),
    },
    {
      name: "losses",
      title: say("lazy.losses"),
      unit: "nat",
      show: brisk,
      lines: [
        steps("lazy.total", "ink", "solid", "loss"),
        steps("now.kd", "teacher", "dashed", "kd"),
        steps("now.ce", "student", "dotted", "ce"),
      ],
    },
    {
      name: "agreement",
      title: say("lazy.agreement"),
      show: whole,
      range: [0, 1],
      lines: [cards("lazy.agreement", "accent", "solid", (card) => card.agreement)],
    },
    {
      name: "gap",
      title: say("lazy.gap"),
      unit: "nat",
      note: say("lazy.gapnote"),
      none: say("lazy.none.gap"),
      show: brisk,
      lines: [cards("lazy.gap", "student", "solid", (card) => known(card.entropy_gap))],
    },
    {
      name: "pulls",
      title: say("lazy.pulls"),
      note: say("lazy.pullsnote"),
      none: say("lazy.none.pulls"),
      show: brisk,
      lines: [
        cards("lazy.kdpull", "teacher", "dashed", (card) => known(card.kd_pull)),
        cards("lazy.cepull", "student", "dotted", (card) => known(card.ce_pull)),
      ],
    },
    {
      name: "softness",
      title: say("lazy.softness"),
      note: say("lazy.softnote"),
      none: say("lazy.none.pulls"),
      show: whole,
      range: [0, 1],
      lines: [cards("lazy.softness", "gold", "solid", (card) => known(card.softness))],
    },
    { name: "rate", title: say("lazy.rate"), show: brisk, lines: [steps("lazy.rate", "accent", "solid", "learning_rate")] },
    { name: "norm", title: say("lazy.norm"), show: brisk, lines: [steps("lazy.norm", "gold", "solid", "grad_norm")] },
    { name: "speed", title: say("lazy.speed"), show: count, lines: [steps("lazy.speed", "teacher", "solid", "speed")] },
  ].map((plot) => Object.assign(plot, { lines: plot.lines.flat(Infinity), length: extent().last }));
}

/** Agreement and laziness on the rows of one kind, as far as the lesson in view has read any. */
function readingLines(unseen) {
  const kind = unseen ? "unseen" : "learned";
  const styles = unseen ? ["accent", "solid", "pen", "dashed"] : ["teacher", "mixed", "gold", "dotted"];
  const read = (name) => (lesson) => {
    const found = readingsOf(lesson, unseen, lesson.lastStep).map((one) => [one.step, (summaryOf(one) || {})[name]]);
    const means = Array.from(new Map(found).entries()).filter(([, mean]) => mean && Number.isFinite(mean.value));
    return { x: means.map(([step]) => step), y: means.map(([, mean]) => mean.value), band: means.map(([, mean]) => reach(mean)) };
  };
  if (!lessonsInView().some((lesson) => readingsOf(lesson, unseen, lesson.lastStep).length)) return [];
  return [
    lines(`lazy.${kind}.agreement`, styles[0], styles[1], true, read("agreement")),
    lines(`lazy.${kind}.laziness`, styles[2], styles[3], true, read("laziness")),
  ];
}

/** One part of a card's laziness; null where its lesson's record does not tell of what it is made. */
function shareOf(name) {
  return (card, scale) => scale && partsOf(card, scale)[name];
}

/** Null, too, where the lesson is from before it was measured. */
function known(value) {
  return value === undefined ? null : value;
}

function ofCards(lesson, pick) {
  const byStep = new Map(); // several cards of one step count as their mean: a curve has one value a step
  lesson.cards.forEach((card) => {
    const value = pick(card, lesson.scale);
    if (value === null || !Number.isFinite(value)) return;
    const seen = byStep.get(card.step) || [0, 0];
    byStep.set(card.step, [seen[0] + value, seen[1] + 1]);
  });
  return { x: Array.from(byStep.keys()), y: Array.from(byStep.values(), ([sum, samples]) => sum / samples) };
}

function lines(word, tone, dash, pointed, read) {
  const own = line(say(word), tone, dash, pointed, false, read(room.current));
  if (!room.other) return [own];
  const name = `${say(word)} · ${clean(room.other.name, 24)}`;
  return [own, line(name, tone, dash, pointed, true, read(room.other))];
}

/** `pointed`: its values lie apart, so they are joined over what is between; each has a point as long as there is room. */
function line(name, tone, dash, pointed, ghost, values) {
  return Object.assign({ name, tone, dash, pointed, ghost, points: pointed && values.x.length <= MOST_POINTS }, values);
}
