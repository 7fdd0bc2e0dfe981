/** The student itself, in a report that carries it: a beginning, and how the stages of the course go on from it. */
import {brief, clean, tongue} from "./clean.js";
import {el, keep, meter, part} from "./dom.js";
import {refresh, room} from "./state.js";
import {say, speech} from "./words.js";

const LENGTHS = [10, 20, 40, 80, 160];
const MOST_LETTERS = 400;
const MOST_TRIES = 6;
const LONGEST_TRY = 60;
const HALFWAY = 0.1; // of the course, to either side
const pen = { lesson: null, worker: null, steps: [], text: "", asked: null, dropsSpace: false, tokens: 40, temperature: 0, turn: 0, said: [], busy: false, trouble: "" };

/** Whether this page carries a student. */
export function hasStudent() {
  return document.getElementById("apt-worker") !== null;
}

/** Draw the view into `box`. */
export function drawInside(box) {
  const lesson = room.current;
  if (pen.lesson !== lesson.id) sitDown(lesson);
  keep(part(box, "intro", "p"), speech.language, () => el("span", {}, say("inside.intro")));
  keep(part(box, "asking", "form"), [speech.language, lesson.id], () => askingForm(box, lesson));
  box.querySelector(".stop").setAttribute("aria-disabled", String(!pen.busy)); // not `disabled`: the focus stays on it
  box.querySelector("output").textContent = pen.temperature > 0 ? say("inside.warm", { temperature: pen.temperature.toFixed(1) }) : say("inside.greedy");
  keep(part(box, "trouble"), [speech.language, pen.trouble], () => (pen.trouble ? el("p", { class: "broken", role: "alert" }, say("inside.broken", { why: clean(pen.trouble, 200) })) : []));
  const writers = part(box, "writers");
  pen.steps.forEach((step, stage) => {
    const said = pen.said[stage] || null;
    keep(part(writers, `writer writer-${stage}`, "article"), [speech.language, lesson.id, pen.asked, said, pen.busy], () => writerBox(lesson, step, stage, said));
  });
  keep(part(writers, "writer teacher", "article"), [speech.language, lesson.id, pen.asked], () => teacherBox(lesson));
  const news = part(box, "unseen heard", "p");
  news.setAttribute("role", "status");
  news.textContent = pen.asked !== null && !pen.busy ? say("inside.over") : "";
}

/** Another lesson's student: the one that was here goes. */
function sitDown(lesson) {
  sendAway();
  const first = firstTries(lesson)[0];
  Object.assign(pen, { lesson: lesson.id, text: first || "", asked: null, said: [], trouble: "" });
  const student = JSON.parse(document.getElementById(`apt-student-${lesson.id}`).textContent);
  pen.steps = student.stages.map((stage) => stage.step);
  pen.dropsSpace = student.tokenizer.kind === "metaspace"; // its decoded text lacks the space before the first word
  document.querySelectorAll(".view.inside .writers").forEach((one) => one.replaceChildren());
}

function sendAway() {
  if (pen.worker) pen.worker.terminate();
  Object.assign(pen, { worker: null, busy: false });
}

/** What the teacher went on with, by beginning: at exams, and on cards; not what it answered in a chat. */
function recordedWords(lesson) {
  const found = new Map();
  const inTemplate = lesson.notices.some((notice) => notice.key === "notice.exam_in_template");
  for (const exam of inTemplate ? [] : lesson.exams) {
    exam.answers.forEach((answer) => answer.teacher !== null && answer.teacher !== undefined && found.set(answer.prompt, answer.teacher));
  }
  for (const card of lesson.cards) {
    if (card.card_text === "continued" && card.given && !found.has(card.given)) found.set(card.given, card.teacher_text);
  }
  return found;
}

function firstTries(lesson) {
  return Array.from(recordedWords(lesson).keys()).filter((one) => one.trim() && one.length <= LONGEST_TRY).slice(0, MOST_TRIES);
}

function askingForm(box, lesson) {
  const field = el("textarea", { id: "beginning", rows: 1, maxlength: MOST_LETTERS, dir: "auto", value: pen.text, on: { input: (event) => (pen.text = event.target.value), keydown: submitOnEnter } });
  const given = firstTries(lesson);
  const take = (one) => {
    field.value = one;
    pen.text = one;
    field.focus();
  };
  box.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    askStudent(lesson);
  };
  const length = el("select", { id: "length", on: { change: (event) => (pen.tokens = Number(event.target.value)) } }, LENGTHS.map((one) => el("option", { value: one }, String(one))));
  length.value = String(pen.tokens);
  const warmth = el("input", { type: "range", id: "warmth", min: 0, max: 1.5, step: 0.1, on: { input: (event) => {
    pen.temperature = Number(event.target.value);
    refresh();
  } } });
  warmth.value = String(pen.temperature);
  return [
    el("label", { for: "beginning" }, say("inside.beginning")),
    field,
    given.length ? el("div", { class: "tries" }, el("span", { class: "quiet" }, say("inside.tries")), given.map((one) => el("button", { type: "button", class: "chip", lang: tongue(one), on: { click: () => take(one) } }, brief(one, LONGEST_TRY)))) : null,
    el(
      "div",
      { class: "controls" },
      el("div", {}, el("label", { for: "length" }, say("inside.length")), length),
      el("div", {}, el("label", { for: "warmth" }, say("inside.temperature"), " ", el("output", { for: "warmth" })), warmth),
      el("div", { class: "acts" }, el("button", { type: "submit", class: "chip go" }, say("inside.go")), el("button", { type: "button", class: "chip stop", on: { click: stopWriting } }, say("inside.stop"))),
    ),
  ];
}

function submitOnEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  event.target.form.requestSubmit();
}

/** A worker with this lesson's student: the page's only other script, made of the text that stands in the file. */
function hireWorker(lesson) {
  const source = document.getElementById("apt-worker").textContent;
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  pen.worker = new Worker(address);
  pen.worker.onmessage = ({ data }) => data.turn === pen.turn && hearStudent(data);
  pen.worker.onerror = (event) => giveUpWriting(event.message || "worker");
  const { stages, ...about } = JSON.parse(document.getElementById(`apt-student-${lesson.id}`).textContent);
  pen.worker.postMessage({ about, stages: stages.map((stage) => stage.data) });
}

function askStudent(lesson) {
  Object.assign(pen, { turn: pen.turn + 1, said: [], asked: pen.text, busy: true, trouble: "" });
  try {
    if (!pen.worker) hireWorker(lesson);
    pen.worker.postMessage({ turn: pen.turn, text: pen.text, tokens: pen.tokens, temperature: pen.temperature });
  } catch (error) {
    giveUpWriting(String(error.message || error));
  }
  refresh();
}

function hearStudent(data) {
  pen.said[data.stage] = data;
  if (data.why && data.stage === pen.steps.length - 1) pen.busy = false;
  refresh();
}

function stopWriting() {
  if (!pen.busy) return;
  pen.turn += 1;
  if (pen.worker) pen.worker.postMessage({ stop: true, turn: pen.turn });
  pen.said = pen.said.map((said) => (said && !said.why ? Object.assign({}, said, { why: "stopped" }) : said));
  pen.busy = false;
  refresh();
}

function giveUpWriting(why) {
  sendAway();
  pen.trouble = why;
  refresh();
}

/** What the stage is of the course: where it begins, its middle, its end. */
function stageName(lesson, step, stage) {
  if (stage === 0) return say(step ? "inside.first" : "inside.before");
  const last = pen.steps[pen.steps.length - 1];
  if (step < last) return say(Math.abs(2 * step - last) <= HALFWAY * last ? "inside.halfway" : "inside.between");
  return say(lesson.over && step >= lesson.lastStep ? "inside.end" : "inside.latest");
}

function writerBox(lesson, step, stage, said) {
  const head = el("h2", {}, stageName(lesson, step, stage), " ", el("span", { class: "quiet" }, say("now.step", { step })));
  if (pen.asked === null) return [head, el("p", { class: "said quiet" }, say("inside.ready"))];
  if (!said) return [head, el("p", { class: "said quiet" }, pen.busy ? say("inside.waiting") : "–")];
  const speed = say("inside.speed", { count: said.ids.length, speed: said.seconds > 0 ? Math.round(said.ids.length / said.seconds) : "–" });
  return [
    head,
    spokenText(pen.asked, said.text),
    said.why ? el("p", { class: "quiet" }, say(`inside.why.${said.why}`)) : meter(said.ids.length / pen.tokens, say("inside.progress")),
    said.ids.length ? el("p", { class: "quiet figures-line" }, speed) : null,
  ];
}

function spokenText(given, more) {
  return el("p", { class: "said", dir: "auto", lang: tongue(given + more) }, el("span", { class: "given" }, clean(given)), clean(more, 4000) || null);
}

function teacherBox(lesson) {
  const head = el("h2", {}, say("inside.teacher"));
  if (pen.asked === null) return [head, el("p", { class: "said quiet" }, say("inside.ready"))];
  const said = recordedWords(lesson).get(pen.asked);
  if (said === undefined) return [head, el("p", { class: "said quiet" }, say("inside.absent"))];
  const space = pen.dropsSpace && /^[\p{L}\p{N}]/u.test(said) ? " " : "";
  return [head, spokenText(pen.asked, space + said), el("p", { class: "quiet" }, say("inside.recorded"))];
}
