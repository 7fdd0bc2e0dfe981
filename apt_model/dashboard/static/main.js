/** The page: puts head, views and replay together, and draws them whenever something changed. */
import {clean} from "./clean.js";
import {drawBranches, drawBranching, parentOf} from "./branch.js";
import {clearCharts} from "./chart.js";
import {damageLine, damageOf} from "./damage.js";
import {el, keep} from "./dom.js";
import {percent} from "./format.js";
import {drawExam} from "./exam.js";
import {drawLazy} from "./lazy.js";
import {drawLessons} from "./lessons.js";
import {drawNow} from "./now.js";
import {hidePeek} from "./peek.js";
import {drawReplay, replayBar} from "./replay.js";
import {drawReports} from "./reports.js";
import {cardInView, lessonsInView, recall, refresh, room} from "./state.js";
import {connect, disconnect, embeddedLessons, listLessons, mindVisibility} from "./stream.js";
import {drawTemperature} from "./temperature.js";
import {drawTop, setLanguage, setTheme} from "./top.js";
import {drawTopics} from "./topics.js";
import {say, speakOf, speech, topicWord} from "./words.js";

const RELIST_MS = 5000;
const VIEWS = {
  now: drawNow,
  lazy: drawLazy,
  topics: drawTopics,
  exam: drawExam,
  temperature: drawTemperature,
  reports: drawReports,
  lessons: (box) => drawLessons(box, watchLesson, compareLesson),
};
const stage = { top: null, main: null, replay: null, news: null, said: null, skip: null };

function build() {
  stage.skip = el("a", { class: "skip", href: "#main" });
  stage.top = el("header", { class: "top" });
  stage.main = el("main", { id: "main", tabindex: "-1" });
  stage.damage = el("div", { class: "damages", role: "status" });
  stage.branches = el("div", { class: "branches" });
  stage.main.append(stage.damage, stage.branches);
  for (const view of Object.keys(VIEWS)) {
    stage.main.append(el("section", { class: `view ${view}`, id: `view-${view}`, role: "tabpanel", "aria-labelledby": `tab-${view}`, hidden: true }));
  }
  stage.empty = el("p", { class: "waiting", hidden: true });
  stage.branching = el("div", { class: "branching", hidden: true });
  stage.main.append(stage.empty, stage.branching);
  stage.replay = replayBar();
  stage.news = el("p", { class: "unseen", "aria-live": "polite", id: "news" });
  document.body.append(stage.skip, stage.top, stage.main, stage.replay, stage.news);
}

function views() {
  return Object.keys(VIEWS).filter((view) => view !== "lessons" || room.lessons.length > 1);
}

function draw() {
  const lesson = room.current;
  if (lesson && room.follow && room.step !== lesson.lastStep) Object.assign(room, { step: lesson.lastStep, which: -1 });
  document.title = lesson ? `${clean(lesson.name, 60)} · ${say("page.brand")}` : say("page.title");
  stage.skip.textContent = say("page.skip");
  drawTop(stage.top, views(), { watch: watchLesson, compare: compareLesson, show: showView });
  const ready = lesson && (lesson.loaded || room.embedded);
  drawDamage();
  drawBranches(stage.branches);
  stage.empty.hidden = Boolean(ready);
  stage.empty.textContent = say(lesson ? "page.loading" : "page.empty");
  stage.replay.hidden = !ready;
  speakOf(lesson);
  for (const view of Object.keys(VIEWS)) {
    const box = document.getElementById(`view-${view}`);
    box.hidden = !ready || view !== room.view;
    if (!box.hidden) VIEWS[view](box);
  }
  stage.branching.hidden = !ready || room.embedded || room.view === "lessons";
  if (!ready) return;
  drawBranching(stage.branching);
  drawReplay(stage.replay);
  announce(lesson);
}

/** What is damaged of the lessons in view, over everything else. */
function drawDamage() {
  const lessons = lessonsInView();
  const damaged = lessons.map((lesson) => [lesson, damageOf(lesson)]).filter(([, damage]) => damage);
  keep(stage.damage, [speech.language, damaged.map(([lesson, damage]) => [lesson.id, damage]), lessons.length], () =>
    damaged.map(([lesson, damage]) => damageLine(damage, lessons.length > 1 ? lesson.name : null)),
  );
}

/** Tell whoever listens rather than looks of a new card, but only while the lesson is followed. */
function announce(lesson) {
  const card = room.follow ? cardInView(lesson) : null;
  if (!card || stage.said === card) return;
  const first = stage.said === null;
  stage.said = card;
  const facts = [say("now.step", { step: card.step }), topicWord(card.topic), `${say("now.laziness")} ${percent(card.laziness)}`];
  if (!first) stage.news.textContent = clean(facts.join(say("lazy.joint")), 200);
}

function showView(view) {
  if (!views().includes(view)) return;
  hidePeek(true);
  if (room.view !== view) clearCharts();
  Object.assign(room, { view, held: null });
  if (location.hash !== `#${view}`) history.replaceState(null, "", `#${view}`);
  refresh();
  window.scrollTo(0, 0);
  requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById(`tab-${view}`).scrollIntoView({ block: "nearest", inline: "nearest" })));
}

function watchLesson(lesson) {
  if (!lesson || lesson === room.current) return;
  const left = room.current;
  room.current = lesson;
  if (room.other === lesson) room.other = null;
  if (left && left !== room.other) disconnectFully(left);
  Object.assign(room, { follow: true, playing: false, which: -1, token: null, held: null, temperature: null });
  stage.said = null;
  clearCharts();
  openLesson(lesson);
  if (!room.other && parentOf(lesson)) compareLesson(parentOf(lesson));
}

function compareLesson(lesson) {
  if (lesson === room.current) return;
  if (room.other) disconnectFully(room.other);
  room.other = lesson;
  clearCharts();
  if (lesson) openLesson(lesson);
  refresh();
}

function openLesson(lesson) {
  if (!room.embedded) connect(lesson);
  refresh();
}

function disconnectFully(lesson) {
  lesson.wanted = false;
  disconnect(lesson);
}

async function relist() {
  if (!document.hidden && (!room.current || room.view === "lessons")) {
    try {
      await listLessons();
      if (!room.current && room.lessons.length) watchLesson(room.lessons[0]);
      refresh();
    } catch (error) {
      // no server just now: the next round asks again
    }
  }
  setTimeout(relist, RELIST_MS);
}

function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(recall("theme") || (dark.matches ? "dark" : "light"), false);
  dark.addEventListener("change", () => recall("theme") || setTheme(dark.matches ? "dark" : "light", false));
  setLanguage(recall("language") || "zh", false);
  build();
  room.draw = draw;
  window.addEventListener("hashchange", () => showView(location.hash.slice(1)));
  const asked = location.hash.slice(1);
  if (asked in VIEWS) room.view = asked;
  const embedded = embeddedLessons();
  if (embedded) {
    Object.assign(room, { embedded: true, lessons: embedded });
    if (embedded.length) watchLesson(embedded[0]);
  } else {
    mindVisibility();
    relist();
  }
  if (room.view === "lessons" && room.lessons.length < 2) room.view = "now";
  refresh();
}

start();
