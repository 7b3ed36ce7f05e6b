// @ts-check
// Runs of one variant with different seeds: their mean, their spread, and the difference to a reference, paired by seed.

import { NONE, h, isNumber, percent, points, segmented } from "./dom.js";
import { bestByDataset } from "./runs.js";

// the t beyond which, on both sides together, 5% of Student's distribution with 1 ... 30 degrees of freedom lie
const T95 = [12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.306, 2.26216, 2.22814, 2.20099, 2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596, 2.07961, 2.07387, 2.06866, 2.0639, 2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227];
const ROUNDING = 1e-12;

const METRICS = [
  { key: "val_accuracy", title: "Val. accuracy", text: (value) => percent(value, 2), difference: (value) => points(value, 2) },
  { key: "test_accuracy", title: "Test accuracy", text: (value) => percent(value, 2), difference: (value) => points(value, 2) },
  { key: "gap", title: "Gap, points", text: (value) => points(value, 2), difference: (value) => points(value, 2) },
  { key: "dead_fraction", title: "Dead units", text: (value) => percent(value), difference: (value) => points(value) },
];

/**
 * Variants of which at least two runs with different seeds are finished, in the table's order; runs of one variant with
 * other options are apart.
 * @param {any[]} rows of the overview
 * @returns {{name: string, rows: any[]}[]} of each seed the newest run
 */
function variantGroups(rows) {
  const groups = new Map();
  const named = rows.filter((row) => row.state === "ok" && row.progress === "finished" && row.variant && isNumber(row.seed));
  const optional = (key) => new Set(named.map((row) => row[key])).size > 1;
  const parts = ["dataset", "max_epochs"].filter(optional);
  // hashes; runs of before there were any have none, and count as alike where no two differ
  const options = new Map(named.map((row) => [row.variant, new Set()]));
  for (const row of named) if (row.options) options.get(row.variant).add(row.options);
  for (const row of named) {
    const plain = [row.variant, ...parts.map((key) => (key === "max_epochs" ? `${row[key] ?? "?"} epochs` : row[key]))].join(", ");
    const several = options.get(row.variant).size > 1;
    const name = several ? `${plain} (options ${row.options ? row.options.slice(0, 4) : "unknown"})` : plain;
    groups.set(name, groups.get(name) ?? new Map());
    const last = groups.get(name).get(row.seed);
    if (!last || (row.written ?? 0) >= (last.written ?? 0)) groups.get(name).set(row.seed, row);
  }
  return [...groups].map(([name, bySeed]) => ({ name, rows: [...bySeed.values()] })).filter((group) => group.rows.length > 1);
}

/** Number, mean and sample standard deviation of the values that are known. */
function spread(values) {
  const known = values.filter(isNumber);
  const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
  const sd = known.length > 1 ? Math.sqrt(known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (known.length - 1)) : null;
  return { n: known.length, mean: known.length ? mean : null, sd };
}

/** Half of the 95% interval of a mean, by Student's t; null from fewer than two values. */
const halfWidth = ({ n, sd }) => (n > 1 ? (T95[n - 2] ?? 1.96 + 2.5 / (n - 1)) * (sd / Math.sqrt(n)) : null);

/** The difference of two groups over the seeds that both have, and whether its 95% interval leaves out 0. */
function pairedDifference(group, reference, key) {
  const pairs = group.rows.map((row) => [row[key], reference.rows.find((other) => other.seed === row.seed)?.[key]]);
  const found = spread(pairs.filter((pair) => pair.every(isNumber)).map(([ours, theirs]) => ours - theirs));
  const half = halfWidth(found);
  return { ...found, half, verdict: half === null ? "unknown" : Math.abs(found.mean) > half + ROUNDING ? "different" : "noise" };
}

/** The table of variants; null where no variant has two seeds. `view`: {rows, state, update}. */
export function groupsTable({ rows, state, update }) {
  const groups = variantGroups(rows);
  if (!groups.length) return null;
  const reference = groups.find(({ name }) => name === state.reference) ?? groups.find(({ name }) => name.startsWith("baseline")) ?? groups[0];
  const metrics = METRICS.filter(({ key }) => groups.some((group) => group.rows.some((row) => isNumber(row[key]))));
  const best = bestByDataset(groups, ({ rows: [{ dataset }] }) => dataset, (group) => spread(group.rows.map((row) => row.val_accuracy)).mean);
  const several = groups.length > 1;
  const select = h(
    "select",
    { id: "reference", onchange: (event) => update({ reference: event.target.value }) },
    groups.map(({ name }) => h("option", { value: name, selected: name === reference.name }, name)),
  );
  const line = (group) =>
    h(
      "tr",
      { data: { variant: group.name } },
      h("th", { scope: "row" }, group.name, group === best.get(group.rows[0].dataset) && h("span", { class: "best" }, " best mean")),
      h("td", { class: "number" }, String(group.rows.length)),
      metrics.map((metric) => {
        const { mean, sd } = spread(group.rows.map((row) => row[metric.key]));
        const difference = group === reference ? h("span", { class: "muted" }, "reference") : differenceCell(pairedDifference(group, reference, metric.key), metric);
        return h("td", { class: "number" }, h("div", {}, metric.text(mean), isNumber(sd) && h("span", { class: "muted" }, ` ± ${(100 * sd).toFixed(2)}`)), several && h("div", { class: "difference" }, difference));
      }),
    );
  return h(
    "div",
    { class: "card wide" },
    h(
      "div",
      { class: "controls" },
      several && h("label", {}, "Reference ", select),
      segmented("Charts below show", [["runs", "Each run"], ["variants", "Mean and band of each variant"]], state.draw, (draw) => update({ draw })),
    ),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Variants over seeds" },
      h(
        "table",
        { id: "variants" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Variant"), h("th", { scope: "col", class: "number" }, "Seeds"), metrics.map(({ title }) => h("th", { scope: "col", class: "number" }, title)))),
        h("tbody", {}, groups.map(line)),
      ),
    ),
    h("p", { class: "muted" }, "Mean ± standard deviation over seeds, at each run's last epoch; runs that are not finished are left out.", several && " Below it: less the reference, over the seeds that both have, ± half of the 95% interval (paired, Student's t); noise: the interval includes 0. Of equal variants one difference in twenty is called real by chance."),
  );
}

function differenceCell({ n, mean, half, verdict }, { difference }) {
  if (!n) return NONE;
  if (half === null) return [difference(mean), h("span", { class: "muted" }, " 1 pair")];
  return [difference(mean), h("span", { class: "muted" }, ` ± ${(100 * half).toFixed(2)} `), verdict === "noise" ? h("span", { class: "muted" }, "noise") : h("strong", {}, "real")];
}

/**
 * The picked runs with those of one variant put together: their means over the epochs that all have. A group looks like
 * a run to the charts; `data.total.spread` is the standard deviation of its dead fraction.
 * @param {any[]} runs [{row, data, look}]
 */
export function asVariants(runs) {
  const groups = variantGroups(runs.map(({ row }) => row));
  const inGroup = new Set(groups.flatMap((group) => group.rows));
  const merged = groups.map(({ name, rows }) => {
    const members = runs.filter(({ row }) => rows.includes(row));
    const label = `${name}, mean of ${members.length}`;
    return { row: { ...members[0].row, run: label, label }, look: members[0].look, data: meanOf(members.map(({ data }) => data)) };
  });
  // a second run of a seed is in no group, and is drawn by itself
  return [...merged, ...runs.filter(({ row }) => !inGroup.has(row))];
}

function meanOf(all) {
  const common = (parts) => parts.map((part) => part.epochs).reduce((epochs, other) => epochs.filter((epoch) => other.includes(epoch)));
  const column = (parts, epochs, read) => epochs.map((epoch) => parts.map((part) => read(part)[part.epochs.indexOf(epoch)]));
  const mean = (rows) => rows.map((values) => (values.every(isNumber) ? spread(values).mean : null));
  const counts = (parts) => {
    if (parts.some((part) => !part)) return null;
    const epochs = common(parts);
    const lists = ["n", "dead", "rare", "nan", "deaths", "revivals"].map((name) => [name, mean(column(parts, epochs, (part) => part[name]))]);
    const fractions = column(parts, epochs, (part) => part.dead.map((count, i) => count / (part.units - part.nan[i])));
    return { ...parts[0], ...Object.fromEntries(lists), epochs, units: spread(parts.map((part) => part.units)).mean, spread: fractions.map((values) => spread(values).sd) };
  };
  const sites = all[0].sites.map((site) => counts(all.map((data) => data.sites.find((other) => other.site === site.site)))).filter(Boolean);
  const gaps = all.map((data) => data.gap);
  const epochs = common(gaps);
  const columns = Object.fromEntries(Object.keys(gaps[0].columns).map((name) => [name, mean(column(gaps, epochs, (gap) => gap.columns[name] ?? []))]));
  for (const metric of ["accuracy", "loss"]) columns[`${metric}_gap_margin`] = column(gaps, epochs, (gap) => gap.columns[`${metric}_gap`]).map((values) => halfWidth(spread(values)));
  return { ...all[0], total: counts(all.map((data) => data.total)), sites, gap: { ...gaps[0], epochs, columns } };
}
