"use strict";
// Data from results is always set as text, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

const fixed = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const signed = (value) => (value === null || value === undefined ? "–" : (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(3));
const range = (low, high) => (low === null || low === undefined ? "" : `${low.toFixed(3)}–${high.toFixed(3)}`);
const number = (value) => (value === null || value === undefined ? "–" : value >= 100 ? Math.round(value).toLocaleString("en") : value.toPrecision(3));
const millions = (value) => (value === null || value === undefined ? "–" : `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)} M`);
const when = (text) => `${text.slice(0, 16).replace("T", " ")} UTC`;
const pValue = (p) => (p === null || p === undefined ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));
const index = (list, ...fields) => new Map(list.map((item) => [fields.map((field) => item[field]).join("|"), item]));
const MODELS = index(DATA.models, "key");
const TASKS = index(DATA.tasks, "name");
const CELLS = index(DATA.cells, "model", "task", "method");
const ROWS = index(DATA.rows, "model", "method", "average", "scope");
const modelOf = (key) => MODELS.get(key);
const taskOf = (name) => TASKS.get(name);
const nameOf = (list, id) => (list.find((item) => item.id === id) || { name: id }).name;
const cellOf = (model, task, method) => CELLS.get(`${model}|${task}|${method}`);
const rowOf = (model, method, average, scope) => ROWS.get(`${model}|${method}|${average}|${scope}`);

function bar(score, low, high) {
  const percent = (value) => `${(100 * value).toFixed(2)}%`;
  const inside = [];
  if (low !== null && low !== undefined) inside.push(h("i", { style: { left: percent(low), width: percent(Math.max(0.004, high - low)) } }));
  inside.push(h("b", { style: { left: percent(score) } }));
  return h("span", { class: "bar", "aria-hidden": "true" }, inside);
}

function score(item) {
  if (!item) return h("span", { class: "sub" }, "–");
  return [h("span", { class: "value" }, fixed(item.score)), h("span", { class: "range" }, range(item.low, item.high))];
}

// A name may be broken after a slash or underscore, as it is at hyphens, and nowhere else.
const breakable = (text) => text.split(/(?<=[/_])/).flatMap((part) => [part, h("wbr")]).slice(0, -1);

function modelName(key) {
  const model = modelOf(key);
  const swatch = h("span", { class: "swatch", "aria-hidden": "true", style: { background: model.colour } });
  return h("span", { class: "name" }, swatch, h("a", { href: link(`model=${encodeURIComponent(key)}`) }, breakable(model.label)));
}

// Contamination is shown as words with a reason, never as a colour alone. Clean cells have no chip.
const SEEN = ["same source", "trained on train", "trained on test"];
const flagMeaning = (flag) => DATA.flags.find((item) => item.id === flag).meaning;

function flagChip(cell) {
  if (cell.flag === "clean") return null;
  return h("span", { class: `chip ${SEEN.includes(cell.flag) ? "seen" : ""}`, title: `${flagMeaning(cell.flag)}: ${cell.because.join("; ")}` }, cell.flag === "unknown" ? "training data unknown" : cell.flag);
}

function flagLegend() {
  const present = DATA.flags.filter((item) => item.id !== "clean" && DATA.cells.some((cell) => cell.flag === item.id));
  if (!present.length) return null;
  return h("section", { class: "card" }, h("h2", {}, "What models were trained on"), h("p", {}, "Scores on tasks that a model has seen something of are marked. ", h("code", {}, "uwbench leaderboard --contaminated drop"), " leaves them out."),
    h("dl", { class: "facts broad" }, present.map((item) => h("div", {}, h("dt", {}, item.id), h("dd", {}, item.meaning)))));
}

function table(caption, heads, rows, options = {}) {
  const head = heads.map((item) => h("th", { scope: "col", class: item.class, "aria-sort": item.sort }, item.node || item.text));
  const whole = h("table", { class: options.class }, caption && h("caption", {}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.label || caption }, whole);
}

function card(title, hint, ...children) {
  return h("section", { class: "card" }, h("h2", {}, title), hint && h("p", {}, hint), children);
}

function chooser(legend, name, options, value, change) {
  const items = options.map((option) =>
    h("label", {}, h("input", { type: "radio", name, value: option.id, checked: option.id === value, onchange: () => change(option.id) }), h("span", {}, option.name)));
  return h("fieldset", {}, h("legend", {}, legend), h("div", { class: "segment" }, items));
}

function picker(label, id, options, value, change) {
  const select = h("select", { id, onchange: (event) => change(event.target.value) },
    options.map((option) => h("option", { value: option.id, selected: option.id === value }, option.name)));
  return h("div", {}, h("label", { class: "label", for: id }, label), select);
}

// Charts take their colours from the page, so that they are readable in both themes.
const LEGEND_ENTRY = Math.min(200, 34 + 5.8 * Math.max(8, ...DATA.models.map((model) => model.label.length))); // pixels
function chartTheme(width) {
  const style = getComputedStyle(document.documentElement);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  const font = style.getPropertyValue("--font").trim();
  const text = { labelColor: soft, titleColor: soft, labelFont: font, titleFont: font, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500 };
  return {
    background: "transparent", font, view: { stroke: null }, point: { color: DATA.palette[0] }, rule: { color: soft }, text: { font, color: ink },
    axis: { ...text, gridColor: line, domainColor: line, tickColor: line }, legend: { ...text, columns: Math.max(1, Math.floor((width - 30) / LEGEND_ENTRY)) }, header: { labelColor: ink, labelFont: font, labelFontWeight: 600 },
  };
}

// A specification with the chosen average in its titles, and in its scales the models that are shown alone.
function titled(spec, models) {
  const score = `${nameOf(AVERAGES, state.average)}${state.average === MIX ? "" : " average"}, ${nameOf(DATA.methods, state.method)}`;
  return JSON.parse(JSON.stringify(spec, (name, value) => {
    if (value === "@score") return score;
    if (name !== "scale" || !value?.domain || !value.range) return value;
    const kept = value.domain.map((label, at) => [label, value.range[at]]).filter(([label]) => models.has(label));
    return kept.length ? { ...value, domain: kept.map(([label]) => label), range: kept.map(([, colour]) => colour) } : value;
  }));
}

const drawn = [];
function draw(title, caption, spec, rows, options = {}) {
  const place = h("div", { class: "chart", role: "img", "aria-label": `${title}. ${caption}` });
  const figure = h("figure", { class: options.plain ? "plain" : `card ${options.class || ""}` }, h("h2", {}, title), h("figcaption", {}, caption), place);
  if (!rows.length) {
    place.append(h("p", { class: "hint" }, options.empty || "No result has the data for this figure."));
    place.removeAttribute("role");
    return figure;
  }
  const copy = titled(spec, new Set(rows.map((row) => row.model)));
  copy.datasets = { rows };
  if (copy.columns && window.innerWidth < 1000) copy.columns = window.innerWidth < 640 ? 1 : 2;
  drawn.push({ place, copy, bands: options.along ? new Set(rows.map((row) => row[options.along])).size : 0 });
  return figure;
}

async function drawAll() {
  for (const { place, copy, bands } of drawn.splice(0)) {
    if (copy.columns) copy.spec.width = Math.max(180, Math.floor(place.clientWidth / copy.columns) - 66);
    const room = 100 + 28 * bands; // below this width, the labels along the axis would be left out
    if (copy.width === "container" && place.clientWidth < room) copy.width = room;
    const result = await vegaEmbed(place, { ...copy, config: chartTheme(place.clientWidth) }, { actions: false, renderer: "svg", logLevel: 1 });
    place.querySelectorAll("svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
    place.view = result.view;
  }
  document.body.dataset.drawn = "yes";
}
