/** The page: puts head, views and replay together, and draws them whenever something changed. */
import {clean} from "./clean.js";
import {drawBranches, drawBranching, parentOf} from "./branch.js";
import {clearCharts} from "./chart.js";
import {drawCompared} from "./compare.js";
import {damageLine, damageOf} from "./damage.js";
import {el, keep} from "./dom.js";
import {percent} from "./format.js";
import {drawExam} from "./exam.js";
import {drawInside, hasStudent} from "./inside.js";
import {drawLazy} from "./lazy.js";
import {drawLessons} from "./lessons.js";
import {drawNow} from "./now.js";
import {goWhere, linkInAddress, openNamedToken, writeLink} from "./link.js";
import {hidePeek} from "./peek.js";
import {drawPresenter, presenterStage, setPresenting} from "./presenter.js";
import {drawReplay, replayBar} from "./replay.js";
import {drawReports} from "./reports.js";
import {MOST_COMPARED, PRESENTER, cardInView, lessonsInView, recall, refresh, room, takePlaces} from "./state.js";
import {connect, disconnect, embeddedLessons, listLessons, mindVisibility, takeTurns} from "./stream.js";
import {tell} from "./tell.js";
import {drawTermRow} from "./terms.js";
import {drawTemperature} from "./temperature.js";
import {drawTop, followLanguage, setLanguage, setTheme} from "./top.js";
import {drawTopics} from "./topics.js";
import {offerTour, openHelp, planTour} from "./tour.js";
import {say, speakOf, speech, topicWord} from "./words.js";

const RELIST_MS = 5000;
const VIEWS = {
  now: drawNow,
  lazy: drawLazy,
  topics: drawTopics,
  exam: drawExam,
  inside: drawInside,
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
  stage.compared = el("div", { class: "comparison" });
  stage.branches = el("div", { class: "branches" });
  stage.main.append(stage.damage, stage.branches, stage.compared);
  for (const view of Object.keys(VIEWS)) {
    stage.main.append(el("section", { class: `view ${view}`, id: `view-${view}`, role: "tabpanel", "aria-labelledby": `tab-${view}`, hidden: true }));
  }
  stage.empty = el("p", { class: "waiting", hidden: true });
  stage.branching = el("div", { class: "branching", hidden: true });
  stage.main.append(stage.empty, stage.branching);
  stage.replay = replayBar();
  stage.news = el("p", { class: "unseen", "aria-live": "polite", id: "news" });
  stage.presenter = presenterStage();
  document.body.append(stage.skip, stage.top, stage.main, stage.replay, stage.news, stage.presenter);
}

function views() {
  const there = { lessons: room.lessons.length > 1, inside: hasStudent() };
  return Object.keys(VIEWS).filter((view) => there[view] !== false);
}

function draw() {
  const lesson = room.current;
  if (lesson && room.follow && room.step !== lesson.lastStep) Object.assign(room, { step: lesson.lastStep, which: -1 });
  followLanguage(lesson);
  document.title = lesson ? `${clean(lesson.name, 60)} · ${say("page.brand")}` : say("page.title");
  stage.skip.textContent = say("page.skip");
  drawTop(stage.top, views(), { watch: watchLesson, compare: compareLesson, show: showView, help: openHelp });
  const ready = lesson && (lesson.loaded || room.embedded);
  drawDamage();
  drawBranches(stage.branches);
  drawCompared(stage.compared, compareLesson);
  stage.empty.hidden = Boolean(ready);
  stage.empty.textContent = say(lesson ? "page.loading" : "page.empty");
  stage.replay.hidden = !ready || room.view === "inside"; // there each stage writes, wherever the cursor is
  speakOf(lesson);
  if (room.presenting) {
    drawPresenter(stage.presenter);
    if (ready) announce(lesson);
    writeLink();
    return;
  }
  for (const view of Object.keys(VIEWS)) {
    const box = document.getElementById(`view-${view}`);
    box.hidden = !ready || view !== room.view;
    if (box.hidden) continue;
    VIEWS[view](box);
    drawTermRow(box, view);
  }
  stage.branching.hidden = !ready || room.embedded || room.view === "lessons";
  if (!ready) return;
  drawBranching(stage.branching);
  drawReplay(stage.replay);
  announce(lesson);
  offerTour();
  openNamedToken();
  writeLink();
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
  refresh();
  window.scrollTo(0, 0);
  requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById(`tab-${view}`).scrollIntoView({ block: "nearest", inline: "nearest" })));
}

function watchLesson(lesson) {
  if (!lesson || lesson === room.current) return;
  const left = room.current;
  room.current = lesson;
  room.others = room.others.filter((one) => one !== lesson);
  if (left) disconnectFully(left);
  takePlaces();
  Object.assign(room, { follow: true, playing: false, which: -1, token: null, held: null, temperature: null, zoom: null });
  stage.said = null;
  clearCharts();
  openLesson(lesson);
  if (!room.others.length && parentOf(lesson)) compareLesson(parentOf(lesson));
}

/** Take a lesson into the comparison, or out of it. */
function compareLesson(lesson) {
  if (!lesson || lesson === room.current) return;
  const joins = !room.others.includes(lesson);
  if (joins && lessonsInView().length >= MOST_COMPARED) return;
  room.others = joins ? [...room.others, lesson] : room.others.filter((one) => one !== lesson);
  if (!joins) disconnectFully(lesson);
  takePlaces();
  clearCharts();
  if (joins) openLesson(lesson);
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

/** Show what a link leads to; a lesson that is not here is said, and another one shown. */
function followLink(link) {
  setPresenting(link.view === PRESENTER);
  const byId = (id) => room.lessons.find((lesson) => lesson.id === id);
  if (link.run && !byId(link.run)) tell(say("link.norun"));
  watchLesson(byId(link.run) || room.current || room.lessons[0]);
  if (link.whole) {
    room.others.filter((one) => !link.others.includes(one.id)).forEach(compareLesson);
    link.others.map(byId).filter((one) => one && !room.others.includes(one)).forEach(compareLesson);
    goWhere(link);
  }
  if (link.language && link.language !== speech.language) setLanguage(link.language, false);
  showView(link.view);
}

async function relist() {
  if (!document.hidden && (!room.current || room.view === "lessons")) {
    try {
      await listLessons();
      if (!room.current && room.lessons.length) followLink(linkInAddress());
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
  const language = linkInAddress().language || recall("language");
  if (language) setLanguage(language, false);
  build();
  room.draw = draw;
  planTour();
  window.addEventListener("hashchange", () => followLink(linkInAddress()));
  setPresenting(linkInAddress().view === PRESENTER);
  const embedded = embeddedLessons();
  if (embedded) {
    Object.assign(room, { embedded: true, lessons: embedded });
    if (embedded.length) followLink(linkInAddress());
  } else {
    mindVisibility();
    takeTurns();
    relist();
  }
  refresh();
}

start();
