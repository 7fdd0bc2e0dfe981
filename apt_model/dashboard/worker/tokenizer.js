/** Text to token ids and back, exactly as `tokenizers` does it, for the three kinds of models/browser_tokenizer.py. */

const SPACE = "\\t\\n\\v\\f\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Unicode's White_Space, as Rust has it
const SHORT = "'(?:[sSſ]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])"; // (?i:'s|'t|'re|'ve|'m|'ll|'d), the long s among them
const REST = ` ?[^${SPACE}\\p{L}\\p{N}]+[\\r\\n]*|[${SPACE}]*[\\r\\n]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`;
const PATTERNS = {
  gpt2: `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`,
  llama3: `${SHORT}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|${REST}`,
  qwen2: `${SHORT}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|${REST}`,
};
const LONGEST_WORD = 2000; // pieces of a word that are joined, each join a pass over the word

/** A tokenizer from what a run keeps of it: `{kind, vocabulary, added, special, merges, ...}`. */
export class Tokenizer {
  constructor(about) {
    this.about = about;
    this.ids = new Map();
    about.vocabulary.forEach((token, id) => token !== null && !this.ids.has(token) && this.ids.set(token, id));
    this.ranks = new Map((about.merges || []).map(([one, other], rank) => [`${one}\n${other}`, rank]));
    this.special = new Set(about.special);
    const added = about.added.map(([token]) => token).filter(Boolean).sort((one, other) => other.length - one.length);
    this.added = added.length ? new RegExp(`(${added.map(escaped).join("|")})`, "u") : null;
    this.words = about.kind === "bytes" ? new RegExp(PATTERNS[about.pattern], "gu") : null;
  }

  /** The token ids of a text, without those that begin or end it. */
  encode(text) {
    const whole = wellFormed(text);
    const parts = this.added ? whole.split(this.added) : [whole];
    return parts.flatMap((part, index) => (index % 2 ? [this.ids.get(part)] : part ? this.encodePlain(part) : []));
  }

  encodePlain(text) {
    const { kind, composes } = this.about;
    if (kind === "characters") return lettersOrBreaks(text).map((piece) => this.idOr(piece));
    if (kind === "metaspace") return this.joined(Array.from(`▁${text.replace(/ /g, "▁")}`));
    const words = (composes ? text.normalize("NFC") : text).match(this.words) || [];
    return words.flatMap((word) => this.joined(Array.from(utf8(word), (byte) => BYTE_LETTERS[byte])));
  }

  idOr(piece) {
    return this.ids.has(piece) ? this.ids.get(piece) : this.ids.get(this.about.unknown);
  }

  /** BPE: of all neighbours the pair learned first is joined, the leftmost of equals, until none is left. */
  joined(letters) {
    const whole = letters.join("");
    if (this.about.whole_first && this.ids.has(whole)) return [this.ids.get(whole)];
    const pieces = this.known(letters);
    while (pieces.length > 1 && pieces.length <= LONGEST_WORD) {
      let [best, at] = [Infinity, -1];
      for (let index = 0; index + 1 < pieces.length; index += 1) {
        const rank = this.ranks.get(`${pieces[index]}\n${pieces[index + 1]}`);
        if (rank !== undefined && rank < best) [best, at] = [rank, index];
      }
      if (at < 0) break;
      pieces.splice(at, 2, pieces[at] + pieces[at + 1]);
    }
    return pieces.map((piece) => this.ids.get(piece));
  }

  /** The letters that are tokens; of others their bytes, where all of these are, or one unknown for all in a row. */
  known(letters) {
    const { kind, unknown } = this.about;
    const pieces = [];
    let fused = false;
    for (const letter of letters) {
      const bytes = kind === "metaspace" && !this.ids.has(letter) ? Array.from(utf8(letter), byteToken) : [letter];
      const there = bytes.every((one) => this.ids.has(one));
      if (there) pieces.push(...bytes);
      else if (unknown && !fused) pieces.push(unknown);
      fused = !there && kind === "metaspace";
    }
    return pieces;
  }

  /** The text of token ids; those that mark a beginning or an end are left out. */
  decode(ids) {
    const tokens = ids.filter((id) => !this.special.has(id)).map((id) => this.about.vocabulary[id]).filter(Boolean);
    if (this.about.kind === "characters") return tokens.join("");
    if (this.about.kind === "metaspace") return fromMetaspace(tokens);
    return lenient(new Uint8Array(tokens.flatMap((token) => bytesOfToken(token))));
  }
}

function escaped(text) {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
}

/** Lone surrogates, which UTF-8 cannot say, as U+FFFD. */
function wellFormed(text) {
  return Array.from(text, (one) => (/^[\ud800-\udfff]$/u.test(one) ? "\ufffd" : one)).join("");
}

/** Each character by itself; line feeds, which "." does not match, together where they stand in a row. */
function lettersOrBreaks(text) {
  return text.match(/\n+|[^\n]/gu) || [];
}

function utf8(text) {
  return new TextEncoder().encode(text);
}

function byteToken(byte) {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

function lenient(bytes) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** Tokens as text: ▁ is a space but for the first, bytes in a row are UTF-8 or a sign of the unreadable each. */
function fromMetaspace(tokens) {
  const parts = [];
  let bytes = [];
  const flush = () => {
    if (!bytes.length) return;
    try {
      parts.push(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(new Uint8Array(bytes)));
    } catch (error) {
      parts.push("\ufffd".repeat(bytes.length)); // not UTF-8
    }
    bytes = [];
  };
  for (const token of tokens) {
    const byte = /^<0x([0-9A-F]{2})>$/.exec(token);
    if (byte) bytes.push(parseInt(byte[1], 16));
    else {
      flush();
      parts.push(token.replace(/▁/g, " "));
    }
  }
  flush();
  return parts.join("").replace(/^ /, "");
}

/** The letter that stands for each byte in byte-level BPE: itself where it can be seen, else one from U+0100 on. */
const BYTE_LETTERS = byteLetters();
const LETTER_BYTES = new Map(BYTE_LETTERS.map((letter, byte) => [letter, byte]));

function byteLetters() {
  const letters = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte += 1) {
    const seen = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    letters.push(String.fromCharCode(seen ? byte : next));
    if (!seen) next += 1;
  }
  return letters;
}

function bytesOfToken(token) {
  const letters = Array.from(token);
  return letters.every((one) => LETTER_BYTES.has(one)) ? letters.map((one) => LETTER_BYTES.get(one)) : Array.from(utf8(token));
}
