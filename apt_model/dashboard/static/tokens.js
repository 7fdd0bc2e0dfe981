/** A text token by token: marked where the student departs from the teacher, each token to be walked to and opened. */
import {brief, tokenText} from "./clean.js";
import {el, rove} from "./dom.js";
import {brisk, levelBounds, levelOf} from "./format.js";
import {hidePeek, movePeek, showPeek} from "./peek.js";
import {say} from "./words.js";

/** Both texts of a card's `detail`: the teacher's tokens, and the student's as a strip. */
export function tokenRows(detail) {
  const spoken = detail.student.map((piece, index) => token(detail, index, piece));
  spoken[0] && spoken[0].setAttribute("tabindex", "0");
  const taught = detail.teacher.map((piece, index) => el("span", { class: "said" }, pieceOf(detail, "teacher", index)));
  const open = (event, how) => {
    const index = spoken.indexOf(event.target.closest(".token"));
    if (index < 0) return;
    mark(taught, index);
    how(spoken[index], detail, index);
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
    spoken,
  );
  return { teacher: el("span", { class: "strip" }, taught), student: strip };
}

function token(detail, index, piece) {
  const kl = detail.kl_nats[index];
  const same = piece === detail.teacher[index];
  const words = {
    index: index + 1,
    student: pieceName(detail, "student", index),
    teacher: pieceName(detail, "teacher", index),
    kl: brisk(kl),
  };
  return el(
    "span",
    {
      class: `token kl-${levelOf(kl)} ${same ? "" : "other"}`,
      role: "button",
      tabindex: "-1",
      "data-index": index,
      "aria-label": say("token.label", words),
    },
    pieceOf(detail, "student", index),
  );
}

/** What a token is called: its text; an end of text, which has none, by its name; a part of a character a dot. */
function pieceName(detail, role, index) {
  const piece = detail[role][index];
  const [best] = detail[`${role}_top`][index] || [];
  const named = !piece && best && !/^⟨.*⟩$/u.test(best[0]);
  return tokenText(named ? brief(best[0], 16) : piece);
}

/** A token as it stands in the row. */
export function pieceOf(detail, role, index) {
  const name = pieceName(detail, role, index);
  return detail[role][index] || name === "·" ? name : el("span", { class: "special" }, name);
}

function mark(taught, index) {
  taught.forEach((one, at) => one.classList.toggle("pointed", at === index));
}

/** What the marks mean. */
export function tokenLegend() {
  const levels = [0, 1, 2, 3, 4].map((level) =>
    el("li", {}, el("span", { class: `token kl-${level}` }, levelBounds(level)), " ", say(`level.${level}`)),
  );
  const other = el("li", {}, el("span", { class: "token kl-2 other" }, say("now.legend.other")), " ");
  const same = el("li", {}, el("span", { class: "token kl-2" }, say("now.legend.same")), " ");
  return el("div", { class: "legend" }, el("p", {}, say("now.legend")), el("ul", {}, levels, same, other));
}
