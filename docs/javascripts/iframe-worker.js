/* A browser loads no worker from a file: page. There, run the search worker in a hidden frame, which has the same interface. */
(() => {
  function frameScript(url) {
    const start = `
      postMessage = data => parent.postMessage(data, "*");
      importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done, fail) => {
        const script = document.createElement("script");
        script.src = url;
        script.onload = done;
        script.onerror = fail;
        document.body.appendChild(script);
      })), Promise.resolve());`;
    return `<!doctype html><body><script>${start}</` + `script><script src="${url}"></` + `script></body>`;
  }

  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      this.receive = event => {
        if (event.source !== this.frame.contentWindow) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      };
      window.addEventListener("message", this.receive);
      this.ready = new Promise(done => { this.frame.onload = done; });
      const page = this.frame.contentDocument;
      page.open();
      page.write(frameScript(url));
      page.close();
    }

    postMessage(data) {
      this.ready.then(() => {
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }));
      });
    }

    terminate() {
      window.removeEventListener("message", this.receive);
      this.frame.remove();
    }
  }

  window.IFrameWorker = IFrameWorker;
  if (location.protocol === "file:") window.Worker = IFrameWorker;
})();
