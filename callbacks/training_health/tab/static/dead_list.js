// @ts-check
// Which units are dead, in words and by number: a list that can be copied.

import { NONE, h, isNumber, percent, sampleSize, whole } from "./dom.js";
import { cut, lookMark } from "./runs.js";

const MOST_NAMED = 6; // sites in a sentence
const MOST_OPEN = 3; // runs whose lists are unfolded

/**
 * A card with a line for each run, which unfolds to its dead units.
 * @param {any[]} runs [{row, data, look}] of the picked runs
 */
export function deadList(runs) {
  const having = runs.filter(({ data }) => data.total?.epochs.length);
  if (!having.length) return null;
  return h(
    "div",
    { class: "card wide", data: { list: "dead" } },
    having.map(({ row, data, look }) => {
      const line = [lookMark(look), h("strong", { title: row.run }, cut(row.label)), " ", deadSentence(data)];
      const units = deadUnits(data);
      if (!units.length) return h("p", { class: "list-line" }, line);
      return h("details", { class: "dead-list", data: { fold: `dead ${row.run}` }, open: having.length <= MOST_OPEN }, h("summary", {}, line), listOf(row, units));
    }),
  );
}

/** "57 of 352 units are dead ..." of a run's last epoch. */
function deadSentence({ total, sites }) {
  const [dead, nan] = [total.dead.at(-1), total.nan.at(-1)];
  const known = total.units - nan;
  const when = `at epoch ${total.epochs.at(-1) + 1}`;
  const broken = nan > 0 ? ` ${whole(nan)} more are not a number: neither dead nor alive.` : "";
  const rare = total.rare.at(-1) > 0 ? ` ${whole(total.rare.at(-1))} fire rarely.` : "";
  if (!known) return `No unit's output is a number ${when}.`;
  if (!dead) return `None of ${whole(known)} units is dead ${when}: each fired on at least one of the examples (${sampleSize(total.n.at(-1))}).${rare}${broken}`;
  const dying = worstFirst(sites);
  const named = dying.slice(0, MOST_NAMED).map((site) => `${site.site} ${whole(site.dead_units.unit.length)} of ${whole(site.units)}`);
  const more = dying.length > MOST_NAMED ? ` and ${dying.length - MOST_NAMED} more sites` : "";
  return `${whole(dead)} of ${whole(known)} units (${percent(dead / known)}) are dead ${when}, ${sampleSize(total.n.at(-1))}: ${named.join(", ")}${more}.${rare}${broken}`;
}

/** The sites that have dead units, by their fraction. */
const worstFirst = (sites) => sites.filter((site) => site.dead_units.unit.length).sort((a, b) => b.dead_units.unit.length / b.units - a.dead_units.unit.length / a.units);

/**
 * One entry per dead unit of a run, by site. `epoch`: of its death; null if it was dead when it was first looked at.
 * @returns {{site: string, unit: number, since: string, epoch: number | null, revived: number, cause: string, depth: number | null}[]}
 */
function deadUnits({ sites }) {
  return worstFirst(sites).flatMap(({ site, dead_units: dead }) =>
    dead.unit.map((unit, i) => ({
      site,
      unit,
      since: sinceWords(dead, i),
      epoch: dead.first[i] || dead.since[i] < 0 ? null : dead.since[i] + 1,
      revived: dead.revived[i],
      cause: dead.cause?.[i] ?? "",
      depth: dead.depth?.[i] ?? null,
    })),
  );
}

/** Since when the i-th of a site's dead units is dead. */
export function sinceWords(dead, i) {
  if (dead.since[i] < 0) return "before the first step";
  return `epoch ${dead.since[i] + 1}${dead.first[i] ? ", the first record" : ""}`;
}

/** Units of one site that are dead of the same cause from the start, or died later, share a row. */
function listOf(row, units) {
  const groups = new Map();
  for (const unit of units) {
    const key = JSON.stringify([unit.site, unit.epoch === null ? unit.since : "", unit.revived > 0, unit.cause]);
    groups.set(key, [...(groups.get(key) ?? []), unit]);
  }
  const withCause = units.some(({ cause }) => cause);
  const lines = [["site", "unit", "dead_since", "times_revived", "cause", "depth"], ...units.map((u) => [u.site, u.unit, u.since, u.revived, u.cause || "not recorded", u.depth ?? ""])];
  const head = ["Site", "Units", "Unit numbers", "Dead since", "Came back before", ...(withCause ? ["Cause, depth"] : [])];
  return [
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": `Dead units of ${row.run}` },
      h("table", {}, h("thead", {}, h("tr", {}, head.map((words) => h("th", { scope: "col" }, words)))), h("tbody", {}, [...groups.values()].map((group) => groupRow(group, withCause)))),
    ),
    h("p", { class: "list-tools" }, copyButton(lines.map((line) => line.join("\t")).join("\n"), row.run), !withCause && h("span", { class: "muted" }, "Cause: not recorded in this log.")),
  ];
}

function groupRow(units, withCause) {
  const [{ site, revived, cause }] = units;
  const epochs = units.map(({ epoch }) => epoch ?? 0);
  const [first, last] = [Math.min(...epochs), Math.max(...epochs)];
  const since = first === last ? units[0].since : `epochs ${first} to ${last} (in brackets)`;
  const depths = units.map(({ depth }) => depth).filter(isNumber).sort((a, b) => a - b);
  const depth = depths.length ? `, ${depths[Math.floor(depths.length / 2)].toFixed(1)} sd below 0${depths.length > 1 ? " (median)" : ""}` : "";
  const numbers = units.map(({ unit, epoch }) => (first === last ? unit : `${unit}\u00a0(${epoch})`)).join(", ");
  return h("tr", {}, h("td", {}, site), h("td", { class: "number" }, whole(units.length)), h("td", { class: "unit-numbers" }, numbers), h("td", {}, since), h("td", {}, revived ? "yes" : "never"), withCause && h("td", {}, cause ? cause + depth : NONE));
}

/** Copies a text; where the browser forbids it, as on a page without TLS, shows it selected. */
function copyButton(text, run) {
  const button = h("button", { type: "button", class: "quiet", "aria-label": `Copy, one line per unit: dead units of ${run}`, onclick: copy }, "Copy, one line per unit");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const box = h("textarea", { readonly: true, rows: "6", "aria-label": `Dead units of ${run}` }, text);
      button.replaceWith(box);
      box.focus();
      box.select();
    }
  }
  return button;
}
