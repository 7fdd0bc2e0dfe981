/** Files that the page makes itself: nothing is asked of a server, so it works in the offline report too. */
import {clean} from "./clean.js";
import {tell} from "./tell.js";
import {say} from "./words.js";

const SHARPNESS = 2; // pixels of a PNG for one of the drawing
const KEPT_MS = 10000; // a browser may begin a download late

/** Offer text as a file. */
export function saveText(name, text, type) {
  save(name, new Blob([text], { type: `${type};charset=utf-8` }));
}

/** Offer an SVG drawing, {text, width, height}, as a PNG file. */
export function savePng(name, { text, width, height }) {
  const picture = new Image();
  picture.onerror = () => tell(say("charts.notsaved"));
  picture.onload = () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: width * SHARPNESS, height: height * SHARPNESS });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => (blob ? save(name, blob) : tell(say("charts.notsaved"))), "image/png");
  };
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`; // the CSP allows data: to images
}

/** A name that every disk takes. */
export function fileName(...parts) {
  const safe = parts.map((part) => clean(part, 60).replace(/[\\/:*?"<>|\s.]+/gu, "-"));
  return safe.filter(Boolean).join("-");
}

function save(name, blob) {
  const link = document.createElement("a");
  Object.assign(link, { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
  tell(say("charts.savedas", { name }));
}
