"use strict";

// A posterior over a network's weights, on typed arrays. The page and its workers both run this file.
self.network = (() => {
  /** The bytes behind a base64 text. */
  function bytesOf(text) {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  /** Half-precision floats in base64, lowest byte first, as a Float32Array. */
  function halvesOf(text) {
    const table = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits++) {
      const exponent = (bits >> 10) & 31;
      const fraction = bits & 1023;
      const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
      table[bits] = bits & 0x8000 ? -size : size;
    }
    const bytes = bytesOf(text);
    const values = new Float32Array(bytes.length / 2);
    for (let i = 0; i < values.length; i++) values[i] = table[bytes[2 * i] | (bytes[2 * i + 1] << 8)];
    return values;
  }

  /** A stream of standard normal numbers: Box and Muller's, on the generator sfc32. */
  function normals(seed, stream) {
    let [a, b, c, counter] = [0x9e3779b9 ^ seed, 0x243f6a88 ^ stream, 0xb7e15162, 1];
    const uniform = () => {
      const t = (((a + b) | 0) + counter) | 0;
      counter = (counter + 1) | 0;
      a = b ^ (b >>> 9);
      b = (c + (c << 3)) | 0;
      c = (c << 21) | (c >>> 11);
      c = (c + t) | 0;
      return ((t >>> 0) + 1) / 4294967296; // in (0, 1]
    };
    for (let i = 0; i < 16; i++) uniform();
    return (values) => {
      for (let i = 0; i < values.length; i += 2) {
        const radius = Math.sqrt(-2 * Math.log(uniform()));
        const angle = 2 * Math.PI * uniform();
        values[i] = radius * Math.cos(angle);
        if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
      }
      return values;
    };
  }

  function dense({ out, in: numIn, bias }, weights, at, h) {
    const result = new Float32Array(out);
    const end = at + out * numIn;
    const used = [];
    for (let i = 0; i < numIn; i++) if (h[i] !== 0) used.push(i);
    const isSparse = 2 * used.length < numIn; // most pixels of a drawing are 0
    const indices = Int32Array.from(used);
    for (let o = 0; o < out; o++) {
      const row = at + o * numIn;
      let sum = bias ? weights[end + o] : 0;
      if (isSparse) for (let k = 0; k < indices.length; k++) sum += weights[row + indices[k]] * h[indices[k]];
      else for (let i = 0; i < numIn; i++) sum += weights[row + i] * h[i];
      result[o] = sum;
    }
    return [result, end + (bias ? out : 0)];
  }

  function convolution({ out, in: numIn, size: [rows, columns], bias }, weights, at, h, [, height, width]) {
    const [high, wide] = [height - rows + 1, width - columns + 1];
    const result = new Float32Array(out * high * wide);
    const end = at + out * numIn * rows * columns;
    for (let o = 0; o < out; o++) {
      const channel = result.subarray(o * high * wide, (o + 1) * high * wide);
      if (bias) channel.fill(weights[end + o]);
      for (let c = 0; c < numIn; c++) {
        for (let k = 0; k < rows * columns; k++) {
          const weight = weights[at++];
          const start = c * height * width + Math.floor(k / columns) * width + (k % columns);
          for (let y = 0; y < high; y++) {
            const from = start + y * width;
            const to = y * wide;
            for (let x = 0; x < wide; x++) channel[to + x] += weight * h[from + x];
          }
        }
      }
    }
    return [result, end + (bias ? out : 0), [out, high, wide]];
  }

  function pool({ size }, h, [channels, height, width]) {
    const [high, wide] = [Math.floor(height / size), Math.floor(width / size)];
    const result = new Float32Array(channels * high * wide).fill(-Infinity);
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < high * size; y++) {
        for (let x = 0; x < wide * size; x++) {
          const to = (c * high + Math.floor(y / size)) * wide + Math.floor(x / size);
          result[to] = Math.max(result[to], h[(c * height + y) * width + x]);
        }
      }
    }
    return [result, [channels, high, wide]];
  }

  /** Class probabilities of one input under one draw of the weights. */
  function run(operations, weights, x, side) {
    let [h, at, shape] = [x, 0, [1, side, side]];
    for (const operation of operations) {
      if (operation.kind === "dense") [h, at] = dense(operation, weights, at, h);
      else if (operation.kind === "convolution") [h, at, shape] = convolution(operation, weights, at, h, shape);
      else if (operation.kind === "pool") [h, shape] = pool(operation, h, shape);
      else if (operation.kind === "relu") h = h.map((value) => (value > 0 ? value : 0));
      else throw new Error(`there is no operation ${operation.kind}`);
    }
    const greatest = Math.max(...h);
    const powers = Float64Array.from(h, (value) => Math.exp(value - greatest));
    const total = powers.reduce((sum, value) => sum + value, 0);
    return powers.map((value) => value / total);
  }

  /** The entropy of class probabilities, in nats. */
  function entropy(probs) {
    return probs.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0);
  }

  /** The number below which a share of sorted numbers lies, interpolated. */
  function quantile(sorted, share) {
    const place = share * (sorted.length - 1);
    const below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
  }

  /** The posterior predictive of draws (S, C): its probabilities, their spread, and the parts of its entropy in nats. */
  function mix(draws) {
    const probs = Array.from(draws[0], (_, c) => draws.reduce((sum, draw) => sum + draw[c], 0) / draws.length);
    const sorted = probs.map((_, c) => Float64Array.from(draws, (draw) => draw[c]).sort());
    const total = entropy(probs);
    const aleatoric = draws.reduce((sum, draw) => sum + entropy(draw), 0) / draws.length;
    return {
      probs,
      low: sorted.map((values) => quantile(values, 0.05)),
      high: sorted.map((values) => quantile(values, 0.95)),
      entropy: total,
      aleatoric,
      epistemic: Math.max(0, total - aleatoric),
      draws: draws.map((draw) => Array.from(draw)),
    };
  }

  /** A posterior as the page holds it. Draw s is of replica s modulo R, and its noise has one number for each weight. */
  class Posterior {
    constructor(record, side) {
      this.record = record;
      this.side = side;
      this.mean = halvesOf(record.mean);
      this.std = halvesOf(record.std);
      this.dim = this.mean.length / record.replicas;
    }

    weights(noise, s) {
      if (noise.length !== this.dim) throw new Error(`noise: has ${noise.length} numbers; must have ${this.dim}`);
      const start = (s % this.record.replicas) * this.dim;
      const w = new Float32Array(this.dim);
      for (let i = 0; i < this.dim; i++) w[i] = this.mean[start + i] + this.std[start + i] * noise[i];
      return w;
    }

    draw(seed, s) {
      return this.weights(normals(seed, s)(new Float32Array(this.dim)), s);
    }

    /** Inputs of the network from raw pixels, in the units of the training set. */
    normalised(pixels) {
      const { shift, scale } = this.record;
      const at = (value, i) => (Array.isArray(value) ? value[i] : value);
      return Float32Array.from(pixels, (raw, i) => (raw - at(shift, i)) * at(scale, i));
    }

    /** Raw pixels from grey levels 0..1. */
    raw(grey) {
      const { black, white } = this.record;
      return Float32Array.from(grey, (level) => black + level * (white - black));
    }

    probs(weights, x) {
      return run(this.record.operations, weights, x, this.side);
    }

    predict(pixels, noise) {
      const x = this.normalised(pixels);
      return mix(noise.map((numbers, s) => this.probs(this.weights(numbers, s), x)));
    }
  }

  return { Posterior, mix, normals, bytesOf, source: self.document ? document.currentScript.textContent : "" };
})();
