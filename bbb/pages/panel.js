"use strict";

// One posterior's answer: a column for each class, the parts of the entropy, and the guess of each draw.
const panel = (() => {
  const MOST_COLUMNS = 12; // classes shown; of more, the most probable ones

  /** Make an element with a class, a text and children. Texts are never markup. */
  function make(tag, name = "", text = "", ...children) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text) element.textContent = text;
    element.append(...children);
    return element;
  }

  function percent(p) {
    if (p < 0.0005) return "< 0.1 %";
    if (p > 0.9995) return "> 99.9 %";
    return `${(100 * p).toFixed(p < 0.0995 || p > 0.9905 ? 1 : 0)} %`;
  }

  function nats(value) {
    return value < 0.0005 ? "< 0.001" : value.toFixed(value < 0.0995 ? 3 : 2);
  }

  /** How many draws guess each class, the most frequent first. */
  function guesses(draws) {
    const counts = new Map();
    for (const draw of draws) {
      const top = draw.indexOf(Math.max(...draw));
      counts.set(top, (counts.get(top) ?? 0) + 1);
    }
    return [...counts].sort(([, a], [, b]) => b - a);
  }

  class Panel {
    constructor(record) {
      this.record = record;
      this.verdict = make("p", "verdict");
      this.columns = make("div", "columns");
      this.columns.setAttribute("role", "img");
      this.entropy = make("p", "entropy-text");
      this.parts = ["aleatoric", "epistemic"].map((name) => make("span", name));
      this.legend = ["aleatoric", "epistemic"].map((name) => make("span", "value"));
      this.agreement = make("p", "agreement");
      this.draws = make("div", "draws");
      this.draws.setAttribute("aria-hidden", "true"); // the line above says the same
      const num = Math.min(record.classes.length, MOST_COLUMNS);
      this.bars = Array.from({ length: num }, () => this.column());
      const axis = make("div", "axis", "", make("span", "", "100 %"), make("span", "", "50"), make("span", "", "0"));
      axis.setAttribute("aria-hidden", "true");
      this.element = make(
        "section", "panel", "",
        make("header", "", "", make("h2", "", record.name), make("p", "about", record.about)),
        this.verdict,
        make("div", "chart", "", axis, this.columns),
        make("h3", "", "Entropy"),
        this.entropy,
        make("div", "track", "", ...this.parts),
        make(
          "p", "legend", "",
          make("span", "entry", "", make("span", "key aleatoric"), "aleatoric", this.legend[0]),
          make("span", "entry", "", make("span", "key epistemic"), "epistemic", this.legend[1]),
        ),
        make("h3", "", "Single draws"),
        this.agreement,
        this.draws,
      );
      this.element.setAttribute("aria-label", record.name);
      if (record.rotation) {
        const turned = `trained on images turned by ${record.rotation}°`;
        this.element.firstChild.append(make("p", "about", turned));
      }
      this.clear();
    }

    column() {
      const parts = { bar: make("span", "bar"), whisker: make("span", "whisker"), label: make("span", "label") };
      const field = make("span", "field", "", parts.bar, parts.whisker);
      this.columns.append(make("span", "column", "", field, parts.label));
      return parts;
    }

    clear() {
      this.element.classList.add("empty");
      this.verdict.replaceChildren(make("strong", "", "?"), make("span", "", "nothing is drawn yet"));
      const nothing = this.record.classes.map(() => 0);
      this.fill(nothing, nothing, nothing);
      this.columns.setAttribute("aria-label", "Nothing is drawn yet");
      this.entropy.textContent = "–";
      this.parts.forEach((part) => (part.style.width = "0"));
      this.legend.forEach((value) => (value.textContent = "–"));
      this.agreement.textContent = "–";
      this.draws.replaceChildren();
    }

    /** Show a posterior predictive (see network.mix), of perhaps fewer draws than were asked for. */
    show(result, numAsked) {
      const { classes } = this.record;
      const { probs, low, high, draws } = result;
      this.element.classList.remove("empty");
      const top = probs.indexOf(Math.max(...probs));
      const counts = guesses(draws);
      this.fill(probs, low, high);
      this.verdict.replaceChildren(make("strong", "", classes[top]), make("span", "", percent(probs[top])));
      const likely = probs.map((p, c) => [p, c]).filter(([p]) => p >= 0.005).sort(([a], [b]) => b - a);
      const spoken = likely.map(([p, c]) => `${classes[c]}: ${percent(p)}`).join(", ");
      this.columns.setAttribute("aria-label", `Probabilities. ${spoken}`);
      const most = Math.log(classes.length);
      this.entropy.textContent = `${nats(result.entropy)} of at most ${nats(most)} nats`;
      [result.aleatoric, result.epistemic].forEach((value, i) => {
        this.parts[i].style.width = `${(100 * value) / most}%`;
        this.legend[i].textContent = nats(value);
      });
      const said = counts.map(([c, num]) => `${num} ${num === 1 ? "says" : "say"} ${classes[c]}`);
      const few = draws.length < numAsked ? ` (${numAsked - draws.length} to come)` : "";
      this.agreement.textContent = `Of ${draws.length} draws${few}, ${said.join(", ")}.`;
      this.draws.replaceChildren(...draws.map((draw) => this.cell(draw, top)));
      this.spoken = `${this.record.name}: ${classes[top]}, ${percent(probs[top])}, entropy ${nats(result.entropy)} nats`;
    }

    fill(probs, low, high) {
      let shown = probs.map((_, c) => c);
      if (shown.length > this.bars.length) {
        shown = shown.sort((a, b) => probs[b] - probs[a]).slice(0, this.bars.length).sort((a, b) => a - b);
      }
      const top = Math.max(...probs);
      shown.forEach((c, i) => {
        const { bar, whisker, label } = this.bars[i];
        bar.style.height = `${100 * probs[c]}%`;
        whisker.style.bottom = `${100 * low[c]}%`;
        whisker.style.height = `${100 * (high[c] - low[c])}%`;
        whisker.hidden = high[c] < 0.005;
        label.textContent = this.record.classes[c];
        label.parentElement.classList.toggle("top", probs[c] === top && top > 0);
      });
    }

    /** A draw's guess, and its probabilities in small. */
    cell(draw, top) {
      const guess = draw.indexOf(Math.max(...draw));
      const small = make("span", "small");
      for (const p of draw.slice(0, 16)) {
        const bar = make("i");
        bar.style.height = `${100 * p}%`;
        small.append(bar);
      }
      return make("span", guess === top ? "draw" : "draw dissent", "", make("b", "", this.record.classes[guess]), small);
    }
  }

  return { Panel, make };
})();
