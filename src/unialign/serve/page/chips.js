// Parts of a query as chips with a weight slider.

import { button, el, fill, icon, visual } from "./ui.js";

/** Draw the parts; `onChange(parts, {commit})` gets the new list. */
export function drawChips(root, query, { context, onChange, onEdit }) {
  const { state } = context;
  fill(root, ...query.parts.map((part, place) => chip(part, place)));

  function change(place, changes, options) {
    onChange(query.parts.map((one, at) => (at === place ? { ...one, ...changes } : one)), options);
  }

  function chip(part, place) {
    const name = nameOf(part, state);
    const lost = part.file && !state.files.has(part.file);
    const slider = el("input", { type: "range", min: -2, max: 2, step: 0.1, value: part.weight, "aria-label": `Weight of ${name}` });
    const value = el("output", { class: "weight", text: signed(part.weight) });
    slider.addEventListener("input", () => { value.textContent = signed(Number(slider.value)); change(place, { weight: Number(slider.value) }, { live: true }); });
    slider.addEventListener("change", () => change(place, { weight: Number(slider.value) }, {}));
    slider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      let next = Number(slider.value);
      if (event.key === "n") next = -next;
      else if (step && event.shiftKey) next += step;
      else return;
      event.preventDefault();
      change(place, { weight: Math.max(-2, Math.min(2, Math.round(next * 10) / 10)) }, {});
    });
    return el("li", { class: `chip${part.weight < 0 ? " against" : ""}${lost ? " lost" : ""}`, "data-place": place },
      picture(part, lost),
      part.text !== undefined
        ? button(`“${name}”`, () => onEdit(place), { class: "chip-name", title: "Edit the text", dir: "auto" })
        : el("span", { class: "chip-name", dir: "auto", text: lost ? `${name} is not in this link` : name }),
      lost ? null : slider, lost ? null : value,
      button("", () => onChange(query.parts.filter((_, at) => at !== place), {}), { icon: "close", label: `Remove ${name}`, class: "quiet" }));
  }

  function picture(part, lost) {
    if (part.item !== undefined) {
      const box = el("span", { class: "thumb" });
      itemOf(context, part.item).then((item) => box.append(visual(item, context)), () => box.append(icon("key")));
      return box;
    }
    const file = part.file && state.files.get(part.file);
    if (file?.kind === "image") return el("span", { class: "thumb" }, el("img", { src: file.url, alt: "" }));
    if (file?.kind === "audio") return el("audio", { src: file.url, controls: true, class: "chip-sound", "aria-label": `Listen to ${file.name}` });
    return lost ? el("span", { class: "thumb" }, icon("upload")) : null;
  }
}

const items = new Map();
export function itemOf({ api, state }, key) {
  const id = `${state.index.name}\u0000${key}`;
  if (!items.has(id)) {
    const found = api.get(`/items/${encodeURIComponent(key)}`, { query: state.indexParam() });
    found.catch(() => items.delete(id));
    items.set(id, found);
  }
  return items.get(id);
}

export const nameOf = (part, state) => part.text ?? part.item ?? state.files.get(part.file)?.name ?? part.name ?? "file";
export const signed = (value) => (value < 0 ? `−${Math.abs(value).toFixed(1)}` : value.toFixed(1));
