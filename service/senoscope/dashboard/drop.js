// A stack of fields of view that is dropped on the page: sent, classified, shown like a series.

import { failed, headers, Unreachable } from "./api.js";
import { $, el, say, toast } from "./dom.js";
import { percent, plural } from "./format.js";

const TYPES = { tif: "image/tiff", tiff: "image/tiff", npy: "application/x-npy" };

export class Drop {
  #store;
  #live;
  #stacks = 0;
  #queue = Promise.resolve();

  constructor(store, live) {
    this.#store = store;
    this.#live = live;
    let depth = 0;
    const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    const show = (by) => {
      depth = Math.max(0, depth + by);
      $("drop").hidden = depth === 0;
    };
    addEventListener("dragenter", (event) => files(event) && show(1));
    addEventListener("dragleave", (event) => files(event) && show(-1));
    addEventListener("dragover", (event) => files(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      show(-depth);
      this.take(event.dataTransfer.files);
    });
    $("open").onclick = () => $("file").click();
    $("file").addEventListener("change", () => {
      this.take([...$("file").files]);
      $("file").value = "";
    });
  }

  /** Classifies files one after the other. */
  take(files) {
    for (const file of files) this.#queue = this.#queue.then(() => this.#classify(file));
    return this.#queue;
  }

  async #classify(file, axes = "") {
    const words = el("p", { textContent: `Sending ${file.name}…` });
    const progress = el("progress", { max: 1, value: 0, "aria-label": `Progress of ${file.name}` });
    const box = toast(words, { seconds: 0, more: progress });
    const where = location.hash;
    let made = 0;
    // The service answers when all is done; on the way the live socket tells how far it is.
    const count = ({ detail: { source } }) => {
      if (source.kind !== "upload" || source.file !== file.name) return;
      made += 1;
      progress.removeAttribute("value");
      say(words, `${file.name}: ${plural(made, "field of view", "fields of view")} classified…`);
    };
    this.#live.addEventListener("result", count);
    try {
      const answer = await send(file, axes, (share) => {
        progress.value = share;
        say(words, share < 1 ? `Sending ${file.name}: ${percent(share)}` : `Classifying ${file.name}…`);
      });
      this.#take(file, answer, where);
    } catch (error) {
      if (error.code === "ambiguous_axes") this.#ask(file, error);
      else toast(`${file.name} was not classified: ${error.message}`, { state: "bad" });
    } finally {
      this.#live.removeEventListener("result", count);
      box.remove();
    }
  }

  #take(file, { results, warnings, count }, where) {
    this.#stacks += 1;
    const stack = this.#store.collection(`stack:${this.#stacks}`, "stack", `${file.name} (${plural(count, "FOV")})`);
    this.#store.setFollow(false);
    this.#store.show(stack);
    for (const result of results) this.#store.take(result, stack);
    stack.complete = true;
    this.#store.pick(results[0].id);
    // Whoever went on to another page of it meanwhile is told, and not taken away.
    if (location.hash === where) location.hash = "#live";
    else toast(`${file.name} is classified: ${plural(count, "field of view", "fields of view")}, under Live.`);
    for (const warning of warnings) toast(`${file.name}: ${warning}`, { state: "warn", seconds: 20 });
  }

  /** A stack whose layout nobody told: who dropped it knows. */
  #ask(file, error) {
    const dialog = $("axes");
    say($("axeswhy"), error.message);
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
      this.#queue = this.#queue.then(() => this.#classify(file, $("axesof").value.toUpperCase()));
    };
    dialog.showModal();
  }
}

/** Sends a file; fetch cannot tell how much of it has gone. */
function send(file, axes, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData(); // so that the service learns the file's name
    const type = TYPES[file.name.split(".").pop().toLowerCase()];
    form.append("file", type && file.type !== type ? new File([file], file.name, { type }) : file);
    request.open("POST", new URL(`v1/classify?cam=grid${axes ? `&axes=${encodeURIComponent(axes)}` : ""}`, document.baseURI));
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => progress(loaded / total);
    request.onload = () => {
      if (request.status === 200) resolve(request.response);
      else reject(failed({ ...request.response, status: request.status }));
    };
    request.onerror = () => reject(new Unreachable("the service hung up, or cannot be reached"));
    request.send(form);
  });
}
