// A stack of fields of view that is dropped on the page: sent, classified, shown like a series.

import { failed, headers, Unreachable } from "./api.js";
import { $, el, say, toast } from "./dom.js";
import { percent, plural } from "./format.js";

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
      this.#take(file, answer);
    } catch (error) {
      if (error.code === "ambiguous_axes") this.#wonder(file, error);
      else toast(`${file.name} was not classified: ${error.message}`, { state: "bad" });
    } finally {
      this.#live.removeEventListener("result", count);
      box.remove();
    }
  }

  #take(file, { results, warnings, count }) {
    this.#stacks += 1;
    const stack = this.#store.collection(`stack:${this.#stacks}`, "stack", `${file.name} (${plural(count, "FOV")})`);
    for (const result of results) this.#store.take(result, stack);
    stack.complete = true;
    const show = () => {
      this.#store.setFollow(false);
      this.#store.show(stack);
      this.#store.pick(results[0].id);
      location.hash = "#live";
    };
    // Another view is not left, nor does the list there change, unless the user asks for it.
    if (undisturbed()) show();
    else offer(`${file.name} is classified: ${plural(count, "field of view", "fields of view")}.`, "Show", show);
    for (const warning of warnings) toast(`${file.name}: ${warning}`, { state: "warn", seconds: 20 });
  }

  /** Asks for the layout of a stack: at once on the live view, else when the user is ready for it. */
  #wonder(file, error) {
    if (undisturbed()) this.#ask(file, error);
    else offer(`${file.name} is not classified yet: its layout is not known.`, "Choose the layout…", () => this.#ask(file, error));
  }

  #ask(file, error) {
    const dialog = $("axes");
    if (dialog.open) return this.#wonder(file, error);
    const again = (axes) => {
      dialog.close();
      this.#queue = this.#queue.then(() => this.#classify(file, axes));
    };
    say($("axestitle"), `How is ${file.name} laid out?`);
    say($("axeswhy"), error.message);
    const names = this.#channels();
    const [one, two] = [names[0] ?? "channel 1", names[1] ?? "channel 2"];
    say($("axesbyfov"), `FOV 1: ${(names.length ? names : [one, two]).join(", ")}; then FOV 2: ${one}, …`);
    say($("axesbychannel"), `${one} of FOV 1, FOV 2, …; then ${two} of FOV 1, FOV 2, …`);
    for (const button of dialog.querySelectorAll("[data-axes]")) button.onclick = () => again(button.dataset.axes);
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      again($("axesof").value.toUpperCase());
    };
    dialog.showModal();
    return undefined;
  }
}

/** Whether the live view is to be seen, and no dialog over it. */
const undisturbed = () => !$("live").hidden && !document.querySelector("dialog[open]");

/** A message that stays until it is closed, with a button that does what it says. */
function offer(text, label, act) {
  const button = el("button", { type: "button", textContent: label });
  const box = toast(text, { seconds: 0, more: el("div", { className: "bar" }, button) });
  button.onclick = () => {
    box.remove();
    act();
  };
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
