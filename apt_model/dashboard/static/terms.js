/** Terms that one can open: two sentences and an example, one by one beside a quantity, or all of them. */
import {el, keep, part} from "./dom.js";
import {say, speech} from "./words.js";

const TERMS = ["laziness", "agreement", "kl", "nat", "entropy", "kd", "ce", "alpha", "beta", "temperature", "norm"];
const TERM_OF = { "now.laziness": "laziness", "now.kd": "kd", "now.ce": "ce", "now.norm": "norm", "now.gap": "entropy", "now.kl": "kl" };
const OF_CHART = {
  parts: ["laziness"],
  readings: ["agreement"],
  losses: ["kd", "ce", "nat"],
  agreement: ["agreement"],
  gap: ["entropy"],
  pulls: ["alpha", "beta"],
  softness: ["entropy", "temperature"],
  norm: ["norm"],
};
const OF_VIEW = {
  now: ["agreement", "kl", "nat", "alpha", "beta", "temperature"],
  topics: ["agreement", "kl", "nat"],
  exam: ["agreement"],
  temperature: ["temperature", "entropy", "nat", "alpha", "beta", "kd", "ce"],
  reports: ["laziness", "agreement", "kl", "ce"],
};

/** The word under `key`; one that is a term as a button that opens it. */
export function termed(key) {
  const term = TERM_OF[key];
  return term ? termButton(term, say(key)) : say(key);
}

/** Buttons of the terms of a chart. */
export function termsOfChart(name) {
  return (OF_CHART[name] || []).map((term) => termButton(term));
}

/** Draw the terms of a view at its end. */
export function drawTermRow(box, view) {
  const terms = OF_VIEW[view] || [];
  keep(part(box, "term-row", "p"), [speech.language, terms], () => (terms.length ? [el("span", { class: "quiet" }, say("term.row")), terms.map((term) => termButton(term))] : []));
}

function termButton(term, words) {
  const name = say(`term.${term}.name`);
  const open = () => openSheet(name, explained(term), `[data-term="${term}"]`);
  return el("button", { type: "button", class: "term", "data-term": term, "aria-haspopup": "dialog", title: say("term.open", { name }), on: { click: open } }, words || name);
}

function explained(term) {
  return [
    el("p", {}, say(`term.${term}.text`)),
    el("p", { class: "example" }, el("b", {}, say("term.example")), say(`term.${term}.example`)),
  ];
}

/** Open all the terms; `more` stands above them. */
export function openTerms(more) {
  if (document.querySelector("dialog[open]")) return;
  const all = TERMS.map((term) => el("section", {}, el("h3", {}, say(`term.${term}.name`)), explained(term)));
  openSheet(say("term.all"), [more, all], ".switch.help");
}

/** A dialog over the page; `opener` is focused afterwards where what was focused before is gone. */
function openSheet(title, content, opener) {
  const [before, sheet] = [document.activeElement, el("dialog", { class: "sheet", "aria-labelledby": "sheet-title" })];
  const close = () => sheet.close();
  sheet.append(
    el("header", {}, el("h2", { id: "sheet-title" }, title), el("button", { type: "button", class: "chip", on: { click: close } }, say("term.close"))),
    el("div", { class: "sheet-text", tabindex: "0", role: "region", "aria-labelledby": "sheet-title" }, content),
  );
  sheet.addEventListener("click", (event) => event.target === sheet && sheet.close());
  sheet.addEventListener("close", () => {
    sheet.remove();
    const back = before && before.isConnected && before !== document.body ? before : document.querySelector(opener);
    if (back) back.focus();
  });
  document.body.append(sheet);
  sheet.showModal();
}
