// The reader's choices. All that differ from the defaults are in the address, so a copied link shows the same page.
const DEFAULTS = { method: DATA.methods.length ? DATA.methods[0].id : "", average: DATA.averages[0].id, scope: "suite", ref: "", filter: "", size: "", speed: "", seen: "", licence: [], family: [], margin: "1", first: "", second: "", sort: "rank", up: true };
const state = { ...structuredClone(DEFAULTS), mix: {} };
const MIX = "mix";
const AVERAGES = [...DATA.averages, { id: MIX, name: "My mix", formula: "the tasks' scores weighted as you set them on this page" }];

function address() {
  const parts = [];
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const value = state[name];
    if (Array.isArray(value) ? value.length : value !== usual) parts.push(`${name}=${Array.isArray(value) ? value.map(encodeURIComponent).join(",") : encodeURIComponent(value)}`);
  }
  const mix = Object.entries(state.mix).map(([task, weight]) => `${encodeURIComponent(task)}:${weight}`);
  if (mix.length) parts.push(`mix=${mix.join(",")}`);
  return parts.map((part) => `&${part}`).join("");
}

// Reads the choices of the address; one without any leaves them as they are.
function readAddress() {
  const parts = location.hash.slice(1).split("&").slice(1);
  if (!parts.length) return;
  Object.assign(state, structuredClone(DEFAULTS), { mix: {} });
  for (const part of parts) {
    const [name, text = ""] = part.split("=");
    try {
      if (name === "mix") setMix(text.split(",").map((pair) => pair.split(":")).map(([task, weight]) => [decodeURIComponent(task), Number(weight)]));
      else if (Array.isArray(DEFAULTS[name])) state[name] = text.split(",").map(decodeURIComponent);
      else if (name === "up") state.up = text === "true";
      else if (name in DEFAULTS) state[name] = decodeURIComponent(text);
    } catch { /* an address that was cut off: the other choices still count */ }
  }
  const known = { method: DATA.methods, average: AVERAGES, scope: DATA.scopes };
  for (const [name, list] of Object.entries(known)) if (!list.some((item) => item.id === state[name])) state[name] = DEFAULTS[name];
}

const link = (view) => `#${view}${address()}`;
const keepAddress = () => history.replaceState(null, "", link(location.hash.slice(1).split("&")[0] || VIEWS[0].id));

// Filters: which models are shown, in tables and charts alike.
const FILTERS = ["filter", "size", "speed", "seen", "licence", "family"];
const licenceOf = (model) => model.licence || "unknown";
let filtersOpen = false; // stays open while the controls are drawn again
const active = (name) => (Array.isArray(state[name]) ? state[name].length > 0 : state[name] !== "");

function isShown(model) {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${model.label} ${model.family} ${model.dtype}`.toLowerCase();
  const flags = scopeTasks().map((task) => cellOf(model.key, task.name, state.method)).filter(Boolean).map((cell) => cell.flag);
  return words.every((word) => text.includes(word)) && !state.licence.includes(licenceOf(model)) && !state.family.includes(model.family)
    && (!Number(state.size) || (model.parameters !== null && model.parameters <= 1e6 * Number(state.size)))
    && (!Number(state.speed) || model.speed?.clips_per_s >= Number(state.speed))
    && (state.seen !== "unseen" || !flags.some((flag) => SEEN.includes(flag))) && (state.seen !== "clean" || flags.every((flag) => flag === "clean"));
}

const shownModels = () => DATA.models.filter(isShown);

// The tasks of a scope; those outside the suite are in no average but the reader's own.
function scopeTasks(scope = state.scope) {
  if (scope.startsWith("domain:")) return DATA.tasks.filter((task) => task.domain === scope.slice(7));
  if (scope !== "shared") return DATA.tasks;
  return DATA.tasks.filter((task) => DATA.models.every((model) => cellOf(model.key, task.name, state.method)?.same));
}

function hiddenNote() {
  const hidden = DATA.models.length - shownModels().length;
  if (!FILTERS.some(active)) return h("p", { role: "status", style: { margin: 0 } });
  const reset = () => { for (const name of FILTERS) state[name] = structuredClone(DEFAULTS[name]); render("filter"); };
  return h("p", { class: "hint", role: "status" }, `${hidden} of ${DATA.models.length} models hidden by filters. `, h("button", { type: "button", class: "ghost small", onclick: reset }, "Show all"));
}

function filterPanel() {
  const change = (name, value) => { state[name] = value; refresh(); };
  const field = (name, label, type, placeholder) => h("div", {}, h("label", { class: "label", for: name }, label),
    h("input", { type, id: name, value: state[name], placeholder, min: type === "number" ? 0 : null, step: type === "number" ? "any" : null, oninput: (event) => change(name, event.target.value) }));
  const boxes = (name, legend, values) => values.length > 1 && h("fieldset", { class: "boxes" }, h("legend", {}, legend), values.map((value) =>
    h("label", {}, h("input", { type: "checkbox", checked: !state[name].includes(value), onchange: (event) => change(name, event.target.checked ? state[name].filter((item) => item !== value) : [...state[name], value]) }), value)));
  const values = (of) => [...new Set(DATA.models.map(of))].sort();
  const seen = [{ id: "", name: "Any" }, { id: "unseen", name: "No task known to be seen" }, { id: "clean", name: "Known to be clean" }];
  const count = FILTERS.filter((name) => name !== "filter" && active(name)).length;
  return [field("filter", "Filter models", "search", "Name or family"),
    h("details", { class: "filters", open: count > 0 || filtersOpen, ontoggle: (event) => { filtersOpen = event.target.open; } }, h("summary", {}, "More filters"), h("div", { class: "controls" },
      field("size", "Parameters at most (millions)", "number", "any"), field("speed", "Clips/s at least", "number", "any"),
      picker("Seen in training", "seen", seen, state.seen, (value) => change("seen", value)),
      boxes("licence", "Licence", values(licenceOf)), boxes("family", "Family", values((model) => model.family))))];
}
