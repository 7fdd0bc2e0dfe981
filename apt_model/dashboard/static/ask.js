/** A form to ask both models something while the lesson goes on; there only if training and server take questions. */
import {clean} from "./clean.js";
import {el, keep, part} from "./dom.js";
import {room} from "./state.js";
import {say, speech} from "./words.js";

/** Draw the form for the lesson in view into `box`, if it takes questions. */
export function drawAsk(box) {
  const lesson = room.current;
  const config = (lesson.started && lesson.started.config) || {};
  const open = Boolean(lesson.listed && lesson.listed.asks && config.ask === true && !lesson.over);
  const place = part(box, "asking");
  place.hidden = !open;
  keep(place, [speech.language, lesson.id, open], () => (open ? form(lesson) : []));
}

function form(lesson) {
  const field = el("input", { type: "text", id: "ask", autocomplete: "off" });
  const line = el("p", { class: "answer-line", role: "status" });
  const sent = async (event) => {
    event.preventDefault();
    const prompt = field.value.trim();
    const why = prompt ? await send(lesson, prompt) : { why: "empty" };
    line.textContent = say(`ask.${why.why || "taken"}`, { prompt: clean(prompt, 300), most: why.most });
    if (!why.why) field.value = "";
    field.focus();
  };
  return [
    el("h2", {}, say("ask.title")),
    el("label", { for: "ask" }, say("ask.label")),
    el("form", { on: { submit: sent } }, field, el("button", { type: "submit", class: "chip" }, say("ask.send"))),
    line,
  ];
}

/** Send a question; {why} it was not taken, null if it was. */
async function send(lesson, prompt) {
  try {
    const answer = await fetch(`./api/runs/${encodeURIComponent(lesson.id)}/questions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt }),
    });
    if (answer.status === 413) return { why: "long", most: 300 };
    return [202, 409, 429].includes(answer.status) ? await answer.json() : { why: "failed" };
  } catch (error) {
    return { why: "failed" };
  }
}
