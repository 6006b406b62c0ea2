// What comes from outside is only ever set as text or as an address of our own.
const byId = (id) => document.getElementById(id);
const make = (tag, text) => Object.assign(document.createElement(tag), { textContent: text ?? "" });
let answer = null;
let chosen = 0;
let asked = 0; // a late answer to an earlier question is not shown
const least = byId("least");

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  if (response.status === 401) byId("door").showModal();
  if (response.status === 204) return null;
  const body = await response.json().catch(() => ({ error: `HTTP ${response.status}` }));
  if (!response.ok) throw new Error(body.error);
  return body;
}

async function greet() {
  try {
    const { versions, trouble } = await call("/api/versions");
    const now = versions.find((one) => one.current);
    byId("about").textContent = now ? `version ${now.version}, ${now.faces} faces in ${now.photos} photos` : trouble;
  } catch (error) {
    byId("about").textContent = error.message;
  }
}

async function ask(options) {
  const mine = ++asked;
  byId("said").textContent = "Looking…";
  byId("matches").replaceChildren();
  byId("stage").replaceChildren();
  try {
    const found = await call("/api/search", options);
    if (mine !== asked) return;
    answer = found;
    chosen = 0;
    showPhoto();
    showMatches();
  } catch (error) {
    if (mine === asked) byId("said").textContent = error.message;
  }
}

function askPhoto(file) {
  const form = new FormData();
  form.append("photo", file, "photo");
  form.append("picture", "true");
  history.replaceState(null, "", location.pathname);
  return ask({ method: "POST", body: form });
}

function askFace() {
  const faceId = new URLSearchParams(location.hash.slice(1)).get("face");
  if (!faceId) return;
  const body = JSON.stringify({ face_id: faceId });
  ask({ method: "POST", headers: { "Content-Type": "application/json" }, body });
}

function showPhoto() {
  const image = make("img");
  image.alt = "The photo asked with";
  image.src = answer.picture ?? answer.faces[0].crop;
  byId("stage").replaceChildren(image);
  if (!answer.picture) return;
  answer.faces.forEach((face, n) => {
    const [x1, y1, x2, y2] = face.box;
    const box = make("button");
    box.setAttribute("aria-label", `Face ${face.number}`);
    box.setAttribute("aria-pressed", String(n === chosen));
    box.style.left = `${(100 * x1) / answer.width}%`;
    box.style.top = `${(100 * y1) / answer.height}%`;
    box.style.width = `${(100 * (x2 - x1)) / answer.width}%`;
    box.style.height = `${(100 * (y2 - y1)) / answer.height}%`;
    box.addEventListener("click", () => {
      chosen = n;
      for (const other of byId("stage").querySelectorAll("button"))
        other.setAttribute("aria-pressed", String(other === box));
      showMatches();
    });
    byId("stage").append(box);
  });
}

function showMatches() {
  byId("shown").textContent = Number(least.value).toFixed(2);
  if (!answer) return;
  const matches = answer.faces[chosen].matches.filter((one) => one.cosine >= Number(least.value));
  byId("said").textContent =
    `${matches.length} faces from version ${answer.version}.` +
    (answer.calibrated ? "" : " Not calibrated: the score says how alike two faces look to the encoder, not how likely they are one person.");
  byId("matches").replaceChildren(...matches.map(card));
}

function card(match) {
  const item = make("li");
  const image = make("img");
  image.alt = "";
  image.loading = "lazy";
  image.src = `/api/faces/${match.face_id}/crop?version=${answer.version}`;
  const score = match.same_person === null ? "" : `, ${Math.round(100 * match.same_person)} % the same person`;
  const link = make("a", "Find this one");
  link.href = `#face=${match.face_id}`;
  const photo = make("a", "Photo");
  photo.href = `/api/photos/${match.face_id}?version=${answer.version}`;
  photo.target = "_blank";
  const actions = make("p");
  actions.append(link, " · ", photo);
  const detail = make("p", match.cosine.toFixed(3) + score);
  detail.className = "soft";
  item.append(image, make("p", match.label ?? match.photo_name), detail, actions);
  return item;
}

byId("photo").addEventListener("change", (event) => event.target.files[0] && askPhoto(event.target.files[0]));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) askPhoto(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => event.clipboardData.files[0] && askPhoto(event.clipboardData.files[0]));
least.addEventListener("input", showMatches);
addEventListener("hashchange", askFace);
byId("sign").addEventListener("submit", async () => {
  const headers = { Authorization: `Bearer ${byId("token").value}` };
  byId("token").value = "";
  try {
    await call("/api/session", { method: "POST", headers });
    greet();
    askFace();
  } catch (error) {
    byId("about").textContent = error.message;
  }
});
greet();
askFace();
