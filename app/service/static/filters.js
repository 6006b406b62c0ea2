// The controls that say what is searched: they write to the view, and tell when it has changed.
import { byId, make, named } from "./elements.js";
import { clearFilters, filters, view } from "./view.js";

let changed = () => {};
let sources = [];

export function onFilters(tell) {
  changed = tell;
}

// The controls as the view has them.
export function showFilters() {
  byId("chosen-labels").replaceChildren(...view.labels.map(chip));
  byId("source").value = view.source;
  byId("quality").value = view.quality;
  byId("from").value = view.from;
  byId("to").value = view.to;
  byId("others").checked = view.others;
  byId("fold").checked = view.fold;
  byId("group").checked = view.group;
  showLevels();
  const count = filters() + (view.fold ? 1 : 0);
  byId("filtered").textContent = count ? `${count} on` : "";
  byId("clear").disabled = count === 0;
}

export function showLevels() {
  byId("quality-shown").textContent = view.quality ? view.quality.toFixed(2) : "any";
  byId("least").value = view.least;
  byId("least-shown").textContent = view.least > -1 ? view.least.toFixed(2) : "any";
}

export function offer({ labels, sources: named_sources }) {
  byId("labels").replaceChildren(...labels.map((label) => make("option", { value: label })));
  byId("grouping").hidden = labels.length === 0;
  if (String(named_sources) === String(sources)) return;
  sources = named_sources;
  const places = sources.map((text, n) => make("option", { text, value: String(n) }));
  byId("source").replaceChildren(make("option", { text: "everywhere", value: "" }), ...places);
  byId("source").value = view.source;
  byId("source").parentElement.hidden = sources.length < 2;
}

function chip(label) {
  const button = make("button", { type: "button" }, named(label));
  button.setAttribute("aria-label", `No longer only ${label}`);
  button.addEventListener("click", () => {
    view.labels = view.labels.filter((other) => other !== label);
    apply();
    byId("label").focus();
  });
  return make("li", {}, button);
}

function addLabel() {
  const label = byId("label").value;
  if (!label) return;
  byId("label").value = "";
  if (!view.labels.includes(label)) view.labels = [...view.labels, label].slice(0, 20);
  apply();
}

function apply() {
  view.k = 24;
  showFilters();
  changed();
}

const chosenFromList = (event) => event.inputType === "insertReplacementText" || event.inputType === undefined;

byId("label").addEventListener("change", addLabel);
byId("label").addEventListener("input", (event) => chosenFromList(event) && addLabel());
byId("options").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["source", "from", "to"])
  byId(name).addEventListener("change", () => {
    view[name] = byId(name).value;
    apply();
  });
for (const name of ["others", "fold"])
  byId(name).addEventListener("change", () => {
    view[name] = byId(name).checked;
    apply();
  });
byId("quality").addEventListener("input", () => {
  view.quality = Number(byId("quality").value);
  showLevels();
});
byId("quality").addEventListener("change", apply);
byId("clear").addEventListener("click", () => {
  clearFilters();
  apply();
});
