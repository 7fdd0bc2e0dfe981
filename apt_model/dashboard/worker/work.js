/** The worker: loads a stage when it is first asked for, goes on with a text token by token, and stops when told. */
import {Student, choose} from "./engine.js";
import {Tokenizer} from "./tokenizer.js";

const PAUSE_MS = 30; // so often others get a turn: a word to stop is heard then
const desk = { about: null, tokenizer: null, data: [], stages: [], turn: 0 };

function stageOf(index) {
  if (!desk.stages[index]) {
    const letters = atob(desk.data[index]);
    desk.stages[index] = new Student(Uint8Array.from(letters, (letter) => letter.charCodeAt(0)));
    desk.data[index] = null;
  }
  return desk.stages[index];
}

/** Go on with `text`: tells of every pause's new text, and of the end and why it came. */
async function goOn({ turn, stage: index, text, tokens, temperature }) {
  const student = stageOf(index);
  const { start, stop } = desk.about;
  const given = [...start, ...desk.tokenizer.encode(text)];
  const before = desk.tokenizer.decode(given);
  const written = [];
  let [began, paused] = [performance.now(), performance.now()];
  const tell = (why) => self.postMessage({ turn, stage: index, text: fresh(before, given, written), ids: written.slice(), seconds: (performance.now() - began) / 1000, why });
  if (!given.length || given.length >= student.shape.context) return tell(given.length ? "long" : "empty");
  student.forget();
  let logits = given.map((token) => student.read(token)).pop();
  began = performance.now();
  while (written.length < tokens) {
    const token = choose(logits, temperature, Math.random());
    if (stop.includes(token)) return tell("end");
    written.push(token);
    if (student.length >= student.shape.context) return tell("full");
    if (written.length < tokens) logits = student.read(token);
    if (performance.now() - paused < PAUSE_MS) continue;
    tell(null);
    await new Promise((done) => setTimeout(done));
    if (turn !== desk.turn) return null;
    paused = performance.now();
  }
  return tell("done");
}

/** What was added to the beginning; a token may change how the text before it reads, then its own text alone. */
function fresh(before, given, written) {
  const whole = desk.tokenizer.decode([...given, ...written]);
  return whole.startsWith(before) ? whole.slice(before.length) : desk.tokenizer.decode(written);
}

async function hear({ data }) {
  if (data.about) Object.assign(desk, { about: data.about, data: data.stages, tokenizer: new Tokenizer(data.about.tokenizer) });
  else if (data.stop) desk.turn = data.turn;
  else {
    desk.turn = data.turn;
    for (let stage = 0; stage < desk.data.length && data.turn === desk.turn; stage += 1) await goOn(Object.assign({ stage }, data));
  }
}

self.addEventListener("message", hear);
