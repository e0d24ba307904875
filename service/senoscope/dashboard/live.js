// The live WebSocket, which receives every result and reconnects as long as the page is open.

import { socket } from "./api.js";

const RECONNECT_MS = 1000;

export class Live extends EventTarget {
  #socket = null;
  #timer = 0;
  #started = false;

  /** Whether the socket is open. */
  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Whether the socket is open or being opened. */
  get alive() {
    return this.open || this.#socket?.readyState === WebSocket.CONNECTING;
  }

  start() {
    this.#started = true;
    this.#connect();
  }

  stop() {
    this.#started = false;
    clearTimeout(this.#timer);
    this.#socket?.close();
  }

  /** Reconnects: a socket can seem open although the network is down. */
  renew() {
    this.stop();
    this.start();
  }

  #connect() {
    clearTimeout(this.#timer);
    let opened;
    try {
      opened = socket("v1/live?cam=grid");
    } catch { // the key has characters that a subprotocol cannot have
      this.dispatchEvent(new Event("closed"));
      return;
    }
    this.#socket = opened;
    opened.onopen = () => this.dispatchEvent(new Event("opened"));
    opened.onmessage = ({ data }) => {
      if (opened === this.#socket) this.dispatchEvent(new CustomEvent("result", { detail: JSON.parse(data) }));
    };
    opened.onclose = () => {
      if (opened !== this.#socket) return;
      this.dispatchEvent(new Event("closed"));
      if (this.#started) this.#timer = setTimeout(() => this.#connect(), RECONNECT_MS);
    };
  }
}
