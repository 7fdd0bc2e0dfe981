/** The list of lessons: which one to watch, and which one to compare it with. */
import {clean} from "./clean.js";
import {damageLine, damageOf} from "./damage.js";
import {el, keep, part} from "./dom.js";
import {count} from "./format.js";
import {room} from "./state.js";
import {say, speech} from "./words.js";

/** Draw the list into `box`; `watch` and `compare` are told of the lesson chosen. */
export function drawLessons(box, watch, compare) {
  const rows = room.lessons.map((lesson) => [lesson.id, lesson.name, stepsOf(lesson), isOver(lesson), damageOf(lesson)]);
  const chosen = [room.current && room.current.id, room.other && room.other.id];
  keep(part(box, "lessons", "section"), [speech.language, rows, chosen], () => [
    el("h2", {}, say("lessons.title")),
    el("p", { class: "quiet" }, say("lessons.note")),
    el(
      "table",
      { class: "epochs" },
      el("thead", {}, el("tr", {}, ["name", "steps", "state"].map((word) => el("th", { scope: "col" }, say(`lessons.${word}`))), el("td"))),
      el("tbody", {}, room.lessons.map((lesson) => lessonRow(lesson, watch, compare))),
    ),
  ]);
}

function stepsOf(lesson) {
  return lesson.loaded ? lesson.lastStep : lesson.listed ? lesson.listed.steps : lesson.lastStep;
}

function isOver(lesson) {
  return lesson.over || Boolean(lesson.listed && lesson.listed.finished);
}

function progressOf(lesson) {
  return isOver(lesson) ? `✓ ${say("link.over")}` : `… ${say("lessons.going")}`;
}

function lessonRow(lesson, watch, compare) {
  const watched = lesson === room.current;
  const compared = lesson === room.other;
  const damage = damageOf(lesson);
  const button = (word, pressed, act, disabled) =>
    el("button", { type: "button", class: "chip", "aria-pressed": String(pressed), disabled, on: { click: act } }, say(word));
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, clean(lesson.name, 120)),
    el("td", { "data-head": say("lessons.steps") }, count(stepsOf(lesson))),
    el("td", { "data-head": say("lessons.state") }, damage && damage.line === null ? null : progressOf(lesson), damage && damageLine(damage)),
    el(
      "td",
      { class: "acts" },
      button(watched ? "lessons.watching" : "lessons.watch", watched, () => watch(lesson), false),
      " ",
      button(compared ? "lessons.comparing" : "lessons.compare", compared, () => compare(compared ? null : lesson), watched),
    ),
  );
}
