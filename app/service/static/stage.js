// The photo asked with: shown at once, its faces boxed when the answer is there.
import { byId, framed, make, named, place, setShape } from "./elements.js";
import * as service from "./service.js";

let own = ""; // the picked file's address in this page

export function showFile(file) {
  clearStage();
  own = URL.createObjectURL(file);
  const frame = framed(own, { alt: "The photo you ask with" });
  const image = frame.querySelector("img");
  image.addEventListener("load", () => setShape(frame, image.naturalWidth, image.naturalHeight), { once: true });
  image.addEventListener("error", () => (image.hidden = true), { once: true }); // HEIC or TIFF: the answer has a picture
  put(frame);
}

export function showWaiting() {
  clearStage();
  put(framed("data:,", { width: 1, height: 1, alt: "" }));
  byId("stage").querySelector("img").hidden = true;
}

function put(frame) {
  byId("invitation").hidden = true;
  byId("frame").replaceWith(Object.assign(frame, { id: "frame" }));
}

export const setBusy = (isBusy) => {
  byId("stage").classList.toggle("busy", isBusy);
  byId("matches").setAttribute("aria-busy", String(isBusy));
};

export function clearStage() {
  if (own) URL.revokeObjectURL(own);
  own = "";
  byId("invitation").hidden = false;
  byId("frame").replaceWith(make("div", { id: "frame", hidden: "" }));
}

// The answer's picture, with a button over each face.
export function showFaces(answer, choose) {
  const frame = byId("frame");
  setShape(frame, answer.width, answer.height);
  const image = frame.querySelector("img");
  image.hidden = false;
  if (answer.picture) image.src = answer.picture;
  for (const box of frame.querySelectorAll(".box")) box.remove();
  answer.faces.forEach((face, n) => {
    const box = make("button", { kind: "box", type: "button", "aria-label": `Face ${face.number} of ${answer.faces.length}` });
    if (answer.faces.length > 1) box.append(make("b", { text: String(face.number), "aria-hidden": "true" }));
    box.addEventListener("click", () => choose(n));
    frame.append(place(box, face.box, answer));
  });
}

export function markChosen(n) {
  byId("frame").querySelectorAll(".box").forEach((box, at) => box.setAttribute("aria-pressed", String(at === n)));
}

// A known face is asked about: the photo it is in, or its crop where the photo cannot be shown.
export async function showKnown(answer, isStill) {
  const [{ face_id: id, box, crop }] = answer.faces;
  const [details, photo] = await Promise.all([
    service.face(id, answer.version).catch(() => null),
    service.photoOf(id, answer.version).catch(() => null),
  ]);
  if (!isStill()) return;
  const name = details ? (details.label ?? details.photo_name) : "a known face";
  const frame = photo ? framed(photo.url, { ...photo, alt: "" }) : framed(crop, { width: 1, height: 1, alt: "" });
  frame.querySelector("img").alt = `The photo of ${name}`;
  if (photo) frame.append(place(make("span", { kind: "box" }), box, photo));
  frame.append(make("p", { kind: "caption" }, named(name)));
  put(frame);
}
