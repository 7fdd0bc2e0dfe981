/** What both models thought at one token: the five likeliest of each, beside the token that is pointed at. */
import {el} from "./dom.js";
import {brisk, chance, levelOf} from "./format.js";
import {refresh, room} from "./state.js";
import {isPartOfCharacter, pieceName, tokenNodes, tokenText} from "./token_marks.js";
import {say} from "./words.js";

const LINGER_MS = 220;
const ROW_OVER_SHEET = 16; // px between the row that is read and the sheet
const peek = { box: null, anchor: null, pinned: false, timer: 0 };

function peekBox() {
  if (peek.box) return peek.box;
  peek.box = el("div", {
    id: "peek",
    role: "tooltip",
    hidden: true,
    on: {
      pointerenter: () => clearTimeout(peek.timer), // what is hovered can be read in peace
      pointerleave: () => hidePeek(false),
    },
  });
  document.getElementById("main").append(peek.box);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hidePeek(true));
  document.addEventListener("pointerdown", (event) => {
    if (!peek.box.contains(event.target) && !event.target.closest(".token")) hidePeek(true);
  });
  document.addEventListener("scroll", () => peek.anchor && place(), { passive: true, capture: true });
  return peek.box;
}

/** Open it at a token; pinned, it stays until it is dismissed. */
export function showPeek(anchor, detail, index, pinned) {
  clearTimeout(peek.timer);
  const box = peekBox();
  if (peek.anchor) peek.anchor.removeAttribute("aria-describedby");
  peek.anchor = anchor;
  peek.pinned = pinned;
  room.token = index;
  anchor.setAttribute("aria-describedby", "peek");
  box.replaceChildren(...peekContent(detail, index));
  box.hidden = false;
  place();
  if (isSheet()) clearOfSheet();
}

/** On a phone it lies at the foot of the page. */
function isSheet() {
  return window.matchMedia("(max-width: 760px)").matches;
}

/** Bring the row of the token over the sheet: there is room to scroll to even at the end of the page. */
function clearOfSheet() {
  const covered = window.innerHeight - peek.box.getBoundingClientRect().top;
  document.body.style.setProperty("padding-bottom", `${covered + ROW_OVER_SHEET}px`);
  const [row, sheet] = [peek.anchor.getBoundingClientRect(), peek.box.getBoundingClientRect()];
  if (row.bottom + ROW_OVER_SHEET > sheet.top) window.scrollBy(0, row.bottom + ROW_OVER_SHEET - sheet.top);
}

/** The token that somebody has pinned, or null. */
export function pinnedToken() {
  return peek.pinned && peek.anchor ? room.token : null;
}

/** Whether somebody reads a token of `box` just now: then it had better stay as it is. */
export function peeksInto(box) {
  return peek.anchor !== null && box.contains(peek.anchor);
}

/** Open it where the mouse is, unless another one is pinned. */
export function movePeek(anchor, detail, index) {
  if (!peek.pinned || !peek.anchor || !peek.anchor.isConnected) showPeek(anchor, detail, index, false);
}

/** Close it: at once if `now`, else after a moment unless it is pinned. */
export function hidePeek(now) {
  clearTimeout(peek.timer);
  if (!peek.box || (peek.pinned && !now)) return;
  const close = () => {
    if (peek.anchor) peek.anchor.removeAttribute("aria-describedby");
    Object.assign(peek, { anchor: null, pinned: false });
    peek.box.hidden = true;
    document.body.style.removeProperty("padding-bottom");
    refresh();
    document.querySelectorAll(".said.pointed").forEach((one) => one.classList.remove("pointed"));
  };
  if (now) close();
  else peek.timer = setTimeout(close, LINGER_MS);
}

function place() {
  const at = peek.anchor.getClientRects()[0];
  if (!at || isSheet()) return;
  const own = peek.box.getBoundingClientRect();
  const left = Math.min(Math.max(12, at.left + at.width / 2 - own.width / 2), window.innerWidth - own.width - 12);
  const below = at.bottom + 10 + own.height < window.innerHeight - 90;
  peek.box.style.setProperty("left", `${left}px`);
  peek.box.style.setProperty("top", `${below ? at.bottom + 10 : Math.max(8, at.top - own.height - 10)}px`);
}

function peekContent(detail, index) {
  const kl = detail.kl_nats[index];
  const level = levelOf(kl, detail.levels);
  const head = el(
    "p",
    { class: "peek-head" },
    el("b", { class: `token kl-${level}` }, tokenNodes(pieceName(detail, "student", index))),
    el("span", {}, say("token.position", { index: index + 1, total: detail.student.length })),
    el("b", {}, say("token.kl", { kl: brisk(kl) })),
    el("span", {}, say(`level.${level}`)),
  );
  const columns = ["teacher", "student"].map((role) => rankColumn(detail, index, role));
  const named = ["teacher", "student"].flatMap((role) => (detail[`${role}_top`][index] || []).map(([text]) => text));
  const parts = named.some(isPartOfCharacter) ? el("p", { class: "quiet" }, say("token.part")) : null;
  return [head, el("div", { class: "peek-columns" }, columns), parts].filter(Boolean);
}

function rankColumn(detail, index, role) {
  const top = detail[`${role}_top`][index] || [];
  const entropy = (detail[`${role}_entropy`] || [])[index];
  const rest = Math.max(0, 1 - top.reduce((sum, [, share]) => sum + share, 0));
  const rows = top.map(([text, share], rank) => rankRow(text, share, rank === 0 ? "first" : ""));
  return el(
    "div",
    { class: `ranks ${role}` },
    el("p", { class: "rank-head" }, say(`now.${role}`)),
    el("ol", {}, rows, el("li", { class: "rank rest" }, el("span", { class: "rank-text" }, say("token.rest")), shareBar(rest))),
    entropy === undefined ? null : el("p", { class: "quiet" }, say("token.entropy", { entropy: brisk(entropy) })),
  );
}

/** One candidate: its text, a bar, and the number. */
function rankRow(text, share, kind) {
  return el("li", { class: `rank ${kind}` }, el("span", { class: "rank-text", title: tokenText(text) }, tokenNodes(text)), shareBar(share));
}

function shareBar(share) {
  return [
    el("span", { class: "rank-bar" }, el("span", { style: { width: `${(100 * share).toFixed(2)}%` } })),
    el("span", { class: "rank-share" }, chance(share)),
  ];
}
