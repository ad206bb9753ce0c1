// The screen Make: pictures that the decoder makes of the current mixture.

import { drawChips, nameOf } from "./chips.js";
import { readQuery, writeQuery } from "./state.js";
import { button, card, el, empty, errorBox, fill, progress, visual } from "./ui.js";

export function mount(root, context) {
  const { api, state, router, announce } = context;
  let running = null;
  const chips = el("ul", { class: "chips", "aria-label": "Parts of the mixture" });
  const out = el("div", { "aria-live": "off" });
  const seed = el("input", { type: "number", min: 0, max: 2147483647, step: 1, value: 0 });
  const samples = el("input", { type: "number", min: 1, max: 8, step: 1, value: 4 });
  const strip = el("select", {}, [["", "one mixture"], ["5", "a path of 5 steps"], ["7", "a path of 7 steps"], ["9", "a path of 9 steps"]].map(([value, text]) => el("option", { value, text })));
  const go = button("Make pictures", () => make(), { primary: true });
  const field = (text, control) => el("label", { class: "field" }, el("span", { text }), control);
  const form = el("form", { class: "make-form", on: { submit: (event) => { event.preventDefault(); make(); } } },
    field("Make", strip), field("Pictures", samples), field("Seed", seed),
    button("New seed", () => { seed.value = Math.floor(Math.random() * 2 ** 31); make(); }), go);
  const head = el("div", { class: "screen-head" }, el("h1", { text: "Make" }), el("p", { text: "The decoder turns a point of the space into pictures: of one text or sound, of a mixture, or of a path from one part to another." }));
  const body = el("div");
  root.append(head, body);

  const usable = () => query().parts.filter((part) => part.file === undefined);
  // Read again from the address of Search, so that both screens show the same mixture.
  const query = () => {
    const found = state.query;
    return found.draft ? { ...found, parts: [...found.parts, { text: found.draft, weight: 1 }], draft: "" } : found;
  };

  function draw() {
    if (!state.info.decoders?.length) {
      fill(body, empty("No decoder is loaded",
        el("p", { text: "A decoder is trained once on the pictures of your items. Then this screen makes new pictures of any mixture." }),
        el("pre", { text: `unialign decoder train DATA --out my-decoder\nunialign serve ${state.index.name} --decoder my-decoder` }),
        el("p", { class: "soft", text: "The demo trains one: make demo" })));
      return;
    }
    const now = query();
    drawChips(chips, now, { context, onChange: (parts, { live = false }) => { if (!live) edit(parts); }, onEdit: () => router.visit("search") });
    const left = now.parts.length - usable().length;
    fill(body, chips,
      now.parts.length ? el("div") : empty("Nothing to mix yet", el("p", { class: "soft", text: "Search for something, or start with an example." }), el("div", { class: "row" }, button("Go to Search", () => router.visit("search"), { primary: true }), el("span", { class: "row", id: "make-examples" }))),
      left ? el("p", { class: "note", text: `${left} file${left > 1 ? "s are" : " is"} left out: pictures are made from texts and items.` }) : el("span"), form, out);
    strip.options[1].parentElement.disabled = usable().length < 2;
    if (usable().length < 2) strip.value = "";
    go.disabled = !usable().length;
    if (!now.parts.length) offer();
  }
  function edit(parts) {
    router.remember("search", writeQuery({ ...query(), parts, open: null }, state.indexParam()));
    router.go("make", address(), { replace: false });
  }
  /** Parameters of this screen: the parts of the mixture, the seed and the kind of pictures. */
  function address() {
    const { parts } = query();
    return { ...state.indexParam(), q: parts.length ? JSON.stringify(parts) : null, seed: seed.value === "0" ? null : seed.value, strip: strip.value };
  }
  function show(params) {
    if (params.get("q") && params.get("q") !== JSON.stringify(query().parts))
      router.remember("search", writeQuery({ ...query(), ...{ parts: readQuery(params).parts, draft: "", open: null } }, state.indexParam()));
    if (params.get("seed")) seed.value = params.get("seed");
    if (params.get("strip")) strip.value = params.get("strip");
    if (!params.get("q") && query().parts.length) { router.go("make", address(), { replace: true }); return; }
    draw();
  }
  function offer() {
    const place = document.getElementById("make-examples");
    for (const item of (state.index.examples ?? []).slice(0, 3))
      place?.append(button(item.name ?? item.key, () => edit([{ item: item.key, weight: 1 }]), { dir: "auto" }));
  }

  async function make() {
    running?.abort();
    const parts = state.requestParts(usable()).parts;
    if (!parts.length) return;
    const control = new AbortController();
    running = control;
    router.go("make", address(), { replace: true });
    fill(out, progress(0, 0, "Making pictures"), button("Cancel", () => control.abort()));
    announce("Making pictures");
    try {
      const body = { ...state.indexParam(), parts, seed: Number(seed.value) || 0, samples: strip.value ? 1 : Math.max(1, Math.min(8, Number(samples.value) || 1)), ...(strip.value ? { strip: Number(strip.value) } : {}) };
      const started = await api.post("/generate", body, { signal: control.signal });
      const result = await api.job(started, { signal: control.signal, onProgress: (done, total, waiting) => {
        out.firstChild?.replaceWith(progress(done, total, waiting === "waiting" ? "Waiting for another picture" : "Making pictures"));
      } });
      if (running !== control) return;
      showPictures(result, Boolean(strip.value));
      announce(`${result.rows.reduce((sum, row) => sum + row.images.length, 0)} pictures`);
    } catch (error) {
      if (running !== control) return;
      fill(out, error.name === "AbortError" ? el("p", { class: "soft", text: "Cancelled." }) : errorBox(error, make));
    }
  }

  function showPictures(result, path) {
    const label = query().parts.map((part) => nameOf(part, state)).join(" + ");
    const pictures = result.rows.flatMap((row) => row.images.map((source, place) => ({ source, copy: path ? null : row.copies?.[place], row })));
    const near = path ? [] : result.rows[0]?.nearest ?? [];
    fill(out,
      el("div", { class: `pictures${path ? " strip" : ""}` }, pictures.map(({ source, copy, row }, place) => {
        const picture = el("img", { src: source, alt: `Picture ${place + 1} of ${path ? row.name : label}` });
        picture.addEventListener("load", () => { if (picture.naturalWidth <= 96) picture.classList.add("small-source"); });
        return el("figure", {}, picture,
          copy ? el("figcaption", { class: "nearest" }, copy.key ? visual(copy, context) : el("span"), el("span", {}, "most similar training picture: ", el("b", { dir: "auto", text: copy.name ?? copy.key ?? "" }))) : null,
          path ? el("figcaption", { class: "soft small", text: row.name }) : null);
      })),
      near.length ? [el("h2", { class: "near-title", text: "Nearest training items" }),
        el("div", { class: "near-items" }, near.map((item) => card(item, context, { onClick: item.key ? () => router.go("search", state.asQuery(item.key)) : null })))] : null,
      el("p", { class: "note", text: `Seed ${result.seed}, decoded at the anchor ${result.anchor}.` }));
  }

  return { show, hide() { running?.abort(); running = null; } };
}
