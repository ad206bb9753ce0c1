// Ways to give a query: dropped and pasted files and texts, the file button, and the microphone.

import { button, el } from "./ui.js";
import { record, whyNoRecording } from "./recorder.js";

export const kindOfFile = (file) => (file.type.startsWith("image/") ? "image" : file.type.startsWith("audio/") ? "audio" : null);

let count = 0;
export function keepFile(state, blob, name, kind) {
  const id = `${Date.now().toString(36)}${(count += 1)}`;
  state.files.set(id, { blob, name, kind, url: URL.createObjectURL(blob) });
  return id;
}

/** Accept files and texts that are dropped or pasted anywhere on the page. */
export function acceptAnywhere({ onFiles, handleText }) {
  let depth = 0;
  const veil = el("div", { class: "veil", hidden: true }, el("p", { text: "Drop a picture, a sound or a text to search with it" }));
  document.body.append(veil);
  const show = (on) => { veil.hidden = !on; };
  addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; show(true); });
  addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) show(false); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    show(false);
    take(event.dataTransfer);
  });
  addEventListener("paste", (event) => {
    const field = event.target.closest?.("input, textarea");
    const files = [...(event.clipboardData?.files ?? [])];
    if (field && !files.length) return;
    event.preventDefault();
    take(event.clipboardData);
  });
  function take(data) {
    const files = [...(data?.files ?? [])];
    if (files.length) onFiles(files);
    else {
      const text = data?.getData("text/plain")?.trim();
      if (text) handleText(text.slice(0, 20000));
    }
  }
}

/** Button and panel of the microphone; `onSound(blob)` gets a WAV that the person has heard and accepted. */
export function microphone({ onSound, disabledReason = null, announce }) {
  const reason = disabledReason ?? whyNoRecording();
  const panel = el("div", { class: "recording panel", hidden: true });
  let current = null;
  const close = () => { current?.cancel(); current = null; panel.hidden = true; panel.replaceChildren(); };
  async function finish() {
    if (!current) return;
    const taken = current;
    current = null;
    let blob;
    try { blob = await taken.stop(); } catch { return fail("The recording cannot be read. Record for a moment longer."); }
    const use = button("Search with it", () => { close(); onSound(blob); }, { primary: true });
    panel.replaceChildren(
      el("audio", { src: URL.createObjectURL(blob), controls: true, "aria-label": "Your recording" }),
      use, button("Again", start), button("Discard", close),
    );
    use.focus();
    return null;
  }
  function fail(message) {
    current = null;
    panel.hidden = false;
    panel.replaceChildren(el("p", { text: message, role: "alert" }), button("Close", close));
  }
  async function start() {
    panel.hidden = false;
    panel.replaceChildren(el("p", { class: "soft", text: "Waiting for the microphone" }));
    try { current = await record({ onEnd: finish }); } catch (error) {
      return fail(error.name === "NotAllowedError" ? "The browser does not allow this page to use the microphone." : "No microphone was found.");
    }
    const meter = el("meter", { min: 0, max: 1, value: 0, "aria-label": "Level" });
    const time = el("span", { class: "soft", text: "0.0 s of 30 s" });
    const stop = button("Stop", finish, { icon: "stop", primary: true });
    panel.replaceChildren(el("span", { class: "live-dot" }), meter, time, stop, button("Cancel", close));
    stop.focus();
    announce("Recording");
    const shown = current;
    const tick = () => {
      if (current !== shown) return;
      meter.value = shown.level();
      time.textContent = `${shown.seconds().toFixed(1)} s of 30 s`;
      setTimeout(tick, 80);
    };
    tick();
    return null;
  }
  const toggle = button("", () => (current ? finish() : panel.hidden ? start() : close()), {
    icon: "mic", label: reason ? `Record a sound: ${reason}` : "Record a sound", disabled: Boolean(reason),
  });
  return { toggle, panel, close };
}
