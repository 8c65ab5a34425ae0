"use strict";

// Draws weights of one posterior once, and runs them on each drawing. network.js stands before it.
let posterior = null;
let asked = { grey: null, num: 0, seed: 0 };
let drawn = []; // weights, from the seed
let probs = []; // of the drawing, under the first of them
let isWaiting = false;

const ANSWER_EVERY = 4; // draws, while they are being made

function answer() {
  const num = Math.min(asked.num, drawn.length);
  if (asked.grey === null || num === 0) return;
  const x = posterior.normalised(posterior.raw(asked.grey));
  while (probs.length < num) probs.push(posterior.probs(drawn[probs.length], x));
  postMessage({ id: asked.id, result: network.mix(probs.slice(0, num)) });
}

function work() {
  isWaiting = false;
  if (drawn.length >= asked.num) return;
  drawn.push(posterior.draw(asked.seed, drawn.length));
  if (drawn.length === asked.num || drawn.length % ANSWER_EVERY === 0) answer();
  wait();
}

/** Go on after the messages that have come meanwhile. */
function wait() {
  if (!isWaiting) setTimeout(work);
  isWaiting = true;
}

onmessage = ({ data }) => {
  if (data.record) {
    posterior = new network.Posterior(data.record, data.side);
    return;
  }
  if (data.seed !== asked.seed) drawn = [];
  probs = [];
  asked = data;
  answer();
  wait();
};
