// The live socket: it tells every result, and opens itself again for as long as the page is there.

import { socket } from "./api.js";

const AGAIN_MS = 1000;

export class Live extends EventTarget {
  #socket = null;
  #timer = 0;
  #wanted = false;

  /** Whether it is open. */
  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Whether it is open, or may be in a moment. */
  get alive() {
    return this.open || this.#socket?.readyState === WebSocket.CONNECTING;
  }

  start() {
    this.#wanted = true;
    this.#connect();
  }

  stop() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  /** Begins anew: what seems open may hang on a cable that is no longer there. */
  renew() {
    this.stop();
    this.start();
  }

  #connect() {
    clearTimeout(this.#timer);
    let mine;
    try {
      mine = socket("v1/live?cam=grid");
    } catch { // a key that is no word of HTTP
      this.dispatchEvent(new Event("closed"));
      return;
    }
    this.#socket = mine;
    mine.onopen = () => this.dispatchEvent(new Event("opened"));
    mine.onmessage = ({ data }) => {
      if (mine === this.#socket) this.dispatchEvent(new CustomEvent("result", { detail: JSON.parse(data) }));
    };
    mine.onclose = () => {
      if (mine !== this.#socket) return;
      this.dispatchEvent(new Event("closed"));
      if (this.#wanted) this.#timer = setTimeout(() => this.#connect(), AGAIN_MS);
    };
  }
}
