// The leaderboard: sorted by any column, filtered by words, for the average that the reader chooses.
const DOMAINS = ["speech", "sound", "music"];

function boardRows() {
  const rows = rowsOf(state.method, state.average, state.scope);
  return shownModels().map((model) => ({ model, row: rows.get(model.key) })).filter(({ row }) => row);
}

// The model that the others are compared with: the one chosen, or the best ranked one that is shown.
function reference(items) {
  const chosen = items.find(({ model }) => model.key === state.ref);
  return chosen || items.filter(({ row }) => row.rank).sort((a, b) => a.row.rank - b.row.rank)[0];
}

function boardColumns(items) {
  const inDomain = new Map(DOMAINS.map((name) => [name, rowsOf(state.method, state.average, `domain:${name}`)]));
  const domain = (name) => ({
    id: `domain:${name}`, text: name[0].toUpperCase() + name.slice(1), class: "num hide-m", down: true,
    value: ({ model }) => inDomain.get(name).get(model.key)?.score,
    show: ({ model }) => fixed(inDomain.get(name).get(model.key)?.score),
  });
  const present = DOMAINS.filter((name) => DATA.scopes.some((scope) => scope.id === `domain:${name}`));
  const other = reference(items);
  const against = (item) => (other && item.row.rank && item.model !== other.model ? pairedDifference(item.model.key, other.model.key) : null);
  return [
    { id: "rank", text: "#", class: "num", value: ({ row }) => row.rank ?? Infinity, show: ({ row }) => row.rank ?? "–" },
    { id: "name", text: "Model", value: ({ model }) => model.label.toLowerCase(), show: ({ model, row }) => [modelName(model.key), row.held < row.of && h("span", { class: "chip half" }, `${row.held} of ${row.of} tasks`), seenChip(model)], head: true },
    { id: "score", text: nameOf(AVERAGES, state.average), class: "num", value: ({ row }) => row.score, show: ({ row }) => [h("span", { class: "value" }, fixed(row.score)), h("span", { class: "under only-s" }, range(row.low, row.high))], down: true },
    { id: "interval", text: "95 % interval", class: "hide-s", value: ({ row }) => (row.low === null ? undefined : row.high - row.low),
      show: ({ row }) => [bar(row.score, row.low, row.high), h("span", { class: "sub" }, range(row.low, row.high))] },
    { id: "difference", text: state.ref && other?.model.key === state.ref ? "To chosen" : "To best", class: "num", down: true, value: (item) => (item.model === other?.model ? 0 : against(item)?.value),
      show: (item) => differenceCell(item, other, against(item)) },
    ...(state.average === MIX ? [] : [{ id: "place", text: "Ranks", class: "hide-s", value: ({ row }) => row.place ?? Infinity, show: ({ row }) => place(row) }]),
    ...(state.scope.startsWith("domain:") ? [] : present.map(domain)),
    { id: "tasks", text: "Tasks", class: "num hide-m", value: ({ row }) => row.held, show: ({ row }) => `${row.held} of ${row.of}`, down: true },
    { id: "size", text: "Size", class: "num hide-s", value: ({ model }) => model.parameters ?? undefined, show: ({ model }) => millions(model.parameters) },
    { id: "speed", text: "Clips/s", class: "num hide-s", value: ({ model }) => model.speed?.clips_per_s, show: ({ model }) => number(model.speed?.clips_per_s), down: true },
  ];
}

// A difference is marked as sure if its interval leaves out zero.
function differenceCell({ model }, other, difference) {
  if (model === other?.model) return h("span", { class: "chip" }, state.ref === model.key ? "chosen" : "best");
  if (!difference) return h("span", { class: "sub" }, "–");
  const sure = difference.low !== null && (difference.low > 0 || difference.high < 0);
  const text = difference.low === null ? "" : `${signed(difference.low)} to ${signed(difference.high)}`;
  return [h("a", { class: `value link ${sure ? (difference.value > 0 ? "good" : "bad") : ""}`, href: link(`compare=${encodeURIComponent(model.key)},${encodeURIComponent(other.model.key)}`), title: sure ? "the interval leaves out zero" : "zero is inside the interval" }, signed(difference.value), sure ? "" : " ≈"), h("span", { class: "under" }, text)];
}

// The number of contaminated tasks, and which they are; the model's page gives the reasons.
function seenChip(model) {
  const domain = state.scope.startsWith("domain:") ? state.scope.slice(7) : null;
  const seen = DATA.tasks.filter((task) => !domain || task.domain === domain).map((task) => [task, cellOf(model.key, task.name, state.method)]).filter(([, cell]) => cell && SEEN.includes(cell.flag));
  if (!seen.length) return null;
  return h("span", { class: "chip seen", title: seen.map(([task, cell]) => `${task.title}: ${cell.flag} (${cell.because.join("; ")})`).join("\n") }, `${seen.length} ${seen.length === 1 ? "task" : "tasks"} seen in training`);
}

// The ranks that a model may have: from its place to the last that the tests leave it.
function place(row) {
  if (row.place === null) return h("span", { class: "sub" }, row.rank ? "–" : "not ranked");
  const last = row.rank_high ?? row.place + row.tied.length;
  const note = row.tied.length ? `not told apart from ${row.tied.join(", ")}` : "told apart from every other model";
  return h("span", { class: "chip", title: note }, last > row.place ? `${row.place} to ${last}` : row.place);
}

function sortBy(column) {
  if (state.sort === column.id) state.up = !state.up;
  else Object.assign(state, { sort: column.id, up: !column.down });
  keepAddress();
  render();
  document.querySelector(`[data-sort="${column.id}"]`)?.focus();
}

function boardTable() {
  const rows = boardRows();
  const columns = boardColumns(rows);
  const by = columns.find((column) => column.id === state.sort) || columns[0];
  const compare = (a, b) => {
    const [x, y] = [by.value(a), by.value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return (x < y ? -1 : x > y ? 1 : 0) * (state.up ? 1 : -1);
  };
  rows.sort(compare);
  const heads = columns.map((column) => ({
    class: column.class,
    sort: column === by ? (state.up ? "ascending" : "descending") : null,
    node: h("button", { type: "button", "data-sort": column.id, onclick: () => sortBy(column) }, column.text),
  }));
  let last = null;
  const body = rows.map((item) => {
    const fresh = state.sort === "rank" && last !== null && last !== item.row.place;
    last = item.row.place;
    return h("tr", { class: `${fresh ? "group" : ""} ${item.row.rank ? "" : "off"}`, "data-model": item.model.label },
      columns.map((column) => h(column.head ? "th" : "td", { scope: column.head ? "row" : null, class: column.class, "data-column": column.id }, column.show(item))));
  });
  const scope = nameOf(DATA.scopes, state.scope);
  const caption = `${nameOf(DATA.methods, state.method)}, ${nameOf(AVERAGES, state.average).toLowerCase()}${state.average === MIX ? "" : " average"}, ${scope.toLowerCase()}: ${rows.length} of ${DATA.models.length} models have it`;
  return h("section", { class: "card flush" }, table(caption, heads, body));
}

function boardView() {
  if (!DATA.models.length) return [card("No results yet", "The folder has no finished result of this protocol.")];
  const parts = [hiddenNote(), methodNote(), boardTable(), h("p", { class: "hint" }, boardNote())];
  if (DATA.cells.some((cell) => SEEN.includes(cell.flag))) parts.push(flagLegend());
  if (DATA.notes.length) parts.push(h("details", { class: "card" }, h("summary", {}, `Notes on the data (${DATA.notes.length})`), h("ul", {}, DATA.notes.map((text) => h("li", {}, text)))));
  if (DATA.off.length || DATA.problems.length) {
    const rows = DATA.off.map((item) => h("tr", {}, h("th", { scope: "row" }, item.model), h("td", {}, item.task), h("td", {}, h("span", { class: "chip" }, item.status)), h("td", {}, item.reason)));
    const heads = ["Model", "Task", "Status", "Reason"].map((text) => ({ text }));
    const lines = DATA.problems.map((text) => h("p", { class: "bad" }, text));
    parts.push(h("details", { class: "card" }, h("summary", {}, `Off the board (${DATA.off.length + DATA.problems.length})`), DATA.off.length ? table("Results that are not scored", heads, rows) : null, lines));
  }
  return parts;
}

function boardNote() {
  const ranks = state.average === MIX ? "" : "Ranks: those that a model may have, by pairwise tests on the same test clips (paired bootstrap, Holm's correction, 5 %). ";
  return `${ranks}To best: the difference of the scores with its 95 % interval, paired on the same clips; ≈ marks one whose interval holds zero. An average over other tasks or other data is not ranked.`;
}

// The controls of a view: `parts` names those that it has.
function controls(...parts) {
  const set = (name) => (value) => { state[name] = value; keepAddress(); render(name); };
  const has = (name) => parts.includes(name);
  const models = [{ id: "", name: "The best" }, ...DATA.models.map((model) => ({ id: model.key, name: model.label }))];
  return [
    !has("every") && DATA.methods.length > 1 && methodChooser(set("method")),
    has("average") && chooser("Average", "average", AVERAGES, state.average, set("average")),
    has("scope") && DATA.scopes.length > 1 && picker("Tasks", "scope", DATA.scopes, state.scope, set("scope")),
    has("ref") && DATA.models.length > 1 && picker("Compare with", "ref", models, state.ref, set("ref")),
    has("filter") && filterPanel(),
    has("average") && state.average === MIX && mixPanel(),
  ].flat().filter(Boolean);
}

// Buttons for a few methods, a list for many.
function methodChooser(change) {
  return DATA.methods.length > 4 ? picker("Method", "method", DATA.methods, state.method, change) : chooser("Method", "method", DATA.methods, state.method, change);
}

// Draws the view again and leaves the controls, which may have the focus, as they are.
function refresh() {
  keepAddress();
  return render("", false);
}
