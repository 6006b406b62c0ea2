// The page: a photo or a known face is asked about, and the answer is shown. The address has the view (view.js), never the photo.
import { offerCamera } from "./camera.js";
import { byId, make, many } from "./elements.js";
import { offer, onFilters, showFilters, showLevels } from "./filters.js";
import { dropMatches, filterByScore, hidePeek, showMatches } from "./results.js";
import * as service from "./service.js";
import { clearStage, markChosen, setBusy, showFaces, showFile, showKnown, showWaiting } from "./stage.js";
import { addressOf, clearFilters, filters, isNumber, nextK, options, readAddress, view } from "./view.js";

const photos = []; // those asked with since the page was opened, so that going back finds them
let question = null; // a file, { face_id } or { url }
let answer = null;
let chosen = 0;
let asked = 0; // a late answer to an earlier question is not shown
let known = null; // what /api/versions said

// ---- what the service has

async function greet() {
  try {
    known = await service.versions();
    showVersions();
  } catch (error) {
    byId("about").textContent = error.message;
    if (error.status === 401) openDoor();
    else if (!question) showNothing(error.message, "Try again", greet, true);
  }
}

function showVersions() {
  const { versions, trouble, signed_in_as: who } = known;
  const current = versions.find((one) => one.current);
  const shown = versions.find((one) => String(one.version) === view.version) ?? current;
  byId("about").textContent = shown
    ? `${many(shown.faces, "face", "faces")} in ${many(shown.photos, "photo", "photos")}${trouble ? ". " + service.capital(trouble) : ""}`
    : "Nothing can be asked yet.";
  const items = versions.map((one) => make("option", { value: String(one.version), text: `${one.version}, of ${day(one.created_at)}` }));
  const latest = make("option", { value: "", text: current ? `${current.version} (current)` : "none" });
  byId("version").replaceChildren(latest, ...items);
  byId("version").value = view.version;
  if (view.version && byId("version").value !== view.version) {
    byId("version").append(make("option", { value: view.version, text: `${view.version} (not there)` }));
    byId("version").value = view.version;
  }
  byId("leave").hidden = who === null;
  byId("leave").textContent = `Sign out ${who ?? ""}`.trim();
  byId("by-address").hidden = !known.may_name_addresses;
  offer({ labels: known.labels, sources: shown?.sources ?? [] });
  if (!current && !question) showNothing(service.capital(trouble ?? "no version is published yet"), "Look again", greet, true);
  else if (!question) showNothing("");
  byId("guide").hidden = question !== null || !current;
}

const day = (stamp) => stamp.slice(0, 10);

// ---- asking

function askPhoto(file) {
  if (!file) return;
  photos.push(file);
  Object.assign(view, { face: "", k: 24 });
  history.pushState({ photo: photos.length - 1 }, "", location.pathname + addressOf());
  look();
}

function askAddress(url) {
  Object.assign(view, { face: "", k: 24 });
  history.pushState({ url }, "", location.pathname + addressOf());
  look();
}

// Shows what the address and this entry of the history say.
function look() {
  readAddress();
  showFilters();
  hidePeek();
  byId("shown").close();
  const state = history.state ?? {};
  if (view.face) question = { face_id: view.face };
  else question = photos[state.photo] ?? (state.url ? { url: state.url } : null);
  byId("anew").hidden = question === null;
  byId("guide").hidden = byId("least-field").hidden = true;
  if (question === null) startOver(state.photo !== undefined);
  if (known) showVersions();
  if (question === null) return undefined;
  byId("least-field").hidden = false;
  if (question instanceof Blob) showFile(question);
  else showWaiting();
  return ask();
}

function startOver(isLost) {
  asked += 1;
  answer = null;
  clearStage();
  showAnswer();
  byId("said").textContent = isLost ? "The photo was not kept. Pick it again." : "Nothing was asked yet.";
}

// What is shown stays until there is more of the same, and goes at once when something else is asked.
async function ask({ isMore = false } = {}) {
  const mine = ++asked;
  const isStill = () => mine === asked;
  byId("said").textContent = "Looking…";
  if (!isMore) {
    answer = null;
    showAnswer();
    byId("waiting").replaceChildren(...Array.from({ length: 12 }, () => make("li")));
    byId("waiting").hidden = false;
  }
  setBusy(true);
  try {
    checkSize(question);
    const isPhoto = !("face_id" in question);
    const found = await service.search(question, { ...options(), ...(isPhoto ? { picture: true } : {}) });
    if (!isStill()) return;
    answer = found;
    chosen = Math.min(chosen, answer.faces.length - 1);
    showAnswer();
    if (isPhoto) showFaces(answer, choose);
    else showKnown(answer, isStill);
    markChosen(chosen);
    if (known && !known.versions.some((one) => one.version === answer.version)) greet();
  } catch (error) {
    if (isStill()) showTrouble(error);
  } finally {
    if (isStill()) {
      setBusy(false);
      byId("waiting").hidden = true;
    }
  }
}

function checkSize(file) {
  const most = known?.most_photo_bytes ?? Infinity;
  if (file instanceof Blob && file.size > most)
    throw new service.Trouble(`The photo has ${Math.ceil(file.size / 2 ** 20)} MiB, the service takes ${Math.floor(most / 2 ** 20)}. A smaller copy will do.`, 413);
}

function showTrouble(error) {
  byId("said").textContent = "There is no answer.";
  if (error.status === 401) return openDoor();
  if (error.status === 404 && view.version) return showNothing(error.message, "Ask the current version", () => change({ version: "" }), true);
  if (error.status === 422 && (view.labels.length || view.source)) return showNothing(error.message, "Clear all filters", showAll, true);
  if (error.status === 422 && question instanceof Blob) return showNothing(error.message, "Pick another photo", () => byId("photo").click(), true);
  return showNothing(error.message, "Try again", () => ask(), true);
}

function showAll() {
  clearFilters();
  change({ least: -1 });
}

// ---- showing

function choose(n) {
  chosen = n;
  markChosen(n);
  showAnswer();
}

function showAnswer() {
  const face = answer?.faces[chosen];
  const isMoreFocused = document.activeElement === byId("more");
  dropMatches();
  showNothing("");
  byId("asked-face").replaceChildren(...(face ? [make("img", { src: face.crop, alt: "The face asked about", width: 64, height: 64 })] : []));
  byId("turns").hidden = !(answer?.faces.length > 1);
  byId("note").textContent = "";
  byId("more").hidden = true;
  byId("link").hidden = !face?.face_id;
  if (!face) return;
  showMatches(answer, chosen);
  byId("before").disabled = chosen === 0;
  byId("after").disabled = chosen === answer.faces.length - 1;
  byId("more").hidden = nextK() === null || face.matches.length < view.k || face.matches.length >= answer.searched;
  if (isMoreFocused && byId("more").hidden) byId("found").focus({ preventScroll: true });
  if (face.face_id) byId("link").href = addressOf({ face: face.face_id, version: String(answer.version) });
  const notes = [...answer.warnings];
  if (!answer.calibrated) notes.push("This version is uncalibrated: a score says how alike two faces look to the encoder, not how likely they are one person.");
  byId("note").textContent = notes.map(service.capital).join(" ");
  showCount();
}

function showCount() {
  if (!answer) return;
  const left = filterByScore();
  const who = answer.faces.length > 1 ? `Face ${chosen + 1} of ${answer.faces.length}: ` : "";
  byId("said").textContent = `${who}${many(left, "match", "matches")} among ${many(answer.searched, "face", "faces")} of version ${answer.version}.`;
  showNothing(left ? "" : noneLeft(), "Show all", showAll);
}

function noneLeft() {
  const why = [];
  if (view.least > -1) why.push(`the least score of ${view.least.toFixed(2)}`);
  if (filters()) why.push(many(filters(), "filter", "filters"));
  return why.length ? `No known face passes ${why.join(" and ")}.` : "This version has no face to compare with.";
}

function showNothing(sentence, action, act, isBad = false) {
  const panel = byId("nothing");
  panel.hidden = sentence === "";
  panel.classList.toggle("bad", isBad);
  byId("nothing-said").textContent = sentence;
  byId("nothing-do").textContent = action ?? "";
  byId("nothing-do").onclick = act ?? null;
}

// Other options for the same question.
function change(changes, { isMore = false } = {}) {
  Object.assign(view, changes);
  history.replaceState(history.state, "", location.pathname + addressOf());
  showFilters();
  if (known) showVersions();
  if (question) ask({ isMore });
}

// ---- signing in and out

function openDoor() {
  if (!byId("door").open) byId("door").showModal();
}

byId("sign").addEventListener("submit", async (event) => {
  event.preventDefault();
  const secret = byId("token").value;
  byId("token").value = "";
  byId("refused").textContent = "";
  try {
    await service.signIn(secret);
    byId("door").close();
    await greet();
    look();
  } catch (error) {
    byId("refused").textContent = error.status === 401 ? "The service does not know this token." : error.message;
    byId("token").focus();
  }
});
byId("door").addEventListener("close", () => {
  if (known === null) showNothing("Nothing is shown without a token.", "Sign in", openDoor);
});
byId("leave").addEventListener("click", async () => {
  await service.signOut().catch(() => {});
  service.forgetPhotos();
  photos.length = 0;
  known = null;
  history.replaceState(null, "", location.pathname);
  byId("version").replaceChildren();
  byId("labels").replaceChildren();
  byId("leave").hidden = true;
  look();
  greet();
});

// ---- what people do

offerCamera((photo) => {
  chosen = 0;
  askPhoto(photo);
});
for (const name of ["photo", "camera"])
  byId(name).addEventListener("change", (event) => {
    chosen = 0;
    askPhoto(event.target.files[0]);
    event.target.value = ""; // so that the same photo can be picked again
  });
byId("by-address").addEventListener("submit", (event) => {
  event.preventDefault();
  chosen = 0;
  askAddress(byId("address").value);
});
byId("anew").addEventListener("click", () => {
  history.pushState(null, "", location.pathname + addressOf({ face: "" }));
  look();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  chosen = 0;
  askPhoto(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files[0]) return;
  chosen = 0;
  askPhoto(event.clipboardData.files[0]);
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // what stands after # is the view
  byId("found").focus();
});
byId("before").addEventListener("click", () => choose(chosen - 1));
byId("after").addEventListener("click", () => choose(chosen + 1));
byId("least").addEventListener("input", () => {
  view.least = Number(byId("least").value);
  showLevels();
  showCount();
});
byId("least").addEventListener("change", () => history.replaceState(history.state, "", location.pathname + addressOf()));
byId("group").addEventListener("change", () => {
  view.group = byId("group").checked;
  history.replaceState(history.state, "", location.pathname + addressOf());
  if (answer) showAnswer();
});
byId("version").addEventListener("change", () => change({ version: isNumber(byId("version").value) ? byId("version").value : "" }));
byId("more").addEventListener("click", () => change({ k: nextK() }, { isMore: true }));
onFilters(() => change({}));
addEventListener("popstate", () => {
  chosen = 0;
  look();
  if (view.face) {
    scrollTo(0, 0);
    byId("found").focus({ preventScroll: true });
  }
});
byId("matches").addEventListener("click", (event) => event.target.closest("a") && hidePeek());

readAddress();
showFilters();
await greet();
look();
