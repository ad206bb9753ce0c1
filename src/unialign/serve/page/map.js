// Map: all rows of the index on a plane, with links between the modalities of an item.

import { FLAG, PointMap, pageStyle, readPoints } from "./points.js";
import { button, card, el, errorBox, fill, icon, mark, number, progress, visual } from "./ui.js";

export const KINDS = [
  ["mispaired", "Mispaired", "a modality that does not fit the others"], ["copy", "Copies", "equal rows"],
  ["hub", "Hubs", "near everything"], ["outlier", "Outliers", "far from everything"],
];
const AUTO_UMAP = 20000;
const reduced = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export function mount(root, context) {
  const { api, state, router, announce } = context;
  const known = new Map();
  let points = null;
  let wanted = "";
  let layout = "pca";
  let overlay = "";
  let query = [];
  let labels = [];
  let hovered = -1;
  let focused = [];
  let chosen = null;
  let lasso = null;
  let abort = null;
  let generation = null;
  let sorted = ["", 1];
  let inView = null;

  const names = () => state.modalities().map((one) => one.name);
  const base = () => `/maps/${encodeURIComponent(state.index.id)}`;
  const rows = (body, signal) => api.post(`${base()}/rows`, { layout, generation, ...body }, { signal });

  // --- elements ---
  const host = el("div", { class: "map-canvas", tabindex: 0, role: "application", "aria-describedby": "map-text",
    "aria-label": "Map. Arrows move, plus and minus zoom, 0 shows all, Tab visits points, Enter opens one, L draws a rectangle" });
  const tip = el("div", { class: "map-tip", hidden: true });
  const legend = el("div", { class: "map-legend row", role: "group", "aria-label": "Modalities" });
  const faults = el("div", { class: "row", role: "group", "aria-label": "Marks on the map" });
  const status = el("div", { class: "map-status" });
  const side = el("aside", { class: "map-side panel", "aria-label": "Selection" });
  const text = el("p", { class: "note", id: "map-text" });
  const filter = el("input", { type: "text", "aria-label": "Filter of the map", placeholder: "filter, such as has(speech)", spellcheck: "false", autocapitalize: "off" });
  const layouts = el("div", { class: "row", role: "group", "aria-label": "Layout" });
  const lassoButton = button("Lasso", () => map.setMode(map.mode === "lasso" ? "move" : "lasso"),
    { class: "toggle", title: "Draw around points (or shift and drag)", "aria-pressed": "false" });
  const table = el("details", { class: "map-table" }, el("summary", { text: "Table of what is in view" }), el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of what is in view" }));
  const tools = el("div", { class: "map-zoom" },
    button("", () => map.zoomAt(1.5), { icon: "plus", label: "Zoom in" }), button("", () => map.zoomAt(1 / 1.5), { icon: "minus", label: "Zoom out" }),
    button("All", () => map.reset(), { label: "Show all points" }));
  host.append(tools, tip);
  root.append(
    el("h1", { class: "visually-hidden", text: "Map" }),
    el("div", { class: "map-head" },
      el("form", { class: "row map-filter", role: "search", on: { submit: (event) => { event.preventDefault(); router.set({ where: filter.value.trim() || null }); } } }, filter, el("button", { class: "button", text: "Filter" })),
      layouts, lassoButton),
    el("div", { class: "map-columns" }, el("div", { class: "map-main" }, legend, host, el("div", { class: "map-marks" }, faults, status), text, table), side));

  const map = new PointMap(host, { onHover: hover, onPick: (point) => pick(point), onLasso: choose, onView: viewed, paint, onKey: key,
    onEscape: () => { lasso = null; chosen = null; drawSide(); },
    onMode: (mode) => { lassoButton.setAttribute("aria-pressed", String(mode === "lasso"));
      if (mode === "rectangle") announce("Rectangle: arrows move it, shift and arrows change its size, Enter selects the points inside, Escape cancels"); } });
  // For measurements by scripts.
  host.map = map;

  const recolor = () => {
    const style = pageStyle();
    map.setColors(names().map((name) => style.modalities[state.shape(name) % 8]), style);
  };
  state.on("theme", () => requestAnimationFrame(recolor));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolor);
  state.on("selection", () => { map.repaint(); if (!root.hidden) drawSide(); });
  table.addEventListener("toggle", () => fillTable());

  // --- data ---
  async function load(which, { quiet = false } = {}) {
    abort?.abort();
    abort = new AbortController();
    const { signal } = abort;
    const where = router.current.params.get("where");
    if (!quiet) status.replaceChildren(el("span", { class: "soft", text: "Reading the points" }));
    const get = (name) => api.bytes(base(), { signal, query: { layout: name, items: true, where } });
    try {
      let answer = await get("pca");
      if (which !== "umap" || !points) await place(answer, "pca");
      if (which === "umap" && !(answer.headers.get("X-Map-Layouts") ?? "").includes("umap")) {
        // A request for it would be answered by an error.
        layout = which = "pca";
        drawLayouts("UMAP is not installed: pip install 'unialign[map]'");
      }
      if (which === "pca") { drawStatus(); return; }
      answer = await get("umap");
      if (answer.status === 202) {
        await api.job(answer.buffer, { signal, onProgress: () =>
          status.replaceChildren(progress(0, 0, "Computing the UMAP layout; the first layout is shown until it is ready")) });
        answer = await get("umap");
      }
      await place(answer, "umap");
      drawStatus();
      announce("The map shows the UMAP layout");
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      if (which === "umap" && points) {
        layout = "pca";
        drawLayouts(error.status === 409 ? error.message : null);
        drawStatus(error.status === 409 ? "" : error.message);
      } else status.replaceChildren(errorBox(error, () => load(which)));
    }
  }

  async function place(answer, name) {
    const next = readPoints(answer.buffer);
    const headers = answer.headers;
    generation = Number(headers.get("X-Map-Rows"));
    next.items = Number(headers.get("X-Map-Items"));
    next.total = Number(headers.get("X-Map-Total"));
    next.overlays = headers.get("X-Map-Overlays") === "yes";
    const before = points;
    points = next;
    layout = name;
    drawLayouts();
    drawFaults();
    if (before && before.n === next.n && next.n < 60000 && !reduced() && before.layout !== name) await morph(before, next);
    next.layout = name;
    map.setData(next);
    viewed();
    describe();
  }

  function morph(before, next) {
    return new Promise((resolve) => {
      const started = performance.now();
      const shown = { ...next, x: before.x.slice(), y: before.y.slice() };
      const [fromX, fromY] = [before.x.slice(), before.y.slice()];
      const step = () => {
        const t = Math.min(1, (performance.now() - started) / 900);
        const ease = t * t * (3 - 2 * t);
        for (let i = 0; i < next.n; i += 1) {
          shown.x[i] = fromX[i] + (next.x[i] - fromX[i]) * ease;
          shown.y[i] = fromY[i] + (next.y[i] - fromY[i]) * ease;
        }
        map.setData(shown);
        if (t < 1 && !root.hidden) requestAnimationFrame(step); else resolve();
      };
      step();
    });
  }

  // --- painting over the points ---
  const at = (i) => map.toScreen(map.data.x[i], map.data.y[i]);
  function ring(paper, i, radius, color, width = 2) {
    const [px, py] = at(i);
    paper.beginPath();
    paper.arc(px, py, radius, 0, 7);
    paper.strokeStyle = color;
    paper.lineWidth = width;
    paper.stroke();
  }
  function links(paper, list, color, width) {
    for (let a = 0; a < list.length; a += 1)
      for (let b = a + 1; b < list.length; b += 1) {
        paper.beginPath();
        paper.moveTo(...at(list[a]));
        paper.lineTo(...at(list[b]));
        paper.strokeStyle = color;
        paper.lineWidth = width;
        paper.stroke();
      }
    for (const i of list) {
      const [px, py] = at(i);
      paper.beginPath();
      paper.arc(px, py, 5.5, 0, 7);
      paper.fillStyle = map.colors.modalities[map.data.modality[i] % 8];
      paper.fill();
      paper.strokeStyle = map.colors.page;
      paper.lineWidth = 1.6;
      paper.stroke();
    }
  }

  function paint(paper) {
    const { colors, data } = map;
    if (overlay && data.n) {
      let left = 1500;
      map.within(0, 0, map.width, map.height, (i) => { if (data.flags[i] & FLAG[overlay] && left > 0) { left -= 1; ring(paper, i, 6, colors.lose, 1.6); } });
    }
    if (query.length) {
      const list = query.filter((i) => i >= 0 && i < data.n);
      const head = list.slice(0, 5).map(at);
      if (head.length) {
        const x = head.reduce((sum, one) => sum + one[0], 0) / head.length;
        const y = head.reduce((sum, one) => sum + one[1], 0) / head.length;
        paper.globalAlpha = 0.55;
        for (const i of list) {
          paper.beginPath();
          paper.moveTo(x, y);
          paper.lineTo(...at(i));
          paper.strokeStyle = colors.accent;
          paper.lineWidth = 1;
          paper.stroke();
        }
        paper.globalAlpha = 1;
        for (const i of list) ring(paper, i, 6, colors.accent, 2);
        star(paper, x, y, colors);
      }
    }
    if (state.selection.size && data.n) for (const [key, one] of known) if (state.selection.has(key)) for (const i of Object.values(one.rows)) ring(paper, i, 7, colors.ink, 1.4);
    for (const one of focused) ring(paper, one, 9, colors.accent, 2.4);
    if (chosen) links(paper, Object.values(chosen.rows), colors.ink, 1.6);
    if (hovered >= 0 && hovered < data.n) links(paper, map.siblings(hovered).filter((i) => !map.hidden.has(data.modality[i])), colors.soft, 1.2);
    if (!hideLabels()) drawLabels(paper, colors);
  }
  const hideLabels = () => Boolean(overlay) && map.view.zoom < 2;

  function star(paper, x, y, colors) {
    paper.beginPath();
    for (let i = 0; i < 10; i += 1) {
      const r = i % 2 ? 5 : 12;
      paper.lineTo(x + r * Math.sin((i * Math.PI) / 5), y - r * Math.cos((i * Math.PI) / 5));
    }
    paper.closePath();
    paper.fillStyle = colors.accent;
    paper.fill();
    paper.strokeStyle = colors.page;
    paper.lineWidth = 2;
    paper.stroke();
  }

  function drawLabels(paper, colors) {
    paper.font = "600 12.5px system-ui, sans-serif";
    paper.textAlign = "center";
    paper.lineJoin = "round";
    const taken = [];
    for (const { point, text: words, picture } of labels) {
      const [px, py] = at(point);
      const width = Math.max(paper.measureText(words).width, picture ? 44 : 0);
      const box = [px - width / 2 - 6, py - (picture ? 58 : 20), px + width / 2 + 6, py + 4];
      if (box[0] < 0 || box[1] < 0 || box[2] > map.width || box[3] > map.height) continue;
      if (taken.some((one) => box[0] < one[2] && box[2] > one[0] && box[1] < one[3] && box[3] > one[1])) continue;
      taken.push(box);
      if (picture) {
        paper.fillStyle = "#fff";
        paper.beginPath();
        paper.roundRect(px - 20, py - 58, 40, 40, 9);
        paper.fill();
        const scale = 34 / Math.max(picture.naturalWidth, picture.naturalHeight, 1);
        const [w, h] = [picture.naturalWidth * scale, picture.naturalHeight * scale];
        paper.drawImage(picture, px - w / 2, py - 38 - h / 2, w, h);
      }
      paper.strokeStyle = colors.page;
      paper.lineWidth = 4;
      paper.strokeText(words, px, py - 6);
      paper.fillStyle = colors.ink;
      paper.fillText(words, px, py - 6);
    }
  }

  let settle = null;
  function viewed() {
    map.repaint();
    tip.hidden = true;
    clearTimeout(settle);
    settle = setTimeout(settled, 260);
  }
  function settled() {
    if (!points || root.hidden) return;
    const { x, y, zoom } = map.view;
    const home = zoom === 1 && x === 0.5 && y === 0.5;
    const text = home ? null : [x, y, zoom].map((value) => Number(value.toFixed(4))).join(",");
    if (router.current.screen === "map" && router.current.params.get("at") !== text) router.set({ at: text });
    placeLabels();
    describe();
    fillTable();
  }

  /** Label the densest cells of the view by a point near their middle. */
  async function placeLabels() {
    const cells = new Map();
    const size = 96;
    map.within(0, 0, map.width, map.height, (i, px, py) => {
      if (map.dimmed[i]) return;
      const id = `${Math.floor(px / size)},${Math.floor(py / size)}`;
      const cell = cells.get(id) ?? { count: 0, x: 0, y: 0, list: [] };
      cell.count += 1; cell.x += px; cell.y += py;
      if (cell.list.length < 60) cell.list.push([i, px, py]);
      cells.set(id, cell);
    });
    const dense = [...cells.values()].sort((a, b) => b.count - a.count).slice(0, 16);
    const chosenPoints = dense.map((cell) => {
      const [mx, my] = [cell.x / cell.count, cell.y / cell.count];
      return cell.list.reduce((best, one) => (Math.hypot(one[1] - mx, one[2] - my) < Math.hypot(best[1] - mx, best[2] - my) ? one : best))[0];
    });
    if (!chosenPoints.length) { labels = []; return; }
    try {
      const described = await describePoints(chosenPoints);
      labels = chosenPoints.flatMap((point) => {
        const item = described.get(points.item[point]);
        if (!item) return [];
        const name = item.name.length > 26 ? `${item.name.slice(0, 25)}…` : item.name;
        return [{ point, text: name, picture: item.picture }];
      });
      map.repaint();
      describe();
      for (const point of chosenPoints) picture(described.get(points.item[point]));
    } catch { labels = []; }
  }

  async function picture(item) {
    const name = item && Object.keys(item.media).find((one) => ["image", "video"].includes(state.kind(one)));
    if (!name || item.picture) return;
    try {
      const { url } = await api.mediaRecord(item.media[name]);
      const image = new Image();
      image.src = url;
      await image.decode();
      item.picture = image;
      for (const label of labels) if (points.item[label.point] === item.number) label.picture = image;
      map.repaint();
    } catch { /* the label has no picture */ }
  }

  const byNumber = new Map();
  function remember(items) {
    for (const item of items) {
      item.number = points.item[Object.values(item.rows)[0]];
      item.picture = byNumber.get(item.number)?.picture;
      byNumber.set(item.number, item);
      known.set(item.key, item);
      if (known.size > 5000) known.clear();
    }
    return items;
  }
  async function describePoints(list, signal) {
    const missing = list.filter((point) => !byNumber.has(points.item[point]));
    if (missing.length) remember((await rows({ rows: missing, limit: missing.length }, signal)).items);
    return byNumber;
  }

  // --- hover, picking, lasso ---
  let hovering = null;
  let hoverAbort = null;
  function hover(point, place) {
    if (point !== hovered) {
      hovered = point;
      host.classList.toggle("over-point", point >= 0);
      map.repaint();
    }
    clearTimeout(hovering);
    if (point < 0) { tip.hidden = true; return; }
    hovering = setTimeout(async () => {
      hoverAbort?.abort();
      hoverAbort = new AbortController();
      try {
        const item = (await describePoints([point], hoverAbort.signal)).get(points.item[point]);
        if (!item || hovered !== point) return;
        const name = names()[points.modality[point]];
        tip.replaceChildren(visual(item, context, { modality: item.media[name] ? name : null }),
          el("b", { dir: "auto", text: item.name }), el("span", { class: "modality" }, mark(state, name), el("span", { text: name })),
          ...Object.keys(item.flags).length ? [el("span", { class: "small map-flag", text: flagText(item) })] : []);
        tip.hidden = false;
        const [px, py] = place ?? at(point);
        tip.style.setProperty("left", `${Math.max(4, Math.min(map.width - 176, px + 16))}px`);
        tip.style.setProperty("top", `${Math.max(4, Math.min(map.height - 210, py + 14))}px`);
      } catch { tip.hidden = true; }
    }, byNumber.has(points.item[point]) ? 0 : 70);
  }
  const flagText = (item) => KINDS.filter(([kind]) => Object.values(item.flags).some((one) => one & FLAG[kind])).map(([, title]) => title.toLowerCase()).join(", ");

  async function pick(point) {
    if (point < 0) { chosen = null; focused = []; map.repaint(); drawSide(); return; }
    try {
      chosen = (await describePoints([point])).get(points.item[point]) ?? null;
      map.repaint();
      drawSide();
      if (chosen) announce(`${chosen.name}, ${Object.keys(chosen.rows).join(", ")}`);
    } catch (error) { side.replaceChildren(errorBox(error)); }
  }

  async function choose(polygon) {
    chosen = null;
    try {
      const shown = names().filter((_, m) => !map.hidden.has(m));
      const answer = await rows({ polygon, modalities: shown, limit: 60 });
      lasso = { ...answer, items: remember(answer.items) };
      drawSide();
      announce(`${answer.total_items} items inside`);
    } catch (error) { side.replaceChildren(errorBox(error)); }
  }

  let tabbed = -1;
  function key(event) {
    if (event.key === "Tab") {
      const list = map.nearestToCenter(20);
      if (tabbed < 0 && event.shiftKey) return false;
      const next = tabbed + (event.shiftKey ? -1 : 1);
      if (next < 0 || next >= list.length) { tabbed = -1; focused = []; map.repaint(); return false; }
      tabbed = next;
      focused = [list[next]];
      hovered = list[next];
      map.repaint();
      describePoints(focused).then((all) => { const item = all.get(points.item[list[next]]);
        if (item) announce(`${item.name}, ${names()[points.modality[list[next]]]}, ${next + 1} of ${list.length}`); }).catch(() => null);
      hover(list[next]);
      return true;
    }
    if (event.key === "Enter" && focused.length) { pick(focused[0]); return true; }
    if (event.key === "x" && chosen) { state.select(chosen.key); return true; }
    return false;
  }
  host.addEventListener("blur", () => { tabbed = -1; focused = []; hovered = -1; tip.hidden = true; map.repaint(); });

  // --- panels ---
  function drawSide() {
    side.classList.toggle("is-open", Boolean(chosen || lasso));
    if (chosen) {
      const item = chosen;
      const shown = Object.keys(item.rows).sort((a, b) => state.shape(a) - state.shape(b));
      const picked = state.selection.has(item.key);
      fill(side,
        el("div", { class: "detail-head" }, el("h2", { dir: "auto", text: item.name }), button("", () => { chosen = null; map.repaint(); drawSide(); }, { icon: "close", label: "Close", class: "quiet" })),
        el("div", { class: "map-halves" }, shown.map((name) => el("figure", {}, item.media[name] ? visual(item, context, { modality: name, controls: true }) : el("span", { class: "visual" }, icon("key")),
          el("figcaption", { class: "modality" }, mark(state, name), el("span", { text: name }))))),
        item.missing.length ? el("p", { class: "soft small", text: `Without ${item.missing.join(", ")}` }) : null,
        Object.keys(item.flags).length ? el("p", { class: "small map-flag", text: `Suspicion: ${flagText(item)}` }) : null,
        el("div", { class: "row" }, button("Use as query", () => router.go("search", state.asQuery(item.key)), { primary: true }),
          button(picked ? "Selected" : "Select", () => state.select(item.key), { "aria-pressed": String(picked), icon: picked ? "check" : "export" }),
          lasso ? button("Back to the list", () => { chosen = null; map.repaint(); drawSide(); }) : null));
      return;
    }
    if (lasso) {
      const all = lasso.keys.length && lasso.keys.every((one) => state.selection.has(one));
      fill(side,
        el("div", { class: "detail-head" }, el("h2", { text: `${number(lasso.total_items)} item${lasso.total_items === 1 ? "" : "s"}` }),
          button("", () => { lasso = null; map.polygon = null; map.repaint(); drawSide(); }, { icon: "close", label: "Close the list", class: "quiet" })),
        el("p", { class: "soft small", text: `${number(lasso.total_rows)} points inside the line${lasso.total_items > lasso.items.length ? `; the first ${lasso.items.length} items are shown` : ""}` }),
        el("div", { class: "row" }, button(all ? "All selected" : "Select all", () => state.selectAll(lasso.keys, !all), { icon: all ? "check" : null, "aria-pressed": String(Boolean(all)) }),
          button("Export", () => { state.selectAll(lasso.keys); router.go("export", state.indexParam()); }, { icon: "export", primary: true, label: "Export these items" })),
        el("ul", { class: "map-list" }, lasso.items.map((item) => el("li", { class: state.selection.has(item.key) ? "selected" : "" },
          card(item, context, { onClick: () => { chosen = item; map.repaint(); drawSide(); } })))));
      return;
    }
    side.replaceChildren(el("h2", { text: "Nearby points are similar" }),
      el("p", { class: "soft", text: "Every point is an item in one modality. Hover over a point to see it and the lines to its other modalities; click to keep it open." }),
      el("dl", { class: "keys map-keys" }, [["drag, wheel", "move and zoom"], ["shift and drag", "select the points inside a line"], ["Tab, Enter", "visit points, open one"], ["L", "draw a rectangle with the arrows"]].map(([one, what]) =>
        el("div", {}, el("dt", {}, el("kbd", { text: one })), el("dd", { text: what })))));
  }

  function drawLegend() {
    legend.replaceChildren(...state.modalities().map(({ name, rows: count }, m) => {
      const one = el("button", { type: "button", class: "toggle", "aria-pressed": "true", title: `Show or hide ${name}`, on: { click: () => {
        if (map.hidden.has(m)) map.hidden.delete(m); else map.hidden.add(m);
        one.setAttribute("aria-pressed", String(!map.hidden.has(m)));
        map.changed();
        viewed();
      } } }, mark(state, name), el("span", { text: name }), el("span", { class: "soft small", text: number(count) }));
      return one;
    }));
  }

  function drawLayouts(reason = null) {
    const go = (name) => router.set({ layout: name });
    layouts.replaceChildren(...[["pca", "PCA"], ["umap", "UMAP"]].map(([name, title]) => el("button", {
      type: "button", class: "toggle", "aria-pressed": String(layout === name), text: title, disabled: name === "umap" && reason, title: reason, on: { click: () => go(name) },
    })));
  }

  function drawFaults() {
    if (!points) return;
    if (!points.overlays) {
      faults.replaceChildren(button("Find hubs, outliers, copies and mispaired items", findFaults, { class: "map-find", icon: "health" }));
      return;
    }
    fill(faults, el("span", { class: "soft small", text: "Mark" }), ...KINDS.map(([kind, title, what]) => {
      let count = 0;
      for (let i = 0; i < points.n; i += 1) if (points.flags[i] & FLAG[kind]) count += 1;
      return el("button", { type: "button", class: "toggle", "aria-pressed": String(overlay === kind), title: what, disabled: !count, on: { click: () => router.set({ overlay: overlay === kind ? null : kind }) } },
        el("span", { text: title }), el("b", { text: number(count) }));
    }), overlay ? button("List them", () => router.go("health", { finding: overlay, ...state.indexParam() }), { class: "toggle" }) : null);
  }

  async function findFaults() {
    try {
      const answer = await api.get(`/diagnosis/${encodeURIComponent(state.index.id)}`);
      if (answer.job) await api.job(answer, { onProgress: (done, total) => faults.replaceChildren(progress(done, total, "Comparing all rows")) });
      byNumber.clear();
      await load(layout, { quiet: true });
    } catch (error) { faults.replaceChildren(errorBox(error, findFaults)); }
  }

  function drawStatus(problem = "") {
    const sampled = points.total > points.n ? `A random sample of ${number(points.items)} items is shown, with every modality as frequent as in the index: ${number(points.n)} of ${number(points.total)} rows. ` : "";
    status.replaceChildren(el("span", { class: "soft small", text: sampled + problem }));
  }

  function describe() {
    if (!points) return;
    const counts = new Map();
    let total = 0;
    map.within(0, 0, map.width, map.height, (i) => { total += 1; const name = names()[points.modality[i]]; counts.set(name, (counts.get(name) ?? 0) + 1); });
    const parts = [...counts].map(([name, count]) => `${number(count)} ${name}`).join(", ");
    const around = labels.slice(0, 6).map((one) => one.text).join(", ");
    text.textContent = `${number(total)} of ${number(points.n)} points in view: ${parts || "none"}.${around ? ` Dense around ${around}.` : ""}`;
  }

  async function fillTable() {
    if (!table.open || !points) return;
    const clip = (value) => Math.max(0, Math.min(65535, Math.round(value * 65535)));
    const corners = [[0, 0], [map.width, 0], [map.width, map.height], [0, map.height]].map((one) => map.toMap(...one).map(clip));
    try {
      const answer = await rows({ polygon: corners, modalities: names().filter((_, m) => !map.hidden.has(m)), limit: 100 });
      inView = { total: answer.total_items, items: remember(answer.items) };
      drawTable();
    } catch (error) { table.lastChild.replaceChildren(errorBox(error, fillTable)); }
  }
  function drawTable() {
    const columns = [["name", "Name", (one) => one.name], ["label", "Label", (one) => one.label ?? ""], ["modalities", "Modalities in view", (one) => one.inside.join(", ")], ["flags", "Suspicion", flagText]];
    const read = columns.find(([id]) => id === sorted[0])?.[2];
    const list = read ? [...inView.items].sort((a, b) => sorted[1] * String(read(a)).localeCompare(String(read(b)))) : inView.items;
    table.lastChild.replaceChildren(el("p", { class: "soft small", text: `${number(inView.total)} items in view${inView.total > list.length ? `, ${list.length} of them here; zoom in for others` : ""}` }),
      el("table", { class: "table" }, el("thead", {}, el("tr", {}, columns.map(([id, title]) => el("th", { scope: "col", "aria-sort": sorted[0] === id ? (sorted[1] > 0 ? "ascending" : "descending") : "none" },
        el("button", { type: "button", class: "sort", text: title, on: { click: () => { sorted = [id, sorted[0] === id ? -sorted[1] : 1]; drawTable(); } } }))))),
      el("tbody", {}, list.map((one) => el("tr", {}, columns.map(([id, , value]) => el("td", { dir: "auto" }, id === "name"
        ? el("button", { type: "button", class: "link", text: one.name, on: { click: () => { chosen = one; map.repaint(); drawSide(); } } }) : value(one))))))));
  }

  async function centerOn(itemKey) {
    const answer = await rows({ keys: [itemKey], limit: 1 });
    const [item] = remember(answer.items);
    if (!item) { announce("The item is not on the map"); drawStatus("The chosen item is not in the sample that the map shows."); return; }
    chosen = item;
    const list = Object.values(item.rows);
    map.setView({ x: list.reduce((sum, i) => sum + points.x[i], 0) / list.length, y: list.reduce((sum, i) => sum + points.y[i], 0) / list.length, zoom: Math.max(2.2, map.view.zoom) });
    drawSide();
  }

  async function showQuery() {
    const results = state.results?.results ?? [];
    query = [];
    if (!results.length || !points) return;
    const answer = await rows({ keys: results.slice(0, 24).map((one) => one.key), limit: 24 });
    const found = new Map(remember(answer.items).map((item) => [item.key, item]));
    query = results.slice(0, 24).flatMap((hit) => { const own = found.get(hit.key)?.rows; return own ? [own[hit.modality] ?? Object.values(own)[0]] : []; });
    map.repaint();
  }

  return {
    async show(params) {
      const kind = params.get("overlay") ?? "";
      overlay = FLAG[kind] && kind !== "filtered" ? kind : "";
      const which = params.get("layout") ?? (rowsOf(state) <= AUTO_UMAP ? "umap" : "pca");
      const now = JSON.stringify([state.index.id, state.index.generation, params.get("where"), which]);
      if (filter !== document.activeElement) filter.value = params.get("where") ?? "";
      map.mask = overlay ? FLAG[overlay] : 0;
      if (now !== wanted) {
        const other = !wanted || JSON.parse(wanted)[0] !== state.index.id;
        wanted = now;
        if (other) {
          points = null; chosen = null; lasso = null; labels = []; map.hidden.clear(); known.clear(); byNumber.clear();
          map.setData({ n: 0, x: [], y: [], flags: [], modality: [], item: [] });
          drawLegend();
          recolor();
        }
        drawLayouts();
        drawSide();
        const place = params.get("at")?.split(",").map(Number);
        if (place?.length === 3 && place.every(Number.isFinite)) map.setView({ x: place[0], y: place[1], zoom: place[2] });
        const loading = load(which);
        await Promise.race([loading, new Promise((resolve) => { const wait = () => (points || root.hidden ? resolve() : setTimeout(wait, 30)); wait(); })]);
      } else if (points) map.update();
      drawFaults();
      if (!points) return;
      if (params.get("item") && chosen?.key !== params.get("item")) {
        const wantedItem = params.get("item");
        router.set({ item: null });
        await centerOn(wantedItem);
      }
      await showQuery();
    },
    hide() { clearTimeout(settle); tip.hidden = true; },
  };
}

const rowsOf = (state) => state.modalities().reduce((sum, one) => sum + one.rows, 0);
