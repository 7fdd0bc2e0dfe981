/** The presenter: one card for the back of a room, and a thin film of the course; nothing else. */
import {brief, clean, tongue} from "./clean.js";
import {lightMark} from "./card.js";
import {el, icon, keep, part} from "./dom.js";
import {fieldOf, percent} from "./format.js";
import {film, moveVeil, stopPlaying, togglePlay} from "./replay.js";
import {PRESENTER, cardInView, extent, followLive, goTo, refresh, room} from "./state.js";
import {setTheme} from "./top.js";
import {remarkWord, say, speech, topicWord} from "./words.js";

const NARROW = 900; // px; below it is no room's screen, and letters are smaller
const LETTER_SIZES = { wide: [44, 36], narrow: [28, 20] }; // px, the largest and the smallest
const LESS = 2;
const SHARE_LEFT_OUT = 20; // of what is too long, at a time
const KEYS_IN_IT = {
  ArrowRight: () => turn(1),
  ArrowLeft: () => turn(-1),
  PageDown: () => turn(1), // as the hand piece of a projector sends
  PageUp: () => turn(-1),
  " ": togglePlay,
  d: () => setTheme(room.theme === "dark" ? "light" : "dark", true),
  f: leave,
  Escape: leave,
};

/** The presenter, closed; it hears its keys from now on. */
export function presenterStage() {
  const box = el("section", { id: "presenter", tabindex: "-1", hidden: true });
  document.addEventListener("keydown", hear);
  window.addEventListener("resize", () => room.presenting && fit(box));
  if (document.fonts) document.fonts.ready.then(() => room.presenting && fit(box));
  return box;
}

/** Open or close it. */
export function setPresenting(open) {
  if (open === room.presenting) return;
  room.presenting = open;
  document.body.classList.toggle("presenting", open);
  const box = document.getElementById("presenter");
  box.hidden = !open;
  refresh();
  if (open) box.focus();
  else requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector(".switch.present").focus()));
}

function leave() {
  setPresenting(false);
  location.hash = room.view;
}

function hear(event) {
  const { key, target } = event;
  const typing = target.closest("select, textarea, input:not([type=range]), [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || typing) return;
  const name = key.length === 1 ? key.toLowerCase() : key;
  if (!room.presenting && name === "f") location.hash = PRESENTER;
  else if (room.presenting && name in KEYS_IN_IT && !(name === " " && target.closest("button"))) KEYS_IN_IT[name]();
  else return;
  event.preventDefault();
}

/** To the next card or the one before; beyond the last one of a lesson that goes on, with the lesson. */
function turn(direction) {
  const lesson = room.current;
  if (!lesson) return;
  stopPlaying();
  const to = lesson.cards[lesson.cards.indexOf(cardInView(lesson)) + direction];
  if (to) {
    goTo(to.step);
    room.which = lesson.cardsAt(to.step).indexOf(to);
  } else if (direction > 0 && !lesson.over) followLive();
}

/** Draw the card in view and where it is in the course. */
export function drawPresenter(box) {
  const lesson = room.current;
  const card = cardInView(lesson);
  box.setAttribute("aria-label", say("presenter.title"));
  const key = [speech.language, lesson && lesson.id, card && [card.step, card.wall_time, lesson.cards.indexOf(card)]];
  const changed = keep(part(box, "sheet"), key, () => (card ? sheet(card) : el("p", { class: "waiting" }, say(lesson ? "now.waiting" : "page.empty"))));
  const course = part(box, "film");
  const { length } = extent();
  course.setAttribute("aria-hidden", "true");
  keep(course, lesson && [lesson.id, length, lesson.cards.length, lesson.epochs.length], () => (lesson ? film(lesson, length) : []));
  moveVeil(course, length);
  keep(part(box, "way-out"), speech.language, () =>
    el("button", { type: "button", class: "round leave", "aria-label": say("presenter.leave"), title: say("presenter.leave"), on: { click: leave } }, icon("close")),
  );
  if (changed) fit(box);
}

function sheet(card) {
  const voice = (role, text) => el("div", { class: `voice ${role}` }, el("dt", {}, say(`now.${role}`)), el("dd", { class: "saying", dir: "auto", lang: tongue(text), title: text }, text));
  const said = (text) => (clean(text).trim() ? clean(text) : say("now.silence"));
  return [
    el(
      "header",
      { class: "sheet-head" },
      el("p", { class: "where" }, el("b", {}, say("now.step", { step: card.step })), el("span", {}, say("now.epoch", { epoch: card.epoch })), el("span", { class: "topic" }, topicWord(card.topic))),
      el("p", { class: "how" }, el("span", {}, say("now.laziness")), lightMark(card.light, true), el("span", {}, say("now.agree", { agreement: fieldOf(card, "agreement", (value) => percent(value, 0)) }))),
      el("strong", { class: "lazy-figure" }, percent(card.laziness, 1)),
    ),
    el(
      "dl",
      { class: "sayings" },
      card.given ? voice("given", clean(card.given)) : null,
      voice("teacher", said(card.teacher_text)),
      voice("student", said(card.student_text)),
      card.card_text === "continued" ? null : el("div", { class: "guessed" }, el("dt", {}, ""), el("dd", {}, say("now.predicted"))),
    ),
    el("p", { class: "verdict-line", lang: tongue(remarkWord(card)) }, brief(remarkWord(card), 120)),
  ];
}

/** The largest letters with which all is on the screen; where the smallest are too large, the longest text ends in "…". */
function fit(box) {
  const list = box.querySelector(".sayings");
  if (!list) return;
  const fits = () => list.scrollHeight <= list.clientHeight;
  const texts = Array.from(list.querySelectorAll(".voice:not(.given) .saying"));
  const [largest, smallest] = window.innerWidth < NARROW ? LETTER_SIZES.narrow : LETTER_SIZES.wide;
  texts.forEach((text) => text.style.removeProperty("-webkit-line-clamp"));
  let size = largest;
  box.style.setProperty("--said", `${size}px`);
  while (!fits() && size > smallest) box.style.setProperty("--said", `${(size -= LESS)}px`);
  const lines = texts.map((text) => Math.round(text.offsetHeight / parseFloat(getComputedStyle(text).lineHeight)));
  while (!fits() && Math.max(...lines) > 1) {
    const longest = lines.indexOf(Math.max(...lines));
    lines[longest] -= 1;
    texts[longest].style.setProperty("-webkit-line-clamp", String(lines[longest]));
  }
  list.querySelectorAll(".given .saying").forEach(keepEnd);
}

/** One line of what was given, its end, from which both go on. */
function keepEnd(line) {
  let letters = Array.from(line.title);
  line.textContent = line.title;
  while (line.scrollWidth > line.clientWidth && letters.length > 1) {
    letters = letters.slice(Math.ceil(letters.length / SHARE_LEFT_OUT));
    line.textContent = `…${letters.join("")}`;
  }
}
