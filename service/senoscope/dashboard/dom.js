// Helpers for the page's elements.

export const $ = (id) => document.getElementById(id);

/** Returns a new element; properties are set as properties, and text is never parsed as markup. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (name.startsWith("aria-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets the text of an element if it changed, so that an unchanged text causes no new layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const sizes = new WeakMap();
const observer = new ResizeObserver((changes) => {
  for (const { target, contentRect } of changes) {
    sizes.get(target).size = contentRect;
    sizes.get(target).draw();
  }
});

/** Calls `draw` whenever the size of a canvas changes, and keeps the size, so that it needs no new layout. */
export function onResize(canvas, draw) {
  sizes.set(canvas, { size: canvas.getBoundingClientRect(), draw });
  observer.observe(canvas);
}

/**
 * Clears a canvas that was given to `onResize` and fits it to the screen's pixels.
 * Returns its context and its size in CSS pixels, or null while it is hidden.
 */
export function fitCanvas(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { width, height } = sizes.get(canvas).size;
  if (!width || !height) return null;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Returns a function that calls `draw` with the next frame, within a limit on its share of the time. */
export function throttled(draw, minMs = 0) {
  let waiting = false;
  let nextAt = 0;
  const act = () => {
    waiting = false;
    const began = performance.now();
    draw();
    const done = performance.now();
    // Drawing takes at most a tenth of the time.
    nextAt = done + Math.max(minMs, 9 * (done - began));
  };
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => requestAnimationFrame(act), Math.max(0, nextAt - performance.now()));
  };
}

/** Shows a text next to the pointer; `textAt` returns it for a pointer event, or "" for none. */
export function addTooltip(element, textAt) {
  const tip = $("tip");
  const hide = () => { tip.hidden = true; };
  element.addEventListener("pointermove", (event) => {
    const text = textAt(event);
    tip.hidden = !text;
    if (!text) return;
    setText(tip, text);
    const [width, height] = [tip.offsetWidth, tip.offsetHeight];
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4))}px`;
    tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 8 : event.clientY + 18}px`;
  });
  element.addEventListener("pointerleave", hide);
  addEventListener("keydown", ({ key }) => key === "Escape" && hide());
}

/** Keeps a bulletin on one line; a longer one gets a button that shows the rest. */
export function oneLine(bulletin) {
  const [text, more] = bulletin.children;
  const fit = () => {
    const open = more.getAttribute("aria-expanded") === "true";
    if (!open) more.hidden = text.scrollWidth <= text.clientWidth;
  };
  const open = (wanted) => {
    more.setAttribute("aria-expanded", wanted);
    setText(more, wanted ? "Less" : "More");
    bulletin.classList.toggle("open", wanted);
    fit();
  };
  more.onclick = () => open(more.getAttribute("aria-expanded") !== "true");
  new ResizeObserver(fit).observe(bulletin);
  new MutationObserver(() => (text.textContent ? fit() : open(false))).observe(text, { childList: true, characterData: true, subtree: true });
}

/** Shows a message until it is closed, or for some seconds. */
export function toast(text, { state = "", seconds = state === "bad" ? 20 : 8, more = null } = {}) {
  const close = el("button", { type: "button", textContent: "Close" });
  const box = el("div", { className: "toast", data: { state } }, el("div", {}, text, more), close);
  close.onclick = () => box.remove();
  if (state === "bad") box.setAttribute("role", "alert");
  if (seconds) setTimeout(() => box.remove(), seconds * 1000);
  $("toasts").append(box);
  return box;
}

/** Replaces the children of an element by those that `make` returns, if their description changed. */
export function rebuild(element, description, make) {
  const text = JSON.stringify(description);
  if (element.dataset.built === text) return;
  element.dataset.built = text;
  element.replaceChildren(...make());
}

/** Sets the options of a select; keeps the selected one. */
export function setOptions(select, options) {
  const { value } = select;
  rebuild(select, options, () => options.map(([v, text]) => el("option", { value: v, textContent: text })));
  if (options.some(([v]) => v === value)) select.value = value;
}

/** Sets the terms of a description list, from [term, description, class] rows. */
export function setFacts(list, rows) {
  rebuild(list, rows, () => rows.map(([term, text, className = ""]) =>
    el("div", { className }, el("dt", { textContent: term }), el("dd", { textContent: text }))));
}

/** Returns a row of a table. */
export const rowOf = (texts) => el("tr", {}, ...texts.map((text) => el("td", { textContent: text })));
