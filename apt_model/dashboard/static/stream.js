/** How records come: the history by one fetch, what follows by an EventSource; or all of them inside the page itself. */
import {Lesson} from "./store.js";
import {refresh, refreshSoon, room} from "./state.js";

const RETRY_MS = 1000;
const REWIND_MS = 200;
const TURN_MS = 3000;
const MOST_STREAMS = 4; // a browser has six connections to a host, for all of its pages

/** The lessons that a report carries, or null where this page has a server. */
export function embeddedLessons() {
  const data = document.getElementById("apt-data");
  if (!data) return null;
  return JSON.parse(data.textContent).runs.map((run) => {
    const lesson = new Lesson(run.id, run.name);
    run.events.forEach((record) => lesson.add(record));
    lesson.damage = run.damage;
    return lesson;
  });
}

/** Bring `room.lessons` up to what the server has now; lessons that we know keep their records. */
export async function listLessons() {
  const answer = await fetch("./api/runs");
  if (!answer.ok) throw new Error(`runs: ${answer.status}`);
  const known = new Map(room.lessons.map((lesson) => [lesson.id, lesson]));
  room.lessons = (await answer.json()).map((run) => {
    const lesson = known.get(run.id) || new Lesson(run.id, run.name);
    lesson.listed = run;
    return lesson;
  });
}

/** Read a lesson from its beginning and go on listening. */
export async function connect(lesson) {
  disconnect(lesson);
  lesson.wanted = true;
  lesson.link = "loading";
  refresh();
  try {
    const answer = await fetch(`./api/runs/${encodeURIComponent(lesson.id)}/history`);
    if (!answer.ok) throw new Error(`history: ${answer.status}`);
    const history = await answer.json();
    lesson.reset();
    history.events.forEach((record) => lesson.add(record));
    Object.assign(lesson, { offset: history.offset, lines: history.lines, damage: history.damage });
    lesson.loaded = true;
    listen(lesson);
  } catch (error) {
    lesson.link = "waiting";
    lesson.retry = setTimeout(() => connect(lesson), RETRY_MS);
  }
  refresh();
}

/** Go on from the last record that came; nothing is asked for twice. */
export function listen(lesson) {
  if (lesson.source || lesson.ended || !lesson.wanted || document.hidden) return;
  if (lesson !== room.current && listened().length >= MOST_STREAMS) return; // it waits for its turn
  const source = new EventSource(`./api/runs/${encodeURIComponent(lesson.id)}/events?from=${lesson.offset}`);
  Object.assign(lesson, { source, since: performance.now() });
  source.onopen = () => {
    lesson.link = "live";
    refresh();
  };
  const isNew = (message) => { // a reconnect may repeat what we have
    const offset = Number(message.lastEventId);
    if (!(offset > lesson.offset)) return false;
    lesson.offset = offset;
    refreshSoon();
    return true;
  };
  source.onmessage = (message) => {
    if (!isNew(message)) return;
    lesson.lines += 1;
    lesson.add(JSON.parse(message.data));
  };
  source.addEventListener("damaged", (message) => isNew(message) && lesson.spoil());
  source.addEventListener("rewind", () => {
    disconnect(lesson);
    lesson.retry = setTimeout(() => connect(lesson), REWIND_MS);
  });
  source.addEventListener("end", () => {
    disconnect(lesson);
    lesson.ended = true;
    lesson.link = "over";
    refresh();
  });
  source.onerror = () => {
    lesson.link = "waiting";
    if (source.readyState === EventSource.CLOSED) { // refused outright: the browser gives up, we do not
      lesson.source = null;
      lesson.retry = setTimeout(() => listen(lesson), RETRY_MS);
    }
    refresh();
  };
}

function listened() {
  return room.lessons.filter((one) => one.source);
}

/** Of more lessons than may be listened to at a time, those compared take turns. */
export function takeTurns() {
  setInterval(() => {
    const waiting = room.lessons.filter((one) => one.wanted && one.loaded && !one.ended && !one.source);
    if (!waiting.length || document.hidden || listened().length < MOST_STREAMS) return waiting.forEach(listen);
    const heard = listened().sort((one, two) => one.since - two.since).find((one) => one !== room.current);
    disconnect(heard);
    return listen(waiting.sort((one, two) => one.since - two.since)[0]);
  }, TURN_MS);
}

/** Stop listening; the records stay. */
export function disconnect(lesson) {
  clearTimeout(lesson.retry);
  if (lesson.source) lesson.source.close();
  lesson.source = null;
}

/** A hidden page gives its connections back (a browser has six per host), a shown one catches up. */
export function mindVisibility() {
  document.addEventListener("visibilitychange", () => {
    for (const lesson of room.lessons.filter((one) => one.wanted)) {
      if (document.hidden) disconnect(lesson);
      else if (lesson.loaded) listen(lesson);
      else connect(lesson);
    }
    refresh();
  });
}
