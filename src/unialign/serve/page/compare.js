// Compare: two indexes of the same items, as two linked maps and two columns of answers.

import { PointMap, pageStyle } from "./points.js";
import { card, el, empty, errorBox, number, progress, select, visual } from "./ui.js";

const RANGE = 65535;

export function mount(root, context) {
  const { api, state, router, announce } = context;
  let result = null;
  let wanted = "";
  let abort = null;
  let chosen = new Set();
  let hovered = -1;
  const others = () => state.info.indexes.filter((one) => one.id !== state.index.id);
  const other = () => others().find((one) => one.id === router.current.params.get("with")) ?? others()[0];
  const items = new Map();

  const field = el("input", { type: "text", "aria-label": "Query for both indexes", placeholder: "a text, or the key of an item", spellcheck: "false" });
  const form = el("form", { class: "row compare-query", role: "search", on: { submit: (event) => { event.preventDefault(); ask(field.value.trim()); } } }, field, el("button", { class: "button primary", text: "Ask both" }));
  const pickers = el("div", { class: "row" });
  const numbers = el("div", { class: "compare-numbers" });
  const note = el("p", { class: "soft small" });
  const hosts = ["a", "b"].map(() => el("div", { class: "map-canvas small", tabindex: 0, role: "application" }));
  const titles = ["a", "b"].map(() => el("h2", {}));
  const tip = el("p", { class: "compare-tip", "aria-live": "polite" });
  const maps = el("div", { class: "compare-maps" }, hosts.map((host, side) => el("figure", {}, titles[side], host)));
  const answers = el("div", { class: "compare-answers" });
  const movers = el("div", {});
  const body = el("div", { class: "stack" }, numbers, note, maps, tip, form, answers, movers);
  const message = el("div", {});
  root.append(el("div", { class: "screen-head" }, el("h1", { text: "Compare" }), el("p", { text: "Two indexes of the same items: which items moved, and what each index returns." }), pickers), message, body);
  body.hidden = true;

  const views = hosts.map((host, side) => new PointMap(host, {
    onHover: (point) => { if (point !== hovered) { hovered = point; for (const map of views) map.repaint(); drawTip(); } },
    onPick: (point) => { if (point >= 0) { field.value = result.points.keys[point]; ask(field.value); } },
    onLasso: (polygon) => { chosen = new Set(inside(side, polygon)); views[1 - side].polygon = null; for (const map of views) map.repaint(); drawTip(); },
    onView: () => { const twin = views[1 - side]; if (JSON.stringify(twin.view) !== JSON.stringify(views[side].view)) { twin.view = views[side].view; twin.changed(); } },
    onEscape: () => { chosen = new Set(); for (const map of views) map.repaint(); drawTip(); },
    paint: (paper, map) => {
      const place = (i) => map.toScreen(map.data.x[i], map.data.y[i]);
      const dot = (i, radius, color) => { paper.beginPath(); paper.arc(...place(i), radius, 0, 7); paper.fillStyle = color; paper.fill(); paper.strokeStyle = map.colors.page; paper.lineWidth = 1.5; paper.stroke(); };
      for (const i of chosen) if (i < map.data.n) dot(i, 4, map.colors.accent);
      if (hovered >= 0 && hovered < map.data.n) dot(hovered, 7, map.colors.accent);
    },
  }));
  const recolor = () => {
    const style = pageStyle();
    // Four steps from kept neighbors to lost ones.
    for (const map of views) map.setColors([style.lose, style.modalities[4], style.modalities[5], style.modalities[0]], style);
  };
  state.on("theme", () => requestAnimationFrame(recolor));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolor);

  function inside(side, polygon) {
    const { x, y, n } = views[side].data;
    const found = [];
    for (let i = 0; i < n; i += 1) {
      let is = false;
      for (let j = 0, k = polygon.length - 1; j < polygon.length; k = j, j += 1) {
        const [[ax, ay], [bx, by]] = [polygon[j], polygon[k]].map((one) => one.map((value) => value / RANGE));
        if ((ay > y[i]) !== (by > y[i]) && x[i] < ((bx - ax) * (y[i] - ay)) / (by - ay) + ax) is = !is;
      }
      if (is) found.push(i);
    }
    return found;
  }

  function drawTip() {
    if (hovered >= 0) tip.textContent = `${result.points.keys[hovered]}: ${Math.round(result.k * result.points.kept[hovered])} of its ${result.k} neighbors are the same`;
    else if (chosen.size) {
      const kept = [...chosen].reduce((sum, i) => sum + result.points.kept[i], 0) / chosen.size;
      tip.textContent = `${number(chosen.size)} items inside the line keep ${(100 * kept).toFixed(0)} % of their neighbors.`;
    } else tip.textContent = "Hover over a point to see it in both maps; shift and drag selects items; a click searches both indexes.";
  }

  async function load() {
    abort?.abort();
    abort = new AbortController();
    const { signal } = abort;
    message.replaceChildren(progress(0, 0, "Comparing"));
    body.hidden = true;
    try {
      result = await api.post("/compare", { a: state.index.id, b: other().id }, { signal });
    } catch (error) {
      if (!signal.aborted) {
        message.replaceChildren(error.code === "different_items"
          ? empty("These indexes cannot be compared", el("p", { text: error.message })) : errorBox(error, load));
      }
      return;
    }
    message.replaceChildren();
    body.hidden = false;
    chosen = new Set();
    recolor();
    views.forEach((map, side) => {
      const list = result.points[side ? "b" : "a"];
      const n = list.length;
      // Steps by rank: the tenth that kept the fewest neighbors, the next two tenths, the next three, the rest.
      const ranked = [...result.points.kept].sort((x, y) => x - y);
      const steps = [0.1, 0.3, 0.6].map((share) => ranked[Math.floor(share * (n - 1))]);
      map.setData({ n, x: Float32Array.from(list, (one) => one[0]), y: Float32Array.from(list, (one) => one[1]),
        modality: Uint8Array.from(result.points.kept, (kept) => (kept === 1 ? 3 : steps.filter((step) => kept > step).length)), flags: new Uint8Array(n), item: Uint32Array.from({ length: n }, (_, i) => i) });
      const name = side ? other().name : state.index.name;
      titles[side].textContent = name;
      hosts[side].setAttribute("aria-label", `Map of ${name}: ${n} items; arrows move, plus and minus zoom, L draws a rectangle`);
    });
    drawNumbers();
    drawMovers();
    drawTip();
    announce(`${Math.round(100 * result.kept)} percent of the neighbors are the same`);
  }

  function drawNumbers() {
    const { a, b } = result.metrics;
    const show = (one) => (one.name.startsWith("R@") ? `${(100 * one.value).toFixed(1)} %` : one.value.toFixed(2));
    const range = (one) => (one.low === null ? "" : `${(100 * one.low).toFixed(1)} to ${(100 * one.high).toFixed(1)}`);
    numbers.replaceChildren(
      el("div", { class: "panel compare-kept" }, el("b", { class: "big", text: `${(100 * result.kept).toFixed(0)} %` }), el("span", { text: `of the ${result.k} nearest neighbors of an item are the same in both` })),
      el("table", { class: "table" }, el("caption", { class: "visually-hidden", text: "Measurements of both indexes" }),
        el("thead", {}, el("tr", {}, el("td"), el("th", { scope: "col", text: state.index.name }), el("th", { scope: "col", text: other().name }))),
        el("tbody", {}, a.map((one, i) => {
          const differ = one.low === null ? show(one) !== show(b[i]) : one.low > b[i].high || b[i].low > one.high;
          const better = differ ? Math.sign(b[i].value - one.value) * (one.better === "higher" ? 1 : -1) : 0;
          const cell = (entry, wins) => el("td", { class: wins ? "is-better" : "" }, el("b", { text: show(entry) }), " ", el("span", { class: "soft small", text: range(entry) }));
          return el("tr", {}, el("th", { scope: "row", text: one.name }), cell(one, better < 0), cell(b[i], better > 0));
        }))));
    note.textContent = `${number(result.items)}${result.items < result.of ? ` of ${number(result.of)}` : ""} items, including those used in training; R@k over all directions between ${result.modalities.join(", ")}, with 95 % intervals. The second map is rotated onto the first; ${(100 * result.residual).toFixed(0)} % of the variance in full dimension is not explained by a rotation. Dark orange points lost the most neighbors, dark blue ones the fewest.`;
  }

  async function described(key) {
    if (!items.has(key)) items.set(key, await api.get(`/items/${encodeURIComponent(key)}`, { query: state.indexParam() }));
    return items.get(key);
  }

  function drawMovers() {
    movers.replaceChildren(el("h2", { text: "Items that moved most" }), el("ul", { class: "movers" }, result.movers.slice(0, 12).map((one) => {
      const picture = el("span", { class: "thumb" });
      described(one.key).then((item) => picture.append(visual(item, context))).catch(() => null);
      return el("li", {}, el("button", { type: "button", class: "mover", on: { click: () => { field.value = one.key; ask(one.key); form.scrollIntoView({ block: "nearest" }); } } }, picture,
        el("span", {}, el("b", { dir: "auto", text: one.name }), el("span", { class: "small soft", text: `keeps ${Math.round(one.kept * result.k)} of ${result.k}` }),
          one.lost.length ? el("span", { class: "small", dir: "auto", text: `− ${one.lost.slice(0, 3).join(", ")}` }) : null, one.gained.length ? el("span", { class: "small", dir: "auto", text: `+ ${one.gained.slice(0, 3).join(", ")}` }) : null)));
    })));
  }

  async function ask(text) {
    if (!text || !result) return;
    answers.replaceChildren(progress(0, 0, "Asking both"));
    const body = (part) => ({ a: state.index.id, b: other().id, part, k: 10, maps: false });
    try {
      let answer;
      try { answer = await api.post("/compare", body({ item: text })); }
      catch (error) { if (error.code !== "unknown_item") throw error; answer = await api.post("/compare", body({ text })); }
      drawAnswers(answer.answers);
      announce(`First in ${state.index.name}: ${answer.answers.a.results[0]?.name}; in ${other().name}: ${answer.answers.b.results[0]?.name}`);
    } catch (error) { answers.replaceChildren(errorBox(error, () => ask(text))); }
  }

  function drawAnswers(found) {
    answers.replaceChildren(...["a", "b"].map((side) => el("section", { class: "panel", "aria-label": side === "a" ? state.index.name : other().name },
      el("h2", { text: side === "a" ? state.index.name : other().name }),
      el("ol", {}, found[side].results.map((hit) => {
        const moved = hit.other_rank === null ? `not in the first ${found[side].depth}` : hit.other_rank === hit.rank ? "=" : `${hit.other_rank > hit.rank ? "↑" : "↓"} ${Math.abs(hit.other_rank - hit.rank)}`;
        const kind = hit.other_rank === hit.rank ? "" : hit.other_rank === null || hit.other_rank > hit.rank ? "is-up" : "is-down";
        return el("li", {}, el("span", { class: "rank", text: hit.rank }), card(hit, context, { onClick: () => { field.value = hit.key; ask(hit.key); } }),
          el("span", { class: `moved ${kind}`, text: moved, title: hit.other_rank === null ? "" : `rank ${hit.other_rank} in the other index` }));
      })))));
  }

  return {
    async show() {
      if (!others().length) {
        body.hidden = true;
        pickers.replaceChildren();
        message.replaceChildren(empty("Only one index is served", el("p", { text: "Serve two indexes of the same items to compare two spaces:" }), el("pre", { text: "unialign serve first-index second-index" })));
        return;
      }
      const now = JSON.stringify([state.index.id, state.index.generation, other().id, other().generation]);
      if (now === wanted && result) { for (const map of views) map.resize(); return; }
      wanted = now;
      result = null;
      answers.replaceChildren();
      pickers.replaceChildren(el("b", { text: state.index.name }), el("span", { class: "soft", text: "against" }),
        others().length > 1 ? select("The other index", others().map((one) => [one.id, one.name]), other().id, (id) => router.set({ with: id }, { replace: false })) : el("b", { text: other().name }));
      load();
    },
    hide() { abort?.abort(); },
  };
}
