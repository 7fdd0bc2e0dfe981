/** The head of the page: whose lesson it is, whether it is live, language, paper or blackboard, and the views. */
import {brief} from "./clean.js";
import {el, icon, keep, part, rove} from "./dom.js";
import {copyLink} from "./link.js";
import {MOST_COMPARED, lessonsInView, refresh, remember, room} from "./state.js";
import {tell} from "./tell.js";
import {LANGUAGES, say, speech} from "./words.js";

const SIGNS = { live: "●", over: "✓", waiting: "↻", loading: "…", none: "▣" };

/** Draw the head into `box`; `watch` and `compare` are told of a lesson chosen, `show` of a view, `help` of the wish for it. */
export function drawTop(box, views, { watch, compare, show, help }) {
  const many = room.lessons.length > 1;
  const names = room.lessons.map((lesson) => [lesson.id, lesson.name]);
  const bar = part(box, "masthead");
  keep(part(bar, "brand", "h1"), speech.language, () => [el("span", { class: "seal", "aria-hidden": "true" }, "蒸"), el("span", {}, say("page.brand"))]);
  const chosen = [room.current && room.current.id, room.others.map((one) => one.id)];
  keep(part(bar, "which"), [speech.language, names, chosen], () => (many ? choosers(watch, compare) : lessonName()));
  keep(part(bar, "state"), [speech.language, linkNow()], () => linkSign(linkNow()));
  keep(part(bar, "switches"), [speech.language, room.theme], () => switches(help));
  const nav = part(box, "tabs", "nav");
  nav.setAttribute("aria-label", say("page.views"));
  keep(part(nav, "tablist"), [speech.language, views], () => tabs(views, show));
  nav.querySelectorAll("[role=tab]").forEach((tab) => {
    const chosen = tab.id === `tab-${room.view}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.setAttribute("tabindex", chosen ? "0" : "-1");
  });
}

function lessonName() {
  return room.current ? el("span", { class: "lesson-title" }, brief(room.current.name, 60)) : [];
}

function choosers(watch, compare) {
  const option = (lesson) => el("option", { value: lesson.id }, brief(lesson.name, 40));
  const pick = (label, value, options, act) => {
    const select = el("select", { on: { change: (event) => act(room.lessons.find((one) => one.id === event.target.value) || null) } }, options);
    select.value = value;
    return el("label", {}, el("span", {}, say(label)), " ", select);
  };
  const rest = room.lessons.filter((lesson) => !lessonsInView().includes(lesson));
  const full = lessonsInView().length >= MOST_COMPARED;
  return [
    pick("page.run", room.current ? room.current.id : "", room.lessons.map(option), watch),
    pick("page.other", "", [el("option", { value: "" }, say(full ? "page.full" : "page.none")), full ? [] : rest.map(option)], compare),
  ];
}

function linkNow() {
  if (room.embedded) return "none";
  const lesson = room.current;
  if (!lesson) return "loading";
  return lesson.ended || (lesson.over && lesson.link !== "waiting") ? "over" : lesson.link;
}

function linkSign(link) {
  return el("span", { class: `status ${link}`, role: "status" }, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[link] || "·"), say(`link.${link}`));
}

function switches(help) {
  const dark = room.theme === "dark";
  const flip = () => setTheme(dark ? "light" : "dark", true);
  const turn = () => setLanguage(LANGUAGES[1 - LANGUAGES.indexOf(speech.language)], true);
  const other = speech.language === "zh" ? "en" : "zh-CN";
  const present = () => (location.hash = "present");
  return [
    el("button", { type: "button", class: "switch help", "aria-label": say("term.help"), title: say("term.help"), on: { click: help } }, "?"),
    el("button", { type: "button", class: "switch present", "aria-label": say("presenter.open"), title: say("presenter.open"), on: { click: present } }, icon("screen")),
    el("button", { type: "button", class: "switch copy", "aria-label": say("link.copy"), title: say("link.copy"), on: { click: takeLink } }, icon("link")),
    el("button", { type: "button", class: "switch language", lang: other, on: { click: turn } }, say("page.language")),
    el("button", { type: "button", class: "switch theme", "aria-label": say(dark ? "page.light" : "page.dark"), title: say(dark ? "page.light" : "page.dark"), on: { click: flip } }, icon(dark ? "sun" : "moon")),
  ];
}

function takeLink() {
  copyLink(() => tell(say("link.copied")), (link) => window.prompt(say("link.take"), link));
}

/** Speak `language`, which the reader has chosen, from now on; a choice made just now is remembered. */
export function setLanguage(language, chosen) {
  room.languageChosen = true;
  speak(LANGUAGES.includes(language) ? language : "zh");
  if (chosen) remember("language", speech.language);
  refresh();
  if (chosen) refocus(".switch.language");
}

/** Until the reader chooses a language: that of the lesson, or of the browser while there is none that we speak. */
export function followLanguage(lesson) {
  if (room.languageChosen) return;
  const own = lesson && lesson.started && lesson.started.config && lesson.started.config.lang;
  speak(LANGUAGES.includes(own) ? own : /^zh\b/i.test(navigator.language) ? "zh" : "en");
}

function speak(language) {
  speech.language = language;
  document.documentElement.setAttribute("lang", language === "zh" ? "zh-CN" : "en");
}

/** Paper ("light") or blackboard ("dark"). */
export function setTheme(theme, chosen) {
  room.theme = theme === "dark" ? "dark" : "light";
  document.documentElement.setAttribute("data-theme", room.theme);
  if (chosen) remember("theme", room.theme);
  refresh();
  if (chosen) refocus(".switch.theme");
}

function refocus(selector) {
  requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector(selector).focus()));
}

function tabs(views, show) {
  const made = views.map((view) =>
    el(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${view}`,
        "aria-controls": `view-${view}`,
        on: { click: () => show(view) },
      },
      say(`view.${view}`),
    ),
  );
  const walk = (event) => {
    const tab = rove(made, event, 0);
    if (tab) show(views[made.indexOf(tab)]);
  };
  return el("div", { role: "tablist", "aria-label": say("page.views"), on: { keydown: walk } }, made);
}
