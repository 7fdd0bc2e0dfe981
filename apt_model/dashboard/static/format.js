/** Numbers as the lesson shows them; what is not a number is said, never hidden. */
import {brief} from "./clean.js";

const NO_NUMBER = "–";
const NOT_FINITE = { nan: "NaN", inf: "∞", "-inf": "−∞" };

const FOR_THE_EYE = [0.5, 1, 2.5, 5]; // of a record that does not tell of its lights
const NEARLY_ONE = 0.999;
const FAR = [1.5, 4]; // beyond the yellow bound: chosen for the eye
const SIZES = [[1e9, "B"], [1e6, "M"], [1e3, "K"]];

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

export function percent(value, digits = 2) {
  return isNumber(value) ? `${(100 * value).toFixed(digits)}%` : NO_NUMBER;
}

/** A probability, however small. */
export function chance(value) {
  if (!isNumber(value)) return NO_NUMBER;
  if (value >= 0.9995 && value < 1) return percent(Math.min(value, 0.9999), 2);
  if (value >= 0.1) return percent(value, 1);
  if (value >= 0.001 || value === 0) return percent(value, 2);
  return value < 1e-6 ? "< 0.0001%" : `${Number((100 * value).toPrecision(2))}%`;
}

export function number(value, digits = 4) {
  return isNumber(value) ? value.toFixed(digits).replace("-", "−") : NO_NUMBER;
}

/** Four significant digits, short. */
export function brisk(value) {
  if (!isNumber(value)) return NO_NUMBER;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2).replace("-", "−");
  return String(Number(value.toPrecision(size < 1 ? 3 : 4))).replace("-", "−");
}

export function count(value) {
  return isNumber(value) ? Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ",") : NO_NUMBER;
}

/** A model by its kind and size, "Llama 260K": teacher and student are often of one class. */
export function modelName(model) {
  const kind = brief(String(model.name).replace(/(ForCausalLM|LMHeadModel)$/, "") || model.name, 40);
  const [unit, sign] = SIZES.find(([least]) => model.parameters >= least) || [1, ""];
  return model.parameters ? `${kind} ${Number((model.parameters / unit).toPrecision(3))}${sign}` : kind;
}

/** Seconds as m:ss or h:mm:ss. */
export function duration(seconds) {
  if (!isNumber(seconds) || seconds < 0) return NO_NUMBER;
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A field of a record; where it was not finite, the record names what it was. */
export function fieldOf(record, name, show = number) {
  if (record && record.nonfinite && name in record.nonfinite) {
    return NOT_FINITE[record.nonfinite[name]] || String(record.nonfinite[name]).slice(0, 12);
  }
  return show(record ? record[name] : null);
}

/**
 * The KL, in nats, at which the mark of a token changes, by the lights of a lesson's `scale`. Laziness counts a token as
 * 1 − e^(−KL), so the first mark is where that reaches the green light's bound, and the second where it reaches the yellow one's.
 */
export function levelsOf(scale) {
  if (!scale) return FOR_THE_EYE;
  const [green, yellow] = ["green_below", "yellow_below"].map((name) => -Math.log(1 - Math.min(scale[name], NEARLY_ONE)));
  return [green, yellow, ...FAR.map((further) => yellow + further)];
}

/** How far a token departs, 0 to 4. */
export function levelOf(kl, levels) {
  return levels.filter((bound) => kl >= bound).length;
}

/** The bounds of a level, in nats, as text. */
export function levelBounds(level, levels) {
  const [from, to] = [level - 1, level].map((at) => number(levels[at], 2));
  if (level === 0) return `< ${to}`;
  return level === levels.length ? `≥ ${from}` : `${from}–${to}`;
}
