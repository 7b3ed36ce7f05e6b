// What the reader chose: in the address bar, with the browser's storage for the next visit.

import { readAddress, writeAddress } from "./host.js";

const STORED = "training_health.view";
const PICKED_AT_FIRST = 6;
export const MOST_PICKED = 24; // more lines than that tell nothing apart

const DEFAULTS = { runs: null, site: "", order: "death", metric: "accuracy", sort: "run", descending: false, filter: "" };
const CHOICES = { order: ["death", "index"], metric: ["accuracy", "loss"] };

/** The state from the address, else from the last visit, else the defaults; anything malformed is dropped. */
export function loadState() {
  return clean(parse(readAddress) ?? parse(() => localStorage.getItem(STORED)) ?? {});
}

export function saveState({ filter: _, ...kept }) {
  const text = JSON.stringify(kept);
  writeAddress(text);
  try {
    localStorage.setItem(STORED, text);
  } catch {
    // storage may be full or forbidden: the address bar still has it
  }
}

/** The picked rows in the table's natural order; before anyone picked, the first few with data. */
export function pickedRows(state, rows) {
  const drawable = rows.filter((row) => row.state === "ok");
  if (state.runs === null) return drawable.slice(0, PICKED_AT_FIRST);
  const names = new Set(state.runs);
  return drawable.filter((row) => names.has(row.run)).slice(0, MOST_PICKED);
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
