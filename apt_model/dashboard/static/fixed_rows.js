/** The fixed rows, which both models read again and again: by reading, by topic and epoch, row by row, and in a sentence. */
import {number, percent} from "./format.js";
import {say} from "./words.js";

const NORMAL_95 = 1.96; // standard errors on either side of a mean in a 95 % interval

/** The readings up to `step` of the rows that nobody learns from, or of the learned ones; odd ones are left out. */
export function readingsOf(lesson, unseen, step) {
  return lesson.until("readings", step).filter((one) => Boolean(one.unseen) === unseen && isWhole(one));
}

/** Whether a record has the form of a reading: another program's may be of any. */
function isWhole(reading) {
  const lists = [reading.rows, reading.texts, reading.topics].filter((one) => one !== null && one !== undefined);
  const rows = Array.isArray(reading.rows) ? reading.rows : [];
  const { measured } = reading;
  return lists.every(Array.isArray) && rows.every((row) => row && Number.isFinite(row.tokens)) && (!measured || isMean(measured.agreement, measured.kl, measured.ce));
}

function isMean(...means) {
  return means.every((one) => one && typeof one === "object");
}

/** Whether the lesson's mastery is read from unseen rows; null where it has no fixed rows at all. */
export function bestKind(lesson) {
  if (!lesson.readings.length) return null;
  return lesson.readings.some((one) => one.unseen);
}

/** A mean over the rows' tokens with its standard error over rows: {value, error}; null without tokens. */
export function estimate(rows, pick) {
  const total = (count) => rows.reduce((sum, row) => sum + count(row), 0);
  const tokens = total((row) => row.tokens);
  if (!tokens || !rows.every((row) => Number.isFinite(pick(row)))) return null;
  const value = total((row) => row.tokens * pick(row)) / tokens;
  const spread = total((row) => (row.tokens * (pick(row) - value)) ** 2);
  return { value, error: rows.length > 1 ? Math.sqrt((spread * rows.length) / (rows.length - 1)) / tokens : null };
}

/** What a reading shows; of one that no scorer has seen, what its rows do. */
export function summaryOf(reading) {
  const rows = reading.rows || [];
  if (reading.measured || !rows.length) return reading.measured || null;
  const mean = (name) => estimate(rows, (row) => row[name]);
  const teacher = rows.every((row) => Number.isFinite(row.teacher_ce)) ? mean("teacher_ce") : null;
  return { rows: rows.length, agreement: mean("agreement"), kl: mean("kl"), ce: mean("ce"), teacher_ce: teacher, laziness: null };
}

/** A mean's interval as [low, high]; the mean alone twice where its error is not known. */
export function reach(mean) {
  const far = mean && Number.isFinite(mean.error) ? NORMAL_95 * mean.error : 0;
  return mean ? [mean.value - far, mean.value + far] : [null, null];
}

/** A mean with its interval as text. */
export function interval(mean, show) {
  if (!mean) return show(null);
  return Number.isFinite(mean.error) ? `${show(mean.value)} ± ${show(NORMAL_95 * mean.error)}` : show(mean.value);
}

/** Agreement, perplexity and KL in one sentence; `final` at the end of a lesson. */
export function readingSentence(summary, unseen, final) {
  const perplexity = (mean) => (mean ? number(Math.exp(mean.value), 1) : "–");
  const own = perplexity(summary.ce);
  return say(`reading.${final ? "final_" : ""}${unseen ? "unseen" : "learned"}`, {
    rows: summary.rows,
    agreement: interval(summary.agreement, (value) => percent(value, 1)),
    perplexity: summary.teacher_ce ? say("reading.beside_teacher", { student: own, teacher: perplexity(summary.teacher_ce) }) : own,
    kl: interval(summary.kl, (value) => number(value, 2)),
  });
}

/** What the rows of one kind are called: their texts and topics, as the first reading has them. */
function named(lesson, unseen) {
  const first = readingsOf(lesson, unseen, lesson.lastStep).find((one) => (one.texts || []).length || (one.topics || []).length);
  return { texts: (first && first.texts) || [], topics: (first && first.topics) || [] };
}

/**
 * Agreement by topic and epoch, from the last reading of each: {topics, groups, cells: Map("topic\nepoch" → {mean, rows})};
 * the epoch before the first step is "0".
 */
export function masteryOfRows(lesson, unseen, step, mostColumns, keyOf) {
  const readings = readingsOf(lesson, unseen, step).filter((one) => (one.rows || []).length);
  const { topics: ofRows } = named(lesson, unseen);
  if (!readings.length || !ofRows.length) return null;
  const byEpoch = new Map(readings.map((one) => [one.epoch, one]));
  const epochs = Array.from(byEpoch.keys()).sort((one, two) => one - two);
  const width = Math.ceil(epochs.length / mostColumns);
  const shown = epochs.filter((epoch, index) => (epochs.length - 1 - index) % width === 0);
  const counts = new Map();
  ofRows.forEach((topic) => counts.set(topic, (counts.get(topic) || 0) + 1));
  const cells = new Map();
  shown.forEach((epoch, group) => {
    for (const topic of [...counts.keys(), null]) {
      const rows = byEpoch.get(epoch).rows.filter((row, index) => topic === null || ofRows[index] === topic);
      const mean = estimate(rows, (row) => row.agreement);
      if (mean) cells.set(keyOf(topic, group), { mean, rows: rows.length });
    }
  });
  const topics = Array.from(counts.keys()).sort((one, two) => counts.get(two) - counts.get(one));
  return { topics, groups: shown.map(String), cells };
}

/**
 * Every fixed row: {text, topic, unseen, course: [{step, agreement}], state}. `state`: "better" or "worse" only where the
 * change from the first reading to the latest is more than the row's few tokens would give by chance.
 */
export function rowsOf(lesson, step) {
  return [true, false].flatMap((unseen) => {
    const readings = readingsOf(lesson, unseen, step).filter((one) => (one.rows || []).length);
    const { texts, topics } = named(lesson, unseen);
    const rows = texts.map((text, index) => {
      const course = readings.filter((one) => one.rows[index]).map((one) => ({ step: one.step, agreement: one.rows[index].agreement }));
      const tokens = readings.length && readings[0].rows[index] ? readings[0].rows[index].tokens : 0;
      return { text, unseen, topic: topics[index], course, state: stateOfRow(course, tokens) };
    });
    return rows.filter((row) => row.course.length).sort((one, two) => latestOf(one) - latestOf(two));
  });
}

function latestOf(row) {
  return row.course[row.course.length - 1].agreement;
}

/**
 * Whether two shares of `tokens` differ by more than chance: Agresti and Caffo's interval of two proportions. The tokens are
 * the same both times, so it is rather too cautious.
 */
function stateOfRow(course, tokens) {
  if (course.length < 2) return "once";
  const [first, last] = [course[0], course[course.length - 1]].map((one) => (one.agreement * tokens + 1) / (tokens + 2));
  const chance = NORMAL_95 * Math.sqrt((first * (1 - first) + last * (1 - last)) / (tokens + 2));
  if (Math.abs(last - first) <= chance) return "same";
  return last > first ? "better" : "worse";
}
