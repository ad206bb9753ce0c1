// Points on a 2D canvas: drawn as pixels, moved by pointer, wheel, touch and keys, and found by a grid of cells.

const CELLS = 256;
const BUDGET = 12;
const SHAPES_FROM = 3;
const RANGE = 65535;
export const FLAG = { hub: 1, outlier: 2, mispaired: 4, copy: 8, filtered: 16 };

/** Arrays of a map from its binary form: u32 n, n records of 6 bytes, and n u32 numbers of items. */
export function readPoints(buffer) {
  const view = new DataView(buffer);
  const n = view.getUint32(0, true);
  const x = new Float32Array(n);
  const y = new Float32Array(n);
  const modality = new Uint8Array(n);
  const flags = new Uint8Array(n);
  for (let i = 0, at = 4; i < n; i += 1, at += 6) {
    x[i] = view.getUint16(at, true) / RANGE;
    y[i] = view.getUint16(at + 2, true) / RANGE;
    modality[i] = view.getUint8(at + 4);
    flags[i] = view.getUint8(at + 5);
  }
  const item = new Uint32Array(n);
  const from = 4 + 6 * n;
  if (buffer.byteLength >= from + 4 * n) for (let i = 0; i < n; i += 1) item[i] = view.getUint32(from + 4 * i, true);
  return { n, x, y, modality, flags, item };
}

const INSIDE = [
  (x, y) => 1 - Math.hypot(x, y),
  (x, y) => 0.95 - (Math.abs(x) + Math.abs(y)) * 0.85,
  (x, y) => 0.86 - Math.max(Math.abs(x), Math.abs(y)),
  (x, y) => Math.min(0.8 - y, 0.5 + y / 2 - Math.abs(x) * 0.95 + 0.1),
  (x, y) => Math.min(0.8 + y, 0.5 - y / 2 - Math.abs(x) * 0.95 + 0.1),
  (x, y) => Math.max(Math.min(0.38 - Math.abs(x), 1 - Math.abs(y)), Math.min(0.38 - Math.abs(y), 1 - Math.abs(x))),
  (x, y) => Math.min(0.88 - Math.abs(y), 1 - Math.abs(x) - Math.abs(y) * 0.5),
  (x, y) => Math.min(0.5 - Math.abs(y), 1 - Math.abs(x)),
];

/** Pixels of a mark: offsets and coverage in four steps. */
function stamp(radius, shape) {
  const found = [];
  const reach = Math.ceil(radius);
  for (let dy = -reach; dy <= reach; dy += 1)
    for (let dx = -reach; dx <= reach; dx += 1) {
      const cover = Math.max(0, Math.min(1, INSIDE[shape](dx / radius, dy / radius) * radius + 0.5));
      const step = Math.round(cover * 4);
      if (step) found.push([dx, dy, step]);
    }
  return found;
}

const rgb = (css) => {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = css;
  const value = parseInt(context.fillStyle.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
};
const packed = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
const mixed = (a, b, share) => a.map((value, i) => Math.round(value * share + b[i] * (1 - share)));

export class PointMap {
  /** actions: onHover(point, event), onPick(point), onLasso(polygon of [x, y] in 0..65535), onView(), paint(context, map). */
  constructor(host, actions) {
    this.host = host;
    this.actions = actions;
    this.data = { n: 0 };
    this.view = { x: 0.5, y: 0.5, zoom: 1 };
    this.hidden = new Set();
    this.mask = 0;
    this.mode = "move";
    this.polygon = null;
    this.frames = [];
    this.base = document.createElement("canvas");
    this.over = document.createElement("canvas");
    this.base.setAttribute("aria-hidden", "true");
    this.over.setAttribute("aria-hidden", "true");
    host.append(this.base, this.over);
    this.context = this.base.getContext("2d", { alpha: false });
    this.paper = this.over.getContext("2d");
    this.pointers = new Map();
    new ResizeObserver(() => this.resize()).observe(host);
    this.listen();
  }

  resize() {
    const { width, height } = this.host.getBoundingClientRect();
    if (!width || !height) return;
    this.ratio = Math.min(2, devicePixelRatio || 1);
    this.width = Math.round(width);
    this.height = Math.round(height);
    for (const canvas of [this.base, this.over]) {
      canvas.width = Math.round(this.width * this.ratio);
      canvas.height = Math.round(this.height * this.ratio);
    }
    this.image = this.context.createImageData(this.base.width, this.base.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.changed();
  }

  setColors(modalities, style) {
    const page = rgb(style.page);
    this.colors = style;
    this.page = packed(page);
    this.tones = modalities.map((css) => [0.24, 1].map((strength) => {
      const full = mixed(rgb(css), page, strength);
      return [0, 1, 2, 3, 4].map((step) => packed(mixed(full, page, step / 4)));
    }));
    this.changed();
  }

  setData(data) {
    this.data = data;
    this.cells = null;
    this.items = null;
    this.dimmed = new Uint8Array(data.n);
    this.update();
  }

  /** Which points are faint: filtered ones, and with an overlay those without its flag. */
  update() {
    const { n, flags } = this.data;
    for (let i = 0; i < n; i += 1)
      this.dimmed[i] = (flags[i] & FLAG.filtered) || (this.mask && !(flags[i] & this.mask)) ? 1 : 0;
    this.changed();
  }

  get scale() { return Math.min(this.width, this.height) * 0.97 * this.view.zoom; }
  toScreen(x, y) { return [(x - this.view.x) * this.scale + this.width / 2, (y - this.view.y) * this.scale + this.height / 2]; }
  toMap(px, py) { return [(px - this.width / 2) / this.scale + this.view.x, (py - this.height / 2) / this.scale + this.view.y]; }

  changed() {
    this.cursor = 0;
    this.request();
  }

  repaint() {
    this.onlyOver = true;
    this.request();
  }

  request() {
    if (this.pending || !this.width) return;
    this.pending = true;
    requestAnimationFrame(() => this.frame());
  }

  frame() {
    this.pending = false;
    const started = performance.now();
    if (this.tones && this.cursor < Math.max(1, this.data.n)) this.splat(started);
    this.paint();
    this.frames.push(performance.now() - started);
    if (this.frames.length > 400) this.frames.shift();
    if (this.cursor < this.data.n) this.request();
  }

  splat(started) {
    const { n, x, y, modality } = this.data;
    const { pixels } = this;
    const width = this.base.width;
    const height = this.base.height;
    if (this.cursor === 0) pixels.fill(this.page);
    const shaped = this.view.zoom >= SHAPES_FROM;
    const size = (n < 3000 ? 2.9 : n < 20000 ? 2.1 : n < 60000 ? 1.3 : 0.95) * this.ratio * Math.min(2.6, Math.max(0.9, this.view.zoom ** 0.36));
    const radius = shaped ? Math.max(size, 4 * this.ratio) : size;
    const stamps = this.tones.map((_, m) => {
      const flat = stamp(radius, shaped ? m % INSIDE.length : 0);
      return Int32Array.from(flat.flatMap(([dx, dy, step]) => [dy * width + dx, step]));
    });
    const reach = Math.ceil(radius);
    const k = this.scale * this.ratio;
    const left = this.base.width / 2 - this.view.x * k;
    const top = this.base.height / 2 - this.view.y * k;
    const off = this.tones.map((_, m) => this.hidden.has(m));
    let i = this.cursor;
    for (; i < n; i += 1) {
      if ((i & 1023) === 1023 && performance.now() - started > BUDGET) break;
      const m = modality[i];
      if (off[m]) continue;
      const px = (x[i] * k + left) | 0;
      const py = (y[i] * k + top) | 0;
      if (px < reach || py < reach || px >= width - reach || py >= height - reach) continue;
      const at = py * width + px;
      const faint = this.dimmed[i];
      const tones = this.tones[m][faint ? 0 : 1];
      const mark = stamps[m];
      for (let j = 0; j < mark.length; j += 2) {
        const place = at + mark[j];
        // Faint points and the soft edges of marks never cover other marks.
        if (faint || mark[j + 1] < 4) { if (pixels[place] !== this.page) continue; }
        pixels[place] = tones[mark[j + 1]];
      }
    }
    this.cursor = Math.max(1, i);
    if (i >= n) this.cursor = Math.max(1, n);
    this.context.putImageData(this.image, 0, 0);
  }

  paint() {
    const { paper } = this;
    paper.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    paper.clearRect(0, 0, this.width, this.height);
    if (!this.colors) return;
    this.actions.paint?.(paper, this);
    const outline = this.lasso ?? this.polygon?.map(([x, y]) => this.toScreen(x / RANGE, y / RANGE));
    if (outline?.length > 1) {
      paper.beginPath();
      outline.forEach(([px, py], i) => (i ? paper.lineTo(px, py) : paper.moveTo(px, py)));
      paper.closePath();
      paper.fillStyle = this.colors.accent;
      paper.globalAlpha = 0.1;
      paper.fill();
      paper.globalAlpha = 1;
      paper.strokeStyle = this.colors.accent;
      paper.lineWidth = 2;
      paper.setLineDash([6, 4]);
      paper.stroke();
      paper.setLineDash([]);
    }
  }

  /** Cells with the points they hold, sorted by cell. */
  grid() {
    if (this.cells) return this.cells;
    const { n, x, y } = this.data;
    const start = new Uint32Array(CELLS * CELLS + 1);
    const of = new Uint16Array(n);
    for (let i = 0; i < n; i += 1) {
      of[i] = Math.min(CELLS - 1, (y[i] * CELLS) | 0) * CELLS + Math.min(CELLS - 1, (x[i] * CELLS) | 0);
      start[of[i] + 1] += 1;
    }
    for (let c = 0; c < CELLS * CELLS; c += 1) start[c + 1] += start[c];
    const next = start.slice();
    const points = new Uint32Array(n);
    for (let i = 0; i < n; i += 1) { points[next[of[i]]] = i; next[of[i]] += 1; }
    this.cells = { start, points };
    return this.cells;
  }

  /** Call visit(point, px, py) for the shown points in a rectangle of the screen. */
  within(left, top, right, bottom, visit) {
    if (!this.data.n) return;
    const { start, points } = this.grid();
    const [x0, y0] = this.toMap(left, top);
    const [x1, y1] = this.toMap(right, bottom);
    const cell = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(value * CELLS)));
    const { x, y, modality } = this.data;
    for (let row = cell(y0); row <= cell(y1); row += 1)
      for (let c = row * CELLS + cell(x0), end = row * CELLS + cell(x1); c <= end; c += 1)
        for (let j = start[c]; j < start[c + 1]; j += 1) {
          const i = points[j];
          if (x[i] >= x0 && x[i] <= x1 && y[i] >= y0 && y[i] <= y1 && !this.hidden.has(modality[i])) visit(i, ...this.toScreen(x[i], y[i]));
        }
  }

  pick(px, py, reach = 14) {
    let best = -1;
    let least = reach * reach;
    this.within(px - reach, py - reach, px + reach, py + reach, (i, qx, qy) => {
      const distance = (qx - px) ** 2 + (qy - py) ** 2 + (this.dimmed[i] ? 60 : 0);
      if (distance < least) { least = distance; best = i; }
    });
    return best;
  }

  /** Points of the item of a point. */
  siblings(point) {
    const { n, item } = this.data;
    if (!this.items) {
      this.items = new Map();
      for (let i = 0; i < n; i += 1) {
        const list = this.items.get(item[i]);
        if (list) list.push(i); else this.items.set(item[i], [i]);
      }
    }
    return this.items.get(item[point]) ?? [];
  }

  nearestToCenter(count) {
    const found = [];
    const reach = Math.min(this.width, this.height) / 2;
    this.within(this.width / 2 - reach, this.height / 2 - reach, this.width / 2 + reach, this.height / 2 + reach, (i, px, py) => {
      if (!this.dimmed[i]) found.push([(px - this.width / 2) ** 2 + (py - this.height / 2) ** 2, i]);
    });
    return found.sort((a, b) => a[0] - b[0]).slice(0, count).map(([, i]) => i);
  }

  // --- movement ---

  setView(view) {
    this.view = {
      x: Math.max(-0.2, Math.min(1.2, view.x)), y: Math.max(-0.2, Math.min(1.2, view.y)), zoom: Math.max(0.5, Math.min(200, view.zoom)),
    };
    this.changed();
    this.actions.onView?.();
  }

  zoomAt(factor, px = this.width / 2, py = this.height / 2) {
    const [x, y] = this.toMap(px, py);
    const zoom = Math.max(0.5, Math.min(200, this.view.zoom * factor));
    const real = zoom / this.view.zoom;
    this.setView({ x: x + (this.view.x - x) / real, y: y + (this.view.y - y) / real, zoom });
  }

  panBy(dx, dy) { this.setView({ ...this.view, x: this.view.x - dx / this.scale, y: this.view.y - dy / this.scale }); }
  reset() { this.setView({ x: 0.5, y: 0.5, zoom: 1 }); }

  local(event) {
    const box = this.host.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  finishLasso() {
    const line = this.lasso;
    this.lasso = null;
    this.setMode("move");
    if (!line || line.length < 3) { this.repaint(); return; }
    const step = Math.max(1, Math.ceil(line.length / 250));
    const clip = (value) => Math.max(0, Math.min(RANGE, Math.round(value * RANGE)));
    this.polygon = line.filter((_, i) => i % step === 0).map(([px, py]) => this.toMap(px, py).map(clip));
    this.repaint();
    this.actions.onLasso?.(this.polygon);
  }

  setMode(mode) {
    this.mode = mode;
    this.host.classList.toggle("lasso", mode === "lasso");
    this.actions.onMode?.(mode);
  }

  listen() {
    const { host, pointers } = this;
    let moved = 0;
    let tapped = 0;
    let pinch = 0;
    host.addEventListener("pointerdown", (event) => {
      if (event.button > 0 || event.target.closest("button, a, input")) return;
      host.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, this.local(event));
      moved = 0;
      pinch = 0;
      if (event.shiftKey || this.mode === "lasso") { this.lasso = [this.local(event)]; this.polygon = null; }
      if (pointers.size > 1) this.lasso = null;
    });
    host.addEventListener("pointermove", (event) => {
      const place = this.local(event);
      const before = pointers.get(event.pointerId);
      if (!before) { this.actions.onHover?.(this.pick(...place), place); return; }
      moved += Math.hypot(place[0] - before[0], place[1] - before[1]);
      if (this.lasso) { this.lasso.push(place); pointers.set(event.pointerId, place); this.repaint(); return; }
      if (pointers.size === 2) {
        const [a, b] = [...pointers].map(([id, one]) => (id === event.pointerId ? place : one));
        const [c, d] = [...pointers.values()];
        const now = Math.hypot(a[0] - b[0], a[1] - b[1]);
        const was = Math.hypot(c[0] - d[0], c[1] - d[1]);
        pinch = 1;
        pointers.set(event.pointerId, place);
        this.panBy((a[0] + b[0] - c[0] - d[0]) / 2, (a[1] + b[1] - c[1] - d[1]) / 2);
        this.zoomAt(now / Math.max(1, was), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
        return;
      }
      pointers.set(event.pointerId, place);
      if (moved > 4) { this.actions.onHover?.(-1); this.panBy(place[0] - before[0], place[1] - before[1]); }
    });
    const up = (event) => {
      const place = pointers.get(event.pointerId);
      if (!place) return;
      pointers.delete(event.pointerId);
      if (this.lasso) { this.finishLasso(); return; }
      if (event.type !== "pointerup" || moved > 6 || pinch) return;
      const twice = event.pointerType === "touch" && performance.now() - tapped < 320;
      tapped = performance.now();
      if (twice) this.zoomAt(2, ...place);
      else this.actions.onPick?.(this.pick(...place, event.pointerType === "touch" ? 24 : 14));
    };
    host.addEventListener("pointerup", up);
    host.addEventListener("pointercancel", up);
    host.addEventListener("pointerleave", () => this.actions.onHover?.(-1));
    host.addEventListener("dblclick", (event) => this.zoomAt(2, ...this.local(event)));
    host.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), ...this.local(event));
    }, { passive: false });
    host.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.host) return;
    const arrows = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (this.mode === "rectangle") {
      const box = this.box;
      if (arrows) {
        const [dx, dy] = arrows.map((value) => value * -24);
        if (event.shiftKey) { box.w = Math.max(24, box.w + dx); box.h = Math.max(24, box.h + dy); }
        else { box.x += dx; box.y += dy; }
        this.lasso = this.corners();
        this.repaint();
      } else if (event.key === "Enter") { this.lasso = this.corners(); this.finishLasso(); }
      else if (event.key === "Escape") { this.lasso = null; this.setMode("move"); this.repaint(); }
      else return;
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    if (arrows) this.panBy(arrows[0] * 60, arrows[1] * 60);
    else if (event.key === "+" || event.key === "=") this.zoomAt(1.4);
    else if (event.key === "-" || event.key === "−") this.zoomAt(1 / 1.4);
    else if (event.key === "0") this.reset();
    else if (event.key === "l") {
      this.box = { x: this.width / 2, y: this.height / 2, w: this.width / 3, h: this.height / 3 };
      this.lasso = this.corners();
      this.setMode("rectangle");
      this.repaint();
    } else if (event.key === "Escape") {
      if (this.polygon || this.lasso) { this.polygon = null; this.lasso = null; this.repaint(); }
      this.actions.onEscape?.();
    } else if (this.actions.onKey?.(event)) { /* the screen has used it */ } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  corners() {
    const { x, y, w, h } = this.box;
    return [[x - w / 2, y - h / 2], [x + w / 2, y - h / 2], [x + w / 2, y + h / 2], [x - w / 2, y + h / 2]];
  }
}

/** Colors of the page for a map. */
export function pageStyle() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  return { page: value("--card"), ink: value("--ink"), soft: value("--soft"), accent: value("--accent"), lose: value("--lose"), win: value("--win"),
    modalities: Array.from({ length: 8 }, (_, m) => value(`--m${m}`)) };
}
