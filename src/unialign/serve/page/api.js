// Calls of the service. The token stays in the storage of the session and travels in a header only.

const BASE = "/api/v1";
const MOST_CACHED = 600;
const AT_ONCE = 6;

export class ApiError extends Error {
  constructor(status, { code = "error", message = "", field = null, limit = null, request_id: id = null } = {}, retryAfter = null) {
    super(message);
    Object.assign(this, { status, code, field, limit, requestId: id, retryAfter });
  }
}

const sleep = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, seconds * 1000);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

export function makeApi({ onOnline }) {
  const media = new Map();
  const waiting = [];
  let running = 0;

  const headers = (extra = {}) => {
    const token = sessionStorage.getItem("unialign-token");
    return token ? { ...extra, Authorization: `Bearer ${token}` } : extra;
  };

  async function call(method, path, { body, query, signal, form } = {}) {
    const full = path.startsWith(BASE) || path.startsWith("/readyz") ? path : BASE + path;
    const url = new URL(full, location.origin);
    // Browsers resolve the path segments `.` and `..`, so that items with these keys have no address.
    if (url.pathname.split("/").length !== full.split("?")[0].split("/").length)
      throw new ApiError(404, { code: "no_address", message: "The key of this item cannot be part of an address." });
    for (const [name, value] of Object.entries(query ?? {}))
      if (value !== null && value !== undefined) url.searchParams.set(name, value);
    const options = { method, signal, headers: headers(), cache: "no-store" };
    if (form) { options.body = form; options.headers["X-Unialign"] = "1"; }
    else if (body !== undefined) { options.body = JSON.stringify(body); options.headers["Content-Type"] = "application/json"; }
    let response;
    try {
      response = await fetch(url, options);
    } catch (error) {
      if (error.name === "AbortError" || signal?.aborted) throw error;
      onOnline(false);
      throw new ApiError(0, { code: "unreachable", message: "The service does not answer. It may have been stopped." });
    }
    onOnline(true);
    if (!response.ok) {
      let contents = {};
      try { contents = (await response.json()).error ?? {}; } catch { /* an answer without JSON */ }
      if (!contents.message) contents.message = `The service answered with status ${response.status}.`;
      const after = Number(response.headers.get("Retry-After"));
      throw new ApiError(response.status, { request_id: response.headers.get("X-Request-Id"), ...contents }, after || null);
    }
    return response;
  }

  // Pictures are fetched a few at a time, and again later while the service is busy.
  function slot() {
    return new Promise((resolve) => { waiting.push(resolve); advance(); });
  }
  function advance() {
    while (running < AT_ONCE && waiting.length) { running += 1; waiting.shift()(); }
  }

  async function fetchMedia(url) {
    await slot();
    try {
      for (let attempt = 0; ; attempt += 1) {
        try {
          const response = await call("GET", url);
          const type = response.headers.get("Content-Type") ?? "";
          if (type.startsWith("text/")) return { type, text: await response.text(), url: null };
          return { type, text: null, url: URL.createObjectURL(await response.blob()) };
        } catch (error) {
          if (![429, 503].includes(error.status) || attempt === 4) throw error;
          await sleep(Math.min(error.retryAfter ?? 1, 4));
        }
      }
    } finally {
      running -= 1;
      advance();
    }
  }

  const api = {
    get: async (path, options) => (await call("GET", path, options)).json(),
    post: async (path, body, options) => (await call("POST", path, { ...options, body })).json(),
    remove: async (path, options) => (await call("DELETE", path, options)).json().catch(() => null),
    /** Post JSON with files: mapping f0.. -> File or Blob. */
    async postFiles(path, body, files, options) {
      const form = new FormData();
      form.append("request", JSON.stringify(body));
      for (const [name, file] of Object.entries(files)) form.append(name, file, file.name || name);
      return (await call("POST", path, { ...options, form })).json();
    },
    async bytes(path, options = {}) {
      const response = await call(options.body === undefined ? "GET" : "POST", path, options);
      return { buffer: await response.arrayBuffer(), headers: response.headers, status: response.status };
    },
    /** {type, url, text} of a media address; cached. */
    mediaRecord(url) {
      if (!media.has(url)) {
        if (media.size >= MOST_CACHED) {
          const [oldest, record] = media.entries().next().value;
          media.delete(oldest);
          record.then((one) => one.url && URL.revokeObjectURL(one.url), () => null);
        }
        const record = fetchMedia(url);
        record.catch(() => media.delete(url));
        media.set(url, record);
      }
      return media.get(url);
    },
    media: async (url) => (await api.mediaRecord(url)).url,
    /** Wait for a job; the argument is its id or a JSON or an ArrayBuffer with the field `job`. */
    async job(started, { signal, onProgress } = {}) {
      const given = started instanceof ArrayBuffer ? JSON.parse(new TextDecoder().decode(started)) : started;
      const id = typeof given === "string" ? given : given.job;
      signal?.addEventListener("abort", () => api.remove(`/jobs/${encodeURIComponent(id)}`).catch(() => null), { once: true });
      for (let pause = 0.15; ; pause = Math.min(pause * 1.4, 2)) {
        let job;
        try { job = await api.get(`/jobs/${encodeURIComponent(id)}`, { signal }); }
        catch (error) {
          if (![429, 503].includes(error.status)) throw error;
          await sleep(error.retryAfter ?? 1, signal);
          continue;
        }
        if (job.state === "done") return job.result;
        if (job.state === "failed") throw new ApiError(0, job.error ?? { code: "failed", message: "The computation failed." });
        if (job.state === "cancelled") throw new ApiError(0, { code: "cancelled", message: "The computation was cancelled." });
        onProgress?.(job.done, job.total, job.state);
        await sleep(pause, signal);
      }
    },
  };
  return api;
}
