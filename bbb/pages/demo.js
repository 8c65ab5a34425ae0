"use strict";

// The page: what is drawn goes to one worker for each posterior, and each answer to its panel.
//
// window.demo, for tests and for whoever opens the console:
//   demo.predict(pixels, noise, i = 0)  the predictive of posterior i for raw pixels (P numbers, in the units of its
//     training set, as Posterior.predict takes them) under given noise: for each draw as many standard normal numbers
//     as there are weights, in the order of the flat vector. Returns probs, low, high (the whiskers), entropy, aleatoric
//     and epistemic (nats) and draws (S, C).
//   demo.pixels(i = 0)  what is drawn, as raw pixels; null if nothing is.
//   demo.results        what each panel shows, in the form that predict returns; null where nothing is shown.
//   demo.isReady        whether that is of the newest drawing, and of all draws that were asked for.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { side, examples } = data;
  const element = (id) => document.getElementById(id);
  const state = { grey: null, seed: 1, id: 0, numStrokes: 0, turns: { digit: 0, turned: 0, letter: 0, noise: 0 } };

  const images = examples.images.map((text) => Float32Array.from(network.bytesOf(text), (byte) => byte / 255));
  const board = new drawing.Board(element("board"), side, examples, () => ask());
  const preview = element("preview").getContext("2d");

  const source = new Blob([network.source, data.worker], { type: "text/javascript" });
  const address = URL.createObjectURL(source);
  const shown = data.posteriors.map((record) => {
    const each = { panel: new panel.Panel(record), worker: new Worker(address), isBusy: false, isBehind: false };
    each.worker.postMessage({ record, side });
    each.worker.onmessage = ({ data: answer }) => receive(each, answer);
    element("panels").append(each.panel.element);
    return each;
  });

  element("panels").classList.toggle("two", shown.length === 2);

  let isAsking = false;
  /** Look at the drawing once before the next picture of the screen. */
  function ask() {
    if (!isAsking) requestAnimationFrame(look);
    isAsking = true;
  }

  function look() {
    isAsking = false;
    const grey = board.grey();
    state.grey = grey && grey.map((level) => Math.round(255 * level) / 255);
    state.id++;
    preview.clearRect(0, 0, preview.canvas.width, preview.canvas.height);
    preview.fillStyle = getComputedStyle(preview.canvas).color;
    if (grey) drawing.paintGrey(preview, grey, side);
    document.body.classList.toggle("blank", board.isEmpty);
    if (board.strokes.length !== state.numStrokes) say(""); // it is no longer the example
    for (const each of shown) send(each);
  }

  /** Send a worker the newest drawing, unless it is still at the last one. */
  function send(each) {
    if (!state.grey) {
      each.result = null;
      each.panel.clear();
    }
    each.isBehind = each.isBusy;
    if (each.isBusy) return;
    each.isBusy = state.grey !== null;
    each.worker.postMessage({ grey: state.grey, num: numDraws(), seed: state.seed, id: state.id });
  }

  function receive(each, { id, result }) {
    each.isBusy = false;
    if (each.isBehind) send(each);
    if (!state.grey) return;
    [each.result, each.id] = [result, id];
    each.panel.show(result, numDraws());
    if (id === state.id) announce();
  }

  let speaking = 0;
  /** Tell those who listen to the page, once a drawing has come to rest. */
  function announce() {
    clearTimeout(speaking);
    speaking = setTimeout(() => {
      element("spoken").textContent = shown.map((each) => each.panel.spoken ?? "").join(". ");
    }, 900);
  }

  function numDraws() {
    return Number(element("draws").value);
  }

  /** Tell what the example on the canvas is. */
  function say(text) {
    state.numStrokes = board.strokes.length;
    element("what").textContent = text;
  }

  function turn(name, num) {
    return state.turns[name]++ % num;
  }

  const buttons = {
    clear: () => {
      board.show(null);
      say("");
    },
    undo: () => board.undo(),
    redraw: () => {
      state.seed++;
      ask();
    },
    digit: () => {
      const i = turn("digit", images.length);
      board.show(images[(i + 7) % images.length]);
      say(`A test ${examples.noun} of ${examples.dataset}, labelled ${examples.labels[(i + 7) % images.length]}.`);
    },
    turned: () => {
      const i = (turn("turned", images.length) + 4) % images.length;
      board.show(images[i].map((_, at) => images[i][(at % side) * side + side - 1 - Math.floor(at / side)]));
      say(`A test ${examples.noun} labelled ${examples.labels[i]}, turned by 90° counter-clockwise.`);
    },
    letter: () => {
      const names = Object.keys(drawing.LETTERS);
      const name = names[turn("letter", names.length)];
      board.show(null, structuredClone(drawing.LETTERS[name]));
      say(`The letter ${name}.`);
    },
    noise: () => {
      const normal = network.normals(turn("noise", 1000), 12345)(new Float32Array(2 * side * side));
      const angle = (i) => Math.atan2(normal[2 * i], normal[2 * i + 1]) / (2 * Math.PI) + 0.5; // uniform in 0..1
      board.show(Float32Array.from({ length: side * side }, (_, i) => angle(i)));
      say("Noise: any grey level in each pixel.");
    },
  };
  for (const [id, press] of Object.entries(buttons)) element(id).addEventListener("click", press);
  for (const id of ["digit", "turned"]) {
    element(id).textContent = element(id).textContent.replace("digit", examples.noun).replace("Digit", capital(examples.noun));
  }

  function capital(word) {
    return word[0].toUpperCase() + word.slice(1);
  }

  element("draws").addEventListener("input", () => {
    element("num").textContent = String(numDraws());
    ask();
  });
  element("num").textContent = String(numDraws());
  element("size").textContent = `${side} × ${side} pixels`;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ask);
  ask();

  const known = new Map();
  function posterior(i) {
    if (!known.has(i)) known.set(i, new network.Posterior(data.posteriors[i], side));
    return known.get(i);
  }
  window.demo = {
    predict: (pixels, noise, i = 0) => posterior(i).predict(pixels, noise),
    pixels: (i = 0) => state.grey && Array.from(posterior(i).raw(state.grey)),
    get results() {
      return shown.map((each) => each.result ?? null);
    },
    get isReady() {
      const isDone = (each) => each.result && each.id === state.id && each.result.draws.length === numDraws();
      return !isAsking && (state.grey === null || shown.every(isDone));
    },
  };
})();
