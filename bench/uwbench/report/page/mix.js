// Averages: those of the board, and "My mix", whose weights are the reader's.
const mixWeight = (task) => state.mix[task.name] ?? (task.in_suite ? 1 : 0);

function setMix(pairs) {
  state.mix = {};
  for (const [name, weight] of pairs) {
    const task = taskOf(name);
    if (task && Number.isFinite(weight) && weight >= 0 && weight !== mixWeight(task)) state.mix[name] = Math.min(weight, 100);
  }
}

// A task's share in an average, up to a common factor.
function share(task, tasks, average) {
  if (average === MIX) return mixWeight(task);
  if (average === "weighted") return task.weight;
  if (average === "domain") return 1 / tasks.filter((other) => other.domain === task.domain).length;
  return average === "chance" ? 1 / (1 - task.chance) : 1;
}

// The weighted sum of terms { value, low, high, share }. Their intervals are combined by their distances from the values,
// each side separately, as those of the board's averages (Zou and Donner 2008).
function combine(terms, total) {
  const sum = (of) => terms.reduce((so_far, term) => so_far + of(term), 0) / total;
  const value = sum((term) => term.share * term.value);
  if (terms.some((term) => term.low === null)) return { value, low: null, high: null };
  const spread = (of) => Math.sqrt(terms.reduce((so_far, term) => so_far + (term.share * of(term)) ** 2, 0)) / total;
  return { value, low: value - spread((term) => term.value - term.low), high: value + spread((term) => term.high - term.value) };
}

function mixRow(key, method, scope) {
  const tasks = scopeTasks(scope).filter((task) => mixWeight(task) > 0);
  const held = tasks.map((task) => [task, cellOf(key, task.name, method)]).filter(([, cell]) => cell);
  if (!held.length) return null;
  const terms = held.map(([task, cell]) => ({ value: cell.score, low: cell.low, high: cell.high, share: mixWeight(task) }));
  const { value, low, high } = combine(terms, terms.reduce((total, term) => total + term.share, 0));
  const whole = held.length === tasks.length && held.every(([, cell]) => cell.same);
  return { model: key, method, scope, average: MIX, score: value, low: low === null ? null : Math.max(0, low), high: high === null ? null : Math.min(1, high), held: held.length, of: tasks.length, whole, rank: null, place: null, tied: [] };
}

// All rows of an average by model; ranks count every model with the same tasks, hidden or not.
function rowsOf(method, average, scope) {
  if (average !== MIX) return new Map(DATA.models.map((model) => [model.key, rowOf(model.key, method, average, scope)]).filter(([, row]) => row));
  const rows = DATA.models.map((model) => mixRow(model.key, method, scope)).filter(Boolean);
  for (const row of rows) if (row.whole) row.rank = 1 + rows.filter((rival) => rival.whole && rival.score > row.score).length;
  return new Map(rows.map((row) => [row.model, row]));
}

const pairOf = (a, b, method) => PAIRS.get(`${a}|${b}|${method}`) || PAIRS.get(`${b}|${a}|${method}`);
const PAIRS = new Map(DATA.pairs.map((pair) => [`${pair.a}|${pair.b}|${pair.method}`, pair]));

// The paired difference of two models in the chosen average, a minus b, with its interval; null if they lack a task of it.
function pairedDifference(a, b) {
  const pair = pairOf(a, b, state.method);
  if (!pair) return null;
  const sign = pair.a === a ? 1 : -1;
  const turned = (low, high) => (low === null ? [null, null] : sign > 0 ? [low, high] : [-high, -low]);
  const overall = state.scope === "suite" && pair.overall.find((row) => row.average === state.average);
  if (overall) {
    const [low, high] = turned(overall.low, overall.high);
    return { value: sign * overall.difference, low, high };
  }
  const tasks = scopeTasks().filter((task) => (state.average === MIX ? mixWeight(task) > 0 : task.in_suite));
  const terms = tasks.map((task) => [task, pair.tasks.find((row) => row.task === task.name)]).filter(([, row]) => row).map(([task, row]) => {
    const [low, high] = turned(row.low, row.high);
    return { value: sign * row.difference, low, high, share: share(task, tasks, state.average) };
  });
  if (!tasks.length || terms.length < tasks.length) return null;
  return combine(terms, state.average === "chance" ? tasks.length : terms.reduce((total, term) => total + term.share, 0));
}

function mixPanel() {
  const total = () => DATA.tasks.reduce((sum, task) => sum + mixWeight(task), 0);
  const percent = (task) => (total() ? `${Math.round((100 * mixWeight(task)) / total())} %` : "0 %");
  const outputs = new Map();
  const inputs = new Map();
  const show = () => {
    for (const [task, output] of outputs) output.textContent = percent(task);
    for (const [task, input] of inputs) input.value = Math.min(10, mixWeight(task));
    refresh();
  };
  const set = (of) => () => { setMix(DATA.tasks.map((task) => [task.name, of(task)])); show(); };
  const slider = (task) => {
    const id = `mix-${DATA.tasks.indexOf(task)}`;
    const input = h("input", { type: "range", id, min: 0, max: 10, step: 0.5, value: Math.min(10, mixWeight(task)), oninput: (event) => {
      setMix(DATA.tasks.map((other) => [other.name, other === task ? Number(event.target.value) : mixWeight(other)]));
      show();
    } });
    const output = h("output", { for: id }, percent(task));
    inputs.set(task, input);
    outputs.set(task, output);
    return h("div", { class: "slider" }, h("label", { for: id }, task.title), input, output);
  };
  const most = Math.max(...DATA.tasks.map((task) => task.weight), 1);
  const domains = [...new Set(DATA.tasks.map((task) => task.domain))];
  const button = (text, of) => h("button", { type: "button", class: "ghost small", onclick: set(of) }, text);
  return h("section", { class: "card mix", "aria-label": "Weights of my mix" }, h("h2", {}, "My mix"),
    h("p", {}, "Weigh the tasks as they matter to you: ranks follow, and the address keeps the weights. A model that lacks a task of the mix has no rank."),
    h("p", {}, button("Reset", (task) => (task.in_suite ? 1 : 0)), " ", button("As published", (task) => (task.in_suite ? (10 * task.weight) / most : 0)), " ",
      domains.length > 1 && domains.map((domain) => [button(`Only ${domain}`, (task) => (task.domain === domain ? 1 : 0)), " "])),
    h("div", { class: "sliders" }, domains.map((domain) => h("fieldset", {}, h("legend", {}, domain[0].toUpperCase() + domain.slice(1)), DATA.tasks.filter((task) => task.domain === domain).map(slider)))));
}
