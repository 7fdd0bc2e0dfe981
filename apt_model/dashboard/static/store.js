/** One lesson: its records, sorted into what the views ask for. Knows nothing of how they came or how they look. */

const SCALE = ["similarity_weight", "kl_weight", "green_below", "yellow_below"];
const COLUMNS = ["step", "loss", "kd", "ce", "learning_rate", "grad_norm", "speed"];

export class Lesson {
  /** An empty lesson; `id` is the server's, opaque. */
  constructor(id, name) {
    this.id = id;
    this.name = name;
    this.offset = 0;
    this.link = "none";
    this.source = null;
    this.place = null;
    this.since = 0;
    this.reset();
  }

  /** Forget every record. */
  reset() {
    this.version = (this.version || 0) + 1;
    this.started = null;
    this.finished = null;
    this.cards = [];
    this.epochs = [];
    this.exams = [];
    this.readings = [];
    this.notices = [];
    this.steps = [];
    this.columns = Object.fromEntries(COLUMNS.map((name) => [name, []]));
    this.lastStep = 0;
    this.openings = [];
    this.lines = 0;
    this.damage = null;
  }

  /** The next line of the record is no event. */
  spoil() {
    this.lines += 1;
    const known = this.damage || { count: 0, line: this.lines, why: null };
    this.damage = Object.assign({}, known, { count: known.count + 1 });
  }

  /** Take in one record; kinds that nobody here knows are left out. */
  add(record) {
    if (record.kind === "run_started") this.started = record;
    else if (record.kind === "epoch_started") this.openings.push(record);
    else if (record.kind === "step") this.addStep(record);
    else if (record.kind === "card") this.cards.push(record);
    else if (record.kind === "epoch_finished") this.epochs.push(record);
    else if (record.kind === "reading") this.readings.push(record);
    else if (record.kind === "exam") this.exams.push(record);
    else if (record.kind === "notice") this.notices.push(record);
    else if (record.kind === "run_finished") this.finished = record;
    else return;
    if (record.step > this.lastStep) this.lastStep = record.step;
    this.version += 1;
  }

  addStep(record) {
    const seen = this.columns.step;
    if (seen.length && record.step <= seen[seen.length - 1]) return; // a curve's x only grows
    this.steps.push(record);
    const speed = record.tokens !== null && record.step_seconds > 0 ? record.tokens / record.step_seconds : null;
    const values = Object.assign({}, record, { speed });
    COLUMNS.forEach((name) => this.columns[name].push(values[name] === undefined ? null : values[name]));
  }

  /** Steps that the lesson has, or will have. */
  get length() {
    const planned = this.finished ? 0 : (this.started && this.started.total_steps) || 0;
    return Math.max(planned, this.lastStep, 1);
  }

  get over() {
    return this.finished !== null;
  }

  /** The newest of `list` ("cards", "steps", "exams", …) at `step`, or null. */
  latest(list, step) {
    const found = upTo(this[list], step);
    return found ? this[list][found - 1] : null;
  }

  /** All of `list` up to `step`. */
  until(list, step) {
    return this[list].slice(0, upTo(this[list], step));
  }

  /** The cards of the newest step that has any. */
  cardsAt(step) {
    const newest = this.latest("cards", step);
    return newest ? this.until("cards", step).filter((card) => card.step === newest.step) : [];
  }

  /** The constants by which this lesson's cards were judged (events/laziness.py); null where its record has none. */
  get scale() {
    const scale = this.started && this.started.laziness_scale;
    return scale && SCALE.every((name) => Number.isFinite(scale[name])) ? scale : null;
  }

  /** Whether another trainer trains the student, and only compares it with the teacher. */
  get observed() {
    return this.started !== null && this.started.learns_from_teacher === false;
  }

  setting(name) {
    const config = (this.started && this.started.config) || {};
    return typeof config[name] === "number" ? config[name] : null;
  }
}

/** How many of `records`, sorted by step, lie at or before `step`. */
export function upTo(records, step) {
  let [low, high] = [0, records.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (records[middle].step <= step) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The step of the card before or after `step`; null at the ends. */
export function neighbour(lesson, step, direction) {
  const steps = lesson.cards.map((card) => card.step);
  const newest = lesson.latest("cards", step);
  const found =
    direction > 0
      ? steps.find((one) => one > step)
      : steps.filter((one) => one < (newest && newest.step < step ? newest.step + 1 : step)).pop();
  return found === undefined ? null : found;
}
