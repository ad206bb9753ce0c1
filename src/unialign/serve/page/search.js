// The screen Search: a mixture of parts, its results, and the details of one of them.

import { drawChips, itemOf } from "./chips.js";
import { drawFilters } from "./filters.js";
import { acceptAnywhere, keepFile, kindOfFile, microphone } from "./inputs.js";
import { drawDetail, drawResults, listKeys, summary } from "./results.js";
import { conditions, quoted, readQuery, whereText, writeQuery } from "./state.js";
import { button, el, empty, errorBox, fill, icon, visual } from "./ui.js";

const DEBOUNCE = 250;
const DIM_AFTER = 150;

export function mount(root, context) {
  const { api, state, router, announce } = context;
  let query = readQuery(router.current.params);
  let asked = null;
  let running = null;
  let typing = null;
  let suggestions = null;
  const past = [];

  const input = el("input", { id: "query", type: "search", autocomplete: "off", spellcheck: "false", enterkeyhint: "search", "aria-label": "Query", dir: "auto" });
  const picker = el("input", { type: "file", accept: "image/*,audio/*", multiple: true, hidden: true, "aria-label": "File" });
  const mic = microphone({ onSound: (blob) => addFile(blob, "recording.wav", "audio"), announce, disabledReason: soundReason() });
  const upload = button("", () => picker.click(), { icon: "upload", label: "Search with a file" });
  const chips = el("ul", { class: "chips", "aria-label": "Parts of the query" });
  const hints = el("div", { class: "hints" });
  const filters = el("div", { class: "filters" });
  const form = el("form", { class: "composer", role: "search" }, el("span", { class: "composer-icon" }, icon("search")), input, mic.toggle, upload, el("button", { class: "button primary", text: "Find" }));
  const line = el("p", { class: "summary soft", id: "summary" });
  const list = el("ol", { class: "results", "aria-label": "Results" });
  const notes = el("div", { class: "notes" });
  const message = el("div", { class: "message" });
  const detail = el("aside", { class: "detail panel", "aria-label": "Details", hidden: true });
  root.append(el("h1", { class: "visually-hidden", text: "Search" }), form, mic.panel, hints, chips, filters, line, message, el("div", { class: "columns" }, el("div", { class: "column" }, list, notes), detail), picker);

  form.addEventListener("submit", (event) => { event.preventDefault(); enter(); });
  input.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(typed, DEBOUNCE); });
  picker.addEventListener("change", () => { addFiles([...picker.files]); picker.value = ""; });
  acceptAnywhere({ onFiles: addFiles, handleText: (text) => addText(text) });
  listKeys(list, { context, add });
  state.on("selection", refreshSelection);
  addEventListener("unialign-online", () => { if (router.current.screen === "search") run(true); });
  addEventListener("keydown", (event) => {
    if (router.current.screen !== "search") return;
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && !event.target.matches?.("input[type=search], input[type=text], textarea") && past.length) {
      event.preventDefault();
      change({ parts: past.pop() }, { undo: true });
    } else if (event.key === "Escape" && !event.target.closest?.("dialog")) {
      if (running) { running.abort(); running = null; dim(false); }
      else if (query.open) closeDetail();
    }
  });

  function textEncoder() { return state.encoderOf("text"); }
  // Names only what the encoders of the index can read.
  function invitation() {
    if (!textEncoder()) return "Type the key of an item";
    const more = [state.encoderOf("image") && "drop a picture", state.encoderOf("audio") && "record a sound"].filter(Boolean);
    return more.length ? `Type, ${more.join(" or ")}` : "Type what to find";
  }
  function soundReason() {
    if (state.encoderOf("audio")) return null;
    const sound = state.modalities().find((one) => state.kind(one.name) === "audio");
    return sound ? sound.reason ?? `${sound.name} has no encoder` : "this index has no sounds";
  }

  function change(changes, { push = true, undo = false } = {}) {
    if (changes.parts && !undo) past.push(query.parts);
    query = { ...query, ...changes };
    router.go("search", writeQuery(query, state.indexParam()), { replace: !push });
  }

  function typed() {
    clearTimeout(typing);
    const text = input.value.trim();
    suggest(text);
    if (textEncoder() && text !== query.draft) change({ draft: text, open: null }, { push: false });
  }

  async function enter() {
    clearTimeout(typing);
    const text = input.value.trim();
    if (!text) { if (query.parts.length) run(true); return; }
    if (textEncoder()) { input.value = ""; hints.replaceChildren(); addText(text); return; }
    const found = await suggest(text);
    const exact = found?.find((item) => item.key === text || item.name === text) ?? found?.[0];
    if (exact) { input.value = ""; hints.replaceChildren(); add(exact.key, 1); }
  }

  /** Items whose key begins with the text, as buttons under the field. */
  async function suggest(text) {
    suggestions?.abort();
    if (text.length < 2 && textEncoder()) { hints.replaceChildren(); return []; }
    if (!text) { hints.replaceChildren(); return []; }
    suggestions = new AbortController();
    try {
      const where = `key >= ${quoted(text)} and key < ${quoted(`${text}\uffff`)}`;
      const page = await api.get("/items", { query: { where, limit: 6, ...state.indexParam() }, signal: suggestions.signal });
      fill(hints, ...(page.items.length ? [el("span", { class: "soft", text: "Items:" })] : []),
        ...page.items.map((item) => el("button", { type: "button", class: "hint", on: { click: () => { input.value = ""; hints.replaceChildren(); change({ draft: "" }, { push: false }); add(item.key, 1); } } },
          el("span", { class: "thumb" }, visual(item, context)), el("span", { dir: "auto", text: item.name ?? item.key }))));
      if (!page.items.length && !textEncoder()) {
        const record = state.modalities().find((one) => state.kind(one.name) === "text");
        fill(hints, el("p", { class: "soft", text: `No item has a key that begins with “${text}”. Free text cannot be searched here: ${record?.reason ?? "this index has no encoder of text"}` }));
      }
      return page.items;
    } catch (error) { if (error.name !== "AbortError" && !error.status) hints.replaceChildren(); return []; }
  }

  function addText(text) {
    if (!textEncoder()) { input.value = text; input.focus(); suggest(text); return; }
    takeAddress();
    change({ parts: [...query.parts, { text, weight: 1 }], draft: "", open: null });
  }
  function addFiles(files) {
    const known = files.filter(kindOfFile);
    if (!known.length) { fill(message, errorBox({ message: "This file is neither a picture nor a sound.", code: "unknown_media" })); return; }
    for (const file of known) addFile(file, file.name, kindOfFile(file));
  }
  function addFile(blob, name, kind) {
    if (!state.encoderOf(kind)) {
      const record = state.modalities().find((one) => state.kind(one.name) === kind);
      fill(message, errorBox({ code: "no_encoder", message: `This index cannot read a new ${kind === "image" ? "picture" : "sound"}: ${record?.reason ?? "it has no encoder for it"}` }));
      announce("This index cannot read this file");
      return;
    }
    takeAddress();
    change({ parts: [...query.parts, { file: keepFile(state, blob, name, kind), name, kind, weight: 1 }], open: null });
  }
  function takeAddress() { if (router.current.screen !== "search") query = readQuery(router.searchParams()); }
  function add(key, weight) {
    const at = query.parts.findIndex((part) => part.item === key);
    const parts = at < 0 ? [...query.parts, { item: key, weight }] : query.parts.map((part, place) => (place === at ? { ...part, weight } : part));
    const draft = query.draft ? [{ text: query.draft, weight: 1 }] : [];
    input.value = "";
    change({ parts: [...draft, ...parts], draft: "" });
    announce(`${key} ${weight < 0 ? "subtracted" : "added"}`);
  }

  function dim(on) { list.classList.toggle("dimmed", on); root.setAttribute("aria-busy", on); }

  function request() {
    const all = [...query.parts, ...(query.draft ? [{ text: query.draft, weight: 1 }] : [])];
    const { parts, files } = state.requestParts(all);
    const where = whereText(query);
    const body = { ...state.indexParam(), parts, k: query.k, target: query.target, fuse: query.fuse, correction: query.correction,
      ...(where ? { where } : {}) };
    return { body, files };
  }

  async function run(force = false) {
    const { body, files } = request();
    const signature = JSON.stringify([body, query.parts.map((part) => part.file)]);
    if (signature === asked && !force) { refreshOpen(); return; }
    asked = signature;
    running?.abort();
    if (!body.parts.length) { running = null; dim(false); start(); return; }
    const control = new AbortController();
    running = control;
    const timer = setTimeout(() => dim(true), DIM_AFTER);
    try {
      const answer = Object.keys(files).length
        ? await api.postFiles("/search/files", body, files, { signal: control.signal })
        : await api.post("/search", body, { signal: control.signal });
      if (running !== control) return;
      message.replaceChildren();
      state.results = { ...answer, request: body };
      draw(answer);
    } catch (error) {
      if (error.name === "AbortError" || running !== control) return;
      fill(message, errorBox(error, () => run(true), { signal: control.signal }));
      announce(error.message);
      if (error.status === 422 && error.code === "cancelled_out")
        message.append(el("p", { class: "note", text: "The parts cancel each other. Change a weight." }));
    } finally {
      clearTimeout(timer);
      if (running === control) { running = null; dim(false); }
    }
  }

  function draw(answer) {
    line.textContent = answer.results.length ? `${answer.results.length} results · ${summary(answer)}` : "";
    drawResults(list, answer, query, { context, open, add });
    fill(notes, ...(answer.warnings ?? []).map((text) => el("p", { class: "note", text })));
    if (!answer.results.length) nothing();
    else announce(`${answer.results.length} results, first ${answer.results[0].name}`);
    refreshOpen();
  }

  function nothing() {
    const filtersInUse = conditions(query);
    fill(message, empty("Nothing found",
      el("p", { class: "soft", text: filtersInUse.length ? "Your filters leave no item that can be compared. Lift one:" : query.target !== "any" ? "No item has the modality that is searched." : "The index has no item to compare with." }),
      el("div", { class: "row" }, filtersInUse.map((one) => button(`Remove ${one.shown ?? one.text}`, () => change(one.lift))),
        query.target !== "any" ? button("Search all modalities", () => change({ target: "any" })) : null)));
    announce("Nothing found");
  }

  /** The page before a query: examples and what is possible. */
  async function start() {
    line.textContent = "";
    list.replaceChildren();
    notes.replaceChildren();
    detail.hidden = true;
    state.results = null;
    const examples = el("div", { class: "examples" });
    const ways = { image: "drop, paste or choose a picture", audio: "record or choose a sound", text: "type or paste a text" };
    const icons = { image: "picture", audio: "sound", text: "text" };
    const [able, unable] = [true, false].map((on) => state.modalities().filter((one) => Boolean(one.encoder) === on));
    const usable = able.map((one) => el("li", {},
      el("span", { class: "modality" }, icon(icons[state.kind(one.name)] ?? "key"), el("b", { text: one.name })),
      el("span", { class: "soft", text: ways[state.kind(one.name)] ?? "vectors" })));
    const closed = unable.map((one) => el("li", { class: "off" },
      el("span", { class: "modality" }, icon(icons[state.kind(one.name)] ?? "key"), el("b", { text: one.name })),
      el("details", {}, el("summary", { text: "only with items of the index" }), el("p", { class: "soft small", text: one.reason ?? "It has no encoder." }))));
    fill(message, el("div", { class: "welcome" },
      el("h2", { text: "Find anything with anything" }),
      el("p", { class: "soft", text: "One space holds all modalities: a word finds pictures, a picture finds sounds, and several parts can be mixed. Start with one of these." }),
      examples,
      el("h3", { text: "What you can search with" }), el("ul", { class: "possible" }, usable, el("li", {}, el("span", { class: "modality" }, icon("key"), el("b", { text: "any item" })), el("span", { class: "soft", text: "type its key, or press + on a result" })), closed)));
    try {
      const three = await exampleItems();
      fill(examples, ...three.map((item) => el("button", { type: "button", class: "example", on: { click: () => change({ parts: [{ item: item.key, weight: 1 }], open: null }) } },
        visual(item, context), el("span", { dir: "auto", text: item.name ?? item.key }))));
    } catch (error) { fill(examples, errorBox(error, start)); }
  }

  /** Three items with many media, of different labels if there are some. */
  async function exampleItems() {
    const labels = Array.isArray(state.index.labels) ? state.index.labels : Object.keys(state.index.labels ?? {});
    const spread = (list) => [0.15, 0.5, 0.85].map((share) => list[Math.floor(share * list.length)]);
    const pages = labels.length >= 3 ? spread(labels).map((label) => `label = ${quoted(label)}`) : [null];
    const lists = await Promise.all(pages.map((where) => api.get("/items", { query: { where, limit: 60, ...state.indexParam() } })));
    const rich = lists.map(({ items }) => {
      const most = Math.max(0, ...items.map((item) => Object.keys(item.media).length));
      return items.filter((item) => Object.keys(item.media).length === most);
    });
    const found = rich.length > 1 ? rich.map((list) => list[Math.floor(list.length / 3)]) : spread(rich[0]);
    return found.filter((item, place, all) => item && all.indexOf(item) === place);
  }

  function open(key) {
    if (query.open === key) return closeDetail();
    return change({ open: key }, { push: !query.open });
  }
  function closeDetail() {
    const key = query.open;
    change({ open: null }, { push: false });
    (list.querySelector(`[data-key="${CSS.escape(key)}"]`) ?? input).focus?.({ preventScroll: true });
  }
  async function refreshOpen() {
    for (const card of list.querySelectorAll(".result")) card.setAttribute("aria-pressed", card.dataset.key === query.open);
    if (!query.open) { detail.hidden = true; root.classList.remove("with-detail"); return; }
    const key = query.open;
    const hit = state.results?.results.find((one) => one.key === key) ?? null;
    let item = hit;
    try { item ??= await itemOf(context, key); } catch (error) { fill(detail, errorBox(error)); detail.hidden = false; return; }
    if (query.open !== key) return;
    const alike = hit?.modality ?? state.modalities().map((one) => one.name).find((name) => !item.missing.includes(name));
    drawDetail(detail, item, hit, { context, actions: {
      close: closeDetail,
      use: () => change({ parts: [{ item: key, weight: 1 }], draft: "", open: null }),
      add: () => add(key, 1), subtract: () => add(key, -1),
      similar: () => change({ parts: [{ item: key, modalities: [alike], weight: 1 }], draft: "", target: alike, open: null }),
      map: () => router.go("map", { item: key, ...state.indexParam() }),
    } });
    detail.hidden = false;
    root.classList.add("with-detail");
  }
  function refreshSelection() {
    for (const item of list.children) {
      const key = item.querySelector(".result").dataset.key;
      const on = state.selection.has(key);
      item.classList.toggle("selected", on);
      item.querySelector(".pick").checked = on;
    }
    if (query.open) refreshOpen();
  }

  function drawParts() {
    const focused = document.activeElement?.closest?.(".chip")?.dataset.place;
    const slider = document.activeElement?.type === "range";
    drawChips(chips, query, { context,
      onChange: (parts, { live = false }) => {
        if (!live) { change({ parts }); return; }
        query = { ...query, parts };
        clearTimeout(typing);
        typing = setTimeout(() => run(), DEBOUNCE / 2);
      },
      onEdit: (place) => {
        const { text } = query.parts[place];
        input.value = text;
        change({ parts: query.parts.filter((_, at) => at !== place), draft: text });
        input.focus();
      } });
    if (focused !== undefined) (slider ? chips.children[focused]?.querySelector("input[type=range]") : chips.children[focused]?.querySelector("button"))?.focus();
    chips.hidden = !query.parts.length;
    input.placeholder = query.parts.length ? "Add another part" : invitation();
  }

  return {
    show(params, { again = false } = {}) {
      query = readQuery(params);
      if (document.activeElement !== input || !query.draft) input.value = query.draft || (document.activeElement === input ? input.value : "");
      drawParts();
      drawFilters(filters, query, { context, onChange: (changes) => change({ ...changes }) });
      if (again) asked = null;
      return run();
    },
    hide() { running?.abort(); running = null; mic.close(); clearTimeout(typing); },
  };
}

