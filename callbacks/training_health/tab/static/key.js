// What the colours, lines and marks of a section's charts mean.

import { h } from "./dom.js";

export const key = (...entries) => h("div", { class: "key" }, entries);

export const keyLine = (dash, words) => entry(h("span", { class: `key-line ${dash}` }), words);
export const keyBox = (colour, words) => entry(h("span", { class: "key-box", style: { background: colour } }), words);
export const keyMark = (symbol, words) => entry(h("span", { class: "key-mark", "aria-hidden": "true" }, symbol), words);

/** A colour scale with its ticks, [[position between 0 and 1, text, whether it stands out], ...]. */
export function keyScale(words, label, scale, ticks) {
  const gradient = `linear-gradient(to right, ${scale.map(([at, colour]) => `${colour} ${100 * at}%`).join(", ")})`;
  const marked = ticks.map(([at, text, strong]) => h("span", { style: { left: `${100 * at}%` } }, strong ? h("strong", {}, text) : text));
  return entry(words, h("span", { class: "key-scale", role: "img", "aria-label": label }, h("span", { class: "key-gradient", style: { background: gradient } }), h("span", { class: "key-ticks" }, marked)));
}

const entry = (...parts) => h("span", { class: "key-entry" }, parts);
