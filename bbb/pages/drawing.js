"use strict";

// What is drawn: strokes or an example's picture on a canvas, and the grey levels that a network is to see of them.
const drawing = (() => {
  const PEN = 0.08; // width of a stroke on the canvas, as a share of its side
  const CLOSEST = 3; // times that a small drawing is magnified at most
  const FINE = 8; // lines of the fine raster behind each pixel, per axis

  /** Draw strokes, whose points are in 0..1, magnified and moved. */
  function trace(context, strokes, scale, [dx, dy], width) {
    context.lineWidth = width;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of strokes) {
      context.beginPath();
      stroke.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](scale * x + dx, scale * y + dy));
      if (stroke.length === 1) context.lineTo(scale * stroke[0][0] + dx + 0.01, scale * stroke[0][1] + dy);
      context.stroke();
    }
  }

  /** Grey levels 0..1 of strokes: the share of each pixel that ink covers. */
  function raster(strokes, scale, [dx, dy], width, side) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side * FINE;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    trace(context, strokes, scale * FINE, [dx * FINE, dy * FINE], width * FINE);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const grey = new Float32Array(side * side);
    for (let i = 0; i < canvas.width * canvas.width; i++) {
      const [x, y] = [i % canvas.width, Math.floor(i / canvas.width)];
      grey[Math.floor(y / FINE) * side + Math.floor(x / FINE)] += data[4 * i + 3];
    }
    return grey.map((sum) => sum / (255 * FINE * FINE));
  }

  /** Where the ink of an image is on average, in pixels from its corner. */
  function centreOfMass(grey, side) {
    let [mass, x, y] = [0, 0, 0];
    grey.forEach((level, i) => {
      mass += level;
      x += level * ((i % side) + 0.5);
      y += level * (Math.floor(i / side) + 0.5);
    });
    return mass > 0 ? [x / mass, y / mass] : [side / 2, side / 2];
  }

  /** Fit strokes into an image as MNIST's were: scaled to a box, then moved until their mass is at a centre. */
  function fitted(strokes, side, { box, stroke, centre }) {
    const points = strokes.flat();
    const ends = [0, 1].map((axis) => {
      const values = points.map((point) => point[axis]);
      return [Math.min(...values), Math.max(...values)];
    });
    const extents = ends.map(([low, high]) => high - low);
    const scale = Math.min((box - stroke) / Math.max(...extents, 1e-6), CLOSEST * side);
    const middle = ends.map(([low, high]) => side / 2 - (scale * (low + high)) / 2);
    const mass = centreOfMass(raster(strokes, scale, middle, stroke, side), side);
    const offset = middle.map((at, axis) => {
      const room = Math.max(0, side / 2 - (scale * extents[axis] + stroke) / 2); // the ink stays in the image
      return at + Math.min(room, Math.max(-room, centre[axis] - mass[axis]));
    });
    return raster(strokes, scale, offset, stroke, side);
  }

  /**
   * A canvas to draw on. ``fit`` has the side of the box that a drawing is scaled to, the width of its strokes and
   * the centre of its mass, in pixels of the image. ``onChange`` is called with each change of what is drawn.
   */
  class Board {
    constructor(canvas, side, fit, onChange) {
      Object.assign(this, { canvas, side, fit, onChange, strokes: [], picture: null, pen: null, isDown: false });
      this.context = canvas.getContext("2d");
      canvas.addEventListener("pointerdown", (event) => this.begin(event));
      canvas.addEventListener("pointermove", (event) => this.goOn(event));
      for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.pointer = null));
      canvas.addEventListener("keydown", (event) => this.key(event));
      canvas.addEventListener("blur", () => this.lift());
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
      this.paint();
    }

    get isEmpty() {
      return this.picture === null && this.strokes.length === 0;
    }

    /** Grey levels 0..1, row by row; null if nothing is drawn. Strokes on a picture stay where they are. */
    grey() {
      if (this.isEmpty) return null;
      if (this.picture === null) return fitted(this.strokes, this.side, this.fit);
      if (!this.strokes.length) return this.picture;
      const ink = raster(this.strokes, this.side, [0, 0], this.fit.stroke, this.side);
      return this.picture.map((level, i) => Math.max(level, ink[i]));
    }

    show(picture, strokes = []) {
      [this.picture, this.strokes, this.isDown] = [picture, strokes, false];
      this.changed();
    }

    undo() {
      if (this.strokes.length) this.strokes.pop();
      else this.picture = null;
      this.isDown = false;
      this.changed();
    }

    changed() {
      this.paint();
      this.onChange();
    }

    begin(event) {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      [this.pointer, this.pen, this.isDown] = [event.pointerId, null, false];
      this.strokes.push([this.place(event)]);
      this.changed();
    }

    goOn(event) {
      if (this.pointer !== event.pointerId) return;
      const events = event.getCoalescedEvents?.() ?? [];
      this.strokes.at(-1)?.push(...(events.length ? events : [event]).map((each) => this.place(each)));
      this.changed();
    }

    place(event) {
      const { left, top, width, height } = this.canvas.getBoundingClientRect();
      return [(event.clientX - left) / width, (event.clientY - top) / height];
    }

    /** Arrows move a pen, the space bar puts it down and lifts it. */
    key(event) {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (moves[event.key]) {
        const step = 1 / 28;
        const at = this.pen ?? [0.5, 0.5];
        this.pen = at.map((value, axis) => Math.min(0.95, Math.max(0.05, value + step * moves[event.key][axis])));
        if (this.isDown) this.strokes.at(-1)?.push(this.pen);
      } else if (event.key === " " || event.key === "Enter") {
        this.pen ??= [0.5, 0.5];
        this.isDown = !this.isDown;
        if (this.isDown) this.strokes.push([this.pen]);
      } else if (event.key === "Backspace") this.undo();
      else if (event.key === "Delete" || event.key === "Escape") this.show(null);
      else return;
      event.preventDefault();
      this.changed();
    }

    lift() {
      [this.pen, this.isDown] = [null, false];
      this.paint();
    }

    paint() {
      const { canvas, context } = this;
      const style = getComputedStyle(canvas);
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.strokeStyle = context.fillStyle = style.color;
      if (this.picture) paintGrey(context, this.picture, this.side);
      trace(context, this.strokes, canvas.width, [0, 0], PEN * canvas.width);
      if (this.pen) {
        context.beginPath();
        context.arc(this.pen[0] * canvas.width, this.pen[1] * canvas.width, (PEN * canvas.width) / 1.5, 0, 2 * Math.PI);
        context.lineWidth = 4;
        context.strokeStyle = style.accentColor;
        context.stroke();
      }
    }
  }

  /** Paint an image in the canvas's colour, as opaque as each pixel is white. */
  function paintGrey(context, grey, side) {
    const size = context.canvas.width / side;
    grey.forEach((level, i) => {
      context.globalAlpha = level;
      context.fillRect(Math.floor((i % side) * size), Math.floor(Math.floor(i / side) * size), Math.ceil(size), Math.ceil(size));
    });
    context.globalAlpha = 1;
  }

  /** Letters, as strokes with points in 0..1. */
  const LETTERS = {
    A: [[[0.2, 0.85], [0.5, 0.15], [0.8, 0.85]], [[0.32, 0.6], [0.68, 0.6]]],
    K: [[[0.28, 0.15], [0.28, 0.85]], [[0.75, 0.15], [0.3, 0.52], [0.77, 0.85]]],
    M: [[[0.18, 0.85], [0.24, 0.15], [0.5, 0.62], [0.76, 0.15], [0.82, 0.85]]],
    H: [[[0.27, 0.15], [0.27, 0.85]], [[0.73, 0.15], [0.73, 0.85]], [[0.27, 0.5], [0.73, 0.5]]],
    W: [[[0.15, 0.15], [0.32, 0.85], [0.5, 0.35], [0.68, 0.85], [0.85, 0.15]]],
    R: [[[0.3, 0.85], [0.3, 0.15], [0.58, 0.16], [0.71, 0.25], [0.71, 0.4], [0.58, 0.5], [0.3, 0.52]], [[0.5, 0.52], [0.75, 0.85]]],
  };

  return { Board, paintGrey, LETTERS };
})();
