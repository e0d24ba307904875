// Single-key shortcuts: inactive while the user types, and for users who turned them off.

import { $ } from "./dom.js";

const CHOOSING = new Set(["checkbox", "radio", "range"]);
const OFF = "senoscope-no-shortcuts";

/** @param {Record<string, () => void>} actions by `KeyboardEvent.key` */
export function listen(actions) {
  $("shortcuts").checked = localStorage.getItem(OFF) === null;
  $("shortcuts").addEventListener("change", () => {
    if ($("shortcuts").checked) localStorage.removeItem(OFF);
    else localStorage.setItem(OFF, "1");
  });
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || !$("shortcuts").checked) return;
    if (document.querySelector("dialog[open]")) return;
    const at = event.target;
    const types = at instanceof HTMLSelectElement || (at instanceof HTMLInputElement && !CHOOSING.has(at.type));
    // Arrow keys operate radio buttons and sliders, and Space operates buttons.
    const presses = at instanceof HTMLInputElement ? event.key.startsWith("Arrow") : event.key === " " && at instanceof HTMLButtonElement;
    const scrolls = at instanceof Element && at.matches(".scroll") && event.key.startsWith("Arrow");
    const act = actions[event.key];
    if (!act || types || presses || scrolls) return;
    event.preventDefault();
    act();
  });
}
