/** A card as one SVG drawing: what both said, token by token, how lazy the student is and why, the remark. */
import {clean} from "./clean.js";
import {LIGHTS, formulaOf, kindOf, lightOf, partsOf} from "./card.js";
import {colour, svg} from "./dom.js";
import {levelOf, levelsOf, percent} from "./format.js";
import {remarkWord, say, topicWord} from "./words.js";

const SHEET = { wide: 960, edge: 48, label: 120 };
const LETTER = { text: 22, small: 15, line: 38 };
const MOST_LINES = 12; // of one voice

/** The drawing of a card, {text, width, height}; `scale`: of its lesson, null where the record has none; `lesson`: its name. */
export function cardSvg(card, scale, lesson) {
  const pen = { y: SHEET.edge, drawn: [], measure: document.createElement("canvas").getContext("2d") };
  heading(pen, card, lesson);
  voicesOf(card, levelsOf(scale)).forEach(([role, pieces]) => voiceLines(pen, role, pieces));
  judgementLines(pen, card, scale);
  pen.y += 24;
  paragraph(pen, SHEET.edge, SHEET.wide - 2 * SHEET.edge, segments(remarkWord(card)), { size: LETTER.text, tone: "pen" });
  const height = Math.ceil(pen.y - LETTER.line + SHEET.edge - LETTER.text);
  const drawing = svg(
    "svg",
    { width: SHEET.wide, height, viewBox: `0 0 ${SHEET.wide} ${height}`, "font-family": colour("sans") },
    svg("rect", { width: SHEET.wide, height, fill: colour("card") }),
    svg("rect", { width: SHEET.wide, height: 6, fill: colour(`${kindOf(card.light)}-fill`) }),
    pen.drawn,
  );
  return { text: new XMLSerializer().serializeToString(drawing), width: SHEET.wide, height };
}

function heading(pen, card, lesson) {
  const about = [say("now.epoch", { epoch: card.epoch }), say("now.batch", { batch: card.batch }), topicWord(card.topic), clean(lesson, 60)];
  write(pen, SHEET.edge, say("now.step", { step: card.step }), { size: 28, weight: 650 });
  pen.y += 28;
  write(pen, SHEET.edge, about.join(" · "), { size: LETTER.small, tone: "quiet" });
  pen.y += 40;
}

/** Who said what: [role, [{text, level, other}]]. */
function voicesOf(card, levels) {
  const detail = card.detail;
  const plain = (text) => segments(clean(text).trim() || say("now.silence"));
  const tokens = detail && card.card_text !== "continued";
  const marked = () => detail.student.map((piece, index) => ({ text: clean(piece, 200), level: levelOf(detail.kl_nats[index], levels), other: piece !== detail.teacher[index] }));
  const rows = [
    ["given", card.given ? plain(card.given) : null],
    ["original", card.original ? plain(card.original) : null],
    ["teacher", plain(tokens ? detail.teacher.join("") : card.teacher_text)],
    ["student", tokens ? marked() : plain(card.student_text)],
  ];
  return rows.filter(([, pieces]) => pieces);
}

/** A text in the pieces between which a line may end. */
function segments(text) {
  const cut = "Segmenter" in Intl ? Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), (one) => one.segment) : Array.from(text);
  return cut.map((piece) => ({ text: piece, level: 0, other: false }));
}

function voiceLines(pen, role, pieces) {
  write(pen, SHEET.edge, say(`now.${role}`), { size: LETTER.small, tone: role === "teacher" || role === "student" ? role : "quiet", weight: 650 });
  const left = SHEET.edge + SHEET.label;
  paragraph(pen, left, SHEET.wide - left - SHEET.edge, pieces, { size: LETTER.text, tone: "ink" });
}

/** Pieces in lines of at most `wide`, each where its mark is drawn; what is too long for a card ends in an ellipsis. */
function paragraph(pen, left, wide, pieces, style) {
  pen.measure.font = `${style.size}px ${colour("sans")}`;
  let [x, lines] = [0, 1];
  for (const piece of pieces) {
    const width = pen.measure.measureText(piece.text).width;
    if (x > 0 && x + width > wide) {
      if (lines === MOST_LINES) {
        write(pen, left + x, "…", style);
        break;
      }
      [x, lines] = [0, lines + 1];
      pen.y += LETTER.line;
    }
    if (piece.level) pen.drawn.push(svg("rect", { x: left + x, y: pen.y - style.size, width, height: style.size + 8, rx: 3, fill: colour(`kl-${piece.level}`) }));
    write(pen, left + x, piece.text, style);
    if (piece.other) pen.drawn.push(svg("line", { x1: left + x + 1, x2: left + x + width - 1, y1: pen.y + 7, y2: pen.y + 7, stroke: colour("pen"), "stroke-width": 2 }));
    x += width;
  }
  pen.y += LETTER.line + 6;
}

function write(pen, x, text, { size, tone = "ink", weight = 400 }) {
  pen.drawn.push(svg("text", { x, y: pen.y, "font-size": size, "font-weight": weight, fill: colour(tone), "xml:space": "preserve" }, text));
}

function judgementLines(pen, card, scale) {
  const light = card.light in LIGHTS ? card.light : lightOf(card.laziness, scale) || "red";
  const [wide, high] = [SHEET.wide - 2 * SHEET.edge, 14];
  write(pen, SHEET.edge, `${say("now.laziness")} ${percent(card.laziness)}`, { size: 26, weight: 650 });
  pen.measure.font = `650 26px ${colour("sans")}`;
  const after = SHEET.edge + pen.measure.measureText(`${say("now.laziness")} ${percent(card.laziness)}`).width + 24;
  write(pen, after, `${LIGHTS[light]} ${say(`light.${light}`)} · ${say("now.agree", { agreement: percent(card.agreement, 0) })}`, { size: LETTER.small, tone: light });
  pen.y += 16;
  pen.drawn.push(svg("rect", { x: SHEET.edge, y: pen.y, width: wide, height: high, rx: 4, fill: colour("sunk") }));
  const parts = scale ? partsOf(card, scale) : { text: card.laziness, kl: 0 };
  const [text, kl] = [wide * Math.max(0, parts.text || 0), wide * Math.max(0, parts.kl || 0)];
  pen.drawn.push(svg("rect", { x: SHEET.edge, y: pen.y, width: text, height: high, fill: colour("gold") }), svg("rect", { x: SHEET.edge + text, y: pen.y, width: kl, height: high, fill: colour("teacher") }));
  pen.y += high + 24;
  if (scale && Number.isFinite(card.similarity)) {
    write(pen, SHEET.edge, formulaOf(card, scale), { size: LETTER.small, tone: "quiet" });
    pen.y += 22;
  }
}
