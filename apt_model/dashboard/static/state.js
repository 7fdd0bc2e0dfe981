/** What the reader looks at: which lessons, which view, which step. Every view draws from here and from the lessons. */

const SOON_MS = 200;

export const MOST_COMPARED = 6;
export const PRESENTER = "present"; // in place of a view behind the # of the address

export const room = {
  lessons: [],
  current: null,
  others: [],
  embedded: false,
  view: "now",
  step: 0,
  follow: true,
  playing: false,
  presenting: false,
  speed: 1,
  which: -1,
  token: null,
  temperature: null,
  filter: "all",
  held: null,
  toOpen: null,
  zoom: null,
  smoothing: 0,
  logs: [],
  sort: { by: "date", down: true },
  sought: "",
  baseline: null,
  theme: "light",
  languageChosen: false,
  pending: false,
  soon: 0,
  draw: null,
};

/** Draw everything once more, at the next frame. */
export function refresh() {
  if (room.pending || !room.draw) return;
  room.pending = true;
  requestAnimationFrame(() => {
    room.pending = false;
    room.draw();
  });
}

/** The same in a moment: records may come by the hundred, and the machine that draws them is often the one that trains. */
export function refreshSoon() {
  if (room.soon) return;
  room.soon = setTimeout(() => {
    room.soon = 0;
    refresh();
  }, SOON_MS);
}

/** The lessons on the page: the one watched, and those that it is compared with. */
export function lessonsInView() {
  return room.current ? [room.current, ...room.others] : [];
}

/** Give every lesson in view a place of its own among six, which it keeps as long as it is in view: its colour and number. */
export function takePlaces() {
  const lessons = lessonsInView();
  const taken = new Set();
  for (const lesson of lessons) {
    if (taken.has(lesson.place)) lesson.place = null;
    else if (lesson.place !== null) taken.add(lesson.place);
  }
  for (const lesson of lessons.filter((one) => one.place === null)) {
    lesson.place = 0;
    while (taken.has(lesson.place)) lesson.place += 1;
    taken.add(lesson.place);
  }
  room.lessons.filter((one) => !lessons.includes(one)).forEach((one) => (one.place = null));
}

/** The last step that can be gone to, and the number of steps that there will be. */
export function extent() {
  const lessons = lessonsInView();
  return {
    last: Math.max(0, ...lessons.map((lesson) => lesson.lastStep)),
    length: Math.max(1, ...lessons.map((lesson) => lesson.length)),
  };
}

/** Put the cursor on a step; the end of a lesson that still goes on means to follow it. */
export function goTo(step) {
  if (!room.current) return;
  const to = Math.min(extent().last, Math.max(0, Math.round(step)));
  if (to !== room.step) Object.assign(room, { which: -1, held: null });
  room.step = to;
  room.follow = to >= room.current.lastStep && !room.current.over;
  refresh();
}

/** Go with the lesson as it happens. */
export function followLive() {
  room.playing = false;
  goTo(room.current ? room.current.lastStep : 0);
}

/** The card in view: of the newest step that has cards, the one chosen, at first the last. */
export function cardInView(lesson) {
  const cards = lesson ? lesson.cardsAt(room.step) : [];
  return cards.length ? cards[room.which >= 0 && room.which < cards.length ? room.which : cards.length - 1] : null;
}

/** A value kept between visits, or null where the browser keeps none. */
export function recall(name) {
  try {
    return localStorage.getItem(`apt-${name}`);
  } catch (error) {
    return null;
  }
}

/** Keep a value between visits, where the browser lets us. */
export function remember(name, value) {
  try {
    localStorage.setItem(`apt-${name}`, value);
  } catch (error) {
    // a private window or file:// may refuse: then the choice lasts as long as the page
  }
}
