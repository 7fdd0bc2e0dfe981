/** A text token by token: marked where the student departs from the teacher, each token to be walked to and opened. */
import {el, rove} from "./dom.js";
import {brisk, levelBounds, levelOf, number} from "./format.js";
import {hidePeek, movePeek, showPeek} from "./peek.js";
import {pieceName, tokenNodes, tokenRow, tokenText} from "./token_marks.js";
import {say} from "./words.js";

/** Both texts of a card's `detail`: the teacher's tokens, and the student's as a strip, marked from `levels` of KL on. */
export function tokenRows(detail, levels) {
  const spoken = detail.student.map((piece, index) => token(detail, index, levels));
  spoken[0] && spoken[0].setAttribute("tabindex", "0");
  const taught = detail.teacher.map((piece, index) => el("span", { class: "said" }, pieceOf(detail, "teacher", index)));
  const open = (event, how) => {
    const index = spoken.indexOf(event.target.closest(".token"));
    if (index < 0) return;
    mark(taught, index);
    how(spoken[index], Object.assign({ levels }, detail), index);
  };
  const strip = el(
    "span",
    {
      class: "strip",
      role: "group",
      "aria-label": say("token.strip"),
      on: {
        keydown: (event) => {
          if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            open(event, (one, all, index) => showPeek(one, all, index, true));
          }
          rove(spoken, event);
        },
        focusin: (event) => open(event, (one, all, index) => showPeek(one, all, index, false)),
        focusout: () => hidePeek(false),
        pointerover: (event) => event.pointerType === "mouse" && open(event, (one, all, index) => movePeek(one, all, index)),
        pointerout: (event) => {
          if (event.pointerType !== "mouse") return;
          mark(taught, spoken.indexOf(document.activeElement));
          hidePeek(false);
        },
        click: (event) => open(event, (one, all, index) => showPeek(one, all, index, true)),
      },
    },
    tokenRow(spoken, pieceNames(detail, "student")),
  );
  return { teacher: el("span", { class: "strip" }, tokenRow(taught, pieceNames(detail, "teacher"))), student: strip };
}

function token(detail, index, levels) {
  const kl = detail.kl_nats[index];
  const [student, teacher] = ["student", "teacher"].map((role) => tokenText(pieceName(detail, role, index)));
  const words = { index: index + 1, student, teacher, kl: brisk(kl) };
  return el(
    "span",
    {
      class: `token kl-${levelOf(kl, levels)} ${student === teacher ? "" : "other"}`,
      role: "button",
      tabindex: "-1",
      "data-index": index,
      "aria-label": say("token.label", words),
    },
    pieceOf(detail, "student", index),
  );
}

/** The names of one model's tokens. */
export function pieceNames(detail, role) {
  return detail[role].map((piece, index) => pieceName(detail, role, index));
}

/** A token as it stands in the row. */
export function pieceOf(detail, role, index) {
  const shown = tokenNodes(pieceName(detail, role, index));
  return detail[role][index] ? shown : el("span", { class: "special" }, shown);
}

function mark(taught, index) {
  taught.forEach((one, at) => one.classList.toggle("pointed", at === index));
}

/** What the marks mean, which change at `levels`; `lit`: by the lights of the lesson. */
export function tokenLegend(levels, lit) {
  const steps = [0, 1, 2, 3, 4].map((level) =>
    el("li", {}, el("span", { class: `token kl-${level}` }, levelBounds(level, levels)), " ", say(`level.${level}`)),
  );
  const other = el("li", {}, el("span", { class: "token kl-2 other" }, say("now.legend.other")), " ");
  const same = el("li", {}, el("span", { class: "token kl-2" }, say("now.legend.same")), " ");
  return el(
    "div",
    { class: "legend" },
    el("p", {}, say("now.legend")),
    el("ul", {}, steps, same, other),
    el("p", {}, lit ? say("level.why", { bound: number(levels[0], 2) }) : null, " ", say("token.marks")),
  );
}
