/** A short word on what the reader just did, seen for a moment and read out. */
import {el} from "./dom.js";

const SHOWN_MS = 4000;
const told = { box: null, timer: 0 };

/** Say it, in place of what was said before. */
export function tell(text) {
  if (!told.box) {
    told.box = el("p", { class: "told", role: "status" });
    document.getElementById("main").append(told.box);
  }
  told.box.textContent = text;
  told.box.classList.add("shown");
  clearTimeout(told.timer);
  told.timer = setTimeout(() => told.box.classList.remove("shown"), SHOWN_MS);
}
