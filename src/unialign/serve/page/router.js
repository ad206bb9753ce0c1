// The address holds the state of the page: `#/screen?name=value`.

export const SCREENS = ["search", "map", "health", "make", "export", "compare"];

export function makeRouter() {
  const listeners = new Set();
  const last = new Map();

  const parse = () => {
    const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    const screen = SCREENS.includes(path) ? path : "search";
    return { screen, params: new URLSearchParams(query) };
  };
  const address = (screen, params) => {
    const query = new URLSearchParams();
    for (const [name, value] of params instanceof URLSearchParams ? params : Object.entries(params ?? {}))
      if (value !== null && value !== undefined && value !== "") query.append(name, value);
    const text = query.toString();
    return `#/${screen}${text ? `?${text}` : ""}`;
  };

  const router = {
    current: parse(),
    address,
    /** Go to a screen. `replace` leaves no entry for Back. */
    go(screen, params = {}, { replace = false } = {}) {
      const next = address(screen, params);
      if (next === location.hash) return;
      history[replace ? "replaceState" : "pushState"](null, "", next);
      changed();
    },
    /** Go to a screen as it was left. */
    visit(screen) {
      router.go(screen, last.get(screen) ?? {});
    },
    /** Set how a screen will be visited, without going there. */
    remember(screen, params) {
      last.set(screen, params);
    },
    /** Change parameters of the current screen; null removes one. */
    set(changes, { replace = true } = {}) {
      const { screen, params } = parse();
      for (const [name, value] of Object.entries(changes))
        if (value === null || value === undefined || value === "") params.delete(name);
        else params.set(name, value);
      router.go(screen, params, { replace });
    },
    searchParams: () => (router.current.screen === "search" ? router.current.params : last.get("search") ?? new URLSearchParams()),
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const changed = () => {
    router.current = parse();
    last.set(router.current.screen, router.current.params);
    for (const listener of listeners) listener(router.current);
  };
  last.set(router.current.screen, router.current.params);
  addEventListener("popstate", changed);
  addEventListener("hashchange", () => { if (address(router.current.screen, router.current.params) !== location.hash) changed(); });
  return router;
}
