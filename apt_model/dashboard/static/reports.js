/** Report cards: one row an epoch, and the verdict with its advice. */
import {clean} from "./clean.js";
import {lightMark, lightOf} from "./card.js";
import {nameTag} from "./compare.js";
import {el, keep, meter, part} from "./dom.js";
import {count, duration, number, percent} from "./format.js";
import {interval, readingSentence, readingsOf, summaryOf} from "./fixed_rows.js";
import {lessonsInView, room} from "./state.js";
import {knows, say, speakOf, speech, topicWord} from "./words.js";

/** Draw the report cards up to the cursor into `box`. */
export function drawReports(box) {
  const lessons = lessonsInView();
  const shelf = part(box, "shelf");
  shelf.classList.toggle("pair", lessons.length > 1);
  while (shelf.children.length > lessons.length) shelf.lastChild.remove();
  lessons.forEach((lesson, index) => {
    const epochs = lesson.until("epochs", room.step);
    const verdict = lesson.finished && room.step >= lesson.finished.step ? lesson.finished : null;
    const readings = lesson.until("readings", room.step).length;
    const key = [speech.language, lesson.id, lesson.scale, lessons.length, lesson.place, epochs.length, readings, verdict !== null];
    speakOf(lesson);
    keep(part(shelf, `reports reports-${index}`), key, () => [
      lessons.length > 1 ? el("p", { class: "lesson-name" }, nameTag(lesson)) : null,
      verdict ? verdictSheet(verdict) : el("p", { class: "quiet pending" }, say("reports.pending")),
      epochTable(epochs, lesson),
    ]);
  });
}

function epochTable(epochs, lesson) {
  const title = el("h2", {}, say("reports.title"));
  if (!epochs.length) return [title, el("p", { class: "waiting" }, say("reports.none"))];
  const heads = ["epoch", "loss", "laziness", "topics", "time"].map((word) => el("th", { scope: "col" }, say(`reports.${word}`)));
  return [title, el("table", { class: "epochs" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, epochs.map((epoch) => epochRow(epoch, lesson))))];
}

function epochRow(epoch, lesson) {
  const lazy = epoch.mean_laziness;
  const light = lightOf(lazy, lesson.scale);
  const known = lazy !== null && lazy !== undefined;
  const remarks = (epoch.topics || []).map((one) =>
    say("reports.topic", { topic: topicWord(one.topic), samples: one.samples, laziness: percent(one.mean_laziness, 1) }),
  );
  remarks.push(...mastered(epoch.topics));
  for (const unseen of [true, false]) {
    const now = readingsOf(lesson, unseen, epoch.step).filter((one) => one.step === epoch.step);
    const read = now.map(summaryOf).filter(Boolean).pop();
    if (read) remarks.push(readingSentence(read, unseen, false));
  }
  const seen = epoch.validation;
  if (seen) remarks.push(say("reports.validation", { loss: number(seen.loss), agreement: percent(seen.agreement, 1) }));
  if (epoch.skipped_batches) remarks.push(say("reports.skipped", { count: epoch.skipped_batches }));
  const cell = (word, ...held) => el("td", { "data-head": say(`reports.${word}`) }, held);
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, el("span", { class: "only-phone" }, "Epoch "), epoch.epoch),
    cell("loss", el("span", { class: "figure" }, number(epoch.mean_loss))),
    cell("laziness", known ? [el("span", { class: "figure" }, light && lightMark(light, false), " ", percent(lazy)), meter(lazy, say("reports.laziness"), light || "")] : "–"),
    cell("topics", el("ul", { class: "remarks" }, remarks.map((one) => el("li", {}, one)))),
    cell("time", el("span", { class: "figure" }, duration(epoch.seconds))),
  );
}

/** What the fixed rows show of each topic; nothing of a topic without any. */
function mastered(topics) {
  return (topics || [])
    .filter((one) => one.rows && one.mastery)
    .map((one) => say("reports.mastery", { topic: topicWord(one.topic), mastery: interval(one.mastery, (value) => percent(value, 1)), rows: one.rows }));
}

/** Unseen text first, learned text beside it, which alone is not called known by heart. */
function measured({ unseen, learned }) {
  if (!unseen && !learned) return null;
  const line = (summary, isUnseen) => (summary ? el("li", {}, readingSentence(summary, isUnseen, Boolean(unseen))) : null);
  return el("ul", { class: "measured" }, unseen ? null : el("li", {}, say("reading.only_learned")), line(unseen, true), line(learned, false));
}

function changeLine({ change, unseen, learned }) {
  if (!change || !change.laziness || !(unseen || learned)) return null;
  const points = interval(change.laziness, (value) => number(100 * value, 1));
  const moved = change.laziness.value > 0 ? `+${points}` : points;
  return el("p", { class: "quiet change" }, say("reading.change", { change: moved, level: percent(((unseen || learned).laziness || {}).value, 1), rows: (unseen || learned).rows }));
}

function verdictSheet(verdict) {
  const read = measured(verdict);
  const figures = [
    ...(verdict.grade && knows(`grade.${verdict.grade}`) ? [["reports.grade", say(`grade.${verdict.grade}`)]] : []),
    ...(read ? [["reports.headline", percent(verdict.last_laziness)]] : []),
    ["reports.samples", count(verdict.samples)],
    ["reports.mean", percent(verdict.mean_laziness)],
    ...(verdict.change ? [] : [["reports.course", `${percent(verdict.first_laziness)} → ${percent(verdict.last_laziness)}`]]),
    ["reports.losses", `${number(verdict.first_loss)} → ${number(verdict.last_loss)}`],
    ["reports.time", duration(verdict.seconds)],
    ["reports.tokens", count(verdict.tokens)],
  ];
  const trend = knows(`trend.${verdict.trend}`) ? say(`trend.${verdict.trend}`) : clean(verdict.trend, 40);
  const advice = (verdict.advice || []).map((one) => el("li", {}, adviceText(one)));
  const failures = (verdict.failures || []).map((one) => el("li", {}, clean(one, 300)));
  return el(
    "section",
    { class: "verdict" },
    el("h2", {}, say("reports.verdict")),
    read,
    el("p", { class: "trend" }, el("span", { class: "quiet" }, say("reports.trend")), " ", el("strong", {}, trend)),
    changeLine(verdict),
    el("dl", { class: "figures" }, figures.map(([word, figure]) => el("div", {}, el("dt", {}, say(word)), el("dd", {}, figure)))),
    el("ul", { class: "remarks" }, mastered(verdict.topics).map((one) => el("li", {}, one))),
    verdict.validation
      ? el("p", { class: "quiet" }, say("reports.validation", { loss: number(verdict.validation.loss), agreement: percent(verdict.validation.agreement, 1) }))
      : null,
    advice.length ? [el("h3", {}, say("reports.advice")), el("ul", { class: "advice" }, advice)] : null,
    failures.length ? [el("h3", {}, say("reports.failures")), el("ul", { class: "failures" }, failures)] : null,
  );
}

function adviceText(advice) {
  const key = `advice.${advice.key}`;
  const values = { topic: topicWord(advice.topic), share: percent(advice.share, 0), setting: clean(advice.setting, 60), value: clean(advice.value, 60) };
  return knows(key) ? say(key, values) : clean(advice.key, 60);
}
