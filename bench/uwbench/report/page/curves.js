// Curves over labelled clips and over layers, and what corrupted clips cost a score.
const hasCurve = (id) => DATA.cells.some((cell) => cell.method === id && cell.curve.length);
const hasLayers = (id) => DATA.cells.some((cell) => cell.method === id && Object.keys(cell.layers || {}).length > 1);
const hasDrops = (id) => DATA.cells.some((cell) => cell.method === id && cell.corrupted);
const cellsOf = (method) => shownModels().flatMap((model) => scopeTasks().map((task) => cellOf(model.key, task.name, method)).filter(Boolean));

const labelled = (name, ...content) => h("td", { "data-label": name }, content);

// The chosen method if it has what a view shows, else the first that has.
const methodWith = (has) => (has(state.method) ? state.method : DATA.methods.map((method) => method.id).find(has));

function curvesView() {
  const parts = [];
  const few = methodWith(hasCurve);
  if (few) parts.push(...fewShotParts(few));
  const layered = DATA.methods.map((method) => method.id).filter(hasLayers);
  for (const id of layered) {
    const rows = cellsOf(id).flatMap((cell) => Object.entries(cell.layers || {}).map(([name, value], layer) => ({ model: modelOf(cell.model).label, task: taskOf(cell.task).title, layer, name, score: value })));
    parts.push(draw(`Layers: ${nameOf(DATA.methods, id)}`, `${metricOf(id)} of each layer, of one probe seed; ${directionOf(id)}.`, DATA.charts.layers, rows));
  }
  if (!parts.length) return [card("No curves", "No result has a curve over labelled clips or over layers. Methods with curves, and --layers all, make some.")];
  return [hiddenNote(), ...parts];
}

function fewShotParts(method) {
  const points = cellsOf(method).flatMap((cell) => cell.curve.map((point) => ({ ...point, shots: point.shots ?? "all", model: modelOf(cell.model).label, task: taskOf(cell.task).title })));
  const name = nameOf(DATA.methods, method);
  const heads = [{ text: "Task" }, { text: "Model" }, { text: "Per class" }, { text: "Labelled clips" }, { text: "Score" }];
  const rows = points.map((point) => h("tr", {}, h("th", { scope: "row" }, point.task), labelled("Model", point.model), labelled("Per class", point.shots), labelled("Labelled clips", number(point.clips)), labelled("Score", score(point))));
  return [draw(`Score against labels: ${name}`, "A line per model, a band for each point's 95 % interval; the last point has all labels.", DATA.charts.curves, points),
    crossingPart(method),
    h("details", { class: "card" }, h("summary", {}, `Numbers of these curves (${points.length} points)`), table(null, heads, rows, { class: "tight stack", label: "Points of the curves" }))];
}

function crossingPart(method) {
  const options = DATA.models.map((model) => ({ id: model.key, name: model.label }));
  if (options.length < 2) return null;
  const first = modelOf(state.first) ? state.first : options[0].id;
  const second = modelOf(state.second) && state.second !== first ? state.second : options.find((option) => option.id !== first).id;
  const set = (name, other, of) => (value) => { const swap = value === of[other]; Object.assign(state, of, { [name]: value }, swap ? { [other]: of[name] } : {}); keepAddress(); render(name); };
  const both = { first, second };
  const pair = pairOf(first, second, method);
  const rows = (pair?.crossings || []).map((row) => {
    const text = row.labels === null ? "with any number of labels that was tried" : `from ${number(row.labels)} labelled clips on`;
    const bounds = row.labels === null ? "–" : `${row.low === null ? "the fewest" : number(row.low)} to ${row.high === null ? "never" : number(row.high)}`;
    return h("tr", {}, h("th", { scope: "row" }, taskOf(row.task).title), labelled("Ahead with all labels", row.ahead), labelled("Ahead", text), labelled("95 % interval", bounds), labelled("That they cross is", row.crosses ? "shown" : "not shown"));
  });
  const heads = [{ text: "Task" }, { text: "Ahead with all labels" }, { text: "Ahead" }, { text: "95 % interval" }, { text: "That they cross is" }];
  return h("section", { class: "card" }, h("h2", {}, "Where two curves cross"), h("p", {}, "The last crossing of the two curves, with a paired interval: the same test clips and draws of labels for both models."),
    h("div", { class: "controls" }, picker("First model", "first", options, first, set("first", "second", both)), picker("Second model", "second", options, second, set("second", "first", both))),
    rows.length ? table(null, heads, rows, { class: "tight stack", label: `Where the curves of ${modelOf(first).label} and ${modelOf(second).label} cross` }) : h("p", { class: "hint" }, "The two have no curves at the same points, or no predictions."));
}

// Corruptions of a kind side by side, the largest number first: for noise, the least of it.
function byKindAndLevel(a, b) {
  const [kinds, levels] = [[a, b].map((name) => name.replace(/-?\d.*$/, "")), [a, b].map((name) => parseFloat(name.match(/-?\d+(\.\d+)?/)) || 0)];
  return kinds[0] < kinds[1] ? -1 : kinds[0] > kinds[1] ? 1 : levels[1] - levels[0];
}

function robustnessView([name]) {
  const method = methodWith(hasDrops);
  if (!method) return [card("Robustness", "No clip was corrupted. ", h("code", {}, "uwbench run --corrupt standard"), " tests the probes on noise, rooms and codecs.")];
  const tested = DATA.tasks.filter((task) => DATA.cells.some((cell) => cell.task === task.name && cell.method === method && cell.corrupted));
  const task = tested.find((item) => item.name === name) || tested[0];
  const choose = picker("Task", "task", tested.map((item) => ({ id: item.name, name: item.title })), task.name, (value) => go(`robustness=${encodeURIComponent(value)}`));
  const cells = shownModels().map((model) => cellOf(model.key, task.name, method)).filter((cell) => cell?.corrupted);
  const names = [...new Set(cells.flatMap((cell) => cell.corrupted.rows.map((row) => row.corruption)))].sort(byKindAndLevel);
  const rows = cells.flatMap((cell) => cell.corrupted.rows.map((row) => ({ ...row, model: modelOf(cell.model).label }))).sort((a, b) => byKindAndLevel(a.corruption, b.corruption));
  const drop = (cell, corruption) => {
    const row = cell.corrupted.rows.find((item) => item.corruption === corruption);
    if (!row) return h("td", { class: "num", "data-label": corruption }, "–");
    return h("td", { class: "num", "data-label": corruption }, h("span", { class: `value ${row.low > 0 ? "bad" : row.high < 0 ? "good" : ""}` }, signed(-row.drop)), h("span", { class: "under" }, `${signed(-row.high)} to ${signed(-row.low)}`));
  };
  const body = cells.map((cell) => h("tr", { "data-robust": modelOf(cell.model).label }, h("th", { scope: "row" }, modelName(cell.model)), h("td", { class: "num", "data-label": "clean" }, h("span", { class: "value" }, fixed(cell.score))), names.map((corruption) => drop(cell, corruption)), h("td", { class: "num", "data-label": "5 points lost at" }, limitText(cell.corrupted.limit))));
  const heads = [{ text: "Model" }, { text: "Clean", class: "num" }, ...names.map((text) => ({ text, class: "num" })), { text: "0.05 (5 points) lost at", class: "num" }];
  const other = method === state.method ? null : h("p", { class: "hint" }, `${nameOf(DATA.methods, state.method)} is not tested on corrupted clips; shown is ${nameOf(DATA.methods, method)}.`);
  return [hiddenNote(), other, h("section", { class: "card" }, h("div", { class: "controls" }, choose), h("p", {}, `Probes are trained on clean clips and tested on corrupted copies of ${cells[0] ? cells[0].corrupted.clips.toLocaleString("en") : "the"} test clips. Intervals are paired: the same clips, clean and corrupted.`)),
    draw(`Drop of the score: ${task.title}`, `${nameOf(DATA.methods, method)}, ${metricOf(method, task.name)}. Right of the line the score falls; bars are 95 % intervals.`, DATA.charts.drops, rows),
    h("section", { class: "card flush" }, table(`${task.title}: change of the score when clips are corrupted, with 95 % interval; coloured if zero is outside it`, heads, body, { label: "Change of the score by corruption", class: "stack" }))];
}

function limitText(limit) {
  if (!limit) return "–";
  const mark = { above: "above ", at: "", below: "below " }[limit.bound];
  return h("span", { title: limit.text }, `${mark}${number(limit.snr_db)} dB`, h("span", { class: "under" }, `${limit.colour} noise`));
}
