// State that several screens share.

const IMAGE = /image|img|photo|picture|drawing|sketch|depth|thermal|frame/i;
const SOUND = /audio|sound|speech|voice|music/i;
const TEXT = /text|caption|keyword|title|word|name|description/i;
const COLORS = 8;

export function makeState({ router }) {
  const listeners = new Map();
  const emit = (event) => { for (const listener of listeners.get(event) ?? []) listener(); };

  const state = {
    info: null,
    index: null,
    results: null,
    selection: new Set(),
    // Files that were dropped, recorded or pasted; kept until the page is closed.
    files: new Map(),
    theme: "",
    on(event, listener) {
      if (!listeners.has(event)) listeners.set(event, new Set());
      listeners.get(event).add(listener);
      return () => listeners.get(event).delete(listener);
    },
    setInfo(info) {
      state.info = info;
      const wanted = router.current.params.get("index") ?? state.index?.name;
      state.index = info.indexes.find((one) => one.name === wanted) ?? info.indexes[0];
      emit("index");
    },
    chooseIndex(name) {
      const found = state.info?.indexes.find((one) => one.name === name);
      if (!found || found === state.index) return;
      state.index = found;
      state.selection.clear();
      state.results = null;
      emit("selection");
      emit("index");
    },
    isFirstIndex: () => state.info?.indexes[0] === state.index,
    modalities: () => state.index?.modalities ?? [],
    record: (name) => state.modalities().find((one) => one.name === name),
    /** Kind of a modality: image, text, audio, video or array. */
    kind(name) {
      const kind = state.record(name)?.kind;
      if (kind) return kind;
      return IMAGE.test(name) ? "image" : SOUND.test(name) ? "audio" : TEXT.test(name) ? "text" : name === "video" ? "video" : "array";
    },
    encoderOf: (kind) => state.modalities().find((one) => one.encoder && state.kind(one.name) === kind) ?? null,
    shape: (name) => Math.max(0, state.modalities().findIndex((one) => one.name === name)),
    color: (name) => `var(--m${state.shape(name) % COLORS})`,
    select(key, on = !state.selection.has(key)) {
      if (on) state.selection.add(key);
      else state.selection.delete(key);
      emit("selection");
    },
    selectAll(keys, on = true) {
      for (const key of keys) if (on) state.selection.add(key); else state.selection.delete(key);
      emit("selection");
    },
    setTheme(theme) {
      state.theme = theme;
      if (theme) { document.documentElement.dataset.theme = theme; localStorage.setItem("unialign-theme", theme); }
      else { delete document.documentElement.dataset.theme; localStorage.removeItem("unialign-theme"); }
      emit("theme");
    },
    get query() { return readQuery(router.searchParams()); },
    /** Parameters of the Search screen with an item as the query. */
    asQuery: (key, weight = 1) => ({ q: JSON.stringify([{ item: key, weight }]), ...state.indexParam() }),
    indexParam: () => (state.index && !state.isFirstIndex() ? { index: state.index.name } : {}),
    /** JSON parts of a request and the files they name. */
    requestParts(parts) {
      const files = {};
      const out = [];
      for (const part of parts) {
        if (!part.weight) continue;
        const { file, name: _, kind: __, ...rest } = part;
        if (file) {
          const found = state.files.get(file);
          if (!found) continue;
          const slot = `f${Object.keys(files).length}`;
          files[slot] = found.blob;
          out.push({ ...rest, file: slot });
        } else out.push(rest);
      }
      return { parts: out, files };
    },
  };
  return state;
}

/** State of the Search screen in an address. */
export function readQuery(params) {
  let parts = [];
  try {
    parts = JSON.parse(params.get("q") ?? "[]").filter(
      (part) => part && typeof part === "object" && ["text", "item", "file"].some((name) => typeof part[name] === "string"),
    );
  } catch { /* an address that was cut */ }
  for (const part of parts) part.weight = Math.max(-2, Math.min(2, Number(part.weight ?? 1))) || 0;
  const list = (name) => params.getAll(name).filter(Boolean);
  return {
    parts: parts.slice(0, 16),
    target: params.get("in") ?? "any",
    has: list("has"),
    labels: list("label"),
    where: params.get("where") ?? "",
    fuse: params.get("fuse") ?? "mean",
    correction: params.get("correction") ?? "auto",
    draft: params.get("t") ?? "",
    k: Math.max(1, Math.min(1000, Number(params.get("k") ?? 24) || 24)),
    open: params.get("open"),
  };
}

export function writeQuery(query, extra = {}) {
  const params = new URLSearchParams();
  const put = (name, value, usual = "") => { if (value !== usual && value !== null && value !== undefined) params.set(name, value); };
  if (query.parts.length) params.set("q", JSON.stringify(query.parts));
  put("t", query.draft);
  put("in", query.target, "any");
  for (const name of query.has) params.append("has", name);
  for (const label of query.labels) params.append("label", label);
  put("where", query.where);
  put("fuse", query.fuse, "mean");
  put("correction", query.correction, "auto");
  put("k", String(query.k), "24");
  put("open", query.open);
  for (const [name, value] of Object.entries(extra)) put(name, value);
  return params;
}

const quoted = (text) => `'${String(text).replaceAll("'", "''")}'`;
export const named = (name) => (/^[A-Za-z_]\w*$/.test(name) ? name : `\`${name}\``);
export { quoted };

/** Conditions of a query as a list of {text, lift}: `lift` returns the query without this condition. */
export function conditions(query) {
  const found = query.has.map((name) => ({
    text: `has(${named(name)})`, lift: { ...query, has: query.has.filter((one) => one !== name) },
  }));
  if (query.labels.length)
    found.push({ text: `label in (${query.labels.map(quoted).join(", ")})`, lift: { ...query, labels: [] } });
  if (query.where.trim()) found.push({ text: `(${query.where.trim()})`, shown: query.where.trim(), lift: { ...query, where: "" } });
  return found;
}

export function whereText(query) {
  const texts = conditions(query).map((one) => one.text);
  if (texts.length === 1 && query.where.trim()) return query.where.trim();
  return texts.join(" and ") || null;
}
