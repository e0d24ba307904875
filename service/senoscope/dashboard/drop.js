// Stacks of fields of view that are dropped on the page: sent, classified, and shown like a series.

import { failed, headers, Unreachable } from "./api.js";
import { $, el, setText, toast } from "./dom.js";
import { fovs, percent, plural } from "./format.js";

const TYPES = { tif: "image/tiff", tiff: "image/tiff", npy: "application/x-npy" };

export class Drop {
  #store;
  #live;
  #channels;
  #stacks = 0;
  #queue = Promise.resolve();

  /** @param {() => string[]} channels the names of the ensemble's channels */
  constructor(store, live, channels) {
    this.#store = store;
    this.#live = live;
    this.#channels = channels;
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
      this.classifyFiles(event.dataTransfer.files);
    });
    $("open").onclick = () => $("file").click();
    $("file").addEventListener("change", () => {
      this.classifyFiles([...$("file").files]);
      $("file").value = "";
    });
  }

  /** Classifies files one after the other. */
  classifyFiles(files) {
    for (const file of files) this.#queue = this.#queue.then(() => this.#classify(file));
    return this.#queue;
  }

  async #classify(file, axes = "") {
    const message = el("p", { textContent: `Sending ${file.name}…` });
    const progress = el("progress", { max: 1, value: 0, "aria-label": `Progress of ${file.name}` });
    const box = toast(message, { seconds: 0, more: progress });
    let made = 0;
    // The service answers when the whole stack is classified; the live socket reports the progress.
    const count = ({ detail: { source } }) => {
      if (source.kind !== "upload" || source.file !== file.name) return;
      made += 1;
      progress.removeAttribute("value");
      setText(message, `${file.name}: ${fovs(made)} classified…`);
    };
    this.#live.addEventListener("result", count);
    try {
      const answer = await send(file, axes, (share) => {
        progress.value = share;
        setText(message, share < 1 ? `Sending ${file.name}: ${percent(share)}` : `Classifying ${file.name}…`);
      });
      this.#addStack(file, answer);
    } catch (error) {
      if (error.code === "ambiguous_axes") this.#requestLayout(file, error);
      else toast(`${file.name} was not classified: ${error.message}`, { state: "bad" });
    } finally {
      this.#live.removeEventListener("result", count);
      box.remove();
    }
  }

  #addStack(file, { results, warnings, count }) {
    this.#stacks += 1;
    const stack = this.#store.collection(`stack:${this.#stacks}`, "stack", `${file.name} (${plural(count, "FOV")})`);
    for (const result of results) this.#store.addResult(result, stack);
    stack.complete = true;
    const show = () => {
      this.#store.setFollow(false);
      this.#store.show(stack);
      this.#store.pick(results[0].id);
      location.hash = "#live";
    };
    // If another view is open, neither the view nor its list changes until the user chooses "Show".
    if (liveViewIsFree()) show();
    else offer(`${file.name} is classified: ${fovs(count)}.`, "Show", show);
    for (const warning of warnings) toast(`${file.name}: ${warning}`, { state: "warn", seconds: 20 });
  }

  /** Requests the layout of a stack: with a dialog on the live view, else with a button that opens it. */
  #requestLayout(file, error) {
    if (liveViewIsFree()) this.#showLayoutDialog(file, error);
    else offer(`${file.name} is not classified yet: its layout is unknown.`, "Choose the layout…", () => this.#showLayoutDialog(file, error));
  }

  #showLayoutDialog(file, error) {
    const dialog = $("axes");
    if (dialog.open) return this.#requestLayout(file, error);
    const again = (axes) => {
      dialog.close();
      this.#queue = this.#queue.then(() => this.#classify(file, axes));
    };
    setText($("axestitle"), `How is ${file.name} laid out?`);
    setText($("axeswhy"), error.message);
    const names = this.#channels();
    const [one, two] = [names[0] ?? "channel 1", names[1] ?? "channel 2"];
    setText($("axesbyfov"), `FOV 1: ${(names.length ? names : [one, two]).join(", ")}; then FOV 2: ${one}, …`);
    setText($("axesbychannel"), `${one} of FOV 1, FOV 2, …; then ${two} of FOV 1, FOV 2, …`);
    for (const button of dialog.querySelectorAll("[data-axes]")) button.onclick = () => again(button.dataset.axes);
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      again($("axesof").value.toUpperCase());
    };
    dialog.showModal();
    return undefined;
  }
}

/** Returns whether the live view is open, without a dialog over it. */
const liveViewIsFree = () => !$("live").hidden && !document.querySelector("dialog[open]");

/** Shows a message with a button until it is closed. */
function offer(text, label, act) {
  const button = el("button", { type: "button", textContent: label });
  const box = toast(text, { seconds: 0, more: el("div", { className: "bar" }, button) });
  button.onclick = () => {
    box.remove();
    act();
  };
}

/** Sends a file; with XMLHttpRequest, because fetch does not report the progress of an upload. */
function send(file, axes, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData(); // includes the name of the file
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
    request.onerror = () => reject(new Unreachable("the connection was closed, or the service cannot be reached"));
    request.send(form);
  });
}
