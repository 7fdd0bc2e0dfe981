/** A run as a row of the table: its figures from its own records, or, not opened yet, from what the server lists of it. */
import {clean} from "./clean.js";
import {summaryOf} from "./fixed_rows.js";
import {knows, say} from "./words.js";

/** {lesson, name, date, models, temperature, alpha, rate, steps, over, loss, agreement, laziness, ofCards, grade, trend}. */
export function runRowOf(lesson) {
  const known = isRead(lesson) ? outlineOf(lesson) : (lesson.listed && lesson.listed.outline) || NOTHING;
  const config = (known.started && known.started.config) || {};
  const setting = (name) => (Number.isFinite(config[name]) ? config[name] : null);
  const measured = known.measured || known.validation || {};
  const own = valueOf(measured.laziness);
  const finished = known.finished || {};
  return {
    lesson,
    name: clean(lesson.name, 120),
    date: known.started ? known.started.wall_time : null,
    models: modelsOf(known.started),
    temperature: setting("temperature"),
    alpha: setting("alpha"),
    rate: setting("learning_rate"),
    steps: isRead(lesson) ? lesson.lastStep : lesson.listed ? lesson.listed.steps : 0,
    over: lesson.over || Boolean(lesson.listed && lesson.listed.finished),
    loss: valueOf(measured.ce),
    agreement: valueOf(measured.agreement),
    laziness: own === null ? valueOf(finished.last_laziness) : own,
    ofCards: own === null,
    verdict: verdictOf(finished),
  };
}

const NOTHING = { started: null, measured: null, validation: null, finished: null };

function isRead(lesson) {
  return lesson.loaded || !lesson.listed;
}

/** What the server would list of it (apt_model/dashboard/outline.py). */
function outlineOf(lesson) {
  const reading = lesson.readings.filter((one) => one.unseen && summaryOf(one)).pop();
  const epoch = lesson.epochs.filter((one) => one.validation).pop();
  const finished = lesson.finished || {};
  return {
    started: lesson.started,
    measured: finished.unseen || (reading ? summaryOf(reading) : null),
    validation: finished.validation || (epoch ? epoch.validation : null),
    finished: lesson.finished,
  };
}

/** A mean over fixed rows, or a plain number. */
function valueOf(mean) {
  const value = mean && typeof mean === "object" ? mean.value : mean;
  return Number.isFinite(value) ? value : null;
}

function modelsOf(started) {
  if (!started) return "–";
  const [teacher, student] = [started.teacher, started.student].map((one) => ({ name: clean((one && one.name) || "?", 60), size: sizeOf(one) }));
  const named = teacher.name === student.name ? [teacher.size || teacher.name, student.size || student.name] : [teacher, student].map((one) => `${one.name} ${one.size}`.trim());
  return named.join(" → ");
}

function sizeOf(model) {
  const count = model && model.parameters;
  if (!count) return "";
  const [unit, letter] = count >= 1e9 ? [1e9, "B"] : count >= 1e6 ? [1e6, "M"] : [1e3, "K"];
  return `${Number((count / unit).toPrecision(3))} ${letter}`;
}

function verdictOf({ grade, trend }) {
  const words = [grade && knows(`grade.${grade}`) ? say(`grade.${grade}`) : null, trend && knows(`trend.${trend}`) ? say(`trend.${trend}`) : null];
  return words.filter(Boolean).join(" · ");
}

/** Whether all words sought are in what the row says. */
export function matches(row, sought) {
  const said = [row.name, row.models, row.verdict, `T=${row.temperature}`, `α=${row.alpha}`, `lr=${row.rate}`].join(" ").toLowerCase();
  return sought.toLowerCase().split(/\s+/u).every((word) => said.includes(word));
}

/** Rows by a column; those without a value come last, whichever way it is turned. */
export function sorted(rows, { by, down }) {
  const empty = (row) => row[by] === null || row[by] === "";
  const order = (one, two) => (typeof one === "string" ? one.localeCompare(two, undefined, { numeric: true }) : one - two);
  return rows.slice().sort((one, two) => {
    if (empty(one) || empty(two)) return Number(empty(one)) - Number(empty(two));
    return down ? order(two[by], one[by]) : order(one[by], two[by]);
  });
}
