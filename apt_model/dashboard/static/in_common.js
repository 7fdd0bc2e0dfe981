/** The words that two answers have in common, in the same order: the rule of apt_model/events/answer_agreement.py. */

const MOST_WORDS = 1000; // of each answer
const BLANK = "\\t-\\r \\u00a0\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\u23ce";
const ALONE =
  "!-\\/:-@\\[-`\\{-~\\u00a1-\\u00bf\\u2010-\\u2027\\u2030-\\u205e\\u0e00-\\u109f\\u1780-\\u17ff\\u2e80-\\u2fff\\u3001-\\u9fff" +
  "\\uf900-\\ufaff\\ufe30-\\ufe4f\\uff01-\\uffef\\u{20000}-\\u{3ffff}";
const WORD = new RegExp(`[${ALONE}]|[^${ALONE}${BLANK}]+`, "gu");

/** The words of a text, each with its place: {word, from, to}. */
function wordsIn(text) {
  return Array.from(text.matchAll(WORD), (found) => ({ word: found[0], from: found.index, to: found.index + found[0].length })).slice(0, MOST_WORDS);
}

/** Lengths of the longest common subsequences of what follows word i of one and word j of the other: a table by rows. */
function tableOf(one, other) {
  const width = other.length + 1;
  const lengths = new Uint16Array((one.length + 1) * width);
  for (let i = one.length - 1; i >= 0; i -= 1) {
    for (let j = other.length - 1; j >= 0; j -= 1) {
      const at = i * width + j;
      lengths[at] = one[i].word === other[j].word ? lengths[at + width + 1] + 1 : Math.max(lengths[at + width], lengths[at + 1]);
    }
  }
  return { lengths, width };
}

/**
 * How far a student's answer agrees with the teacher's: {share, shared}. `share` is 2 L / (m + n), with L words in common of
 * m and n; `shared` are the stretches of the student's text, [from, to], that stand in the teacher's too.
 */
export function agreementOf(teacher, student) {
  const [taught, said] = [wordsIn(teacher), wordsIn(student)];
  if (!taught.length && !said.length) return { share: 1, shared: [] };
  const { lengths, width } = tableOf(taught, said);
  const shared = [];
  let joins = false; // with the word before it
  for (let i = 0, j = 0; i < taught.length && j < said.length; ) {
    const at = i * width + j;
    if (taught[i].word === said[j].word) {
      const last = shared[shared.length - 1];
      if (joins && last) last[1] = said[j].to;
      else shared.push([said[j].from, said[j].to]);
      [i, j, joins] = [i + 1, j + 1, true];
    } else if (lengths[at + width] >= lengths[at + 1]) i += 1;
    else [j, joins] = [j + 1, false];
  }
  return { share: (2 * lengths[0]) / (taught.length + said.length), shared };
}
