// Search in pages that are opened from the disk. Browsers start no worker there, so its script runs in a hidden frame.
// The theme's plugin `offline` would load a script for this from another site.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      this.loaded = new Promise(done => { this.frame.onScript = done })
      this.frame.receive = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const inner = this.frame.contentDocument
      inner.open()
      inner.write(`<script>postMessage = data => frameElement.receive(data)</script>
        <script src="${url}" onload="frameElement.onScript()"></script>`)
      inner.close()
    }

    postMessage(data) {
      const copy = structuredClone(data)
      this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: copy })))
    }

    terminate() {
      this.frame.remove()
    }
  }
  window.Worker = window.IFrameWorker
}
