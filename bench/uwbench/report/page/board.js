// The leaderboard: sorted by any column, filtered by words, for the average that the reader chooses.
const DOMAINS = ["speech", "sound", "music"];

function boardRows() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  return DATA.models
    .map((model) => ({ model, row: rowOf(model.key, state.method, state.average, state.scope) }))
    .filter(({ model, row }) => row && words.every((word) => `${model.label} ${model.family} ${model.dtype}`.toLowerCase().includes(word)));
}

function boardColumns() {
  const domain = (name) => ({
    id: `domain:${name}`, text: name[0].toUpperCase() + name.slice(1), class: "num hide-s",
    value: ({ model }) => (rowOf(model.key, state.method, state.average, `domain:${name}`) || {}).score,
    show: ({ model }) => fixed((rowOf(model.key, state.method, state.average, `domain:${name}`) || {}).score),
  });
  const present = DOMAINS.filter((name) => DATA.scopes.some((scope) => scope.id === `domain:${name}`));
  return [
    { id: "rank", text: "#", class: "num", value: ({ row }) => row.rank ?? Infinity, show: ({ row }) => row.rank ?? "–" },
    { id: "name", text: "Model", value: ({ model }) => model.label.toLowerCase(), show: ({ model, row }) => [modelName(model.key), row.held < row.of && h("span", { class: "chip half" }, `${row.held} of ${row.of} tasks`), seenChip(model)], head: true },
    { id: "score", text: nameOf(DATA.averages, state.average), class: "num", value: ({ row }) => row.score, show: ({ row }) => h("span", { class: "value" }, fixed(row.score)), down: true },
    { id: "interval", text: "95 % interval", value: ({ row }) => (row.low === null ? undefined : row.high - row.low),
      show: ({ row }) => [bar(row.score, row.low, row.high), h("span", { class: "sub" }, range(row.low, row.high))] },
    { id: "place", text: "Tie group", class: "hide-s", value: ({ row }) => row.place ?? Infinity, show: ({ row }) => place(row) },
    ...(state.scope.startsWith("domain:") ? [] : present.map(domain)),
    { id: "tasks", text: "Tasks", class: "num hide-s", value: ({ row }) => row.held, show: ({ row }) => `${row.held} of ${row.of}`, down: true },
    { id: "size", text: "Size", class: "num hide-s", value: ({ model }) => model.parameters ?? undefined, show: ({ model }) => millions(model.parameters) },
    { id: "speed", text: "Clips/s", class: "num hide-s", value: ({ model }) => model.speed?.clips_per_s, show: ({ model }) => number(model.speed?.clips_per_s), down: true },
  ];
}

// The number of contaminated tasks, and which they are; the model's page gives the reasons.
function seenChip(model) {
  const domain = state.scope.startsWith("domain:") ? state.scope.slice(7) : null;
  const seen = DATA.tasks.filter((task) => !domain || task.domain === domain).map((task) => [task, cellOf(model.key, task.name, state.method)]).filter(([, cell]) => cell && SEEN.includes(cell.flag));
  if (!seen.length) return null;
  return h("span", { class: "chip seen", title: seen.map(([task, cell]) => `${task.title}: ${cell.flag} (${cell.because.join("; ")})`).join("\n") }, `${seen.length} ${seen.length === 1 ? "task" : "tasks"} seen in training`);
}

function place(row) {
  if (row.place === null) return h("span", { class: "sub" }, row.rank ? "–" : "not ranked");
  const note = row.tied.length ? `tied with ${row.tied.join(", ")}` : "tied with no other model";
  return h("span", { class: "chip", title: note }, `group ${row.place}`, row.tied.length ? ` · ${row.tied.length + 1} tied` : "");
}

function sortBy(column) {
  if (state.sort === column.id) state.up = !state.up;
  else Object.assign(state, { sort: column.id, up: !column.down });
  render();
  document.querySelector(`[data-sort="${column.id}"]`)?.focus();
}

function boardTable() {
  const columns = boardColumns();
  const by = columns.find((column) => column.id === state.sort) || columns[0];
  const compare = (a, b) => {
    const [x, y] = [by.value(a), by.value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return (x < y ? -1 : x > y ? 1 : 0) * (state.up ? 1 : -1);
  };
  const rows = boardRows().sort(compare);
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
      columns.map((column) => h(column.head ? "th" : "td", { scope: column.head ? "row" : null, class: column.class }, column.show(item))));
  });
  const scope = nameOf(DATA.scopes, state.scope);
  const caption = `${nameOf(DATA.methods, state.method)}, ${nameOf(DATA.averages, state.average).toLowerCase()} average, ${scope.toLowerCase()}: ${rows.length} of ${DATA.models.length} models`;
  return h("section", { class: "card flush" }, table(caption, heads, body));
}

function boardView() {
  const parts = [boardTable()];
  if (!DATA.models.length) parts[0] = card("No results yet", "The folder has no finished result of this protocol.");
  parts.push(h("p", { class: "hint" },
    "Models in one tie group cannot be told apart: the group is 1 + the number of models that are significantly better (paired bootstrap over test items, Holm's correction, 5 %). ",
    "An average over different tasks, or on different data, is not ranked."));
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

function boardControls(withScope = true, withFilter = true) {
  const set = (name) => (value) => { state[name] = value; render(name); };
  const parts = [chooser("Probe", "method", DATA.methods, state.method, set("method")), chooser("Average", "average", DATA.averages, state.average, set("average"))];
  if (withScope && DATA.scopes.length > 1) parts.push(picker("Tasks", "scope", DATA.scopes, state.scope, set("scope")));
  if (withFilter) {
    const search = h("input", { type: "search", id: "filter", value: state.filter, placeholder: "Name or family", oninput: (event) => { state.filter = event.target.value; refresh(); } });
    parts.push(h("div", {}, h("label", { class: "label", for: "filter" }, "Filter models"), search));
  }
  return parts;
}

function refresh() {
  $("view").replaceChildren(...boardView());
}
