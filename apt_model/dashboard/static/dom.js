/** Elements made by hand. Every text becomes a text node, never markup; styles go through the CSSOM, as the CSP asks. */

const SVG = "http://www.w3.org/2000/svg";

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") Object.entries(value).forEach(([event, heard]) => node.addEventListener(event, heard));
    else if (name === "style") Object.entries(value).forEach(([property, set]) => node.style.setProperty(property, set));
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** An HTML element: `{class, on: {event: heard}, style: {property: value}, attribute: value}`, then what it holds. */
export function el(tag, attributes, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

const KEYS = new WeakMap();

/** Build what `box` holds anew, but only if `key` changed: what a reader points at or has focused stays. */
export function keep(box, key, build) {
  const now = JSON.stringify(key);
  if (KEYS.get(box) === now) return false;
  KEYS.set(box, now);
  box.replaceChildren(...[build()].flat(Infinity).filter((child) => child instanceof Node));
  return true;
}

/** The part of `box` called `name`, made on first use. */
export function part(box, name, tag = "div") {
  const found = Array.from(box.children).find((child) => child.getAttribute("data-part") === name);
  if (found) return found;
  const made = el(tag, { "data-part": name, class: name });
  box.append(made);
  return made;
}

const ICONS = {
  screen: "M3 4h18v12h-7.5l2.5 4h-2.3l-1.7-2.8-1.7 2.8H8l2.5-4H3zm2 2v8h14V6z",
  close: "M6.4 5L12 10.6 17.6 5 19 6.4 13.4 12l5.6 5.6-1.4 1.4-5.6-5.6L6.4 19 5 17.6 10.6 12 5 6.4z",
  link: "M10.6 13.4a1 1 0 0 1 0-1.4l2.8-2.8a1 1 0 0 1 1.4 1.4L12 13.4a1 1 0 0 1-1.4 0zM9.2 17.6 7.8 19A4 4 0 0 1 2.2 13.4L6.4 9.2A4 4 0 0 1 12 9.2L10.6 10.6a2 2 0 0 0-2.8 0L3.6 14.8a2 2 0 0 0 2.8 2.8L7.8 16.2zM14.8 6.4 16.2 5A4 4 0 0 1 21.8 10.6L17.6 14.8A4 4 0 0 1 12 14.8L13.4 13.4a2 2 0 0 0 2.8 0L20.4 9.2a2 2 0 0 0-2.8-2.8L16.2 7.8z",
  play: "M7 4.5v15l12.5-7.5z",
  pause: "M6 5h4v14H6zM14 5h4v14h-4z",
  previous: "M5 5h2.5v14H5zM19 5v14L8.5 12z",
  next: "M16.5 5H19v14h-2.5zM5 5v14l10.5-7z",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  sun: "M12 7.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM11 2h2v3h-2zM11 19h2v3h-2zM2 11h3v2H2zM19 11h3v2h-3zM4.2 5.6l1.4-1.4 2.1 2.1-1.4 1.4zM16.3 17.7l1.4-1.4 2.1 2.1-1.4 1.4zM4.2 18.4l2.1-2.1 1.4 1.4-2.1 2.1zM16.3 6.3l2.1-2.1 1.4 1.4-2.1 2.1z",
};

/** A sign drawn in the text's colour; the words stand beside it or in the label around it. */
export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

/** A bar that also says its value to whoever cannot see it. */
export function meter(ratio, label, kind = "") {
  const share = Math.min(1, Math.max(0, Number.isFinite(ratio) ? ratio : 0));
  const fill = el("span", { class: "fill", style: { width: `${(100 * share).toFixed(2)}%` } });
  const value = { "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": (100 * share).toFixed(1) };
  return el("span", { class: `meter ${kind}`, role: "meter", "aria-label": label, ...value }, fill);
}

/** Arrow keys, Home and End move the focus along `items`; only one of them is in the tab order. */
export function rove(items, event, next = 1) {
  const at = items.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + next, ArrowUp: at - next, Home: 0, End: items.length - 1 };
  if (at < 0 || !(event.key in to)) return null;
  event.preventDefault();
  const chosen = items[Math.min(items.length - 1, Math.max(0, to[event.key]))];
  items.forEach((item) => item.setAttribute("tabindex", item === chosen ? "0" : "-1"));
  chosen.focus();
  return chosen;
}

/** A colour of the theme in force. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
