/** What the page shows as a part of its address, after the #: so a link, a bookmark and the way back lead to the same place. */
import {LANGUAGES, speech} from "./words.js";
import {pinnedToken} from "./peek.js";
import {MOST_COMPARED, PRESENTER, room} from "./state.js";

const QUIET_MS = 400; // browsers refuse an address that changes all the time
const address = { timer: 0, heard: null };

/**
 * Where a link leads: {view, whole, run, others, step, card, token, language}; what it does not say is null. A `whole`
 * one says all there is to say; a bare view leaves the rest as it is.
 */
function readLink(hash) {
  const [view, ...fields] = hash.replace(/^#/, "").split("&");
  const values = new Map(fields.map((field) => field.split("=")).map(([name, value]) => [name, plain(value)]));
  const whole = (name) => (/^\d{1,15}$/.test(values.get(name) || "") ? Number(values.get(name)) : null);
  const others = (values.get("with") || "").split(",").filter(Boolean).slice(0, MOST_COMPARED - 1);
  const language = LANGUAGES.includes(values.get("lang")) ? values.get("lang") : null;
  return { view, whole: fields.length > 0, run: values.get("run") || null, others, step: whole("step"), card: whole("card"), token: whole("token"), language };
}

function plain(text) {
  try {
    return decodeURIComponent(text || "");
  } catch (error) {
    return ""; // half of an escape: somebody cut the link
  }
}

/** The part after the # that leads to what is shown now; `whole`: in this language too, where nobody has chosen it. */
function linkToHere(whole) {
  const several = room.lessons.length > 1;
  const fields = {
    run: several && room.current ? room.current.id : null,
    with: room.others.map((one) => one.id).join(",") || null,
    step: room.follow || !room.current ? null : room.step,
    card: room.which >= 0 ? room.which : null,
    token: room.view === "temperature" ? room.token : pinnedToken(),
    lang: whole || room.languageChosen ? speech.language : null,
  };
  const said = Object.entries(fields).filter(([, value]) => value !== null);
  return [`#${room.presenting ? PRESENTER : room.view}`, ...said.map(([name, value]) => `${name}=${encodeURIComponent(value).replace(/%2C/g, ",")}`)].join("&");
}

/** Where the address leads now; what it said before is done with. */
export function linkInAddress() {
  address.heard = location.hash;
  return readLink(address.heard);
}

/** Bring the address up to what is shown: a new view or lesson is a place to come back to, a new step or token is not. */
export function writeLink() {
  clearTimeout(address.timer);
  if (!room.current || room.playing) return;
  const [here, there] = [readLink(location.hash), readLink(linkToHere(false))];
  const moved = location.hash !== "" && (here.view !== there.view || (here.run !== null && here.run !== there.run));
  if (moved) changeAddress("pushState");
  else if (here.language !== there.language) changeAddress("replaceState"); // a page loaded again at once must not speak the old one
  else address.timer = setTimeout(() => changeAddress("replaceState"), QUIET_MS);
}

function changeAddress(how) {
  const link = linkToHere(false);
  if (location.hash !== address.heard || location.hash === link) return; // somebody has just asked for another place
  history[how](null, "", link);
  address.heard = location.hash;
}

/** Copy a link to what is shown now; where the browser does not let us, show it to be taken. */
export async function copyLink(done, refused) {
  const link = location.href.replace(/#.*$/, "") + linkToHere(true);
  try {
    await navigator.clipboard.writeText(link);
    done();
  } catch (error) {
    refused(link);
  }
}

/** Put the cursor, the card and the token where a link says, once its lessons are chosen. */
export function goWhere({ step, card, token, view }) {
  const [which, follow] = [card === null ? -1 : card, step === null];
  Object.assign(room, { step: follow ? room.step : step, follow, which, held: null, playing: false, token, toOpen: view === "now" ? token : null });
}

/** Open the token that a link named, as soon as its card is drawn. */
export function openNamedToken() {
  if (room.toOpen === null) return;
  const token = document.querySelector(`#view-now .place-0 .student .token[data-index="${room.toOpen}"]`);
  if (!token) return;
  room.toOpen = null;
  token.focus();
  token.click();
}
