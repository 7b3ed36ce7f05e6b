// @ts-check
// What the reader chose: in the address bar, so that a link brings back what its sender saw, and in the browser's
// storage for the next visit.

import { host } from "./host.js";

const PICKED_AT_FIRST = 6;
export const MOST_PICKED = 24; // more lines than that tell nothing apart

const DEFAULTS = { runs: null, site: "", order: "death", metric: "accuracy", measure: "dead", layers: "worst", draw: "runs", reference: "", sort: "run", descending: false, filter: "" };
const CHOICES = {
  order: ["death", "index"],
  metric: ["accuracy", "loss"],
  measure: ["dead", "rare", "sparsity"],
  layers: ["worst", "forward"],
  draw: ["runs", "variants"],
};

const PLUGIN = "training_health";
const STORED = `${PLUGIN}.view`;
const KEY = host ? `p.${STORED}` : "view"; // TensorBoard's address is #<tab>&key=value...; ours is #view=...
const outer = host ?? window; // whose address bar the reader sees

/** What the address bar says after #; null while another of TensorBoard's tabs is shown. */
function parameters() {
  const hash = outer.location.hash.slice(1);
  if (!host) return new URLSearchParams(hash);
  return hash === PLUGIN || hash.startsWith(`${PLUGIN}&`) ? new URLSearchParams(hash.slice(PLUGIN.length)) : null;
}

/** Whether the reader sees our tab. */
export const isLookedAt = () => !outer.document.hidden && parameters() !== null;

/** Calls back when someone pastes or walks back to another address of our tab. */
export function onAddress(changed) {
  outer.addEventListener("hashchange", () => parameters() && changed());
}

/** The state from the address, else from the last visit to this folder, else the defaults; anything malformed is dropped. */
export function loadState(folder) {
  const raw = parse(() => parameters()?.get(KEY)) ?? parse(() => folder && localStorage.getItem(`${STORED}.${folder}`)) ?? {};
  const state = { ...DEFAULTS, descending: raw.descending === true };
  if (Array.isArray(raw.runs) && raw.runs.every((run) => typeof run === "string")) state.runs = raw.runs;
  for (const key of ["site", "sort", "reference"]) if (typeof raw[key] === "string") state[key] = raw[key];
  for (const [key, choices] of Object.entries(CHOICES)) if (choices.includes(raw[key])) state[key] = raw[key];
  return state;
}

/** Without a navigation, and into the address bar only while our tab is shown; a report has no `folder` and no storage. */
export function saveState({ filter: _, ...kept }, folder) {
  const text = JSON.stringify(kept);
  const all = parameters();
  all?.set(KEY, text);
  const address = Object.assign(new URL(outer.location.href), { hash: host ? `${PLUGIN}&${all}` : `${all}` });
  if (all) outer.history.replaceState(outer.history.state, "", address);
  try {
    if (folder) localStorage.setItem(`${STORED}.${folder}`, text);
  } catch {
    // storage may be full or forbidden: the address bar still has it
  }
}

/** The picked rows in the table's natural order; where none of those that were picked is here, those `atFirst`. */
export function pickedRows(state, rows, atFirst) {
  const drawable = rows.filter((row) => row.state === "ok");
  const those = (names) => drawable.filter((row) => names?.includes(row.run)).slice(0, MOST_PICKED);
  const picked = those(state.runs);
  if (picked.length || state.runs?.length === 0) return picked;
  return atFirst?.length ? those(atFirst) : firstRows(drawable);
}

/** What is compared before anyone picked: the runs with an alarm, then the newest. */
function firstRows(drawable) {
  const first = [...drawable].sort((a, b) => Number(b.alarms > 0) - Number(a.alarms > 0) || (b.written ?? 0) - (a.written ?? 0)).slice(0, PICKED_AT_FIRST);
  return drawable.filter((row) => first.includes(row));
}

function parse(read) {
  try {
    return JSON.parse(read());
  } catch {
    return null; // not JSON, or storage is forbidden
  }
}
