/**
 * Text from models and files, made safe to show: the rule of apt_model/render/sanitise.py in short.
 * Nothing here knows where the text goes; that it goes there as textContent is the business of dom.js.
 */

const LONGEST = 4000;
const INVISIBLE = new RegExp(
  "[\\u00ad\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200d\\u2060-\\u2064\\u206a-\\u206f" +
    "\\u20e3\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff9-\\ufffb\\u{1f3fb}-\\u{1f3ff}\\u{e0000}-\\u{e0fff}]",
  "u",
);
const UNSPEAKABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}]/u;

/** One character as it is shown: controls in caret notation, the invisible dropped, bidi and the unassigned as U+FFFD. */
function visible(character) {
  const code = character.codePointAt(0);
  if (character === "\n") return "⏎";
  if (character === "\t") return " ";
  if (code < 0x20 || code === 0x7f) return "^" + String.fromCharCode(code ^ 0x40);
  if (INVISIBLE.test(character)) return "";
  if (code >= 0x1f1e6 && code <= 0x1f1ff) return String.fromCharCode(65 + code - 0x1f1e6);
  if (/\p{Z}/u.test(character)) return character === "\u3000" ? character : " ";
  return UNSPEAKABLE.test(character) ? "\ufffd" : character;
}

/** Any value as one harmless line of at most `limit` characters. */
export function clean(text, limit = LONGEST) {
  const capped = String(text === null || text === undefined ? "" : text).slice(0, limit).replace(/\r\n/g, "\n");
  return Array.from(capped, visible)
    .join("")
    .normalize("NFC")
    .replace(/^\p{M}/u, "\ufffd$&")
    .replace(/(\p{M}{4})\p{M}+/gu, "$1");
}

/** The same, cut to `limit` characters with an ellipsis that says so. */
export function brief(text, limit) {
  const characters = Array.from(clean(text));
  return characters.length > limit ? characters.slice(0, limit - 1).join("") + "…" : characters.join("");
}

/** The language to mark a text with, so that its characters get their own shapes; null where the page's will do. */
export function tongue(text) {
  if (/[\p{Script=Hiragana}\p{Script=Katakana}]/u.test(text)) return "ja";
  if (/\p{Script=Hangul}/u.test(text)) return "ko";
  return /\p{Script=Han}/u.test(text) ? "zh-CN" : null;
}
