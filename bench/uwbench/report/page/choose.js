// Choosing a model: quality against speed and size, for the reader's domain, weights and filters.

// Rows of the averages, for charts: ranked models by score, then the others.
function averageRows() {
  const rows = rowsOf(state.method, state.average, state.scope);
  return shownModels().map((model) => [model, rows.get(model.key)]).filter(([, row]) => row).map(([model, row]) => ({
    key: model.key, model: model.label, label: row.rank ? model.label : `${model.label} (${row.held} of ${row.of})`, ranked: Boolean(row.rank), score: row.score, low: row.low, high: row.high,
    tasks: `${row.held} of ${row.of}`, clips_per_s: model.speed?.clips_per_s ?? null, parameters: model.parameters === null ? null : model.parameters / 1e6,
  })).sort((a, b) => b.ranked - a.ranked || b.score - a.score);
}

// Marks the ranked rows that no other beats in both quality and cost; `better` says which of two costs is better, and
// `name_at` on which side of its point a name has room.
function withFront(rows, field, better) {
  const having = rows.filter((row) => row[field]);
  const beats = (a, b) => a.ranked && a.score >= b.score && !better(b[field], a[field]) && (a.score > b.score || better(a[field], b[field]));
  const middle = Math.sqrt(Math.min(...having.map((row) => row[field])) * Math.max(...having.map((row) => row[field])));
  return having.map((row) => ({ ...row, front: row.ranked && !having.some((rival) => beats(rival, row)), name_at: row[field] < middle ? "right" : "left" }));
}

const COSTS = [
  { field: "clips_per_s", chart: "throughput", title: "Quality against speed", caption: "Up and to the right is better. Speeds are comparable on the same device only.", chip: "best for its speed", lacking: "Quality against speed is left out: no model on show was encoded by a run that measured it.", better: (a, b) => a > b },
  { field: "parameters", chart: "size", title: "Quality against size", caption: "Up and to the left is better.", chip: "best for its size", lacking: "Quality against size is left out: no model on show has parameters that are known.", better: (a, b) => a < b },
];

// Models without the cost, or with none (a logarithmic axis has no zero), are named below the title.
function unplaced(rows, points, cost) {
  const placed = new Set(points.map((point) => point.key));
  const others = rows.filter((row) => !placed.has(row.key)).map((row) => `${row.model} (${row[cost.field] === 0 ? "none" : "unknown"})`);
  return others.length ? `Not drawn: ${others.join(", ")}. ` : "";
}

function chooseView() {
  if (!DATA.models.length) return [card("No models yet", "There are no results.")];
  const rows = averageRows();
  const fronts = COSTS.map((cost) => ({ cost, rows: withFront(rows, cost.field, cost.better) }));
  const panels = fronts.filter(({ rows: points }) => points.length).map(({ cost, rows: points }) => draw(cost.title, `${cost.caption} ${unplaced(rows, points, cost)}The line joins the models that no other beats in both.`, costChart(cost, points), points));
  const without = fronts.filter(({ rows: points }) => !points.length).map(({ cost }) => cost.lacking);
  const head = (text, style) => ({ text, class: style });
  const body = rows.map((row) => {
    const model = modelOf(row.key);
    const chips = fronts.filter(({ rows: points }) => points.some((point) => point.key === row.key && point.front)).map(({ cost }) => h("span", { class: "chip best" }, cost.chip));
    return h("tr", { class: row.ranked ? "" : "off", "data-choice": model.label }, h("th", { scope: "row" }, modelName(model.key), !row.ranked && h("span", { class: "chip" }, `${row.tasks} tasks`), chips, seenChip(model)), h("td", { class: "num" }, score(row)),
      h("td", { class: "num" }, number(row.clips_per_s)), h("td", { class: "num" }, millions(model.parameters)), h("td", { class: "hide-s" }, licenceOf(model)));
  });
  const name = nameOf(AVERAGES, state.average);
  return [hiddenNote(), without.length > 0 && h("p", { class: "hint" }, without.join(" ")), panels.length > 0 && h("div", { class: "grid" }, panels),
    h("section", { class: "card flush" }, table(`${name}, ${nameOf(DATA.methods, state.method)}, ${nameOf(DATA.scopes, state.scope).toLowerCase()}`, [head("Model"), head(name, "num"), head("Clips/s", "num"), head("Size", "num"), head("Licence", "hide-s")], body))];
}

// An axis spans a factor of two beyond the points, and fewer than three of them are drawn on the whole scale of scores:
// an axis fitted to one or two points would show differences that are none.
function costChart(cost, points) {
  const spec = structuredClone(DATA.charts[cost.chart][points.length < 3 ? "whole" : "fitted"]);
  const values = points.map((point) => point[cost.field]);
  if (values.length) spec.encoding.x.scale.domain = [Math.min(...values) / 2, Math.max(...values) * 2];
  return spec;
}
