// Results as cards, and the panel with the details of one item.

import { button, el, fill, mark, number, visual } from "./ui.js";

const percent = (value) => (value >= 0.995 ? "> 99 %" : value < 0.01 ? "< 1 %" : `${Math.round(100 * value)} %`);

export function modalityName(state, name) {
  return el("span", { class: "modality" }, mark(state, name), el("span", { text: name }));
}

/** Width of a score bar: from the lowest to the highest score of the list, never empty. */
function barOf(hits) {
  const scores = hits.map((hit) => hit.score);
  const top = Math.max(...scores);
  const low = Math.min(...scores, 0);
  return (score) => (top > low ? 6 + (94 * (score - low)) / (top - low) : 100);
}

/** Draw the results; actions: open(key), add(key, weight), selectKey(key). */
export function drawResults(list, answer, query, { context, open, add }) {
  const { state } = context;
  const hits = answer.results;
  const width = barOf(hits);
  fill(list, ...hits.map((hit, place) => {
    const absent = hit.missing ?? [];
    const chosen = state.selection.has(hit.key);
    const card = el("button", {
      class: "result", type: "button", tabindex: place ? -1 : 0, "data-key": hit.key, "aria-pressed": query.open === hit.key,
      on: { click: () => open(hit.key) },
    },
    visual(hit, context),
    el("span", { class: "result-name", dir: "auto", text: hit.name }),
    el("span", { class: "bar", style: { "--w": `${width(hit.score)}%` } }),
    el("span", { class: "result-facts" },
      el("span", { class: "score" }, el("span", { class: "visually-hidden", text: " score " }), hit.score.toFixed(2)),
      el("span", { class: "visually-hidden", text: ", found by " }),
      modalityName(state, hit.modality),
      hit.probability === null || hit.probability === undefined ? null
        : el("span", { class: "soft", title: "Estimated probability that it belongs to the query", text: `${percent(hit.probability)} likely` })),
    absent.length ? el("span", { class: "absent", title: `Without ${absent.join(", ")}` }, absent.map((name) => mark(state, name, false)), el("span", { text: `no ${absent.join(", ")}` })) : null);
    const box = el("input", { type: "checkbox", class: "pick", tabindex: -1, checked: chosen, "aria-label": `Select ${hit.name}`,
      on: { change: (event) => state.select(hit.key, event.target.checked) } });
    const item = el("li", { class: chosen ? "selected" : "" }, card, box,
      el("span", { class: "result-tools" },
        button("", () => add(hit.key, 1), { icon: "plus", label: `Add ${hit.name} to the query`, tabindex: -1 }),
        button("", () => add(hit.key, -1), { icon: "minus", label: `Subtract ${hit.name} from the query`, tabindex: -1 })));
    longPress(card, () => state.select(hit.key));
    return item;
  }));
}

function longPress(card, act) {
  let timer = null;
  let acted = false;
  card.addEventListener("touchstart", () => { acted = false; timer = setTimeout(() => { acted = true; act(); }, 550); }, { passive: true });
  for (const name of ["touchend", "touchmove", "touchcancel"]) card.addEventListener(name, () => clearTimeout(timer), { passive: true });
  card.addEventListener("click", (event) => { if (acted) { event.stopImmediatePropagation(); acted = false; } }, { capture: true });
  card.addEventListener("contextmenu", (event) => { if (acted) event.preventDefault(); });
}

/** Keys of the list: arrows move, + and − add a part, x selects. */
export function listKeys(list, { context, add }) {
  list.addEventListener("keydown", (event) => {
    const cards = [...list.querySelectorAll(".result")];
    const at = cards.indexOf(document.activeElement);
    if (at < 0 || event.ctrlKey || event.metaKey) return;
    const top = cards[0].getBoundingClientRect().top;
    const columns = Math.max(1, cards.filter((one) => Math.abs(one.getBoundingClientRect().top - top) < 4).length);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: cards.length - 1 }[event.key];
    const key = cards[at].dataset.key;
    if (next !== undefined) {
      event.preventDefault();
      const to = cards[Math.max(0, Math.min(cards.length - 1, next))];
      for (const one of cards) one.tabIndex = one === to ? 0 : -1;
      to.focus();
    } else if (event.key === "+" || event.key === "=") { event.preventDefault(); add(key, 1); }
    else if (event.key === "-" || event.key === "−") { event.preventDefault(); add(key, -1); }
    else if (event.key === "x") {
      context.state.select(key);
      context.announce(context.state.selection.has(key) ? "selected" : "not selected");
    }
  });
}

/** One sentence about how the answer was computed. */
export function summary(answer) {
  const total = Object.values(answer.seconds ?? {}).reduce((a, b) => a + b, 0) * 1000;
  const time = total < 1 ? "under 1 ms" : `${Math.round(total)} ms`;
  return `${answer.exact ? "exact" : "approximate"}, ${number(answer.scanned)} compared, ${time}, ${answer.correction}`;
}

/** Panel of one item; hit may be null if the item is not among the results. */
export function drawDetail(root, item, hit, { context, actions }) {
  const { state } = context;
  const present = state.modalities().map((one) => one.name).filter((name) => !item.missing.includes(name));
  const scores = hit?.scores ?? {};
  const shown = present.filter((name) => item.media[name]);
  const pictures = shown.filter((name) => ["image", "video"].includes(state.kind(name)));
  const others = shown.filter((name) => !pictures.includes(name));
  const chosen = state.selection.has(item.key);
  fill(root, 
    el("div", { class: "detail-head" }, el("h2", { dir: "auto", text: item.name ?? item.key }),
      button("", actions.close, { icon: "close", label: "Close the details", class: "quiet" })),
    el("div", { class: `detail-media n${Math.min(2, pictures.length)}` },
      pictures.map((name) => el("figure", {}, visual(item, context, { modality: name, controls: true }), el("figcaption", {}, modalityName(state, name))))),
    others.map((name) => el("div", { class: "detail-other" }, modalityName(state, name), visual(item, context, { modality: name, controls: true }))),
    el("div", { class: "row actions" },
      button("Use as query", actions.use, { primary: true }),
      button("Add", actions.add, { icon: "plus", title: "Add to the query" }),
      button("Subtract", actions.subtract, { icon: "minus", title: "Subtract from the query" }),
      button("Similar", actions.similar, { title: "Items that are alike in the modality that was found" }),
      button("Map", actions.map, { icon: "map" }),
      button(chosen ? "Selected" : "Select", () => state.select(item.key), { icon: chosen ? "check" : "export", "aria-pressed": chosen, title: "Select for Export (x)" })),
    hit ? el("p", { class: "why" }, "Found by ", el("b", { text: hit.modality }),
      hit.probability !== null && hit.probability !== undefined ? ` · probability ${percent(hit.probability)}` : "",
      hit.quantile !== null && hit.quantile !== undefined ? ` · above ${percent(hit.quantile)} of unrelated pairs` : "") : null,
    el("table", { class: "scores" }, el("caption", { class: "visually-hidden", text: "Modalities of the item and their scores" }),
      el("tbody", {}, state.modalities().map(({ name }) => {
        const absent = item.missing.includes(name);
        const score = scores[name];
        return el("tr", { class: absent ? "is-absent" : "" }, el("th", { scope: "row" }, el("span", { class: "modality" }, mark(state, name, !absent), el("span", { text: name }))),
          el("td", {}, absent ? el("span", { class: "soft", text: "absent" }) : score === undefined ? el("span", { class: "soft", text: hit ? "not compared" : "present" })
            : el("span", { class: "bar", style: { "--w": `${Math.max(0, Math.min(1, score)) * 100}%` } })),
          el("td", { class: "number", text: score === undefined ? "" : score.toFixed(2) }));
      }))),
    facts(item));
}

function facts(item) {
  const rows = [["key", item.key], ...(item.label ? [["label", item.label]] : []),
    ...Object.entries(item.metadata ?? {}).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)])];
  return el("dl", { class: "facts-list" }, rows.map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", { dir: "auto", text: value }))));
}

