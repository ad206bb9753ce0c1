// Shell of the page: token, theme, rail, screens, keys, banner.

import { makeApi } from "./api.js";
import { makeRouter, SCREENS } from "./router.js";
import { makeState } from "./state.js";
import { button, el, errorBox, icon, number, select } from "./ui.js";

const TITLES = { search: "Search", map: "Map", health: "Health", make: "Make", export: "Export", compare: "Compare" };
const KEYS = { s: "search", m: "map", c: "compare", h: "health", k: "make", e: "export" };
const modules = {
  search: () => import("./search.js"), map: () => import("./map.js"), health: () => import("./health.js"),
  make: () => import("./make.js"), export: () => import("./export.js"), compare: () => import("./compare.js"),
};

takeToken();
const router = makeRouter();
const state = makeState({ router });
const api = makeApi({ onOnline });
const live = document.getElementById("live");
const announce = (text) => { live.textContent = ""; setTimeout(() => { live.textContent = text; }, 40); };
const context = { api, state, router, announce };
const mounted = new Map();
let online = true;
let shown = null;
let started = false;

state.setTheme(localStorage.getItem("unialign-theme") ?? "");
buildRail();
buildTop();
keys();
router.on(showScreen);
start();

function takeToken() {
  const found = /(?:^#|[?&])token=([^&]+)/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem("unialign-token", decodeURIComponent(found[1]));
  const rest = location.hash.replace(found[0], found[0].startsWith("?") ? "?" : "").replace(/\?$/, "");
  history.replaceState(null, "", rest.startsWith("#/") ? rest : "#/search");
}

async function start() {
  try {
    state.setInfo(await api.get("/info"));
  } catch (error) {
    const main = document.getElementById("banner");
    if (error.status === 401) main.replaceChildren(tokenForm());
    else if (error.status) main.replaceChildren(errorBox(error, start));
    return;
  }
  document.getElementById("banner").replaceChildren();
  started = true;
  showScreen();
}

function tokenForm() {
  const field = el("input", { type: "password", autocomplete: "off", required: true, id: "token" });
  return el("form", { class: "panel stack token", on: { submit: (event) => {
    event.preventDefault();
    sessionStorage.setItem("unialign-token", field.value.trim());
    start();
  } } },
  el("h2", { text: "This service requires a token" }),
  el("p", { class: "soft", text: "Open the address that `unialign serve` printed, or enter the token here." }),
  el("label", { for: "token", text: "Token" }), field, el("button", { class: "button primary", text: "Open" }));
}

function buildRail() {
  const rail = document.getElementById("rail");
  for (const name of SCREENS)
    rail.append(el("a", { href: `#/${name}`, "data-screen": name, on: { click: (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      router.visit(name);
    } } }, icon(name), el("span", { text: TITLES[name] }),
    name === "export" ? el("b", { class: "count", id: "selected-count", hidden: true }) : null));
  state.on("selection", () => {
    const count = document.getElementById("selected-count");
    count.hidden = !state.selection.size;
    count.textContent = number(state.selection.size);
    count.setAttribute("aria-label", `${state.selection.size} selected`);
  });
}

function buildTop() {
  document.getElementById("top-actions").append(
    button("", () => {
      const dark = document.documentElement.dataset.theme === "dark"
        || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
      state.setTheme(dark ? "light" : "dark");
    }, { icon: "theme", label: "Light or dark" }),
    button("", help, { icon: "help", label: "Help and keyboard shortcuts" }),
  );
  state.on("index", () => {
    const { info, index } = state;
    document.getElementById("index-choice").replaceChildren(
      info.indexes.length > 1
        ? select("Index", info.indexes.map((one) => [one.name, one.name]), index.name, (name) => {
            state.chooseIndex(name);
            router.set(state.isFirstIndex() ? { index: null } : { index: name }, { replace: false });
            showScreen(router.current, true);
          })
        : el("span", { dir: "auto", text: index.name }),
    );
    const method = index.calibration?.method;
    document.getElementById("facts").textContent =
      `${number(index.items)} items · ${index.modalities.length} modalities${method && method !== "none" ? ` · ${method}` : ""}`;
    document.title = `${index.name} · unialign`;
  });
}

async function showScreen(current = router.current, again = false) {
  if (!started) return;
  const wanted = current.params.get("index");
  if (wanted && wanted !== state.index.name) state.chooseIndex(wanted);
  for (const link of document.querySelectorAll("#rail a"))
    if (link.dataset.screen === current.screen) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  if (shown !== current.screen) {
    // Set before anything is awaited: the address may change again meanwhile.
    const left = shown;
    shown = current.screen;
    mounted.get(left)?.then((screen) => screen?.hide?.(), () => null);
    for (const name of SCREENS) document.getElementById(`screen-${name}`).hidden = name !== current.screen;
    scrollTo(0, 0);
  }
  const root = document.getElementById(`screen-${current.screen}`);
  if (!mounted.has(current.screen))
    mounted.set(current.screen, modules[current.screen]().then((module) => module.mount(root, context)));
  try {
    const screen = await mounted.get(current.screen);
    if (shown === current.screen) await screen?.show?.(router.current.params, { again });
  } catch (error) {
    mounted.delete(current.screen);
    root.replaceChildren(errorBox(error, () => { root.replaceChildren(); showScreen(); }));
    if (!error.status) console.warn(error);
  }
}

function onOnline(now) {
  if (now === online) return;
  online = now;
  const banner = document.getElementById("banner");
  if (now) {
    banner.replaceChildren();
    announce("The service is available again");
    return;
  }
  banner.replaceChildren(el("div", { class: "offline" },
    el("span", { class: "live-dot" }), el("span", { text: "The service does not answer. This page retries automatically." })));
  const poll = async () => {
    try { await api.get("/readyz"); } catch { if (!online) { setTimeout(poll, 1500); return; } }
    if (!started) start();
    else dispatchEvent(new Event("unialign-online"));
  };
  setTimeout(poll, 1500);
}

function keys() {
  let prefix = 0;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select, dialog")) return;
    if (event.key === "/") {
      event.preventDefault();
      if (router.current.screen !== "search") router.visit("search");
      setTimeout(() => document.getElementById("query")?.focus(), 60);
    } else if (event.key === "?") help();
    else if (event.key === "g") prefix = Date.now();
    else if (KEYS[event.key] && Date.now() - prefix < 1500) { event.preventDefault(); prefix = 0; router.visit(KEYS[event.key]); }
  });
}

function help() {
  const rows = [
    ["/", "type a query"], ["Enter", "search at once; add the text as a part"], ["arrows, Home, End", "move in the results"],
    ["Enter on a result", "open it"], ["+ −", "add it to the query, or subtract it"], ["x", "select it for Export"],
    ["n on a weight", "negate it"], ["Ctrl Z", "restore the parts"], ["Esc", "cancel or close"],
    ["g then s m h k e c", "Search, Map, Health, Make, Export, Compare"], ["?", "this help"],
  ];
  const dialog = el("dialog", { class: "panel help", "aria-label": "Help" },
    el("h2", { text: "How to search" }),
    el("p", { text: "Type, drop a picture, paste or record. Every part has a weight; a negative weight moves the query away from the part. Each result shows the modality that matched and those that are missing." }),
    el("dl", { class: "keys" }, rows.map(([key, text]) => el("div", {}, el("dt", {}, el("kbd", { text: key })), el("dd", { text })))),
    button("Close", () => dialog.close(), { primary: true }));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
