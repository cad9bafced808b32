"use strict";
// Data from results is always set as text, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const state = { method: DATA.methods.length ? DATA.methods[0].id : "mlp", average: "weighted", scope: "suite", filter: "", sort: "rank", up: true };
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
const modelOf = (key) => DATA.models.find((model) => model.key === key);
const taskOf = (name) => DATA.tasks.find((task) => task.name === name);
const nameOf = (list, id) => (list.find((item) => item.id === id) || { name: id }).name;
const cellOf = (model, task, method) => DATA.cells.find((c) => c.model === model && c.task === task && c.method === method);
const rowOf = (model, method, average, scope) =>
  DATA.rows.find((r) => r.model === model && r.method === method && r.average === average && r.scope === scope);

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

function modelName(key) {
  const model = modelOf(key);
  const swatch = h("span", { class: "swatch", "aria-hidden": "true", style: { background: model.colour } });
  return h("span", { class: "name" }, swatch, h("a", { href: `#model=${encodeURIComponent(key)}` }, model.label));
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
function chartTheme() {
  const style = getComputedStyle(document.documentElement);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  const font = style.getPropertyValue("--font").trim();
  const text = { labelColor: soft, titleColor: soft, labelFont: font, titleFont: font, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500 };
  return {
    background: "transparent", font, view: { stroke: null }, point: { color: DATA.palette[0] }, rule: { color: soft }, text: { font, color: ink },
    axis: { ...text, gridColor: line, domainColor: line, tickColor: line }, legend: { ...text, columns: window.innerWidth < 640 ? 2 : 4 }, header: { labelColor: ink, labelFont: font, labelFontWeight: 600 },
  };
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
  const copy = structuredClone(spec);
  copy.datasets = { rows };
  if (copy.columns && window.innerWidth < 1000) copy.columns = window.innerWidth < 640 ? 1 : 2;
  drawn.push({ place, copy });
  return figure;
}

async function drawAll() {
  for (const { place, copy } of drawn.splice(0)) {
    if (copy.columns) copy.spec.width = Math.max(180, Math.floor(place.clientWidth / copy.columns) - 46);
    const result = await vegaEmbed(place, { ...copy, config: chartTheme() }, { actions: false, renderer: "svg", logLevel: 1 });
    place.querySelectorAll("svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
    place.view = result.view;
  }
  document.body.dataset.drawn = "yes";
}
