// The screen Export: results or selected items as a file, and the same in a shell and in Python.

import { button, el, errorBox, fill, number } from "./ui.js";
import { quoted, whereText } from "./state.js";

const FORMATS = [
  ["json", "JSON", "items with labels and metadata"], ["csv", "CSV", "a table for other programs"],
  ["keys", "List of keys", "one key per line"], ["store.zip", "Store", "embeddings of these items as a new store"],
];
const MOST_LEFT_OUT = 1000;

export function mount(root, context) {
  const { api, state, router, announce } = context;
  let what = null;
  let format = "json";
  const message = el("div");
  root.append(el("div", { class: "screen-head" }, el("h1", { text: "Export" }), el("p", { text: "Save results or selected items as a file. Select with the box on a result, with x, or in Health." })));
  const body = el("div", { class: "export-grid" });
  root.append(body, message);
  state.on("selection", () => { if (router.current.screen === "export") draw(); });

  function sources() {
    const chosen = state.selection.size;
    const results = state.results?.results.length ?? 0;
    const where = whereText(state.query);
    return [
      { id: "results", text: "The results of the search", count: results, off: !results },
      { id: "selection", text: "The selected items", count: chosen, off: !chosen },
      { id: "rest", text: "All items except the selected ones", count: state.index.items - chosen, off: !chosen || chosen > MOST_LEFT_OUT,
        hint: chosen > MOST_LEFT_OUT ? `at most ${number(MOST_LEFT_OUT)} items can be left out here; export the list of keys instead` : "for example without mispaired items and copies" },
      { id: "all", text: where ? "All items that pass the filter" : "All items", count: where ? null : state.index.items, hint: where },
    ];
  }
  const restFilter = () => `key not in (${[...state.selection].map(quoted).join(", ")})`;

  function request() {
    const usual = { ...state.indexParam(), format: format === "keys" ? "json" : format };
    if (what === "selection") return { ...usual, what: "selection", keys: [...state.selection] };
    if (what === "rest") return { ...usual, what: "selection", where: restFilter() };
    if (what === "all") { const where = whereText(state.query); return { ...usual, what: "selection", ...(where ? { where } : {}) }; }
    // The service does not keep files, so results of a query with a file are exported by their keys.
    const { request: asked, results } = state.results;
    if (asked.parts.some((part) => part.file) || format === "store.zip") return { ...usual, what: "selection", keys: results.map((hit) => hit.key) };
    return { ...usual, what: "results", search: asked };
  }

  async function save() {
    fill(message, el("p", { class: "soft", text: "Preparing the file" }));
    try {
      const { buffer, headers } = await api.bytes("/export", { body: request() });
      let blob = new Blob([buffer], { type: headers.get("Content-Type") ?? "" });
      let name = `unialign-${what}.${format}`;
      if (format === "keys") {
        const { items } = JSON.parse(new TextDecoder().decode(buffer));
        blob = new Blob([items.map((item) => `${item.key}\n`).join("")], { type: "text/plain" });
        name = `unialign-${what}-keys.txt`;
      }
      const url = URL.createObjectURL(blob);
      el("a", { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
      const size = blob.size < 10240 ? `${number(blob.size)} bytes` : `${number(Math.round(blob.size / 1024))} kB`;
      fill(message, el("p", { class: "note", text: `Saved ${name}, ${size}.` }));
      announce(`Saved ${name}`);
    } catch (error) { fill(message, errorBox(error, save)); }
  }

  function draw() {
    const all = sources();
    if (!all.find((one) => one.id === what && !one.off)) what = all.find((one) => !one.off)?.id ?? "all";
    const radio = (name, value, current, text, hint, off, act) => el("label", {},
      el("input", { type: "radio", name, value, checked: value === current, disabled: off, on: { change: () => { act(value); draw(); root.querySelector(`input[name="${name}"]:checked`)?.focus(); } } }),
      el("span", {}, text, hint ? el("small", { text: hint }) : null));
    fill(body, 
      el("fieldset", { class: "choices" }, el("legend", { text: "What" }),
        all.map((one) => radio("what", one.id, what, one.count === null ? one.text : `${one.text}, ${number(one.count)}`, one.hint, one.off, (value) => { what = value; }))),
      el("fieldset", { class: "choices" }, el("legend", { text: "Format" }), FORMATS.map(([id, text, hint]) => radio("format", id, format, text, hint, false, (value) => { format = value; }))),
      el("div", { class: "stack" }, el("div", { class: "row" }, button("Save the file", save, { primary: true }), state.selection.size ? button("Clear the selection", () => { state.selectAll([...state.selection], false); }) : null),
        state.selection.size ? el("div", {}, el("h2", { class: "small soft", text: `${number(state.selection.size)} selected` }), el("div", { class: "keys-list", tabindex: 0, role: "group", "aria-label": "Selected keys" }, [...state.selection].slice(0, 200).map((key) => button(key, () => state.select(key, false), { class: "toggle", title: "Remove from the selection", dir: "auto" })))) : null),
      el("div", { class: "lines" }, el("h2", { class: "small", text: "The same in a shell" }), el("pre", { tabindex: 0, "aria-label": "Shell lines", text: shell() }), el("h2", { class: "small", text: "and in Python" }), el("pre", { tabindex: 0, "aria-label": "Python lines", text: python() })));
  }

  const word = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
  function shell() {
    const served = "# INDEX: what is served, such as my-index or runs/demo\n";
    if (what !== "results" || !state.results) return `${served}# save the list of keys as keys.csv, then\nunialign index INDEX --delete-listed keys.csv`;
    const { request: asked } = state.results;
    const words = [`${served}unialign search INDEX`];
    for (const part of asked.parts) {
      const minus = part.weight < 0 ? "minus-" : "";
      if (part.text !== undefined) words.push(`--${minus}text ${word(part.text)}`);
      else if (part.item !== undefined) words.push(`--${minus}item ${word(part.item)}`);
      else words.push("--image FILE");
    }
    if (asked.parts.some((part) => Math.abs(part.weight) !== 1)) words.push(`--weight ${asked.parts.map((part) => Math.abs(part.weight)).join(" ")}`);
    words.push(`-k ${asked.k}`);
    if (asked.target !== "any") words.push(`--target ${word(asked.target)}`);
    if (asked.where) words.push(`--where ${word(asked.where)}`);
    words.push(format === "csv" ? "--csv results.csv" : "--json");
    return words.join(" ");
  }
  function python() {
    const text = JSON.stringify;
    const lines = ["import unialign as ua", "", 'index = ua.Index.open("INDEX")  # folder of `unialign index`'];
    if (what === "results" && state.results) {
      const { request: asked } = state.results;
      const terms = asked.parts.map((part) => {
        const kind = part.text !== undefined ? `text=${text(part.text)}` : part.item !== undefined ? `item=${text(part.item)}${part.modalities ? `, modalities=${text(part.modalities)}` : ""}` : 'image="FILE"';
        return `${part.weight < 0 ? "- " : "+ "}${Math.abs(part.weight) === 1 ? "" : `${Math.abs(part.weight)} * `}ua.query(${kind})`;
      }).join(" ").replace(/^\+ /, "").replace(/^- /, "-");
      const options = [`k=${asked.k}`, ...(asked.target !== "any" ? [`target=${text(asked.target)}`] : []), ...(asked.where ? [`where=${text(asked.where)}`] : []), ...(asked.fuse !== "mean" ? [`fuse=${text(asked.fuse)}`] : [])];
      lines.push(`found = index.search(${terms}, ${options.join(", ")})`);
      if (format === "store.zip") lines.push('index.to_store("selected", keys=found.keys)');
    } else {
      const keys = [...state.selection];
      const list = `${text(keys.slice(0, 20)).slice(0, -1)}${keys.length > 20 ? ", ..." : ""}]`;
      const where = whereText(state.query);
      if (what === "selection") lines.push(`keys = ${list}`, format === "store.zip" ? 'index.to_store("selected", keys=keys)' : "items = [index.get(key) for key in keys]");
      else if (what === "rest") lines.push(`left_out = ${list.replace(/^\[/, "{").replace(/\]$/, "}")}`, "keys = [key for key in index.embeddings().keys if key not in left_out]", 'index.to_store("cleaned", keys=keys)');
      else lines.push(format === "store.zip" ? 'index.to_store("store")' : `items = index.items(${where ? `where=${text(where)}, ` : ""}limit=${state.index.items})`);
    }
    return lines.join("\n");
  }

  return { show: draw };
}
