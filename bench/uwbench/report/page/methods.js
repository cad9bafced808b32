// Every method side by side: scores, ranks over methods, orders that hold under all of them, practical equality.
const methodOf = (id) => DATA.methods.find((method) => method.id === id);

// What a method's scores are: the names of their metrics, and which way is better.
function metricOf(id, task) {
  const names = [...new Set(DATA.cells.filter((cell) => cell.method === id && (!task || cell.task === task)).map((cell) => cell.metric))];
  return names.length > 2 ? "the task's metric" : names.join(", ");
}
const directionOf = (id) => (methodOf(id).describes ? "a description, neither better nor worse" : "higher is better");
const methodNote = () => (DATA.methods.length ? h("p", { class: "hint" }, `${nameOf(DATA.methods, state.method)}: ${methodOf(state.method).answers} Score: ${metricOf(state.method)}; ${directionOf(state.method)}.`) : null);

function methodHead(method, task) {
  const way = method.describes ? "described" : "↑ better";
  return { class: "num", node: h("span", { title: `${method.name}: ${method.answers} ${directionOf(method.id)}` }, method.short, h("span", { class: "under" }, metricOf(method.id, task)), h("span", { class: "under" }, way)) };
}

function methodsView([name]) {
  if (!DATA.methods.length) return [card("No methods yet", "There are no results.")];
  const task = taskOf(name);
  const options = [{ id: "", name: "Average over the tasks chosen above" }, ...DATA.tasks.map((item) => ({ id: item.name, name: item.title }))];
  const choose = picker("Scores of", "task", options, task?.name || "", (value) => go(value ? `methods=${encodeURIComponent(value)}` : "methods"));
  const averages = task ? null : new Map(DATA.methods.map((method) => [method.id, rowsOf(method.id, state.average, state.scope)]));
  const cell = (model, method) => (task ? cellOf(model.key, task.name, method.id) : averages.get(method.id).get(model.key));
  const rows = shownModels().map((model) => h("tr", { "data-methods": model.label }, h("th", { scope: "row" }, modelName(model.key)), DATA.methods.map((method) => {
    const item = cell(model, method);
    const low = item?.low ?? null;
    return h("td", { class: "num", "data-label": `${method.short} (${metricOf(method.id, task?.name)})` }, h("span", { class: "value" }, fixed(item?.score)), h("span", { class: "under" }, low === null ? "" : range(low, item.high)), item?.held < item?.of && h("span", { class: "under" }, `${item.held} of ${item.of} tasks`));
  })));
  const what = task ? task.title : `${nameOf(AVERAGES, state.average)}${state.average === MIX ? "" : " average"}, ${nameOf(DATA.scopes, state.scope).toLowerCase()}`;
  const caption = `${what}: the score by every method, with its own metric and 95 % interval. Scores of different methods are on different scales.`;
  return [hiddenNote(), h("section", { class: "card" }, h("div", { class: "controls" }, choose), h("dl", { class: "facts broad" }, DATA.methods.map((method) => h("div", {}, h("dt", {}, method.name), h("dd", {}, `${method.answers} Score: ${metricOf(method.id)}; ${directionOf(method.id)}.`))))),
    h("section", { class: "card flush" }, table(caption, [{ text: "Model" }, ...DATA.methods.map((method) => methodHead(method, task?.name))], rows, { label: "Scores by every method", class: "stack" })),
    ...envelopeParts()];
}

// The ranks over methods are those of the headline average over the whole suite, as on the terminal and in files.
function envelopeParts() {
  const shown = new Set(shownModels().map((model) => model.label));
  const ranked = DATA.methods.filter((method) => DATA.envelope_methods.includes(method.id));
  const headline = DATA.averages[0].id;
  const rows = DATA.envelopes.filter((row) => shown.has(row.model)).map((row) => {
    const model = DATA.models.find((item) => item.label === row.model);
    return h("tr", { "data-envelope": row.model }, h("th", { scope: "row" }, modelName(model.key)), h("td", { class: "num value", "data-label": "Best–worst" }, span(row.best, row.worst)), h("td", { class: "num", "data-label": "95 %" }, row.low === null ? "–" : span(row.low, row.high)),
      ranked.map((method) => { const of = rowOf(model.key, method.id, headline, "suite"); return h("td", { class: "num", "data-label": method.short }, of?.rank ?? "–", of?.rank && of.place !== null && h("span", { class: "under" }, span(of.place, of.rank_high))); }));
  });
  if (!rows.length) return [];
  const heads = [{ text: "Model" }, { text: "Best–worst", class: "num" }, { text: "95 %", class: "num" }, ...ranked.map((method) => ({ text: method.short, class: "num" }))];
  const caption = "Ranks over methods, weighted average over the whole suite; below each rank its 95 % interval. 95 %: from the lowest to the highest end of the methods' intervals, so it holds the true rank under any one method.";
  return [h("section", { class: "card flush" }, table(caption, heads, rows, { label: "Ranks over methods", class: "stack" })), ...pairParts(shown)];
}

const span = (low, high) => (low === high ? `${low}` : `${low}–${high}`);
const MOST_POINTS = 20; // the largest margin that the data say something of

function pairParts(shown) {
  const pairs = DATA.certainty.pairs.filter((row) => shown.has(row.model) && shown.has(row.other));
  if (!pairs.length) return [];
  const parts = [];
  const every = pairs.filter((row) => row.method === "every");
  if (every.length) {
    const order = ["ahead", "same order", "order changes"];
    const words = { ahead: "holds under every method", "same order": "same order, not significant under each", "order changes": "changes with the method" };
    const rows = [...every].sort((a, b) => order.indexOf(a.verdict) - order.indexOf(b.verdict) || a.p - b.p).map((row) => h("tr", { "data-order": row.verdict }, h("th", { scope: "row" }, `${row.model} ${row.verdict === "order changes" ? "/" : ">"} ${row.other}`), h("td", {}, h("span", { class: `chip ${row.verdict === "ahead" ? "best" : ""}` }, words[row.verdict])), h("td", { class: "num" }, pValue(row.p))));
    const sure = every.filter((row) => row.verdict === "ahead").length;
    parts.push(h("section", { class: "card" }, h("h2", {}, "Orders under every method"), h("p", {}, `${every.length === 1 ? `The order of the two models is ${sure ? "" : "not "}significant` : `${sure} of ${every.length} pairs have a significant order`} under every method: the largest p-value of the methods, corrected by Holm over the pairs, is below 0.05.`),
      h("details", { open: rows.length <= 12 }, h("summary", {}, rows.length === 1 ? "The pair" : `All ${rows.length} pairs`), table(null, [{ text: "Order" }, { text: "Verdict" }, { text: "p", class: "num" }], rows, { class: "tight", label: "Orders under every method" }))));
  }
  parts.push(equalPart(pairs.filter((row) => row.method === state.method)));
  return parts;
}

// Practical equality within a margin that the reader sets; the smallest margin of each pair is in the data.
function equalPart(pairs) {
  const list = h("div", { role: "status" });
  const fill = () => {
    const margin = Number(state.margin);
    const equal = pairs.filter((row) => row.equal_from !== null && 1000 * row.equal_from <= 10 * margin + 1e-6).sort((a, b) => a.equal_from - b.equal_from);
    const rows = equal.map((row) => h("tr", { "data-equal": `${row.model} = ${row.other}` }, h("th", { scope: "row" }, `${row.model} = ${row.other}`), h("td", { class: "num" }, `${(100 * row.difference).toFixed(1)}`), h("td", { class: "num" }, (100 * row.equal_from).toFixed(1))));
    list.replaceChildren(h("p", {}, margin > 0 ? `${pairs.length === 1 ? `The two models are ${equal.length ? "" : "not "}` : `${equal.length} of ${pairs.length} pairs are `}practically equal within ${margin} ${margin === 1 ? "point" : "points"}.` : "Set a margin above 0."),
      rows.length ? table(null, [{ text: "Pair" }, { text: "Difference (points)", class: "num" }, { text: "Equal from (points)", class: "num" }], rows, { class: "tight", label: "Practically equal pairs" }) : "");
  };
  const input = h("input", { type: "number", id: "margin", min: 0.1, max: MOST_POINTS, step: 0.1, value: state.margin, oninput: (event) => { state.margin = event.target.value; keepAddress(); fill(); } });
  fill();
  return h("section", { class: "card" }, h("h2", {}, `Practically equal: ${nameOf(DATA.methods, state.method)}`), h("p", {}, `Two models are practically equal if their difference in the weighted average is significantly smaller than a margin that you set (two one-sided tests at 5 %, Holm's correction). A point is a hundredth of the score, 0.01; margins go up to ${MOST_POINTS} points.`),
    h("div", { class: "controls" }, h("div", {}, h("label", { class: "label", for: "margin" }, "Margin (points, 0.01 of the score)"), input)), list);
}
