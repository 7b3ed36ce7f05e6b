// @ts-check
// New contents for a part of the page under the eyes of a reader: charts keep their zoom and open table, folded parts
// stay as they are, the focus stays on the control that says the same, and what is read stays where it is on the screen.

import { adopt, dispose } from "./chart.js";
import { every } from "./dom.js";

const FOCUSABLE = "button, input, select, summary, [tabindex]";
const PLACES = "[data-chart], [data-fold], [data-finding], main > section";

/**
 * Puts new children into an element.
 * @param {HTMLElement} box
 * @param {any[]} children nodes, lists of them, and what is false where there is none
 */
export function refill(box, children) {
  const place = topOfScreen();
  const active = /** @type {HTMLElement | null} */ (document.activeElement);
  const focused = active && document.hasFocus() && box.contains(active) ? active : null; // elsewhere it is not ours to move
  const name = focused && nameOf(focused);
  const rank = focused ? [...box.querySelectorAll(FOCUSABLE)].indexOf(focused) : -1;
  const scrolled = new Map([...box.querySelectorAll(".scroll")].map((part) => [part.getAttribute("aria-label"), [part.scrollTop, part.scrollLeft]]));
  const folds = new Map(every(box, "details[data-fold]").map((fold) => [fold.dataset.fold, fold.open]));

  const fresh = document.createElement("div");
  fresh.append(...children.flat(Infinity).filter(Boolean));
  const known = new Map(every(box, "[data-chart]").map((card) => [card.dataset.chart, card]));
  for (const card of every(fresh, "[data-chart]")) {
    const kept = known.get(card.dataset.chart);
    if (!kept) continue;
    known.delete(card.dataset.chart);
    card.replaceWith(adopt(kept, card));
  }
  for (const fold of every(fresh, "details[data-fold]")) fold.open = folds.get(fold.dataset.fold) ?? fold.open;
  dispose(box);
  box.replaceChildren(...fresh.childNodes);

  for (const part of box.querySelectorAll(".scroll")) [part.scrollTop, part.scrollLeft] = scrolled.get(part.getAttribute("aria-label")) ?? [0, 0];
  if (focused) refocus(box, focused, name, rank);
  if (place) window.scrollBy(0, (document.querySelector(place.selector)?.getBoundingClientRect().top ?? place.top) - place.top);
}

function refocus(box, focused, name, rank) {
  const all = [...box.querySelectorAll(FOCUSABLE)];
  const target = box.contains(focused) ? focused : (all.find((control) => nameOf(control) === name) ?? all[Math.min(rank, all.length - 1)]);
  target?.focus({ preventScroll: true });
  if (target?.type === "search") target.setSelectionRange(target.value.length, target.value.length);
}

/** What a control is, so that its successor is known. */
function nameOf(control) {
  const owner = control.closest("[data-chart], [data-run], [data-fold]");
  const { chart, run, fold } = owner?.dataset ?? {};
  return control.id || [chart ?? run ?? fold, control.tagName, control.getAttribute("aria-label") ?? control.textContent].join(" ");
}

/** The part of the page at the top of the screen, and how far from the top it begins; null at the top of the page. */
function topOfScreen() {
  if (window.scrollY === 0) return null;
  const bar = document.getElementById("bar")?.getBoundingClientRect().bottom ?? 0;
  const part = every(document, PLACES).find((one) => one.getBoundingClientRect().bottom > bar && one.getBoundingClientRect().height > 0 && (one.getBoundingClientRect().top >= bar || !one.querySelector(PLACES)));
  if (!part) return null;
  const [key, value] = Object.entries(part.dataset).find(([name]) => ["chart", "fold", "finding"].includes(name)) ?? ["", ""];
  const selector = key ? `[data-${key}="${CSS.escape(value)}"]` : `#${part.id}`;
  return { selector, top: part.getBoundingClientRect().top };
}
