// Asking the service. What goes wrong comes back as a Trouble, whose message is a sentence for people.
export class Trouble extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status; // of HTTP; 0 where nothing answered
  }
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Trouble("The service does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Trouble(capital(body.error ?? `the service answered ${response.status} and said no more`), response.status);
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const asJson = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const query = (version) => `version=${version}`;

export const versions = async () => (await send("/api/versions")).json();
export const face = async (id, version) => (await send(`/api/faces/${id}?${query(version)}`)).json();
export const cropOf = (id, version) => `/api/faces/${id}/crop?${query(version)}`;
export const originalOf = (id, version) => `/api/photos/${id}/original?${query(version)}`;

export async function search(question, options) {
  if (!(question instanceof Blob)) return (await send("/api/search", asJson({ ...question, ...options }))).json();
  const form = new FormData();
  form.append("photo", question, "photo"); // its own name stays here
  for (const [name, value] of Object.entries(options))
    for (const one of [value].flat()) form.append(name, String(one));
  return (await send("/api/search", { method: "POST", body: form })).json();
}

const photos = new Map(); // the last thirty that were looked at

// A known face's photo: { url, width, height }, of the full photo, which boxes refer to.
export function photoOf(id, version) {
  const key = `${id} ${version}`;
  if (!photos.has(key)) {
    const found = loadPhoto(id, version);
    found.catch(() => photos.delete(key));
    photos.set(key, found);
    if (photos.size > 30) {
      const [oldest, gone] = photos.entries().next().value;
      photos.delete(oldest);
      gone.then(({ url }) => URL.revokeObjectURL(url), () => {});
    }
  }
  return photos.get(key);
}

async function loadPhoto(id, version) {
  const response = await send(`/api/photos/${id}?${query(version)}`);
  const [width, height] = response.headers.get("X-Photo-Size").split(" ").map(Number);
  return { url: URL.createObjectURL(await response.blob()), width, height };
}

export function forgetPhotos() {
  for (const photo of photos.values()) photo.then(({ url }) => URL.revokeObjectURL(url), () => {});
  photos.clear();
}

export const signIn = (secret) => send("/api/session", { method: "POST", headers: { Authorization: `Bearer ${secret}` } });
export const signOut = () => send("/api/session", { method: "DELETE" });
