// @ts-check
// What the page says of runs: their names without what all share, and how far each has come.

import { h, isNumber } from "./dom.js";

const SHAPES = { circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", cross: "✚" };

const LONGEST = 34;
const PATIENCE = 5; // epochs without a record, after which a run has stalled
const LEAST_PATIENCE = 120; // seconds
const PATIENCE_IF_UNKNOWN = 1800; // seconds, before a run has two records

/**
 * Gives each row a `label`, its name without the folders that all runs with data have in common, a `progress`, and
 * `fresh`: whether a run without records may have just begun ("begun") or logged nothing ("empty"), else "".
 * @param {any[]} rows
 * @param {number | undefined} now seconds since 1970; a report has none
 * @returns {string} the names' pattern, such as "search/…/version_0"; empty where nothing is in common
 */
export function describeRuns(rows, now) {
  const drawable = rows.filter((row) => row.state === "ok");
  const paths = drawable.map((row) => row.run.split("/"));
  const shortest = Math.min(...paths.map((path) => path.length)) - 1; // something is left of each name
  const same = (part) => paths.length > 1 && paths.every((path) => part(path) === part(paths[0]));
  let [start, end] = [0, 0];
  while (start < shortest && same((path) => path[start])) start += 1;
  while (start + end < shortest && same((path) => path.at(-1 - end))) end += 1;
  drawable.forEach((row, i) => (row.label = paths[i].slice(start, paths[i].length - end).join("/")));
  for (const row of rows) {
    row.label ??= row.run;
    row.progress = progress(row, now);
    row.fresh = fresh(row, now);
  }
  return start + end ? [...paths[0].slice(0, start), "…", ...paths[0].slice(paths[0].length - end)].join("/") : "";
}

/** A label that fits: what is too long loses its middle, for the ends tell names apart. */
export const cut = (label, most = LONGEST) => (label.length > most ? `${label.slice(0, Math.floor(0.4 * most))}…${label.slice(-Math.ceil(0.6 * most) + 1)}` : label);

/** Where there is little room a name breaks behind its separators first. */
export const breakable = (name) => name.split(/(?<=[/_])/).flatMap((part) => [part, h("wbr")]);

/** Of each dataset the one with the highest value, where it has another to be compared with. */
export function bestByDataset(all, datasetOf, valueOf) {
  const groups = new Map();
  for (const one of all.filter((each) => isNumber(valueOf(each)))) groups.set(datasetOf(one), [...(groups.get(datasetOf(one)) ?? []), one]);
  return new Map([...groups].filter(([, same]) => same.length > 1).map(([dataset, same]) => [dataset, same.reduce((best, one) => (valueOf(one) > valueOf(best) ? one : best))]));
}

/** "finished", "running", "stalled", "unfinished" (a report can't tell which), or "" where the log doesn't say. */
function progress(row, now) {
  const planned = isNumber(row.max_epochs) && row.max_epochs > 0;
  if (row.finished || (planned && row.epochs >= row.max_epochs)) return "finished";
  if (!isNumber(now) || !isNumber(row.written)) return planned ? "unfinished" : "";
  const patience = isNumber(row.seconds_per_epoch) ? Math.max(LEAST_PATIENCE, PATIENCE * row.seconds_per_epoch) : PATIENCE_IF_UNKNOWN;
  if (now - row.written < patience) return "running";
  return planned ? "stalled" : "";
}

function fresh(row, now) {
  if (row.state !== "no_monitors") return "";
  if (!isNumber(row.written)) return "empty";
  const epochIsOver = [row.val_accuracy, row.val_loss, row.test_accuracy].some(isNumber);
  const old = isNumber(now) ? now - (epochIsOver ? row.began : row.written) > PATIENCE_IF_UNKNOWN : epochIsOver;
  return old ? "" : "begun";
}

/** The verdict on a run: of its findings, and where those are no alarm, of how far it has come. */
export function verdictOf(row) {
  const { level, words } = row.verdict;
  if (level !== "healthy" || !["stalled", "unfinished"].includes(row.progress)) return { level, words };
  return { level: "notice", words: row.progress === "stalled" ? "Stalled, no alarm until then" : "Not finished, no alarm so far" };
}

/** A run's colour and mark, as its lines have them. */
export const lookMark = ({ swatch, symbol }) => h("span", { class: "look", "aria-hidden": "true", style: { color: swatch } }, SHAPES[symbol]);
