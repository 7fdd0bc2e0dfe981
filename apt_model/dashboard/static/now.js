/** The view of this moment: the card, the step's figures, who teaches whom, and what was noticed. */
import {clean} from "./clean.js";
import {cardSvg} from "./card_image.js";
import {cardArticle, figureList} from "./card.js";
import {nameTag} from "./compare.js";
import {el, keep, part} from "./dom.js";
import {brisk, count, fieldOf, modelName, number} from "./format.js";
import {peeksInto} from "./peek.js";
import {fileName, savePng} from "./save.js";
import {cardInView, lessonsInView, refresh, room} from "./state.js";
import {drawStory} from "./story.js";
import {LESSON} from "./lesson_words.js";
import {say, sayVariant, speakOf, speech} from "./words.js";

const SHOWN_NOTICES = 6;

/** Draw the view of this moment into `box`. */
export function drawNow(box) {
  const lessons = lessonsInView();
  const desk = part(box, "desk");
  desk.classList.toggle("pair", lessons.length > 1);
  while (desk.children.length > lessons.length) desk.lastChild.remove();
  lessons.forEach((lesson, index) => {
    speakOf(lesson);
    drawDesk(part(desk, `place place-${index}`), lesson, lessons.length > 1);
  });
  speakOf(room.current);
  const side = part(box, "side", "aside");
  drawStory(part(side, "story", "section"), room.current);
  drawMoment(part(side, "moment", "section"), lessons.map(momentOf));
  keep(part(side, "who", "section"), [speech.language, room.current.started, room.current.id], () => who(room.current));
  const heard = room.current.until("notices", room.step).slice(-SHOWN_NOTICES).reverse();
  keep(part(side, "heard", "section"), [speech.language, heard], () => notices(heard));
}

function drawDesk(place, lesson, named) {
  const cards = lesson.cardsAt(room.step);
  const card = cardInView(lesson);
  if (room.follow && peeksInto(place)) return; // the lesson goes on, the reader is not done
  const shown = cards.indexOf(card);
  keep(part(place, "lesson-name", "p"), [named, lesson.place, lesson.name], () => (named ? nameTag(lesson) : []));
  keep(part(place, "observing", "p"), [speech.language, lesson.observed], () => (lesson.observed ? el("span", {}, say("now.observing")) : []));
  keep(part(place, "choice", "div"), [speech.language, cards.length, shown, card && card.step], () => choice(cards, shown));
  const key = [speech.language, lesson.id, lesson.scale, card && [card.step, shown, card.wall_time], card ? 0 : lesson.link];
  keep(part(place, "paper"), key, () => (card ? cardArticle(card, lesson.scale) : el("p", { class: "waiting" }, say("now.waiting"))));
  keep(part(place, "card-acts"), [speech.language, lesson.id, card !== null], () => (card ? pictureButton(lesson) : []));
}

/** Takes the card along as it is when the button is pressed. */
function pictureButton(lesson) {
  const take = () => {
    const card = cardInView(lesson);
    savePng(`${fileName(lesson.name, say("card.file"), card.step)}.png`, cardSvg(card, lesson.scale, lesson.name));
  };
  return el("button", { type: "button", class: "tool", on: { click: take } }, say("card.picture"));
}

function choice(cards, shown) {
  if (cards.length < 2) return [];
  const buttons = cards.map((card, index) =>
    el(
      "button",
      {
        type: "button",
        class: "chip",
        "aria-pressed": String(index === shown),
        on: {
          click: () => {
            room.which = index;
            refresh();
          },
        },
      },
      say("now.card", { index: index + 1 }),
    ),
  );
  return [el("span", { class: "quiet" }, say("now.cards")), buttons];
}

const MOMENT = [
  ["now.loss", (step) => fieldOf(step, "loss", number)],
  ["now.kd", (step) => fieldOf(step, "kd", number)],
  ["now.ce", (step) => fieldOf(step, "ce", number)],
  ["now.rate", (step) => fieldOf(step, "learning_rate", brisk)],
  ["now.norm", (step) => fieldOf(step, "grad_norm", brisk)],
  ["now.speed", (step) => count(step && step.tokens !== null && step.step_seconds > 0 ? step.tokens / step.step_seconds : null)],
];

/** The step of a lesson's card in view, and the latest up to the cursor, which may be further. */
function momentOf(lesson) {
  const [card, latest] = [cardInView(lesson), lesson.latest("steps", room.step)];
  return { lesson, card, latest, step: card ? lesson.latest("steps", card.step) : latest };
}

/** The figures of the card's own step, and, where the lesson is further, that it is; of several lessons a column each. */
function drawMoment(box, moments) {
  const [{ step, latest, card }] = moments;
  const alone = moments.length === 1;
  const title = alone && step && card ? say("now.momentcard", { step: step.step }) : say("now.moment");
  keep(part(box, "moment-title", "h3"), title, () => el("span", {}, title));
  const figures = part(box, "moment-figures");
  const shape = [speech.language, moments.map(({ lesson, step: known }) => [lesson.id, lesson.place, known !== null])];
  keep(figures, shape, () => (alone ? (step ? figureList(MOMENT.map(([word]) => [word, ""])) : el("p", { class: "quiet" }, say("now.nostep"))) : momentTable(moments)));
  const values = step || !alone ? MOMENT.flatMap(([, read]) => moments.map((one) => read(one.step))) : [];
  figures.querySelectorAll("dd, tbody td").forEach((cell, index) => (cell.textContent = values[index])); // a term that is focused stays
  const since = alone && step && latest.step > step.step ? say("now.since", { step: latest.step, loss: fieldOf(latest, "loss", number) }) : "";
  keep(part(box, "moment-since"), since, () => (since ? el("p", { class: "quiet since" }, since) : []));
}

function momentTable(moments) {
  const heads = moments.map(({ lesson }) => el("th", { scope: "col" }, el("span", { class: `run-mark run-${lesson.place}`, title: clean(lesson.name, 120) }, lesson.place + 1)));
  const rows = MOMENT.map(([word]) => el("tr", {}, el("th", { scope: "row" }, say(word)), moments.map(() => el("td"))));
  return el("table", { class: "models moments" }, el("thead", {}, el("tr", {}, el("td"), heads)), el("tbody", {}, rows));
}

function who(lesson) {
  const started = lesson.started;
  if (!started) return [];
  const pair = [started.teacher, started.student];
  const row = (word, cell) => el("tr", {}, el("th", { scope: "row" }, say(word)), pair.map((one) => el("td", {}, cell(one))));
  const roles = ["teacher", "student"].map((role) => el("th", { scope: "col", class: role }, say(`now.${role}`)));
  const shape = pair.some((one) => one.layers)
    ? row("now.shape", (one) => `${one.layers || "?"} × ${one.hidden_size || "?"}`)
    : null;
  const trainer = started.trained_by ? clean(started.trained_by, 60) : "";
  const values = { temperature: brisk(lesson.setting("temperature")), alpha: brisk(lesson.setting("alpha")), beta: brisk(lesson.setting("beta")) };
  return [
    el("h3", {}, say("now.room")),
    el(
      "table",
      { class: "models" },
      el("thead", {}, el("tr", {}, el("td"), roles)),
      el(
        "tbody",
        {},
        row("now.parameters", (one) => (one.parameters ? count(one.parameters) : "?")),
        row("now.size", (one) => (one.parameters ? `${number(one.megabytes, 1)} MB` : "?")),
        shape,
      ),
    ),
    el("p", { class: "quiet" }, pair.map(modelName).join(" → ")),
    el("p", { class: "quiet" }, trainer ? say("now.trainer", Object.assign(values, { trainer })) : say("now.settings", values)),
  ];
}

function notices(heard) {
  if (!heard.length) return [];
  const line = (notice) => {
    const text = noticeText(notice);
    const when = el("span", { class: "quiet" }, say("now.step", { step: notice.step }), " ");
    return el("li", {}, text.includes(String(notice.step)) ? null : when, text);
  };
  return [el("h3", {}, say("now.notices")), el("ul", { class: "notices" }, heard.map(line))];
}

function noticeText(notice) {
  const values = Object.fromEntries(Object.entries(notice.values || {}).map(([name, value]) => [name, clean(value, 500)]));
  return notice.key in LESSON ? clean(sayVariant(notice.key, notice.step, values)) : clean(notice.key, 100);
}
