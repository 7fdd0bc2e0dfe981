/** The tour of a first visit: five steps over the page, left at once by Escape or a button, never shown twice. */
import {el} from "./dom.js";
import {openTerms} from "./terms.js";
import {recall, remember, room} from "./state.js";
import {say} from "./words.js";

const STEPS = [
  ["card", ".voices"],
  ["lazy", ".judged"],
  ["story", ".story"],
  ["replay", ".replay"],
  ["views", ".tabs"],
];
const TOUR = "#tour";
const tour = { wanted: false };

/** Decide whether a tour is due: on a first visit without a deep link, where the browser can keep that it was shown. */
export function planTour() {
  tour.wanted = location.hash === TOUR || (location.hash === "" && recall("toured") === null);
  window.addEventListener("hashchange", () => location.hash === TOUR && openTour());
  document.addEventListener("keydown", (event) => {
    const writes = event.target instanceof Element && event.target.closest("input:not([type=range]), textarea, select");
    if (event.key === "?" && !writes && !event.ctrlKey && !event.metaKey && !room.presenting) openHelp();
  });
}

/** All the terms, and the way back to the tour. */
export function openHelp() {
  const again = () => {
    document.querySelector("dialog.sheet").close();
    openTour();
  };
  openTerms(el("p", {}, el("button", { type: "button", class: "chip", on: { click: again } }, say("tour.again"))));
}

/** Show the tour that is due, once there is a card to point at. */
export function offerTour() {
  if (!tour.wanted || room.view !== "now" || !document.querySelector(".card")) return;
  tour.wanted = false;
  if (room.presenting) return;
  if (location.hash !== TOUR) {
    remember("toured", "yes");
    if (recall("toured") === null) return;
  }
  openTour();
}

function openTour() {
  if (document.querySelector("dialog[open]")) return;
  remember("toured", "yes");
  if (location.hash === TOUR) history.replaceState(null, "", location.pathname + location.search);
  const before = document.activeElement;
  const box = el("dialog", { class: "tour", "aria-labelledby": "tour-title", "aria-describedby": "tour-text" });
  box.addEventListener("close", () => {
    outline(null);
    box.remove();
    const back = before && before.isConnected && before !== document.body ? before : document.getElementById("main");
    back.focus({ preventScroll: true });
  });
  document.body.append(box);
  box.showModal();
  drawStep(box, 0);
}

function drawStep(box, at) {
  const [name, place] = STEPS[at];
  const button = (word, act, primary) => el("button", { type: "button", class: primary ? "chip primary" : "chip", on: { click: act } }, say(word));
  const last = at === STEPS.length - 1;
  const next = button(last ? "tour.done" : "tour.next", () => (last ? box.close() : drawStep(box, at + 1)), true);
  box.replaceChildren(
    el("p", { class: "quiet" }, el("span", { "aria-hidden": "true" }, `${at + 1} / ${STEPS.length}`), el("span", { class: "unseen" }, say("tour.name", { step: at + 1, total: STEPS.length }))),
    el("h2", { id: "tour-title" }, say(`tour.${name}.title`)),
    el("p", { id: "tour-text" }, say(`tour.${name}.text`)),
    el("p", { class: "tour-buttons" }, last ? null : button("tour.leave", () => box.close()), at ? button("tour.back", () => drawStep(box, at - 1)) : null, next),
  );
  box.classList.toggle("up", name === "replay");
  box.classList.toggle("left", name === "story");
  outline(document.querySelector(place));
  next.focus();
}

/** Outline `target`, and nothing else. */
function outline(target) {
  document.querySelectorAll(".toured").forEach((one) => one.classList.remove("toured"));
  if (!target) return;
  target.classList.add("toured");
  target.scrollIntoView({ block: target.offsetHeight > innerHeight / 3 ? "start" : "nearest" });
}
