// What is searched and which items are left out.

import { button, el, fill, mark, select } from "./ui.js";

export function drawFilters(root, query, { context, onChange }) {
  const { state } = context;
  const modalities = state.modalities();
  const labels = Object.entries(state.index.labels ?? {});
  const list = Array.isArray(state.index.labels) ? state.index.labels.map((name) => [name, 0]) : labels;
  const target = select("Find in", [["any", "all modalities"], ["best", "the best modality"], ...modalities.map(({ name }) => [name, name])],
    query.target, (value) => onChange({ target: value }));
  const wasOpen = root.querySelector("details")?.open;
  const focused = document.activeElement?.id;
  const field = (name, text, control, hint) => el("label", { class: "field" }, el("span", { text }), control, hint ? el("small", { class: "soft", text: hint }) : null);
  const where = el("input", { id: "where", type: "text", value: query.where, spellcheck: "false", autocomplete: "off",
    placeholder: state.index.fields?.length ? `${state.index.fields[0]} = …` : "label = 'animal' and has(text)",
    on: { change: (event) => onChange({ where: event.target.value }) } });
  const more = el("details", { class: "more", open: wasOpen || Boolean(query.where) || query.fuse !== "mean" || query.correction !== "auto" },
    el("summary", { text: "More" }),
    el("div", { class: "more-fields" },
      field("where", "Filter", where, state.index.fields?.length ? `Fields: ${state.index.fields.slice(0, 12).join(", ")}` : "label, key, has(modality), missing(modality)"),
      field("fuse", "Mix parts by", select("Mix parts by", [["mean", "mean"], ["frechet_mean", "Fréchet mean"], ["max", "highest score"], ["rrf", "ranks"]], query.fuse, (value) => onChange({ fuse: value }))),
      field("correction", "Correct for the modality gap", select("Correct for the modality gap", [["auto", "yes"], ["none", "no"]], query.correction, (value) => onChange({ correction: value }))),
      field("k", "Results", select("Results", [12, 24, 48, 96, 200].map((value) => [String(value), String(value)]), String(query.k), (value) => onChange({ k: Number(value) })))));
  fill(root, 
    el("label", { class: "inline" }, el("span", { class: "soft", text: "Find in" }), target),
    el("div", { class: "inline", role: "group", "aria-label": "Only items with" }, el("span", { class: "soft", text: "Only with" }),
      modalities.map(({ name }) => {
        const on = query.has.includes(name);
        return el("button", { type: "button", class: "toggle", "aria-pressed": on, id: `has-${state.shape(name)}`,
          on: { click: () => onChange({ has: on ? query.has.filter((one) => one !== name) : [...query.has, name] }) } },
        mark(state, name, on), el("span", { text: name }));
      })),
    list.length > 1 ? el("div", { class: "inline" },
      select("Label", [["", query.labels.length ? "or label …" : "any label"], ...list.slice(0, 500).map(([name, count]) => [name, count ? `${name} (${count})` : name])], "",
        (value) => value && !query.labels.includes(value) && onChange({ labels: [...query.labels, value] })),
      query.labels.map((label) => button(label, () => onChange({ labels: query.labels.filter((one) => one !== label) }), { class: "toggle", "aria-pressed": true, title: "Remove this label", dir: "auto" }))) : null,
    more);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}
