/** The story so far, beside the card: a sentence from what was measured, its course, one question answered at three times. */
import {clean, tongue} from "./clean.js";
import {compared} from "./exam.js";
import {el, keep, svg} from "./dom.js";
import {readingsOf, summaryOf} from "./fixed_rows.js";
import {percent} from "./format.js";
import {goTo, lessonsInView, room} from "./state.js";
import {say, speech} from "./words.js";

const [CURVE_WIDTH, CURVE_HEIGHT, EDGE] = [280, 72, 5];
const TRENDS = ["great_progress", "progress", "steady", "decline"];

/** Draw the story of `lesson` up to the cursor into `box`. */
export function drawStory(box, lesson) {
  const course = courseOf(lesson);
  const exams = lesson.until("exams", room.step);
  const measured = course.points.map((point) => point.step);
  const named = lessonsInView().length > 1 ? lesson.name : null;
  const key = [speech.language, lesson.id, lesson.observed, lesson.over, lesson.length, named, lesson.readings.length > 0, lesson.exams.length > 0, measured, exams.map((exam) => exam.step)];
  keep(box, key, () => [
    el("h3", {}, say("story.title"), named ? el("span", { class: "quiet" }, " ", clean(named, 40)) : null),
    el("p", { class: "story-line" }, sentence(lesson, course, exams)),
    course.points.length ? curve(course, lesson) : null,
    exams.length ? answers(exams, lesson) : null,
  ]);
}

/** The readings that judge, of unseen text where there is any: {unseen, trend, rows, points: [{step, agree, lazy}]}. */
function courseOf(lesson) {
  const unseen = readingsOf(lesson, true, lesson.lastStep).length > 0;
  const readings = readingsOf(lesson, unseen, room.step);
  const points = readings.map((one) => [one, summaryOf(one)]).filter(([, read]) => read && read.agreement && read.laziness);
  const [newest, read] = points[points.length - 1] || [null, null];
  return {
    unseen,
    trend: newest ? trendOf(newest, lesson) : "unknown",
    rows: read ? read.rows : 0,
    points: points.map(([one, means]) => ({ step: one.step, agree: means.agreement.value, lazy: means.laziness.value })),
  };
}

/** As the scorer decided; at the end of a lesson from before readings had a trend, as its verdict did. */
function trendOf(reading, lesson) {
  const atEnd = lesson.over && reading.step === lesson.lastStep;
  const found = reading.trend || (atEnd ? lesson.finished.trend : "");
  return TRENDS.includes(found) ? found : "unknown";
}

function sentence(lesson, course, exams) {
  const { points, trend, unseen } = course;
  if (!points.length) {
    if (!lesson.over && !lesson.readings.length) return say("story.soon");
    if (lesson.readings.length && room.step < lesson.lastStep) return say("story.soon");
    return say(exams.length || lesson.exams.length ? "story.answers" : "story.cards");
  }
  const [first, last] = [points[0], points[points.length - 1]];
  const kind = lesson.observed ? "observed" : unseen ? "unseen" : "learned";
  return say(`story.${kind}.${trend}`, {
    agree: Math.round(100 * last.agree),
    agreed: Math.round(100 * first.agree),
    lazy: percent(last.lazy, 0),
    lazied: percent(first.lazy, 0),
  });
}

/** Agreement and laziness over the lesson, small: 0 at the bottom, 1 at the top. */
function curve({ points, rows, unseen }, lesson) {
  const last = points[points.length - 1];
  const place = (step, value) => [EDGE + ((CURVE_WIDTH - 2 * EDGE) * step) / lesson.length, CURVE_HEIGHT - EDGE - (CURVE_HEIGHT - 2 * EDGE) * value];
  const drawn = (name) => {
    const spots = points.map((point) => place(point.step, point[name]));
    const [x, y] = spots[spots.length - 1];
    return svg("g", { class: `line ${name}` }, svg("polyline", { points: spots.map((spot) => spot.join()).join(" ") }), svg("circle", { cx: x, cy: y, r: 3.5 }));
  };
  const bound = (value) => svg("path", { class: "bound-line", d: `M${EDGE} ${place(0, value)[1]}H${CURVE_WIDTH - EDGE}` });
  const whole = (value) => Math.round(100 * value);
  const label = say("story.curve", { agree: whole(last.agree), lazy: whole(last.lazy), step: last.step });
  const key = (name, word, value) => el("li", { class: name }, el("span", {}, say(word)), " ", el("b", {}, percent(value, 0)));
  return el(
    "figure",
    { class: "course-curve" },
    svg("svg", { viewBox: `0 0 ${CURVE_WIDTH} ${CURVE_HEIGHT}`, role: "img", "aria-label": label }, bound(0), bound(1), drawn("lazy"), drawn("agree")),
    el("figcaption", {}, el("ul", {}, key("agree", "story.agreement", last.agree), key("lazy", "story.laziness", last.lazy)), el("span", { class: "quiet" }, say(unseen ? "story.unseen" : "story.learned", { rows }))),
  );
}

/** The run's first question, as it was answered at first, about halfway and last. */
function answers(exams, lesson) {
  const { prompt } = exams[0].answers.find((answer) => !answer.asked) || exams[0].answers[0] || {};
  const times = exams.map((exam) => ({ exam, answer: exam.answers.find((one) => one.prompt === prompt) })).filter((time) => time.answer);
  if (!times.length) return null;
  const half = times[times.length - 1].exam.step / 2;
  const inner = times.slice(1, -1).sort((one, two) => Math.abs(one.exam.step - half) - Math.abs(two.exam.step - half))[0];
  const shown = [times[0], inner, times.length > 1 ? times[times.length - 1] : null].filter(Boolean);
  const { teacher } = times[times.length - 1].answer;
  const taught = teacher === undefined ? null : teacher;
  return el(
    "section",
    { class: "story-exam" },
    el("h4", {}, say(shown.length === 3 ? "story.exam" : "story.exams")),
    el("p", { dir: "auto", lang: tongue(prompt) }, clean(prompt, 200)),
    el(
      "dl",
      {},
      shown.map(({ exam, answer }, at) => spoken(when(exam, at, shown.length, lesson), exam, compared(answer.student, taught))),
      taught === null ? null : spoken(say("story.teacher"), null, el("span", { lang: tongue(taught) }, clean(taught) || say("now.silence"))),
    ),
    el("button", { type: "button", class: "link", on: { click: () => (location.hash = "exam") } }, say("story.more")),
  );
}

function when(exam, at, count, lesson) {
  const { step } = exam;
  if (at === 0) return step === 0 ? say("story.before") : say("story.first", { step });
  if (at < count - 1) return say("story.half", { step });
  return say(lesson.over && room.step >= lesson.lastStep ? "story.end" : "story.now", { step });
}

function spoken(label, exam, said) {
  const time = exam ? el("button", { type: "button", class: "link", on: { click: () => goTo(exam.step) } }, label) : label;
  return el("div", { class: exam ? "student" : "teacher" }, el("dt", {}, time), el("dd", { dir: "auto" }, said));
}
