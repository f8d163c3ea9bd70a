/* A page that is opened from the disk may start no worker: the search, which is
   one, then runs in a hidden frame. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const view = frame.contentWindow;
      view.postMessage = (data) =>
        this.dispatchEvent(new MessageEvent("message", { data }));
      const script = view.document.createElement("script");
      this.loaded = new Promise((resolve) => (script.onload = resolve));
      this.view = view;
      script.src = new URL(url, document.baseURI);
      view.document.body.append(script);
    }

    postMessage(data) {
      this.loaded.then(() =>
        this.view.dispatchEvent(new MessageEvent("message", { data })),
      );
    }

    terminate() {}
  };
}
