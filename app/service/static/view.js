// What is looked at, as the address has it after its #: a face's id and the options, never a photo.
const USUAL = Object.freeze({ face: "", version: "", labels: [], source: "", quality: 0, from: "", to: "", others: false, fold: false, group: false, least: -1, k: 24 });
const MOST = 200;

export const view = structuredClone(USUAL);
export const clearFilters = () => Object.assign(view, { labels: [], source: "", quality: 0, from: "", to: "", others: false, fold: false });
export const isNumber = (text) => /^[0-9]{1,19}$/.test(text);

export function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const number = (name, low, high) => {
    const value = Number(said.get(name) ?? NaN);
    return value >= low && value <= high ? value : USUAL[name];
  };
  Object.assign(view, structuredClone(USUAL), {
    face: isNumber(said.get("face") ?? "") ? said.get("face") : "",
    version: isNumber(said.get("version") ?? "") ? said.get("version") : "",
    labels: said.getAll("label").slice(0, 20),
    source: isNumber(said.get("source") ?? "") ? said.get("source") : "",
    quality: number("quality", 0, 1),
    least: number("least", -1, 1),
    k: Math.round(number("k", 1, MOST)),
    from: said.get("from") ?? "",
    to: said.get("to") ?? "",
    others: said.has("others"),
    fold: said.has("fold"),
    group: said.has("group"),
  });
}

export function addressOf(changes = {}) {
  const wanted = { ...view, ...changes };
  const said = new URLSearchParams();
  for (const label of wanted.labels) said.append("label", label);
  for (const name of ["face", "version", "source", "quality", "from", "to", "others", "fold", "group", "least", "k"])
    if (wanted[name] !== USUAL[name]) said.set(name, wanted[name] === true ? "1" : wanted[name]);
  return `#${said}`;
}

// How many filters leave something out.
export const filters = () =>
  view.labels.length + [view.source, view.quality, view.from, view.to, view.others].filter(Boolean).length;

// The options as the service takes them.
export function options() {
  const said = { k: view.k };
  if (view.version) said.version = Number(view.version);
  if (view.labels.length) said.labels = view.labels;
  if (view.source) said.sources = [Number(view.source)];
  if (view.quality) said.min_quality = view.quality;
  if (view.from) said.taken_from = view.from;
  if (view.to) said.taken_to = view.to;
  if (view.others) said.not_itself = true;
  if (view.fold) said.fold = true;
  return said;
}

export const nextK = () => (view.k < MOST ? Math.min(MOST, view.k * 2) : null);
