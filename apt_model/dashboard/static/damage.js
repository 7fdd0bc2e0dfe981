/** What is damaged of a lesson's record: said in the list, and over the lesson itself. */
import {clean} from "./clean.js";
import {el} from "./dom.js";
import {count} from "./format.js";
import {say} from "./words.js";

/** The damage of a lesson as far as it is known, `{count, line, why}`; null where there is none. */
export function damageOf(lesson) {
  return (lesson.loaded ? lesson.damage : null) || (lesson.listed && lesson.listed.damage) || lesson.damage;
}

/** It in a sentence; `name`: of the lesson, where there are several. */
export function damageLine(damage, name) {
  const said = damage.line === null ? say("damage.unreadable") : say("damage.lines", { count: count(damage.count), line: count(damage.line) });
  const why = damage.why ? el("span", { class: "quiet" }, " ", clean(damage.why, 200)) : null;
  return el("p", { class: "damage" }, el("span", { "aria-hidden": "true" }, "⚠ "), name ? `${clean(name, 60)}: ` : null, said, why);
}
