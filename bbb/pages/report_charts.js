"use strict";
// Charts, by Plotly: how they look, and the curves of the selected runs.

const MOST_CURVES = 20;
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };
const styled = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const drawn = new Map(); // what draws each chart, to draw it again in other colours
const finished = new Map(); // when each chart has been drawn

/** Write a text so that Plotly shows it as it is: it would read tags and entities. */
const literal = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\$/g, "&#36;");

function axis(title, more = {}) {
  const line = styled("--line");
  return { title: { text: title, standoff: 8 }, gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...more };
}

/** An axis on a log scale for these values, with plain numbers at 1, 2 and 5; a linear one if they are near each other. */
function logAxis(title, values) {
  const low = Math.min(...values), high = Math.max(...values);
  if (!(low > 0) || high < 4 * low) return axis(title);
  const ticks = [], steps = high / low > 1e4 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) ticks.push(...steps.map((step) => Number(`${step}e${power}`)));
  return axis(title, { type: "log", tickvals: ticks, ticktext: ticks.map((tick) => (tick >= 1e5 || tick < 1e-4 ? tick.toExponential(0) : String(tick))) });
}

function layoutOf(xaxis, yaxis, more = {}) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: styled("--ink"), size: 12, family: "system-ui, sans-serif" },
    margin: { l: 55, r: 12, t: 8, b: 42 }, showlegend: false, hovermode: "closest", dragmode: "zoom", xaxis, yaxis,
    hoverlabel: { bgcolor: styled("--paper"), bordercolor: styled("--line"), font: { color: styled("--ink") }, namelength: -1 }, ...more,
  };
}

/** Draw a chart now, and again when the colours change. `about` says in words what it shows. */
function draw(element, about, figure) {
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", about);
  const redraw = () => { const { traces, layout } = figure(); finished.set(element, Plotly.react(element, traces, layout, CONFIG)); };
  drawn.set(element, redraw);
  redraw();
}

/** Free the charts in an element, once Plotly has finished with them. */
function retire(root) {
  for (const chart of root.querySelectorAll(".chart")) {
    const last = finished.get(chart);
    drawn.delete(chart);
    finished.delete(chart);
    if (last) last.then(() => Plotly.purge(chart));
  }
}

const PANELS = [
  { title: "Accuracy", unit: "%", parts: ["validation.accuracy", "train.accuracy"], scale: 100 },
  { title: "RMSE", unit: "units of y", parts: ["validation.rmse", "train.rmse"], scale: 1 },
  { title: "NLL", unit: "nats per example", parts: ["validation.nll", "train.nll"], scale: 1, canLog: true },
  { title: "ELBO", unit: "nats per training example", parts: [null, "train.elbo"], scale: 1 },
  { title: "KL from the prior", unit: "nats", parts: [null, "train.kl"], scale: 1, canLog: true },
];

/** The lines of one panel: of each run its validation, else its training; both `withTrain`. */
function lines(panel, chosen, by, withTrain) {
  const traces = [];
  for (const { run, place } of chosen) {
    const curves = detailsOf(run).curves || {}, { colour, dash } = lineOf(place);
    const [validation, train] = panel.parts.map((name) => name && curves[name]);
    const shown = [[validation || train, false], ...(withTrain && validation && train ? [[train, true]] : [])];
    for (const [curve, isFaint] of shown) {
      if (!curve) continue;
      const part = curve === train ? "training" : "validation";
      traces.push({
        x: curve[by], y: curve.value.map((value) => value * panel.scale), mode: curve.value.length > 1 ? "lines" : "markers", name: literal(RUNS[run].run),
        line: { color: styled(colour), dash: DASHES[dash], width: isFaint ? 1 : 2 }, opacity: isFaint ? 0.6 : 1, meta: part, marker: { color: styled(colour), size: 8 },
        hovertemplate: `%{y:.5g} ${panel.unit} (${part})<br>${by === "epoch" ? "epoch %{x}" : "%{x:.1f} s"}`,
      });
    }
  }
  return traces;
}

function panelFigure(panel, chosen, by, withTrain, isLog) {
  const traces = lines(panel, chosen, by, withTrain);
  const y = isLog && panel.canLog ? logAxis(panel.unit, traces.flatMap((trace) => trace.y)) : axis(panel.unit);
  return { traces, layout: layoutOf(axis(by === "epoch" ? "epoch" : "seconds", { rangemode: "tozero" }), y) };
}

/** Cards with the panels that have lines; returns them with their charts, to be drawn once they are in the page. */
function panelCards(chosen, options, note = () => null) {
  return PANELS.filter((panel) => lines(panel, chosen, "epoch", false).length > 0).map((panel) => {
    const chart = make("div", { class: "chart", "data-panel": panel.title });
    const names = chosen.map(({ run }) => RUNS[run].run).join(", ");
    const card = make("div", { class: "card" }, make("h3", {}, panel.title, note(panel)), chart);
    return { card, start: () => draw(chart, `${panel.title} of ${names}`, () => panelFigure(panel, chosen, ...options())) };
  });
}

function showCurves() {
  const withCurves = state.selected.map((run, place) => ({ run, place })).filter(({ run }) => Object.keys(detailsOf(run).curves || {}).length > 0);
  const chosen = withCurves.slice(0, MOST_CURVES);
  $("#none").hidden = chosen.length > 0;
  if (chosen.length === 0) $("#none").textContent = state.selected.length ? "The selected runs have no curves." : "Select runs in the table to see their curves.";
  const more = withCurves.length - chosen.length;
  $("#legend").replaceChildren(
    ...chosen.map(({ run, place }) => make("li", {}, sample(place), make("a", { href: link(RUNS[run].run) }, RUNS[run].run))),
    ...(more > 0 ? [make("li", {}, `and ${more} more, not drawn`)] : []),
  );
  const options = () => [$("#how [name=x]:checked").value, $("#with-train").checked, $("#log").checked];
  retire($("#charts"));
  const cards = panelCards(chosen, options);
  $("#charts").replaceChildren(...cards.map(({ card }) => card));
  cards.forEach(({ start }) => start());
}

const redrawAll = () => drawn.forEach((redraw) => redraw());
document.addEventListener("selected", () => { if (!$("#overview").hidden) showCurves(); });
$("#how").addEventListener("change", redrawAll);
$("#how").addEventListener("submit", (event) => event.preventDefault());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
