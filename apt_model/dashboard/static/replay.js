/** Replay: the whole lesson as a strip of laziness, a slider over its steps, play and pause, and the way back to now. */
import {el, icon, keep, svg} from "./dom.js";
import {percent} from "./format.js";
import {extent, followLive, goTo, refresh, room} from "./state.js";
import {neighbour} from "./store.js";
import {say, speech} from "./words.js";

const TICK_MS = 100;
const WHOLE_TICKS = 400; // at speed 1 a lesson takes 40 seconds
const SPEEDS = [0.5, 1, 2, 4];
const HIGH = 30;
const WIDE = 1000;
const reel = { head: 0, timer: 0 };

/** The bar, with nothing of a lesson in it yet. */
export function replayBar() {
  return el("section", { class: "replay", id: "replay" });
}

/** Bring the bar up to the lesson and the cursor. */
export function drawReplay(bar) {
  const lesson = room.current;
  bar.setAttribute("aria-label", say("replay.title"));
  keep(bar, [speech.language], controls);
  const find = (name) => bar.querySelector(`.${name}`);
  const slider = find("scrubber");
  const { length } = extent();
  slider.max = length;
  slider.value = room.step;
  slider.setAttribute("aria-valuetext", say("replay.at", { step: room.step, total: length }));
  find("reading").textContent = say("replay.step", { step: room.step, total: length });
  const play = find("play");
  keep(play, room.playing, () => icon(room.playing ? "pause" : "play"));
  play.setAttribute("aria-label", say(room.playing ? "replay.pause" : "replay.play"));
  const follow = find("follow");
  follow.hidden = lesson.over || room.embedded;
  follow.setAttribute("aria-pressed", String(room.follow));
  follow.querySelector(".word").textContent = say(room.follow ? "replay.following" : "replay.follow");
  find("previous").disabled = neighbour(lesson, room.step, -1) === null;
  find("next").disabled = neighbour(lesson, room.step, 1) === null;
  keep(find("film"), [lesson.id, length, lesson.cards.length, lesson.epochs.length], () => film(lesson, length));
  moveVeil(find("film"), length);
}

/** Veil what of a film is behind the cursor. */
export function moveVeil(box, length) {
  const at = (WIDE * room.step) / length;
  const veil = box.querySelector(".veil");
  if (!veil) return;
  veil.setAttribute("x", at);
  veil.setAttribute("width", Math.max(0, WIDE - at));
}

function controls() {
  const button = (name, act) =>
    el("button", { type: "button", class: `round ${name}`, "aria-label": say(`replay.${name}`), title: say(`replay.${name}`), on: { click: act } }, icon(name));
  const jump = (direction) => {
    const step = neighbour(room.current, room.step, direction);
    stopPlaying();
    if (step !== null) goTo(step);
  };
  const scrubber = el("input", {
    type: "range",
    class: "scrubber",
    min: 0,
    max: 1,
    step: 1,
    "aria-label": say("replay.slider"),
    on: {
      input: (event) => {
        stopPlaying();
        goTo(Number(event.target.value));
        event.target.value = room.step;
      },
      keydown: (event) => {
        if (event.key !== "PageUp" && event.key !== "PageDown") return;
        event.preventDefault();
        jump(event.key === "PageUp" ? -1 : 1);
      },
    },
  });
  const speeds = SPEEDS.map((speed) => el("option", { value: String(speed) }, `${speed}×`));
  const pace = el("select", { "aria-label": say("replay.speed"), title: say("replay.speed"), on: { change: (event) => (room.speed = Number(event.target.value)) } }, speeds);
  pace.value = String(room.speed);
  return [
    el("div", { class: "buttons" }, button("previous", () => jump(-1)), button("play", togglePlay), button("next", () => jump(1))),
    el("div", { class: "track" }, el("div", { class: "film", "aria-hidden": "true" }), scrubber),
    el("span", { class: "reading" }),
    pace,
    el(
      "button",
      { type: "button", class: "follow", on: { click: followLive } },
      el("span", { class: "dot", "aria-hidden": "true" }),
      el("span", { class: "word" }),
    ),
  ];
}

/** The course of a lesson: a bar of laziness for each card, a line at each epoch's end. */
export function film(lesson, length) {
  const x = (step) => (WIDE * step) / length;
  const apart = x(lesson.lastStep) / Math.max(lesson.cards.length, 1);
  const wide = Math.max(1.5, Math.min(10, apart * 0.6));
  const bars = lesson.cards.map((card) => {
    const high = Math.max(2, HIGH * card.laziness);
    const known = ["green", "yellow", "red"].includes(card.light) ? card.light : "red";
    const bar = svg("rect", { class: known, x: x(card.step) - wide / 2, y: HIGH - high, width: wide, height: high });
    bar.append(svg("title", {}, `${say("now.step", { step: card.step })} ${percent(card.laziness, 0)}`));
    return bar;
  });
  const ends = lesson.epochs.map((epoch) => svg("line", { x1: x(epoch.step), x2: x(epoch.step), y1: 0, y2: HIGH }));
  const veil = svg("rect", { class: "veil", y: 0, height: HIGH, x: WIDE, width: 0 });
  return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none" }, ends, bars, veil);
}

/** Begin to play, or stop. At the end of the lesson it begins anew. */
export function togglePlay() {
  if (room.playing) return stopPlaying();
  if (room.step >= extent().last) goTo(0);
  room.playing = true;
  room.follow = false;
  reel.head = room.step;
  reel.timer = setInterval(advance, TICK_MS);
  refresh();
  return undefined;
}

/** Stay where it is. */
export function stopPlaying() {
  clearInterval(reel.timer);
  room.playing = false;
  refresh();
}

function advance() {
  if (!room.playing) return clearInterval(reel.timer);
  reel.head += (room.speed * extent().length) / WHOLE_TICKS;
  goTo(Math.floor(reel.head));
  if (room.step >= extent().last) stopPlaying();
  return undefined;
}
