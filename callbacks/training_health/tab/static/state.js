// What the reader chose: in the address bar, with the browser's storage for the next visit.

import { readAddress, writeAddress } from "./host.js";

const STORED = "training_health.view."; // and the log folder: other logs have other runs
const PICKED_AT_FIRST = 6;
export const MOST_PICKED = 24; // more lines than that tell nothing apart

const DEFAULTS = { runs: null, site: "", order: "death", metric: "accuracy", sort: "run", descending: false, filter: "" };
const CHOICES = { order: ["death", "index"], metric: ["accuracy", "loss"] };

/** The state from the address, else from the last visit to this folder, else the defaults; anything malformed is dropped. */
export function loadState(folder) {
  return clean(parse(readAddress) ?? parse(() => (folder ? localStorage.getItem(STORED + folder) : null)) ?? {});
}

/** `folder`: known to the tab; a report has none and is remembered by its address alone. */
export function saveState({ filter: _, ...kept }, folder) {
  const text = JSON.stringify(kept);
  writeAddress(text);
  try {
    if (folder) localStorage.setItem(STORED + folder, text);
  } catch {
    // storage may be full or forbidden: the address bar still has it
  }
}

/** The picked rows in the table's natural order; before anyone picked, or where none of them is here, the first few with data. */
export function pickedRows(state, rows) {
  const drawable = rows.filter((row) => row.state === "ok");
  const names = new Set(state.runs ?? []);
  const picked = drawable.filter((row) => names.has(row.run)).slice(0, MOST_PICKED);
  return picked.length || state.runs?.length === 0 ? picked : drawable.slice(0, PICKED_AT_FIRST);
}

function clean(raw) {
  const state = { ...DEFAULTS };
  if (Array.isArray(raw.runs) && raw.runs.every((run) => typeof run === "string")) state.runs = raw.runs;
  for (const key of ["site", "sort"]) if (typeof raw[key] === "string") state[key] = raw[key];
  for (const key of ["order", "metric"]) if (CHOICES[key].includes(raw[key])) state[key] = raw[key];
  state.descending = raw.descending === true;
  return state;
}

function parse(read) {
  try {
    return JSON.parse(read());
  } catch {
    return null; // not JSON, or storage is forbidden
  }
}
