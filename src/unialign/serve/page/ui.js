// Elements, icons and small widgets. Texts from users are only ever set as text nodes.

const SVG = "http://www.w3.org/2000/svg";

/** Create an element: el("p", {class, text, attrs: {}, on: {click}, style: {}, ...attributes}, ...children). */
export function el(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "attrs") for (const [key, one] of Object.entries(value)) setAttribute(element, key, one);
    else if (name === "on") for (const [key, one] of Object.entries(value)) element.addEventListener(key, one);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else setAttribute(element, name, value);
  }
  const kept = children.flat(2).filter((child) => child instanceof Node || (typeof child === "string" && child));
  if (kept.length) element.append(...kept);
  return element;
}

/** Replace the children of an element; lists are flattened, and null and false are left out. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(2).filter((child) => child instanceof Node || (typeof child === "string" && child)));
  return element;
}

function setAttribute(element, name, value) {
  if (value === null || value === undefined) return;
  if (name.startsWith("aria-")) element.setAttribute(name, String(value));
  else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
}

const PATHS = {
  search: "M10.5 4a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13M15.5 15.5 21 21",
  map: "M5 7.5h.01M9 15h.01M12 6h.01M14 11.5h.01M18 8h.01M17 17h.01M7 19h.01M20 13h.01M4 12h.01",
  health: "M3 12h4l2.5-6 4.5 13 2.5-7H21",
  make: "M4 20 14.5 9.5M13 4v3M20 11h-3M18.5 5.5 16.7 7.3M11.5 12.5l2 2",
  export: "M12 4v11M7.5 10.5 12 15l4.5-4.5M4 20h16",
  compare: "M4 5h6v14H4zM14 5h6v14h-6z",
  mic: "M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3M5.5 11a6.5 6.5 0 0 0 13 0M12 17.5V21",
  upload: "M12 16V5M7.5 9.5 12 5l4.5 4.5M4 20h16",
  close: "M6 6l12 12M18 6 6 18",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  help: "M9 9.2a3 3 0 1 1 4.3 2.7c-.9.5-1.3 1-1.3 2.1M12 17.6h.01M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18",
  sound: "M4 10v4M8 7v10M12 4v16M16 8v8M20 10v4",
  text: "M5 6h14M5 11h14M5 16h9",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01",
  key: "M8 15a3 3 0 1 1 0-6 3 3 0 0 1 0 6M11 12h9M17 12v3",
  stop: "M7 7h10v10H7z",
  check: "M5 12.5 10 17 19 7",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon icon-${name}`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name] ?? PATHS.key);
  svg.append(path);
  return svg;
}

const SHAPES = [
  "M8 2.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11", "M8 1.5 14.5 8 8 14.5 1.5 8z", "M3 3h10v10H3z", "M8 2l6.5 11.5h-13z",
  "M8 14 1.5 2.5h13z", "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z", "M4.5 2h7l3.5 6-3.5 6h-7L1 8z", "M2 5h12v6H2z",
];

/** Mark of a modality: a color and a shape. */
export function mark(state, modality, filled = true) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", filled ? "mark" : "mark hollow");
  svg.style.setProperty("--c", state.color(modality));
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SHAPES[state.shape(modality) % SHAPES.length]);
  svg.append(path);
  return svg;
}

export function button(text, onClick, options = {}) {
  const { label, icon: name, primary, ...rest } = options;
  return el(
    "button",
    {
      type: "button",
      ...rest,
      class: `button${primary ? " primary" : ""}${text ? "" : " round"}${rest.class ? ` ${rest.class}` : ""}`,
      "aria-label": label,
      title: rest.title ?? (text ? null : label),
      on: { click: onClick },
    },
    name ? icon(name) : null,
    text ? el("span", { text }) : null,
  );
}

export function select(label, options, value, onChange, extra = {}) {
  const chosen = el("select", { "aria-label": label, on: { change: (event) => onChange(event.target.value) }, ...extra });
  for (const [key, text] of options) chosen.append(el("option", { value: key, text, selected: key === value }));
  return chosen;
}

export function progress(done, total, text = "") {
  const known = total > 0;
  return el(
    "div",
    { class: "progress" },
    el("progress", { max: known ? total : null, value: known ? done : null, "aria-label": text || "Progress" }),
    el("span", { class: "soft", text: known ? `${text} ${done} of ${total}`.trim() : text || "Working" }),
  );
}

/** Error with its sentence, code, identifier and a Retry button; a 503 is retried automatically after a countdown. */
export function errorBox(error, retry, { signal } = {}) {
  const wait = error.status === 503 || error.status === 429 ? Math.max(1, error.retryAfter ?? 2) : 0;
  const text = el("p", { class: "error-text", text: error.message || "Something went wrong." });
  const facts = [error.code, error.status ? `HTTP ${error.status}` : null, error.requestId ? `request ${error.requestId}` : null];
  const box = el("div", { class: "error", role: "alert" }, text, el("p", { class: "soft small", text: facts.filter(Boolean).join(" · ") }));
  if (!retry) return box;
  const again = button("Retry", () => go(), {});
  box.append(again);
  let timer = null;
  let left = wait;
  const go = () => { clearInterval(timer); retry(); };
  if (wait) {
    const count = el("span", { class: "countdown soft", text: `again in ${left} s` });
    box.append(count);
    timer = setInterval(() => {
      left -= 1;
      if (!box.isConnected || signal?.aborted) clearInterval(timer);
      else if (left <= 0) go();
      else count.textContent = `again in ${left} s`;
    }, 1000);
  }
  return box;
}

/** Order in which an item's media are tried: pictures first, then texts, then sounds. */
function mediaOrder(item, state) {
  const rank = { image: 0, video: 0, text: 2, audio: 3 };
  return Object.keys(item.media ?? {}).sort(
    (a, b) => (rank[state.kind(a)] ?? 1) - (rank[state.kind(b)] ?? 1)
      || (b === item.modality) - (a === item.modality) || state.shape(a) - state.shape(b),
  );
}

/** Picture, text, sound or key of an item, filled in as soon as it arrives. */
export function visual(item, { api, state }, { modality = null, controls = false } = {}) {
  const box = el("span", { class: "visual" });
  const names = modality ? [modality] : mediaOrder(item, state);
  const fallback = () => box.replaceChildren(el("span", { class: "visual-key" }, icon("key"), el("span", { dir: "auto", text: item.key })));
  const next = async (place) => {
    const name = names[place];
    if (!name) return fallback();
    try {
      const media = await api.mediaRecord(item.media[name]);
      if (media.type.startsWith("image/")) {
        const picture = el("img", { src: media.url, alt: "", decoding: "async", draggable: "false" });
        picture.addEventListener("load", () => { if (picture.naturalWidth <= 128) picture.classList.add("small-source"); });
        box.replaceChildren(picture);
      } else if (media.type.startsWith("audio/")) {
        box.replaceChildren(controls
          ? el("audio", { src: media.url, controls: true, preload: "metadata" })
          : el("span", { class: "visual-sound" }, icon("sound")));
      } else {
        box.classList.add("of-text");
        box.replaceChildren(el("q", { dir: "auto", text: media.text.slice(0, 280) }));
      }
    } catch { return next(place + 1); }
    return null;
  };
  next(0);
  return box;
}

/** Small card of an item with its name: a button if `onClick` is given. */
export function card(item, context, { onClick = null, note = "" } = {}) {
  return el(
    onClick ? "button" : "div",
    { class: "mini", type: onClick ? "button" : null, on: onClick ? { click: onClick } : {} },
    visual(item, context),
    el("span", { class: "mini-name", dir: "auto", text: item.name ?? item.key }),
    note ? el("span", { class: "soft small", text: note }) : null,
  );
}

export function empty(title, ...children) {
  return el("div", { class: "empty" }, el("h2", { text: title }), ...children);
}

export const number = (value) => Number(value).toLocaleString("en-US");
