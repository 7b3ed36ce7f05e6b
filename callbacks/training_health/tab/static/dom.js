// @ts-check
// Building the page from data: everything that comes from a log enters as text, never as HTML.

/** Makes an element. `props`: attributes; `class`, `style` (object), `on*` (listeners) and `data` (dataset) as usual. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else if (key === "data") Object.assign(node.dataset, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/**
 * The elements below `root` that match, as a list.
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {any[]} HTML elements: the page has no others
 */
export const every = (root, selector) => [...root.querySelectorAll(selector)];

/** A sentence in which `back-ticks` mark code. */
export const withCode = (sentence) => sentence.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));

/** Plotly reads tags and entities in every text it draws; this leaves it nothing to read. */
export function plotlyText(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

export const NONE = "–";

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
export const ratio = (count, of) => (of > 0 ? count / of : null);
export const whole = (count) => (isNumber(count) ? count.toLocaleString("en-US") : NONE);
export const percent = (fraction, digits = 1) => (isNumber(fraction) ? `${(100 * fraction).toFixed(digits)}%` : NONE);

/** A difference of fractions in percentage points, signed. */
export function points(difference, digits = 1) {
  if (!isNumber(difference)) return NONE;
  const rounded = Number((100 * difference).toFixed(digits)) + 0; // no -0
  return (rounded > 0 ? "+" : "") + rounded.toFixed(digits).replace("-", "−");
}

/** The number of examples, in words; null is unknown. */
export const sampleSize = (n) => (isNumber(n) ? `n = ${whole(n)}` : "n unknown");

/** Groups of radio-like buttons: `options` is [[value, label], ...]. */
export function segmented(label, options, chosen, choose) {
  return h(
    "div",
    { class: "segmented", role: "group", "aria-label": label },
    options.map(([value, text]) =>
      h("button", { type: "button", id: `${label} ${value}`, "aria-pressed": String(value === chosen), onclick: () => choose(value) }, text),
    ),
  );
}

/** What the colours, lines and marks of a section's charts mean. */
export const key = (...entries) => h("div", { class: "key" }, entries);

export const keyLine = (style, words) => keyEntry(h("span", { class: "key-line", style: { "border-top-style": style } }), words);
export const keyBox = (colour, words) => keyEntry(h("span", { class: "key-box", style: { background: colour } }), words);
export const keyMark = (symbol, words) => keyEntry(h("span", { class: "key-mark", "aria-hidden": "true" }, symbol), words);
export const keyEntry = (...parts) => h("span", { class: "key-entry" }, parts);

/** A colour scale with its ticks, [[value, text], ...]; the one at `strong` stands out. `scale(dark)`: its colours. */
export function keyScale(words, label, scale, { low, high, ticks }, strong) {
  const gradient = (dark) => `linear-gradient(to right, ${scale(dark).map(([at, colour]) => `${colour} ${100 * at}%`).join(", ")})`;
  const marked = ticks.map(([at, text]) => h("span", { style: { left: `${(100 * (at - low)) / (high - low)}%` } }, at === strong ? h("strong", {}, text) : text));
  return keyEntry(words, h("span", { class: "key-scale", role: "img", "aria-label": label }, h("span", { class: "key-gradient", style: { "--light": gradient(false), "--dark": gradient(true) } }), h("span", { class: "key-ticks" }, marked)));
}
