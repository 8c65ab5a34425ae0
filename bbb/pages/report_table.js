"use strict";
// The table of runs: its data, its rows, and what is sorted, filtered and selected.
// All text from files goes into the page as text, never as markup.

const REPORT = JSON.parse(document.getElementById("runs").textContent);
const RUNS = REPORT.runs;
const NUMBER_OF = new Map(RUNS.map((run, i) => [run.run, i]));
const $ = (selector, root = document) => root.querySelector(selector);
const details = new Map();

/** Make an element with attributes and children; a text stays a text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The part of a run that only its own view and its curves need; it is read when it is first wanted. */
function detailsOf(i) {
  if (!details.has(i)) details.set(i, JSON.parse(document.getElementById(`run-${i}`).textContent));
  return details.get(i);
}

const fixed = (places) => (value) => value.toFixed(places);
const short = (value) => (Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(5))));
const SCORES = {
  test_error: ["error", "%", fixed(2)], test_rmse: ["RMSE", "", short], test_nll: ["NLL", "nats", fixed(4)], test_ece: ["ECE", "%", fixed(2)],
  elbo: ["ELBO", "nats", short], kl: ["KL", "nats", short], test_brier: ["Brier score", "", fixed(4)],
  test_coverage_50: ["in the 50 % interval", "%", fixed(1)], test_coverage_90: ["in the 90 % interval", "%", fixed(1)],
  test_error_mean_weights: ["error of the centre", "%", fixed(2)], test_rmse_mean_weights: ["RMSE of the centre", "", short],
  source_error: ["error on the source", "%", fixed(2)], prior_inflation: ["prior inflation", "", short], noise_std: ["noise", "", short],
  num_epochs: ["epochs", "", String],
};
const IN_TABLE = ["test_error", "test_rmse", "test_nll", "test_ece", "elbo", "kl"];
const SIGNS = { completed: "●", running: "◐", stopped: "■", failed: "✕", damaged: "?", lost: "✕" };

function duration(seconds) {
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
const score = (name, value) => `${SCORES[name][2](value)}${SCORES[name][1] ? " " + SCORES[name][1] : ""}`;
const changed = (run) => Object.entries(run.changes).map(([key, value]) => `${key}=${value}`);
const mainScore = (run) => ["test_error", "test_rmse"].filter((name) => name in run.scores).map((name) => `${SCORES[name][0]} ${score(name, run.scores[name])}`)[0] || run.status;

const COLUMNS = [
  { key: "run", title: "run", value: (run) => run.run },
  { key: "status", title: "status", value: (run) => run.status },
  { key: "config", title: "configuration", value: (run) => [run.named || "", ...changed(run)].join(" ") },
  ...IN_TABLE.filter((name) => RUNS.some((run) => name in run.scores)).map((name) => ({
    key: name, title: SCORES[name][0] + (SCORES[name][1] === "%" ? " %" : ""), isNumber: true, value: (run) => run.scores[name] ?? null, show: SCORES[name][2],
  })),
  { key: "seconds", title: "time", isNumber: true, value: (run) => run.seconds, show: duration },
  { key: "commit", title: "commit", value: (run) => run.commit || "" },
  { key: "started", title: "started, UTC", value: (run) => run.started || "" },
];
const state = { sort: null, isDescending: false, words: [], status: "", selected: [] };
const haystacks = RUNS.map((run) => [run.run, run.named, ...changed(run), run.status, run.commit, run.source, run.problem].join(" ").toLowerCase());

function makeRow(run, i) {
  const box = make("input", { type: "checkbox", "data-run": i, "aria-label": `Select ${run.run}` });
  const cells = { pick: make("td", { class: "pick" }, make("label", {}, box, make("span", { class: "swatch" }))) };
  for (const column of COLUMNS) {
    const value = column.value(run), cell = make("td", { class: column.isNumber ? "number" : column.key });
    if (column.key === "run") cell.className = "name", cell.append(make("a", { href: link(run.run) }, run.run));
    else if (column.key === "status") cell.className = `status ${run.status in SIGNS ? run.status : ""}`, cell.append(`${SIGNS[run.status] || "○"} ${run.status}`);
    else if (column.key === "config") {
      if (run.named) cell.append(make("b", {}, run.named), ...changed(run).map((text) => make("code", {}, text)));
      if (run.problem) cell.append(make("div", { class: "problem" }, run.problem));
    } else if (column.key === "commit") value && cell.append(value.slice(0, 7) + (run.dirty ? " +" : ""), run.dirty ? make("span", { class: "unseen" }, "with changes") : "");
    else if (column.key === "started") cell.className = "time", value && cell.append(value.slice(0, 16).replace("T", " "));
    else if (value !== null) cell.append(column.show(value));
    if (column.isNumber || column.key === "commit") cell.dataset.label = column.title;
    cells[column.key] = cell;
  }
  return make("tr", { "data-run": i }, cells.pick, ...COLUMNS.map((column) => cells[column.key]));
}
const link = (id) => `#run=${encodeURIComponent(id)}`;
const rows = RUNS.map(makeRow);

/** Order the runs: newest first, or by a column; what has no value comes last either way. */
function ordered() {
  const order = RUNS.map((_, i) => i), column = COLUMNS.find((one) => one.key === state.sort);
  if (!column) return order;
  const values = RUNS.map(column.value), sign = state.isDescending ? -1 : 1;
  const isEmpty = (value) => value === null || value === "";
  const compare = column.isNumber ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
  return order.sort((i, j) => isEmpty(values[i]) - isEmpty(values[j]) || (isEmpty(values[i]) ? 0 : sign * compare(values[i], values[j])) || i - j);
}

function show() {
  const kept = ordered().filter((i) => (!state.status || RUNS[i].status === state.status) && state.words.every((word) => haystacks[i].includes(word)));
  $("#table tbody").replaceChildren(...kept.map((i) => rows[i]));
  count();
  for (const head of document.querySelectorAll("#table thead th[data-key]")) {
    if (head.dataset.key === state.sort) head.setAttribute("aria-sort", state.isDescending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  $("#sort").value = state.sort ? `${state.sort} ${state.isDescending}` : "";
}

function count() {
  $("#shown").textContent = `${$("#table tbody").rows.length} of ${RUNS.length} runs, ${state.selected.length} selected`;
}

function sortBy(key, isDescending) {
  state.isDescending = isDescending ?? (state.sort === key && !state.isDescending);
  state.sort = key || null;
  show();
}

/** Mark runs as selected, in the order in which their lines get their colours. */
function mark(numbers) {
  state.selected = numbers;
  rows.forEach((row, i) => {
    const place = numbers.indexOf(i);
    row.classList.toggle("selected", place >= 0);
    $("input", row).checked = place >= 0;
    $(".swatch", row).replaceChildren(...(place >= 0 ? [sample(place)] : []));
  });
  count(); // the rows stay where they are, and so does the focus
}

function select(numbers) {
  mark(numbers);
  document.dispatchEvent(new Event("selected"));
}

const NUM_COLOURS = 7, DASHES = ["solid", "dash", "dot", "dashdot", "longdash"], STROKES = ["", "6 3", "2 3", "6 3 2 3", "10 3"];
const lineOf = (place) => ({ colour: `--c${place % NUM_COLOURS}`, dash: place % DASHES.length });

/** A piece of a run's line, as the charts draw it. */
function sample(place) {
  const { colour, dash } = lineOf(place), svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS(svg.namespaceURI, "line");
  for (const [name, value] of Object.entries({ viewBox: "0 0 24 12", class: "swatch", "aria-hidden": "true" })) svg.setAttribute(name, value);
  for (const [name, value] of Object.entries({ x1: 0, x2: 24, y1: 6, y2: 6, "stroke-dasharray": STROKES[dash], style: `stroke: var(${colour})` })) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

function start() {
  const many = RUNS.length === 1 ? "1 run" : `${RUNS.length} runs`;
  $("#about").textContent = `${many}, written ${REPORT.written.replace("T", " ").slice(0, 16)} UTC by python experiment.py report`;
  const head = $("#table thead tr"), all = make("input", { type: "checkbox", "aria-label": "Select all runs shown" });
  head.append(make("th", { scope: "col" }, all));
  $("#sort").append(make("option", { value: "" }, "newest first"));
  for (const column of COLUMNS) {
    const button = make("button", { type: "button" }, column.title);
    button.addEventListener("click", () => sortBy(column.key));
    head.append(make("th", { scope: "col", "data-key": column.key, class: column.isNumber ? "number" : null }, button));
    for (const down of [false, true]) $("#sort").append(make("option", { value: `${column.key} ${down}` }, `${column.title}, ${down ? "down" : "up"}`));
  }
  $("#status").append(make("option", { value: "" }, "all"), ...[...new Set(RUNS.map((run) => run.status))].sort().map((status) => make("option", {}, status)));
  $("#find").addEventListener("input", (event) => { state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean); show(); });
  $("#status").addEventListener("change", (event) => { state.status = event.target.value; show(); });
  $("#sort").addEventListener("change", (event) => { const [key, down] = event.target.value.split(" "); sortBy(key, down === "true"); });
  $("#filters").addEventListener("submit", (event) => event.preventDefault());
  $("#clear").addEventListener("click", () => { all.checked = false; select([]); });
  all.addEventListener("change", () => select(all.checked ? [...document.querySelectorAll("#table tbody tr")].map((row) => Number(row.dataset.run)) : []));
  $("#table tbody").addEventListener("change", (event) => {
    const i = Number(event.target.dataset.run);
    select(event.target.checked ? [...state.selected, i] : state.selected.filter((other) => other !== i));
  });
  $("#table tbody").addEventListener("keydown", (event) => {
    const row = event.target.closest("tr");
    if (!row) return;
    const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
    if (next) { event.preventDefault(); $("input", next).focus(); }
    else if (event.key === "Enter" && event.target.type === "checkbox") location.hash = link(RUNS[row.dataset.run].run);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && !$("#overview").hidden) { event.preventDefault(); $("#find").focus(); }
    if (event.key === "Escape" && $("#overview").hidden) location.hash = "";
  });
  show();
}
start();
