"use strict";
// The view of one run, the family trees, and which view the address asks for.

const isNumbers = (values) => Array.isArray(values) && values.every((value) => typeof value === "number");
const sum = (values) => values.reduce((total, value) => total + value, 0);
const percent = (value, places = 1) => `${(100 * value).toFixed(places)} %`;

/** Each card: its title, an explanation, what it needs of the findings, and a function that fills its chart. */
const CARDS = [
  {
    title: "Reliability", note: "How often predictions of a confidence are right. On the dotted line it can be trusted; below it the run is too sure. Larger points hold more of the test set.",
    of: (found) => found.reliability, figure: (bins) => {
      const kept = bins.share.map((share, i) => i).filter((i) => bins.share[i] > 0), at = (name) => kept.map((i) => bins[name][i]);
      return {
        traces: [
          { x: [0, 1], y: [0, 1], mode: "lines", line: { dash: "dot", color: styled("--soft"), width: 1.5 }, hoverinfo: "skip" },
          { x: at("confidence"), y: at("accuracy"), customdata: at("share").map((share) => 100 * share), mode: "lines+markers", line: { color: styled("--c0") }, name: "",
            marker: { color: styled("--c0"), size: at("share").map((share) => 6 + 16 * Math.sqrt(share)) }, hovertemplate: "confidence %{x:.3f}<br>accuracy %{y:.3f}<br>%{customdata:.1f} % of the test set" },
        ],
        layout: layoutOf(axis("confidence", { range: [0, 1.05] }), axis("accuracy", { range: [0, 1.05] })),
      };
    },
  },
  {
    title: "Confusion matrix", note: "Test images by label and predicted class. Errors are coloured.", isTall: true,
    of: (found) => found.confusion && found.confusion.counts && { counts: found.confusion.counts, classes: found.classes }, figure: ({ counts, classes }) => {
      const names = classes.map((name) => `${literal(name)}\u200b`), isSmall = counts.length <= 15;
      const text = counts.map((row, i) => row.map((value, j) => (value && i !== j ? String(value) : "")));
      const errors = counts.map((row, i) => row.map((value, j) => (i === j || !value ? null : value)));
      const most = Math.max(1, ...errors.flat().map(Number)), paper = styled("--card"), strong = styled("--c1");
      return {
        traces: [{ z: errors, x: names, y: names, type: "heatmap", colorscale: [[0, paper], [1, strong]], zmin: 0, zmax: 1.3 * most, showscale: false, xgap: 1, ygap: 1,
          text, texttemplate: isSmall ? "%{text}" : "", hoverongaps: false, name: "", hovertemplate: "%{z} of label %{y} as %{x}" }],
        layout: layoutOf(axis("predicted", { type: "category", dtick: 1, showgrid: false }), axis("label", { type: "category", dtick: 1, autorange: "reversed", showgrid: false }), {
          annotations: isSmall ? counts.map((row, i) => ({ x: i, y: i, text: String(row[i]), showarrow: false, font: { color: styled("--soft") } })) : [],
        }),
      };
    },
  },
  {
    title: "Most frequent confusions", note: "Label, predicted class and number of test images.", of: (found) => found.confusion && found.confusion.most && { most: found.confusion.most, classes: found.classes },
    fill: (card, { most, classes }) => card.append(make("ol", {}, ...most.slice(0, 25).map(([label, predicted, num]) => make("li", {}, `${classes[label]} as ${classes[predicted]}: ${num}`)))),
  },
  {
    title: "Parts of entropy", note: "Aleatoric: the noise that every draw of the weights predicts. Epistemic: the disagreement between draws. Share of the test images, right and wrong ones each.",
    of: (found) => found.entropy, figure: (entropy) => {
      const traces = [];
      for (const [part, dash] of [["aleatoric", "solid"], ["epistemic", "dot"]]) {
        for (const [kind, colour] of [["right", "--c0"], ["wrong", "--c1"]]) {
          const counts = entropy[part][kind], all = sum(counts), width = entropy.max / counts.length;
          if (all) traces.push({ x: counts.map((_, i) => (i + 0.5) * width), y: counts.map((count) => (100 * count) / all), mode: "lines", line: { shape: "hvh", dash, color: styled(colour) }, name: `${part}, ${kind}`, hovertemplate: "%{y:.2f} % at %{x:.2f} nats" });
        }
      }
      return { traces, layout: layoutOf(axis("nats"), axis("% of images"), { showlegend: true, legend: { x: 1, xanchor: "right", y: 1 } }) };
    },
  },
  {
    title: "Signal-to-noise of the weights", note: "|mean| / std of each weight's posterior, by layer. Weights far to the left could be pruned.",
    of: (found) => (found.layers && found.layers.length ? found.layers : null), figure: (layers) => {
      const traces = layers.map((layer, i) => {
        const num = layer.counts.length, all = sum(layer.counts);
        return { x: layer.counts.map((_, j) => 10 ** (-3 + (5 * (j + 0.5)) / num)), y: layer.counts.map((count) => (100 * count) / all), mode: "lines", name: literal(`layer ${layer.name}`),
          line: { color: styled(lineOf(i).colour), dash: DASHES[lineOf(i).dash], shape: "hvh" }, hovertemplate: "%{y:.2f} % at %{x:.3g}" };
      });
      return { traces, layout: layoutOf(axis("|mean| / std", { type: "log", dtick: 1 }), axis("% of the layer's weights"), { showlegend: true, legend: { x: 0, y: 1 } }) };
    },
  },
  {
    title: "Calibration of the intervals", note: "The share of the test set below each quantile of the predictive. On the dotted line it can be trusted.", of: (found) => found.levels, figure: (levels) => ({
      traces: [
        { x: [0, 1], y: [0, 1], mode: "lines", line: { dash: "dot", color: styled("--soft") }, hoverinfo: "skip" },
        { x: levels.expected, y: levels.observed, mode: "lines+markers", line: { color: styled("--c0") }, name: "", hovertemplate: "%{y:.3f} of the test set below the quantile %{x}" },
      ],
      layout: layoutOf(axis("quantile", { range: [0, 1] }), axis("share of the test set", { range: [0, 1] })),
    }),
  },
  {
    title: "Predictions", note: "Some numbers of the test set and their predictions, with a standard deviation to each side.", of: (found) => found.predicted, figure: (shown) => ({
      traces: [{ x: shown.y, y: shown.mean, error_y: { type: "data", array: shown.std, thickness: 1, width: 0, color: styled("--c5") }, mode: "markers", marker: { color: styled("--c0"), size: 5 }, name: "", hovertemplate: "y %{x:.4g}<br>predicted %{y:.4g}" },
        { x: [Math.min(...shown.y), Math.max(...shown.y)], y: [Math.min(...shown.y), Math.max(...shown.y)], mode: "lines", line: { dash: "dot", color: styled("--soft") }, hoverinfo: "skip" }],
      layout: layoutOf(axis("y"), axis("predicted")),
    }),
  },
  {
    title: "Noise and doubt", note: "The standard deviation of the draws' means (epistemic) over the test set. The dotted line is the noise of the likelihood (aleatoric).", of: (found) => found.spread, figure: (spread) => {
      const width = spread.max / spread.epistemic.length;
      return {
        traces: [{ x: spread.epistemic.map((_, i) => (i + 0.5) * width), y: spread.epistemic, type: "bar", marker: { color: styled("--c0") }, name: "", hovertemplate: "%{y} numbers at %{x:.3g}" }],
        layout: layoutOf(axis("standard deviation", { rangemode: "tozero" }), axis("numbers"), { shapes: [{ type: "line", x0: spread.noise, x1: spread.noise, y0: 0, y1: 1, yref: "paper", line: { dash: "dot", color: styled("--c1"), width: 2 } }] }),
      };
    },
  },
];

/** Errors of each class, and the test images whose label is the least probable. */
function faces(found) {
  const { classes, errors, totals, worst } = found;
  const card = make("section", { class: "card whole" }, make("h3", {}, "Errors per class"),
    make("p", {}, `Wrong test images of each class${worst.length ? ", and those whose label is the least probable: the predicted class and the probability of the label" : ""}.`));
  const list = make("div", { class: "faces" });
  classes.forEach((name, label) => {
    const images = worst.filter((image) => image.label === label).map((image) => make("figure", { class: image.predicted === label ? "right" : "wrong" },
      make("img", { src: /^[A-Za-z0-9+/=]+$/.test(image.png) ? `data:image/png;base64,${image.png}` : null, alt: `Test image ${image.index}, labelled ${name}` }),
      make("figcaption", {}, make("b", {}, `${image.predicted === label ? "✓" : "→"} ${classes[image.predicted]}`), make("br"), `p ${image.prob.toPrecision(2)}`)));
    list.append(make("div", {}, make("h4", {}, String(name), make("span", {}, `${errors[label]} / ${totals[label]}`)), ...images));
  });
  card.append(list);
  return card;
}

const CHILDREN = new Map();
for (const run of RUNS) if (run.source) CHILDREN.set(run.source, [...(CHILDREN.get(run.source) || []), run.run]);

/** The tree of a source and the runs that started from its weights, and from theirs. */
function tree(id, current, above = []) {
  const run = RUNS[NUMBER_OF.get(id)], below = above.includes(id) ? [] : CHILDREN.get(id) || [];
  const name = run ? make("a", { href: link(id), "aria-current": id === current ? "page" : null }, id) : make("span", {}, id);
  return make("li", {}, name, run ? make("small", {}, [mainScore(run), ...changed(run)].join(", ")) : make("small", {}, "weights that are not here"),
    below.length ? make("ul", {}, ...below.map((child) => tree(child, current, [...above, id]))) : null);
}
function rootOf(id) {
  const seen = new Set();
  while (NUMBER_OF.has(id) && RUNS[NUMBER_OF.get(id)].source && !seen.has(id)) { seen.add(id); id = RUNS[NUMBER_OF.get(id)].source; }
  return id;
}
function showFamilies() {
  const roots = [...new Set([...CHILDREN.keys()].map(rootOf))];
  $("#families").hidden = roots.length === 0;
  $("#trees").replaceChildren(...roots.map((root) => make("ul", { class: "tree card" }, tree(root, null))));
}

function table(entries, caption) {
  return make("table", {}, make("caption", { class: "unseen" }, caption), make("tbody", {}, ...entries.map(([key, value]) => make("tr", {}, make("th", { scope: "row" }, key), make("td", {}, make("code", {}, value))))));
}

function again(run) {
  const copy = make("button", { type: "button" }, "Copy"), command = make("pre", { id: "command" }, run.command || "The configuration of this run cannot be read.");
  copy.addEventListener("click", () => navigator.clipboard.writeText(run.command).then(
    () => { copy.textContent = "Copied"; }, () => { getSelection().selectAllChildren(command); copy.textContent = "Selected"; }));
  return make("section", { class: "card whole" }, make("h3", {}, run.command && run.command.endsWith(" resume=True") ? "Go on with it" : "Make it again"),
    make("p", {}, run.commit ? `With the code of commit ${run.commit}${run.dirty ? ", which had changes that were not committed" : ""}.` : "The commit of the code was not recorded."),
    make("div", { class: "command" }, command, run.command ? copy : null));
}

function showRun(i) {
  const run = RUNS[i], own = detailsOf(i), found = own.findings || {}, cards = [], starts = [];
  const add = (title, note, fill, kind = "card") => {
    const card = make("section", { class: kind }, make("h3", {}, title), note ? make("p", {}, note) : null);
    fill(card);
    cards.push(card);
  };
  const damaged = (title) => add(title, "This part of findings.json is damaged.", () => {});
  const hasBoth = (panel) => panel.parts.every((name) => name && name in own.curves);
  const curves = panelCards([{ run: i, place: 0 }], () => ["epoch", true, true], (panel) => (hasBoth(panel) ? make("small", {}, " thick: validation, thin: training") : null));
  cards.push(...curves.map(({ card }) => card));
  starts.push(...curves.map(({ start }) => start));
  for (const { title, note, of, figure, fill, isTall } of CARDS) {
    try {
      const shown = of(found);
      if (!shown) continue;
      if (figure) figure(shown); // what is damaged shows itself here
      add(title, note, (card) => {
        if (fill) return fill(card, shown);
        const chart = make("div", { class: isTall ? "chart tall" : "chart", "data-card": title });
        card.append(chart);
        starts.push(() => draw(chart, `${title} of ${run.run}`, () => figure(shown)));
      });
    } catch { damaged(title); }
  }
  try { if (found.classes) cards.push(faces(found)); } catch { damaged("Errors per class"); }
  if (run.source || CHILDREN.has(run.run)) add("Family", "The runs whose weights it started from, and those that started from its own.", (card) => card.append(make("ul", { class: "tree" }, tree(rootOf(run.run), run.run))), "card whole");
  add("Configuration", run.named ? `What differs from ${run.named}:` : "It cannot be read.", (card) => {
    const changes = Object.entries(run.changes), all = Object.entries(own.config);
    if (run.named) card.append(changes.length ? table(changes, "What differs") : make("p", {}, "Nothing."));
    if (all.length) card.append(make("details", {}, make("summary", {}, `All ${all.length} keys`), table(all, "All keys")));
  }, "card whole");
  if (own.log) add("Log", null, (card) => card.append(make("pre", { class: "log", tabindex: 0, role: "region", "aria-label": `Log of ${run.run}` }, own.log)), "card whole");
  const scores = Object.keys(SCORES).filter((name) => name in run.scores);
  const about = [`${SIGNS[run.status] || "○"} ${run.status}`, run.seconds !== null ? duration(run.seconds) : null, run.started ? `started ${run.started.slice(0, 16).replace("T", " ")} UTC` : null, run.folder].filter(Boolean).join(" · ");
  $("#run").replaceChildren(
    make("a", { class: "back", href: "#" }, "← All runs"), make("h2", {}, run.run), make("p", { class: "line" }, about),
    run.problem ? make("p", { class: "problem" }, run.problem) : "",
    own.left_out.length ? make("p", { class: "hint" }, `Left out, to keep this page small: ${own.left_out.join(", ")}. It is in the run's folder.`) : "",
    make("dl", { class: "scores" }, ...scores.map((name) => make("div", {}, make("dt", {}, SCORES[name][0]), make("dd", {}, SCORES[name][2](run.scores[name]), make("small", {}, ` ${SCORES[name][1]}`))))),
    make("div", { class: "grid" }, again(run), ...cards),
  );
  starts.forEach((start) => start());
}

function route() {
  const match = /^#run=(.*)$/.exec(location.hash);
  let id = null;
  try { id = match && decodeURIComponent(match[1]); } catch { id = null; }
  const i = id === null ? undefined : NUMBER_OF.get(id), wasRun = $("#overview").hidden;
  retire($("#run"));
  $("#overview").hidden = i !== undefined;
  $("#run").hidden = i === undefined;
  if (i === undefined) {
    $("#run").replaceChildren();
    document.title = "Runs";
    showCurves();
    if (wasRun && route.last !== undefined) $(`a`, rows[route.last]).focus();
  } else {
    document.title = RUNS[i].run;
    showRun(i);
    scrollTo(0, 0);
    $("#run").focus({ preventScroll: true });
  }
  route.last = i;
}
addEventListener("hashchange", route);
showFamilies();
mark(RUNS.map((_, i) => i).filter((i) => RUNS[i].status === "completed").slice(0, 4).filter((i) => Object.keys(detailsOf(i).curves || {}).length > 0));
route();
document.documentElement.dataset.ready = "yes";
