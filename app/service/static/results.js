// The matches of the chosen face: a grid of cards, or one a person, a photo on hover, all about one in a dialog.
import { byId, framed, make, many, named, place } from "./elements.js";
import * as service from "./service.js";
import { addressOf, view } from "./view.js";

let cards = []; // [{ match, item }], in the order in which they are shown
let groups = []; // [{ section, count, members }], where they are shown by person
let version = 0;
let itself = null; // the id of the face asked about, where the version knows it
let looked = 0; // the card that the dialog is about

export function percent(probability) {
  const rounded = Math.round(100 * probability);
  if (rounded === 100 && probability < 1) return "over 99 %";
  return rounded === 0 && probability > 0 ? "under 1 %" : `${rounded} %`;
}

export const nameOf = (match) => match.label ?? match.photo_name;

export function showMatches(answer, chosen) {
  version = answer.version;
  itself = answer.faces[chosen].face_id;
  const persons = view.group ? byPerson(answer.faces[chosen].matches) : [[null, answer.faces[chosen].matches]];
  cards = persons.flatMap(([, matches]) => matches).map((match, at) => ({ match, item: card(match, at) }));
  groups = view.group ? persons.map(([label, { length }], n) => group(label, length, persons.slice(0, n))) : [];
  if (view.group) byId("matches").replaceChildren(...groups.map(({ section }) => section));
  else byId("matches").replaceChildren(list("The most similar faces, best first", cards));
  return filterByScore();
}

// [label, matches] of each person, the one with the best match first; those without a name come last, as one.
function byPerson(matches) {
  const persons = new Map();
  for (const match of matches) persons.set(match.label, [...(persons.get(match.label) ?? []), match]);
  const unnamed = persons.get(null);
  persons.delete(null);
  return [...persons, ...(unnamed ? [[null, unnamed]] : [])];
}

function group(label, length, before) {
  const first = before.reduce((sum, [, matches]) => sum + matches.length, 0);
  const members = cards.slice(first, first + length);
  const best = members[0].match;
  const count = make("small", {});
  const sure = best.same_person === null ? best.cosine.toFixed(3) : percent(best.same_person);
  const heading = make("h3", {}, named(label ?? "Without a name"), make("span", { text: label === null ? "" : sure }), count);
  const section = make("section", { kind: "person" }, heading, list(`Faces of ${label ?? "people without a name"}, best first`, members));
  return { section, count, members };
}

const list = (about, members) => make("ul", { kind: "cards", "aria-label": about }, ...members.map(({ item }) => item));

export function dropMatches() {
  cards = groups = [];
  byId("matches").replaceChildren();
  hidePeek();
}

// Hides what scores less than wanted; how many are left.
export function filterByScore() {
  let left = 0;
  for (const { match, item } of cards) {
    item.hidden = view.least > -1 && match.cosine < view.least;
    if (!item.hidden) left += 1;
    item.querySelector("a").href = addressOf({ face: match.face_id, k: 24 });
  }
  for (const { section, count, members } of groups) {
    const shown = members.filter(({ item }) => !item.hidden).length;
    section.hidden = shown === 0;
    count.textContent = many(shown, "face", "faces");
  }
  return left;
}

function card(match, at) {
  const picture = make("img", { src: service.cropOf(match.face_id, version), alt: "", loading: "lazy", width: 192, height: 192 });
  const thumb = make("button", { type: "button", kind: "thumb", "aria-haspopup": "dialog" }, picture);
  thumb.setAttribute("aria-label", `Look at match ${at + 1}, ${nameOf(match)}${match.face_id === itself ? ", the very face asked about" : ""}`);
  if (match.face_id === itself) thumb.append(make("span", { kind: "itself", text: "the very face asked about" }));
  thumb.addEventListener("click", () => look(at));
  thumb.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && soonPeek(match, thumb));
  thumb.addEventListener("pointerleave", hidePeek);
  const text = make("div", { kind: "text" }, named(nameOf(match), "name"));
  if (match.label !== null) text.append(make("small", {}, named(match.photo_name.split("/").at(-1))));
  text.append(...sureness(match), make("a", { text: "Find this one", href: "#", "aria-label": `Find this one, ${nameOf(match)}` }));
  return make("li", {}, thumb, text);
}

function sureness(match) {
  const score = make("span", { text: match.cosine.toFixed(3), title: "cosine of the two embeddings" });
  if (match.same_person === null)
    return [make("div", { kind: "sure" }, make("span", { text: "score" }), score), make("small", { text: match.grade })];
  const level = make("i");
  level.style.width = `${100 * match.same_person}%`;
  return [
    make("div", { kind: "sure" }, make("strong", { text: percent(match.same_person) }), score),
    make("span", { kind: "level", "aria-hidden": "true" }, level),
    make("small", { text: match.grade }),
  ];
}

// ---- the photo, while the mouse rests on a face

let waiting = 0;
let peeked = null;

function soonPeek(match, thumb) {
  hidePeek();
  waiting = setTimeout(async () => {
    peeked = match;
    const [said] = await photoWithBox(match);
    if (peeked === match && !byId("shown").open) showPeek(said, thumb.getBoundingClientRect());
  }, 250);
}

function showPeek(content, beside) {
  const peek = byId("peek");
  peek.replaceChildren(content);
  peek.hidden = false;
  const { width, height } = peek.getBoundingClientRect();
  const left = beside.right + 12 + width <= innerWidth ? beside.right + 12 : beside.left - 12 - width;
  peek.style.left = `${Math.max(8, left)}px`;
  peek.style.top = `${Math.min(Math.max(8, beside.top), Math.max(8, innerHeight - height - 8))}px`;
}

export function hidePeek() {
  clearTimeout(waiting);
  peeked = null;
  byId("peek").hidden = true;
}

// The photo with the face marked, or the reason why it is not shown.
async function photoWithBox(match) {
  try {
    const photo = await service.photoOf(match.face_id, version);
    const frame = framed(photo.url, { ...photo, alt: "The photo, the face marked" });
    frame.append(place(make("span", { kind: "box" }), match.box, photo));
    return [frame, true];
  } catch (error) {
    return [make("p", { kind: "soft", text: error.message }), false];
  }
}

// ---- all about one match

const shownOnes = () => cards.map(({ item }, n) => (item.hidden ? -1 : n)).filter((n) => n >= 0);

async function look(at) {
  hidePeek();
  looked = at;
  const { match } = cards[at];
  const open = shownOnes();
  byId("shown-name").replaceChildren(named(nameOf(match)));
  byId("shown-facts").replaceChildren(...facts(match));
  byId("shown-find").href = addressOf({ face: match.face_id, k: 24 });
  byId("shown-original").href = service.originalOf(match.face_id, version);
  byId("shown-before").disabled = open[0] === at;
  byId("shown-after").disabled = open.at(-1) === at;
  byId("shown-photo").replaceChildren(make("p", { kind: "soft", text: "Fetching the photo…" }));
  if (!byId("shown").open) byId("shown").showModal();
  const [content, isThere] = await photoWithBox(match);
  if (looked !== at) return;
  byId("shown-photo").replaceChildren(content);
  byId("shown-original").hidden = !isThere;
}

function facts(match) {
  const told = [];
  const tell = (name, ...values) => told.push(make("dt", { text: name }), ...values.map((value) => make("dd", {}, value)));
  if (match.same_person === null) tell("Same person", "uncalibrated: the score is all there is");
  else tell("Same person", `${percent(match.same_person)}, ${match.grade}`);
  tell("Score", `${match.cosine.toFixed(4)} (cosine)`);
  if (match.false_hits !== null)
    tell("By chance", `${many(Number(match.false_hits.toPrecision(2)), "other person's face", "other people's faces")} expected to score so high`);
  if (match.quality !== null) tell("Quality", match.quality.toFixed(2));
  tell("Photo", named(match.photo_name));
  if (match.more_photo_names.length) tell("Also as", ...match.more_photo_names.slice(0, 20).map((name) => named(name)));
  return told;
}

function step(by) {
  const open = shownOnes();
  const next = open[open.indexOf(looked) + by];
  if (next !== undefined) look(next);
}

byId("shown-before").addEventListener("click", () => step(-1));
byId("shown-after").addEventListener("click", () => step(1));
byId("shut").addEventListener("click", () => byId("shown").close());
byId("shown-find").addEventListener("click", () => byId("shown").close());
byId("shown").addEventListener("click", (event) => event.target === byId("shown") && byId("shown").close());
byId("shown").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
byId("shown").addEventListener("close", () => cards[looked]?.item.querySelector("button").focus({ preventScroll: true }));
addEventListener("scroll", hidePeek, { passive: true });
