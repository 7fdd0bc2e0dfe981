/** Exams: the same questions answered by both, side by side, and how the student's answers grew, oldest first. */
import {drawAsk} from "./ask.js";
import {clean, tongue} from "./clean.js";
import {nameTag} from "./compare.js";
import {agreementOf} from "./in_common.js";
import {el, keep, part} from "./dom.js";
import {goTo, lessonsInView, room} from "./state.js";
import {say, speech} from "./words.js";

const SHOWN_ANSWERS = 12;

/** Draw the exams up to the cursor into `box`. */
export function drawExam(box) {
  keep(part(box, "intro", "p"), speech.language, () => el("span", {}, say("exam.intro")));
  drawAsk(box);
  const lessons = lessonsInView();
  const hall = part(box, "hall");
  hall.classList.toggle("pair", lessons.length > 1);
  while (hall.children.length > lessons.length) hall.lastChild.remove();
  lessons.forEach((lesson, index) => {
    const exams = lesson.until("exams", room.step);
    const key = [speech.language, lesson.id, lessons.length, lesson.place, exams.length, lesson.exams.length > 0];
    keep(part(hall, `bench bench-${index}`), key, () => [
      lessons.length > 1 ? el("p", { class: "lesson-name" }, nameTag(lesson)) : null,
      questions(lesson, exams),
    ]);
  });
}

function questions(lesson, exams) {
  if (!exams.length) return el("p", { class: "waiting" }, say(lesson.exams.length || !lesson.over ? "exam.none" : "exam.never"));
  const prompts = new Map();
  exams.forEach((exam) =>
    exam.answers.forEach((answer) => {
      const known = prompts.get(answer.prompt) || { teacher: null, asked: answer.asked === true, answers: [] };
      if (answer.teacher !== null && answer.teacher !== undefined) known.teacher = answer.teacher;
      known.answers.push({ exam, student: answer.student });
      prompts.set(answer.prompt, known);
    }),
  );
  return Array.from(prompts, ([prompt, known], index) => question(prompt, known, index + 1));
}

function question(prompt, known, index) {
  const answers = spaced(known.answers);
  const newest = answers[answers.length - 1];
  return el(
    "article",
    { class: "question-sheet" },
    el("h2", {}, known.asked ? el("span", { class: "by-class" }, say("ask.asked")) : el("span", { class: "quiet" }, say("exam.question", { index })), " ", el("span", { dir: "auto", lang: tongue(prompt) }, clean(prompt))),
    el(
      "div",
      { class: "answers" },
      answerBox("teacher", saidByTeacher(known.teacher)),
      answerBox("student", compared(newest.student, known.teacher)),
    ),
    el("details", { open: answers.length > 1 }, el("summary", {}, say("exam.grown")), el("ol", { class: "growth" }, answers.map((one) => grown(one, known.teacher, one === newest)))),
  );
}

/** All of a few, or as many evenly spaced ones, the first and the last among them. */
function spaced(answers) {
  if (answers.length <= SHOWN_ANSWERS) return answers.slice();
  const last = answers.length - 1;
  return Array.from({ length: SHOWN_ANSWERS }, (hole, index) => answers[Math.round((index * last) / (SHOWN_ANSWERS - 1))]);
}

function saidByTeacher(said) {
  if (said === null) return el("span", { class: "quiet" }, "–");
  return clean(said).trim() ? el("span", { lang: tongue(said) }, clean(said)) : el("span", { class: "quiet" }, say("now.silence"));
}

function answerBox(role, said) {
  return el("div", { class: `answer ${role}` }, el("h3", {}, say(`now.${role}`)), el("p", { dir: "auto" }, said));
}

function grown({ exam, student }, teacher, newest) {
  const words = { epoch: exam.epoch, step: exam.step };
  const when = el(
    "button",
    { type: "button", class: "link", on: { click: () => goTo(exam.step) } },
    say(exam.epoch ? "exam.when" : "exam.start", words),
  );
  return el(
    "li",
    { "aria-current": newest ? "step" : null },
    el("span", { class: "when" }, when),
    el("span", { class: "said-then", dir: "auto" }, compared(student, teacher)),
    el("span", { class: "when" }, sharedNote(student, teacher)),
  );
}

function sharedNote(student, teacher) {
  if (teacher === null) return null;
  const [said, taught] = [clean(student), clean(teacher)];
  return el("span", { class: "quiet" }, said === taught ? `✓ ${say("exam.same")}` : say("exam.shared", { share: `${Math.floor(100 * agreementOf(taught, said).share)}%` }));
}

/** What the student said, with what the teacher says too underlined. */
export function compared(student, teacher) {
  const said = clean(student);
  if (!said.trim()) return el("span", { class: "quiet" }, say("now.silence"));
  const { shared } = agreementOf(clean(teacher), said);
  let place = 0;
  const pieces = shared.flatMap(([from, to]) => {
    const before = said.slice(place, from);
    place = to;
    return [before, el("span", { class: "as-taught" }, said.slice(from, to))];
  });
  return el("span", { lang: tongue(student) }, pieces, said.slice(place));
}
