/** A token as it is shown: blanks as marks, in one piece; and where a row of tokens may go on in the next line. */
import {brief, clean} from "./clean.js";
import {el} from "./dom.js";

const BLANKS = { " ": "␣", "\n": "↵", "\t": "⇥" };
const LONGEST_TOKEN = 200;
const LONGEST_IN_ROW = 24;
const LONGEST_UNBROKEN = 16; // letters without a blank, after which a line may end anyway
const SHOWN_MARK = /([␣↵⇥](?:×\d+)?|⟨[^⟨⟩]*⟩)/u;
const UNSPOKEN = /^(?:⟨.*⟩|<.*>|[\s▯\ufffd]*)$/u;
const BYTE_NAME = /⟨[0-9A-F]{2}⟩/u;
const WIDE_LETTERS = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/u;

/** A token in words: ␣, ↵ and ⇥ for its blanks, any other kind of space by its code; never empty. */
export function tokenText(piece) {
  const told = String(piece === null || piece === undefined ? "" : piece).slice(0, LONGEST_TOKEN).replace(/\r\n/g, "\n");
  const marked = Array.from(told, (one) => BLANKS[one] || (/\p{Z}/u.test(one) ? `⟨U+${one.codePointAt(0).toString(16).toUpperCase()}⟩` : one));
  return clean(marked.join("").replace(/([␣↵⇥])\1{3,}/gu, (run, mark) => `${mark}×${run.length}`), 2 * LONGEST_TOKEN) || "·";
}

/** What a card's token is called: its text; a part of a character and an end of text, which have none, by their name. */
export function pieceName(detail, role, index) {
  const [best] = detail[`${role}_top`][index] || [];
  return detail[role][index] || (best ? best[0] : "");
}

/** A token in words as nodes: the marks stand back beside letters. */
export function tokenNodes(piece) {
  return brief(tokenText(piece), LONGEST_IN_ROW)
    .split(SHOWN_MARK)
    .map((part) => (SHOWN_MARK.test(part) ? el("span", { class: "mark" }, part) : part));
}

/** Whether a token can be read out as an example: it has letters, and is no blank, no piece of a character, no special token. */
export function isSpeakable(piece) {
  return !UNSPOKEN.test(piece);
}

/** Whether a token's name tells of bytes: it is only a part of a character. */
export function isPartOfCharacter(name) {
  return BYTE_NAME.test(name);
}

/** Spans of tokens as a row: a line may end before or after a blank, between wide characters, and in a very long word. */
export function tokenRow(spans, pieces) {
  let unbroken = 0;
  return spans.flatMap((span, index) => {
    const blank = /^\s/u.test(pieces[index]) || (index > 0 && /\s$/u.test(pieces[index - 1]));
    const may = index > 0 && (blank || unbroken + pieces[index].length > LONGEST_UNBROKEN);
    unbroken = may || WIDE_LETTERS.test(pieces[index]) ? 0 : unbroken;
    unbroken += pieces[index].length;
    return may ? [el("wbr", {}), span] : [span];
  });
}
