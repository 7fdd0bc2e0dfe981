/** Branches: which lesson one comes from, and the command that begins another from the step in view. */
import {brief, clean} from "./clean.js";
import {el, keep, part, svg} from "./dom.js";
import {lessonsInView, refresh, room} from "./state.js";
import {listLessons} from "./stream.js";
import {knows, say, speech} from "./words.js";

const COPIED_MS = 2000;
const SETTINGS = ["temperature", "alpha", "learning_rate", "num_epochs"];
const wish = { lesson: null, setting: "temperature", value: "", open: false, copied: 0 };

function branchOf(lesson) {
  return (lesson.started && lesson.started.branch) || null;
}

/** Its own run id, and its parent's if it is a branch, by the record or by the server's list. */
function familyOf(lesson) {
  if (!lesson.started) return (lesson.listed && lesson.listed.family) || [];
  return [lesson.started.run_id, ...(branchOf(lesson) ? [branchOf(lesson).run_id] : [])];
}

/** The lesson on this page that a branch left, with which it is compared at first; null of another lesson. */
export function parentOf(lesson) {
  const parent = familyOf(lesson)[1];
  if (!parent) return null;
  return room.lessons.find((one) => one !== lesson && familyOf(one)[0] === parent) || null;
}

/** Say of each branch in view where it comes from and what it changed. */
export function drawBranches(box) {
  const branches = lessonsInView().filter(branchOf);
  const key = branches.map((lesson) => [lesson.id, branchOf(lesson), Boolean(parentOf(lesson)), lessonsInView().length]);
  keep(box, [speech.language, key], () => branches.map((lesson) => branchLine(lesson, branches.length > 1)));
}

function branchLine(lesson, named) {
  const { run, step, changed } = branchOf(lesson);
  const said = say("branch.from", { run: brief(run, 60), step, changed: changed.map(changeText).join(say("lazy.joint")) || say("branch.same") });
  const more = parentOf(lesson) ? say("branch.until", { step }) : say("branch.alone");
  return el(
    "p",
    { class: "branch" },
    fork(),
    named ? el("span", { class: "quiet" }, `${brief(lesson.name, 40)}: `) : null,
    el("strong", {}, said),
    " ",
    el("span", { class: "quiet" }, more),
  );
}

function fork() {
  return svg("svg", { class: "icon fork", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: "M6 3v18M6 15c0-5 12-3 12-12" }));
}

function changeText({ setting, before, after }) {
  return `${settingName(setting)} ${valueText(before)} → ${valueText(after)}`;
}

function settingName(setting) {
  return knows(`setting.${setting}`) ? say(`setting.${setting}`) : clean(setting, 60);
}

function valueText(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : clean(JSON.stringify(value), 40);
}

/** The steps of a lesson that can be branched from: at the last one only more epochs leave anything to learn. */
function stepsToLeave(lesson, setting) {
  const kept = (lesson.listed && lesson.listed.kept) || [];
  return setting === "num_epochs" ? kept : kept.filter((step) => step < lesson.length);
}

function nearest(steps, to) {
  return steps.reduce((best, step) => (best === null || Math.abs(step - to) < Math.abs(best - to) ? step : best), null);
}

/** Draw into `box` what branches the lesson in view at the step in view, folded up at first. */
export function drawBranching(box) {
  const lesson = room.current;
  if (wish.lesson !== lesson) Object.assign(wish, { lesson, setting: "temperature", value: suggestion(lesson, "temperature") });
  const kept = (lesson.listed && lesson.listed.kept) || [];
  keep(box, [speech.language, kept.length > 0], () => fold(kept.length > 0));
  const form = box.querySelector(".branch-form");
  if (form) drawForm(form, lesson);
}

function fold(can) {
  const ask = (event) => {
    wish.open = event.target.open;
    if (!wish.open) return;
    event.target.scrollIntoView({ block: "nearest" });
    listLessons().then(refresh, () => null); // a lesson that goes on has other checkpoints by now
  };
  return el(
    "details",
    { open: wish.open, on: { toggle: ask } },
    el("summary", {}, fork(), say("branch.open")),
    can ? el("div", { class: "branch-form" }) : el("p", { class: "quiet" }, say("branch.none")),
  );
}

function drawForm(form, lesson) {
  const steps = stepsToLeave(lesson, wish.setting);
  const step = nearest(steps, room.step);
  const text = part(form, "branch-text", "p");
  keep(text, [speech.language, step, room.step], () => introduction(step));
  keep(part(form, "branch-fields"), [speech.language, lesson.id, wish.setting, room.theme], () => fields(lesson));
  const line = part(form, "branch-command");
  line.hidden = step === null;
  const command = step === null ? "" : commandOf(lesson, step);
  keep(line, [speech.language, command, wish.copied], () => commandLine(command));
  keep(part(form, "branch-kept", "p"), [speech.language, steps], () => el("span", { class: "quiet" }, steps.length ? say("branch.kept", { steps: steps.join(say("branch.comma")) }) : ""));
}

function introduction(step) {
  if (step === null) return el("span", {}, say("branch.ended"));
  const where = step === room.step ? null : el("span", { class: "quiet" }, say("branch.nearest", { step: room.step }));
  return [el("span", {}, say("branch.intro", { step })), el("span", {}, " "), where].filter(Boolean);
}

function fields(lesson) {
  const choose = (event) => {
    Object.assign(wish, { setting: event.target.value, value: suggestion(lesson, event.target.value) });
    refresh();
  };
  const pick = el("select", { on: { change: choose } }, SETTINGS.map((name) => el("option", { value: name }, settingName(name))));
  pick.value = wish.setting;
  const type = (event) => {
    wish.value = event.target.value;
    refresh();
  };
  const field = el("input", { type: "text", inputmode: "decimal", size: "8", maxlength: "20", on: { input: type } });
  field.value = wish.value;
  const now = lesson.setting(wish.setting);
  return [
    el("label", {}, el("span", {}, say("branch.setting")), " ", pick),
    el("label", {}, el("span", {}, say("branch.value")), " ", field),
    now === null ? null : el("span", { class: "quiet" }, say("branch.now", { value: valueText(now) })),
  ].filter(Boolean);
}

function suggestion(lesson, setting) {
  const now = lesson.setting(setting);
  if (setting === "temperature") return now === 1 ? "4" : "1";
  if (setting === "alpha") return now === 1 ? "0.5" : "1";
  if (setting === "num_epochs") return String((now || lesson.epochs.length) + 2);
  return valueText((now || 0.0002) / 2);
}

function commandOf(lesson, step) {
  const value = /^[\d.eE+-]+$/.test(wish.value) ? wish.value : "…";
  return `apt-model branch ${quoted(lesson.name)} --at ${step} --${wish.setting.replace("_", "-")} ${value}`;
}

/** A name as a shell takes it. */
function quoted(name) {
  const shown = clean(name, 200);
  return /^[\w./-]+$/.test(shown) && !shown.startsWith("-") ? shown : `'${shown.replaceAll("'", "'\\''")}'`;
}

function commandLine(command) {
  const code = el("code", { tabindex: "0" }, command);
  const tellCopied = () => {
    wish.copied += 1;
    refresh();
    setTimeout(() => { wish.copied = 0; refresh(); }, COPIED_MS);
  };
  const copy = () => {
    getSelection().selectAllChildren(code);
    if (navigator.clipboard) navigator.clipboard.writeText(command).then(tellCopied, () => null);
  };
  return [
    el("span", { class: "quiet" }, say("branch.where")),
    code,
    el("button", { type: "button", class: "chip", disabled: command.endsWith("…"), on: { click: copy } }, say(wish.copied ? "branch.copied" : "branch.copy")),
  ];
}
