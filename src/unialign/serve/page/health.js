// Health: findings of the diagnosis, and the affected items with both halves, to be judged and exported.

import { button, el, errorBox, fill, icon, mark, number, progress, visual } from "./ui.js";

const SEVERITIES = { problem: "Problem", warning: "Warning", note: "Note", ok: "Fine" };
const HINTS = {
  mispaired: "A modality does not fit the others of its item. Compare both halves: if they do not belong together, mark the item.",
  copy: "Rows that are equal. Copies of the same thing can be removed; equal texts of different things are not an error.",
  hub: "Rows that are among the nearest neighbors of very many others, and crowd out better results.",
  outlier: "Rows far from all others of their modality: broken files, other content, or rare things.",
};
const PAGE = 24;

export function mount(root, context) {
  const { api, state, router, announce } = context;
  let report = null;
  let wanted = "";
  let shown = PAGE;
  let abort = null;
  const head = el("div", { class: "screen-head" }, el("h1", { text: "Health" }), el("p", { text: "Problems of the embeddings that harm search, and the items that cause them." }));
  const body = el("div", { class: "health" });
  root.append(head, body);
  const address = () => `/diagnosis/${encodeURIComponent(state.index.id)}`;
  state.on("selection", () => { if (!root.hidden && report) for (const one of body.querySelectorAll(".fault")) paintMark(one); });

  async function ask(start) {
    abort?.abort();
    abort = new AbortController();
    const { signal } = abort;
    try {
      let answer = await api.get(address(), { signal, query: { start } });
      if (answer.state === "not_run") { drawStart(answer); return; }
      if (answer.job) {
        answer = await api.job(answer, { signal, onProgress: (done, total) => body.replaceChildren(
          progress(done, total, "Comparing all rows"), button("Cancel", () => { abort.abort(); ask(false); })) });
      }
      report = answer;
      draw();
      announce(report.answer);
    } catch (error) {
      if (!signal.aborted && error.name !== "AbortError") body.replaceChildren(errorBox(error, () => ask(start)));
    }
  }

  function drawStart(plan) {
    const part = plan.items < plan.of ? `${number(plan.items)} of ${number(plan.of)} items, drawn at random` : `all ${number(plan.of)} items`;
    body.replaceChildren(el("div", { class: "panel health-start stack" }, icon("health"), el("h2", { text: "Not checked yet" }),
      el("p", { text: `Compares ${part} in ${state.modalities().length} modalities: mispaired items, copies, hubs, outliers, the gap between modalities, collapsed or constant columns.` }),
      el("div", { class: "row" }, button("Run the checks", () => { body.replaceChildren(progress(0, 0, "Comparing all rows")); ask(true); }, { primary: true }),
        el("span", { class: "soft small", text: `about ${plan.seconds} s; the index stays usable` }))));
  }

  function draw() {
    const kind = router.current.params.get("finding");
    const lists = Object.entries(report.lists);
    const bad = report.findings.filter((one) => one.severity !== "ok");
    const fine = report.findings.filter((one) => one.severity === "ok");
    fill(body,
      el("p", { class: "health-answer", text: report.answer }),
      el("div", { class: "health-kinds", role: "group", "aria-label": "Items behind the findings" }, lists.map(([name, list]) =>
        el("button", { type: "button", class: `health-kind${list.total ? "" : " is-empty"}`, "aria-pressed": String(kind === name), disabled: !list.total,
          on: { click: () => { shown = PAGE; router.set({ finding: kind === name ? null : name }, { replace: false }); } } },
        el("b", { text: number(list.total_items) }), el("span", { text: list.title })))),
      report.lists[kind]?.total ? drawList(kind, report.lists[kind]) : null,
      el("h2", { text: bad.length ? "Findings" : "No findings" }),
      el("div", { class: "findings" }, bad.map(finding)),
      fine.length ? el("details", { class: "fine" }, el("summary", { text: `${fine.length} checks found nothing wrong` }), el("div", { class: "findings" }, fine.map(finding))) : null,
      el("p", { class: "note", text: `${report.items < report.of ? `A random sample of ${number(report.items)} of ${number(report.of)} items was compared` : `All ${number(report.of)} items were compared`}, with the correction “${report.correction}” for the lists and without it for the findings.${report.untrusted.length ? ` Not judged, since even true counterparts are far apart: ${report.untrusted.map((pair) => pair.join(" and ")).join("; ")}.` : ""}` }));
  }

  function finding(one) {
    const list = one.list && report.lists[one.list]?.total ? one.list : null;
    return el("article", { class: `card finding is-${one.severity}` },
      el("div", { class: "finding-head" }, el("span", { class: "finding-severity", text: SEVERITIES[one.severity] }), el("h3", { text: one.code.replaceAll("_", " ") }),
        el("span", { class: "finding-of" }, one.modalities.map((name) => el("span", { class: "modality small" }, mark(state, name), el("span", { text: name }))))),
      el("p", { text: one.text }), one.advice ? el("p", { class: "soft", text: one.advice }) : null,
      list ? el("div", { class: "row" }, button("Show the items", () => { shown = PAGE; router.set({ finding: list }, { replace: false }); }),
        button("On the map", () => router.go("map", { overlay: list, ...state.indexParam() }), { icon: "map" })) : null);
  }

  function drawList(kind, list) {
    const items = list.items.slice(0, shown);
    const grid = el("ul", { class: "faults" }, items.map((one) => fault(kind, one)));
    const markAll = button(`Mark all ${number(list.total_items)}`, () => { state.selectAll(list.keys); announce(`${list.keys.length} items marked`); });
    return el("section", { class: "panel stack fault-list", "aria-label": list.title },
      el("div", { class: "fault-list-head" }, el("div", {}, el("h2", { text: list.title }), el("p", { class: "soft small", text: HINTS[kind] })),
        el("div", { class: "row" }, button("On the map", () => router.go("map", { overlay: kind, ...state.indexParam() }), { icon: "map" }), markAll,
          button("Export marked keys", () => router.go("export", state.indexParam()), { icon: "export", primary: true }))),
      grid,
      list.items.length > shown ? button(`Show ${Math.min(PAGE, list.items.length - shown)} more`, () => { shown += PAGE; draw(); }) : null,
      list.total > list.items.length && shown >= list.items.length ? el("p", { class: "soft small", text: `The strongest ${list.items.length} of ${number(list.total)} are listed; “Mark all” marks all of them.` }) : null);
  }

  function half(item, name, caption) {
    if (!item) return null;
    return el("figure", {}, item.media[name] ? visual(item, context, { modality: name, controls: true }) : el("span", { class: "visual" }, el("span", { class: "visual-key" }, icon("key"), el("span", { dir: "auto", text: item.name }))),
      el("figcaption", {}, el("span", { class: "modality" }, mark(state, name), el("span", { text: caption ?? name }))));
  }

  function fault(kind, one) {
    const [odd] = one.modalities;
    const item = one.item;
    if (!item) return null;
    const rest = item.modalities.filter((name) => !one.modalities.includes(name));
    // The half that is easiest to judge: with media, pictures first.
    const pool = rest.length ? rest : item.modalities.filter((name) => name !== odd);
    const other = pool.find((name) => item.media[name]) ?? pool[0];
    const halves = kind === "mispaired" ? [half(item, other), half(item, odd)]
      : kind === "copy" ? [half(item, odd, item.name), half(one.other, odd, one.other?.name)]
        : [half(item, odd), other ? half(item, other) : null];
    const box = el("input", { type: "checkbox", on: { change: (event) => state.select(item.key, event.target.checked) } });
    const made = el("li", { class: "fault", "data-key": item.key },
      el("div", { class: "fault-halves" }, halves, one.swap ? el("span", { class: "fault-swap", title: "Probably swapped", text: "⇄" }) : null),
      el("div", { class: "fault-text" }, el("b", { dir: "auto", text: item.name }), el("p", { class: "small soft", text: one.text })),
      el("div", { class: "row fault-actions" }, el("label", { class: "toggle" }, box, el("span", { text: "Mark" }), el("span", { class: "visually-hidden", text: item.name })),
        button("Map", () => router.go("map", { item: item.key, overlay: kind, ...state.indexParam() }), { class: "toggle", label: `Show ${item.name} on the map` }),
        one.other && kind !== "copy" ? button(`See ${one.other.name}`, () => router.go("map", { item: one.other.key, ...state.indexParam() }), { class: "toggle" }) : null));
    paintMark(made);
    return made;
  }
  function paintMark(element) {
    const on = state.selection.has(element.dataset.key);
    element.classList.toggle("selected", on);
    element.querySelector("input").checked = on;
  }

  return {
    async show() {
      const now = JSON.stringify([state.index.id, state.index.generation]);
      if (now !== wanted) {
        wanted = now;
        report = null;
        body.replaceChildren();
        await ask(false);
      } else if (report) draw();
      else if (!body.querySelector(".progress")) await ask(false);
    },
  };
}
