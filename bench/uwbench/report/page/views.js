// The other views. Each returns nodes; `render` puts them on the page and draws their figures.
const VIEWS = [
  { id: "board", name: "Leaderboard", show: boardView, controls: () => controls("average", "scope", "ref", "filter") },
  { id: "choose", name: "Choose", show: chooseView, controls: () => controls("average", "scope", "filter") },
  { id: "tasks", name: "Tasks", show: tasksView, controls: () => controls("scope", "filter") },
  { id: "charts", name: "Charts", show: chartsView, controls: () => controls("average", "scope", "filter") },
  { id: "methods", name: "Methods", show: methodsView, controls: () => controls("every", "average", "scope", "filter") },
  { id: "curves", name: "Curves", show: curvesView, controls: () => controls("every", "scope", "filter") },
  { id: "robustness", name: "Robustness", show: robustnessView, controls: () => controls("filter") },
  { id: "compare", name: "Compare", show: compareView, controls: () => controls() },
  { id: "stability", name: "Stability", show: stabilityView, controls: () => controls() },
  { id: "published", name: "Published", show: publishedView },
  { id: "method", name: "About", show: methodView },
  { id: "model", name: "Model", hidden: true, show: modelView, controls: () => controls() },
];

function route() {
  const [id, ...rest] = location.hash.slice(1).split("&")[0].split("=");
  const view = VIEWS.find((item) => item.id === id) || VIEWS[0];
  return { view, argument: rest.length ? rest.join("=").split(",").map(decodeURIComponent) : [] };
}

// One row per score of the models and tasks that are shown, for charts.
function cellRows() {
  return shownModels().flatMap((model) => scopeTasks().map((task) => cellOf(model.key, task.name, state.method)).filter(Boolean)
    .map((cell) => ({ model: model.label, task: cell.task, score: cell.score, low: cell.low, high: cell.high })));
}

function tasksView([name]) {
  if (!DATA.tasks.length) return [card("No tasks yet", "There are no results.")];
  const task = taskOf(name) || scopeTasks()[0] || DATA.tasks[0];
  const choose = picker("Task", "task", DATA.tasks.map((t) => ({ id: t.name, name: `${t.title} (${t.domain})` })), task.name, (value) => go(`tasks=${encodeURIComponent(value)}`));
  const cells = shownModels().map((m) => cellOf(m.key, task.name, state.method)).filter(Boolean).sort((a, b) => b.score - a.score);
  const rows = cells.map((c) => h("tr", { class: c.same ? "" : "off" }, h("th", { scope: "row" }, modelName(c.model)), h("td", { class: "num" }, h("span", { class: "value" }, fixed(c.score))),
    h("td", {}, bar(c.score, c.low, c.high), h("span", { class: "sub" }, range(c.low, c.high))), h("td", { class: "num hide-s" }, c.n.toLocaleString("en")),
    h("td", { class: "hide-s" }, c.chosen), h("td", {}, c.same ? (c.status === "ok" ? "" : h("span", { class: "chip" }, c.status)) : h("span", { class: "chip" }, "other data"), flagChip(c), SEEN.includes(c.flag) && h("span", { class: "sub" }, ` ${c.because.join("; ")}`))));
  const metric = cells[0]?.metric ?? task.metric;
  const heads = [{ text: "Model" }, { text: metric, class: "num" }, { text: "95 % interval" }, { text: "n", class: "num hide-s" }, { text: "Chosen on validation data", class: "hide-s" }, { text: "Note" }];
  const facts = [["Domain", task.domain], ["Kind", task.kind], ["Metric", task.metric], ["Test items", task.n.toLocaleString("en")], ["Chance", fixed(task.chance)], ["Weight", number(task.weight)], ["Card version", task.version], ["In the suite", task.in_suite ? "yes" : "no"]];
  return [
    hiddenNote(), methodNote(),
    h("section", { class: "card" }, h("div", { class: "controls" }, choose), h("h2", {}, task.title), factList(facts)),
    h("section", { class: "card flush" }, table(`${task.title}: ${metric} of ${cells.length} models, ${directionOf(state.method)}`, heads, rows)),
    flagLegend(),
    draw("All tasks", "Scores of every model on every task; the tables have the same numbers.", DATA.charts.heatmap, cellRows(), { along: "model" }),
  ];
}

function factList(facts) {
  return h("dl", { class: "facts" }, facts.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function chartsView() {
  if (!DATA.models.length) return [card("No charts yet", "There are no results.")];
  const panel = (name, rows, title, caption, along) => draw(title, caption, DATA.charts[name], rows, { class: "wide", along });
  return [hiddenNote(), h("div", { class: "grid" },
    panel("averages", averageRows(), "Averages", "Dot and 95 % interval; best on top. Hollow dots, below: averages over the number of tasks in brackets, or over other data, which have no rank."),
    panel("profile", cellRows(), "Profile", "One line per model over all tasks; bars are 95 % intervals.", "task"))];
}

function modelView([key]) {
  const model = modelOf(key);
  if (!model) return [card("Unknown model", "This board has no model of that name.")];
  const facts = [["Family", model.family], ["Parameters", millions(model.parameters)], ["Vector", `${model.dim} numbers`], ["Layers", model.layers.length], ["Pooling", model.pooling], ["Context", model.context],
    ["Sample rate", model.sample_rate && `${model.sample_rate.toLocaleString("en")} Hz`], ["Hop", model.hop_s && `${(1000 * model.hop_s).toFixed(1)} ms`], ["Precision", model.dtype], ["Speed", model.speed && `${number(model.speed.clips_per_s)} clips/s on ${model.device}`],
    ["Revision", model.revision], ["Licence", model.licence], ["Training data", trainingData(model)], ["Fingerprint", h("code", {}, model.fingerprint.slice(0, 16))]];
  const averages = DATA.averages.map((a) => { const row = rowOf(key, state.method, a.id, "suite"); return h("div", {}, h("dt", {}, a.name), h("dd", {}, h("div", { class: "headline" }, fixed(row?.score)), h("span", { class: "sub" }, row ? `${range(row.low, row.high)} · ${row.held} of ${row.of} tasks${row.rank ? ` · rank ${row.rank}` : ""}` : ""))); });
  const compare = h("p", {}, h("a", { class: "link", href: link(`compare=${encodeURIComponent(key)}`) }, "Compare with another model"));
  return [
    h("section", { class: "card" }, h("h2", {}, model.label), h("dl", { class: "facts broad" }, averages), factList(facts), compare),
    h("section", { class: "card" }, h("h2", {}, "Tasks"), h("p", {}, "Open a task for its confusions, worst classes, hardest clips and provenance."), DATA.tasks.map((task) => taskDetail(model, task))),
  ];
}

function trainingData(model) {
  if (model.training_data === null) return "unknown";
  return model.training_data.map((item) => item.name || item.dataset || JSON.stringify(item)).join(", ") || "none named";
}

function taskDetail(model, task) {
  const cell = cellOf(model.key, task.name, state.method);
  if (!cell) return h("p", { class: "sub" }, `${task.title}: no score`);
  const body = h("div", {});
  const fill = () => { if (!body.childElementCount) { body.append(...detailParts(model, task, cell)); drawAll(); } };
  const head = h("summary", {}, task.title, " ", h("span", { class: "value" }, fixed(cell.score)), h("span", { class: "range" }, range(cell.low, cell.high)), " ", SEEN.includes(cell.flag) && flagChip(cell));
  return h("details", { "data-task": task.name, ontoggle: (event) => event.target.open && fill() }, head, body);
}

function detailParts(model, task, cell) {
  const detail = DATA.details[`${model.key}|${task.name}|${cell.method}`];
  const folds = Object.entries(cell.folds).map(([fold, value]) => `${fold}: ${fixed(value)}`).join(", ");
  const raw = Object.entries(cell.raw).map(([name, value]) => `${name}: ${number(value)}`).join(", ");
  const run = cell.run;
  const seen = `${cell.flag}${cell.because.length ? `: ${cell.because.join("; ")}` : ""}`;
  const facts = [["Metric", `${cell.metric}, ${directionOf(cell.method)}`], ["Seen in training", seen], ["Test items", cell.n.toLocaleString("en")], ["Chosen", cell.chosen], ["Seeds", cell.seeds.map((s) => fixed(s)).join(", ")], ["Folds", folds], ["Also measured", raw],
    ["Seconds", Object.entries(run.seconds).map(([name, s]) => `${name} ${number(s)}`).join(", ")], ["Run", `${when(run.started)} on ${run.device}`], ["Versions", Object.entries(run.versions).map((pair) => pair.join(" ")).join(", ")],
    ["Commit", run.commit && `${run.commit.slice(0, 10)}${run.dirty ? " (with changes)" : ""}`], ["Data", task.data && h("code", {}, task.data.slice(0, 16))]];
  const parts = [factList(facts)];
  if (!detail) return [...parts, h("p", { class: "hint" }, "The predictions are missing.")];
  if (detail.names.length > 1) {
    const shares = new Map(detail.confusion.map(([i, j, share, count]) => [`${i},${j}`, [share, count]]));
    const rows = detail.names.flatMap((truth, i) => detail.names.map((predicted, j) => { const [share, count] = shares.get(`${i},${j}`) || [0, 0]; return { truth, predicted, share, count }; }));
    const caption = detail.names.length < detail.classes ? `The ${detail.names.length} classes that are missed most, of ${detail.classes}.` : "Rows are true classes; the diagonal is correct.";
    parts.push(draw("Confusion", caption, DATA.charts.confusion, rows, { plain: true }));
  }
  parts.push(h("div", { class: "grid" }, worstTable(detail), hardTable(task, detail)));
  return parts;
}

function worstTable(detail) {
  const rows = detail.worst.map((item) => h("tr", {}, h("th", { scope: "row" }, item.name), h("td", { class: "num" }, fixed(item.score)), h("td", { class: "num" }, item.n)));
  return h("div", {}, h("h3", {}, "Worst classes"), table(null, [{ text: "Class" }, { text: detail.measure, class: "num" }, { text: "n", class: "num" }], rows, { class: "tight", label: "Worst classes" }));
}

function hardTable(task, detail) {
  const rows = detail.hardest.map((clip) => {
    const url = (DATA.audio[task.name] || {})[clip.id];
    return h("tr", {}, h("th", { scope: "row" }, clip.id, url && h("audio", { controls: true, preload: "none", src: url })), h("td", {}, clip.truth), h("td", {}, clip.prediction), h("td", { class: "num" }, `${Math.round(100 * clip.wrong)} %`));
  });
  return h("div", {}, h("h3", {}, "Clips most often wrong"), table(null, [{ text: "Clip" }, { text: "True" }, { text: "Predicted" }, { text: "Wrong", class: "num" }], rows, { class: "tight", label: "Clips most often wrong" }));
}

function compareView([a, b]) {
  if (DATA.models.length < 2) return [card("Two models", "A comparison needs two models on the board.")];
  const first = modelOf(a) ? a : DATA.models[0].key;
  const second = modelOf(b) && b !== first ? b : DATA.models.find((m) => m.key !== first).key;
  const options = DATA.models.map((m) => ({ id: m.key, name: m.label }));
  const to = (x, y) => go(`compare=${encodeURIComponent(x)},${encodeURIComponent(y)}`);
  const pickers = h("div", { class: "controls" }, picker("First model", "first", options, first, (value) => to(value, value === second ? first : second)), picker("Second model", "second", options, second, (value) => to(value === first ? second : first, value)));
  const pair = DATA.pairs.find((p) => p.method === state.method && ((p.a === first && p.b === second) || (p.a === second && p.b === first)));
  const names = `${modelOf(first).label} against ${modelOf(second).label}`;
  if (!pair) return [h("section", { class: "card" }, pickers, h("p", {}, "These models share no task on the same data, or are too far down a long board; uwbench compare takes any pair."))];
  const sign = pair.a === first ? 1 : -1;
  const turn = (row) => (sign > 0 ? row : { ...row, first: row.second, second: row.first, difference: -row.difference, low: row.low === null ? null : -row.high, high: row.high === null ? null : -row.low,
    tasks_low: -row.tasks_high, tasks_high: -row.tasks_low, effect: -row.effect, ahead: 1 - row.ahead });
  const tasks = pair.tasks.map(turn);
  const points = tasks.filter((row) => row.low !== null).map((row) => ({ task: row.task, difference: row.difference, low: row.low, high: row.high, p: row.p_corrected, sure: row.p_corrected < 0.05 }));
  return [h("section", { class: "card" }, pickers, h("h2", {}, names), overallTable(pair.overall.map(turn))),
    draw("Difference by task", "Right of the line the first model is better; coloured if the difference is significant after Holm's correction.", DATA.charts.difference, points, { empty: "The predictions are missing." }),
    h("section", { class: "card flush" }, differenceTable(tasks, names))];
}

function overallTable(overall) {
  if (!overall.length) return h("p", { class: "hint" }, "Predictions of some tasks are missing, so there is no overall test.");
  const rows = overall.map((row) => h("tr", {}, h("th", { scope: "row" }, nameOf(DATA.averages, row.average)), h("td", { class: "num" }, fixed(row.first)), h("td", { class: "num" }, fixed(row.second)), h("td", { class: "num" }, tone(row.difference, row.p)),
    h("td", { class: "num hide-s" }, `${signed(row.low)} to ${signed(row.high)}`), h("td", { class: "num" }, pValue(row.p)), h("td", { class: "num hide-s" }, `${signed(row.tasks_low)} to ${signed(row.tasks_high)}`), h("td", { class: "num hide-s" }, pValue(row.tasks_p)), h("td", { class: "num hide-s" }, `${Math.round(100 * row.ahead)} %`)));
  const heads = [["Average"], ["First", "num"], ["Second", "num"], ["Difference", "num"], ["On these tasks", "num hide-s"], ["p", "num"], ["On tasks like these", "num hide-s"], ["p", "num hide-s"], ["First ahead", "num hide-s"]].map(([text, style]) => ({ text, class: style }));
  return table("Over all tasks that both models have. On tasks like these: tasks are drawn too, not only their clips.", heads, rows, { label: "Overall difference" });
}

const tone = (difference, p) => h("span", { class: `value ${p < 0.05 ? (difference > 0 ? "good" : "bad") : ""}` }, signed(difference));

function differenceTable(tasks, names) {
  const rows = tasks.map((row) => h("tr", {}, h("th", { scope: "row" }, taskOf(row.task).title), h("td", { class: "num" }, fixed(row.first)), h("td", { class: "num" }, fixed(row.second)), h("td", { class: "num" }, tone(row.difference, row.p_corrected ?? 1)),
    h("td", { class: "num hide-s" }, row.low === null ? "–" : `${signed(row.low)} to ${signed(row.high)}`), h("td", { class: "num" }, pValue(row.p_corrected)), h("td", { class: "num hide-s" }, signed(row.effect))));
  const heads = [["Task"], ["First", "num"], ["Second", "num"], ["Difference", "num"], ["95 % interval", "num hide-s"], ["p (Holm)", "num"], ["Effect h", "num hide-s"]].map(([text, style]) => ({ text, class: style }));
  return table(`${names}, task by task (paired bootstrap over test items)`, heads, rows);
}

function stabilityView() {
  const result = DATA.sensitivity[state.method];
  if (!result) return [card("Stability of the ranking", "Fewer than two models have the same tasks.")];
  const body = (kinds) => result.views.filter((view) => kinds.includes(view.kind)).map((view) => h("tr", {}, h("th", { scope: "row" }, viewName(view)), result.models.map((m) => h("td", { class: "num" }, view.ranks[m])), h("td", { class: "num" }, view.tau === null ? "–" : view.tau.toFixed(2))));
  const span = h("tr", {}, h("th", { scope: "row" }, "Best to worst rank"), result.models.map((m) => h("td", { class: "num" }, result.best[m] === result.worst[m] ? result.best[m] : `${result.best[m]}–${result.worst[m]}`)), h("td", {}));
  const heads = [{ text: "Ranked by" }, ...result.models.map((m) => ({ text: modelOf(m).label, class: "num" })), { text: "Kendall's tau", class: "num" }];
  const section = (title, hint, kinds, extra) => h("section", { class: "card flush" }, table(`${title}. ${hint}`, heads, [...body(kinds), extra].filter(Boolean), { class: "tight matrix" }));
  const sections = [
    ["Averages and Borda", "The same scores ranked in other ways; a tau of 1 means the headline's order.", ["average", "borda"], span],
    ["Other settings of the probe", "Headline average of the scores under other settings.", ["setting"]],
    ["Without one domain", "Headline average.", ["without domain"]],
    ["Without one task", "Headline average.", ["without task"]],
  ];
  return sections.filter(([, , kinds]) => result.views.some((view) => kinds.includes(view.kind))).map((parts) => section(...parts));
}

const viewName = (view) => (view.kind === "average" ? nameOf(DATA.averages, view.name) : view.kind === "borda" ? "Borda count" : view.kind === "setting" ? view.name : (taskOf(view.name) || { title: view.name }).title);

function publishedView() {
  if (!DATA.published.length) return [card("Published numbers", "There are no published numbers for the tasks of this suite.")];
  const rows = DATA.published.map((row) => h("tr", {}, h("th", { scope: "row" }, row.model), h("td", {}, row.source), h("td", {}, nameOf(DATA.methods, row.method)), h("td", {}, Object.entries(row.printed).map(([name, value]) => `${fixed(value)} (${name})`).join("; ") || "–"),
    h("td", { class: "num" }, fixed(row.computed.weighted)), h("td", { class: "num" }, fixed(row.computed.domain)), h("td", { class: "num" }, fixed(row.computed.task)), h("td", { class: "num" }, Object.keys(row.tasks).length || "–")));
  const heads = [["Model"], ["Source"], ["Probe"], ["Average as published"], ["Weighted", "num"], ["Domain mean", "num"], ["Task mean", "num"], ["Tasks", "num"]].map(([text, style]) => ({ text, class: style }));
  const models = DATA.published.filter((row) => Object.keys(row.tasks).length);
  const names = [...new Set(models.flatMap((row) => Object.keys(row.tasks)))].sort();
  const perTask = names.map((name) => h("tr", {}, h("th", { scope: "row" }, name), models.map((row) => h("td", { class: "num" }, fixed(row.tasks[name])))));
  return [h("section", { class: "card flush" }, table("Published by others under their own protocols, not run here, and never ranked with the board. The last columns are recomputed from the published task scores, which do not always give the published average.", heads, rows)),
    h("section", { class: "card flush" }, table("Task scores as published", [{ text: "Task" }, ...models.map((row) => ({ class: "num", node: h("span", {}, row.model, h("br"), `${nameOf(DATA.methods, row.method)}, ${row.source}`) }))], perTask, { class: "tight" }))];
}

function methodView() {
  const formulas = AVERAGES.map((a) => h("div", {}, h("dt", {}, a.name), h("dd", {}, a.formula)));
  const runs = DATA.models.map((m) => { const cells = DATA.cells.filter((c) => c.model === m.key); const dates = cells.map((c) => c.run.started).sort(); const version = [...new Set(cells.map((c) => c.run.versions.uwbench))].join(", ");
    return h("tr", {}, h("th", { scope: "row" }, modelName(m.key)), h("td", { class: "hide-s" }, h("code", {}, m.fingerprint.slice(0, 16))), h("td", {}, dates.length ? [...new Set([when(dates[0]), when(dates[dates.length - 1])])].join(" to ") : "–"), h("td", {}, [...new Set(cells.map((c) => c.run.device))].join(", ")), h("td", { class: "hide-s" }, version), h("td", {}, [...new Set(cells.map((c) => (c.run.commit || "").slice(0, 10) + (c.run.dirty ? "+" : "")))].filter(Boolean).join(", ") || "–")); });
  return [
    card("How a score is made", `Protocol ${DATA.protocol.name}, version ${DATA.protocol.version}. A board never mixes protocols, versions of a task, or result schemas.`,
      h("p", {}, "Encoders are frozen: each clip is encoded once, and what is trained or searched afterwards sees the vectors alone. Settings are chosen on validation data; the protocol's card lists them: ", h("code", {}, `uwbench protocols ${DATA.protocol.name}`), "."),
      h("dl", { class: "facts broad" }, DATA.methods.map((method) => h("div", {}, h("dt", {}, method.name), h("dd", {}, `${method.answers} Score: ${metricOf(method.id)}; ${directionOf(method.id)}.`))))),
    card("Averages", "Every task score is in 0–1, higher is better; a missing task is never counted as zero, and the board shows how many tasks an average has.", h("dl", { class: "facts broad" }, formulas)),
    card("Intervals and ties", "How much a score would change with other clips and other probe seeds.", h("p", {}, "95 % bootstrap intervals: test items are drawn with replacement by cluster (speaker, recording, song) and so are probe seeds; the standard error is carried to the logit scale, with the t distribution of the number of clusters. Averages combine the tasks' intervals. Ties: all pairs of models with the same tasks are tested on the same drawn items, two-sided, with Holm's correction at 5 %.")),
    h("section", { class: "card flush" }, table("Provenance. A plus marks a checkout with uncommitted changes; a model's page has the details of each run.", [{ text: "Model" }, { text: "Fingerprint", class: "hide-s" }, { text: "Runs" }, { text: "Device" }, { text: "uwbench", class: "hide-s" }, { text: "Commit" }], runs)),
  ];
}

function go(view) { location.hash = link(view); }

function render(focus, withControls = true) {
  const { view, argument } = route();
  delete document.body.dataset.drawn;
  drawn.length = 0;
  $("nav").replaceChildren(...VIEWS.filter((item) => !item.hidden).map((item) => h("a", { href: link(item.id), "aria-current": item === view ? "page" : null }, item.name)));
  if (withControls) $("controls").replaceChildren(...(view.controls && DATA.models.length ? view.controls() : []));
  $("view").replaceChildren(...view.show(argument).filter(Boolean));
  if (focus) document.querySelector(`[name="${focus}"]:checked, #${focus}`)?.focus();
  return drawAll();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
$("theme").addEventListener("click", () => { setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); render(); });
window.addEventListener("hashchange", () => { readAddress(); render(); window.scrollTo(0, 0); });
readAddress();
render();
