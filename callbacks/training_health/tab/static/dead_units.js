// Which neurons are dead: the fraction of dead and of rare units over epochs, in total and per site, runs side by side.

import { chartCard, epochAxis, lineOf } from "./chart.js";
import { h, key, keyLine, percent, plotlyText, sampleSize, whole } from "./dom.js";

const MOST_SITES = 11;
const STATES = ["rare", "dead", "nan"];

/** `runs`: [{row, data, look}] of the picked runs. */
export function deadUnitsCharts(runs) {
  const having = runs.filter(({ data }) => data.total);
  if (!having.length) return [h("p", { class: "muted" }, "None of the picked runs recorded the activity of its units (DeadReLUMonitor).")];
  const names = siteNames(runs);
  const worst = new Map(names.map((name) => [name, Math.max(...countsOf(having, name).map(({ counts }) => fractions(counts, "dead").at(-1) ?? 0))]));
  const drawn = new Set([...names].sort((a, b) => worst.get(b) - worst.get(a)).slice(0, MOST_SITES));
  const all = having.flatMap(({ data }) => [...data.sites, data.total]);
  const most = Math.max(0.05, ...all.flatMap((counts) => STATES.flatMap((state) => fractions(counts, state))));
  const withNaN = all.some((counts) => counts.nan.some((count) => count > 0));
  return [
    key(keyLine("solid", "dead"), keyLine("dotted", "rare"), withNaN && keyLine("dashed", "not a number"), h("span", { class: "muted" }, "colours: the runs above")),
    fractionChart("", countsOf(having, ""), most),
    h("div", { class: "grid" }, names.filter((name) => drawn.has(name)).map((name) => fractionChart(name, countsOf(having, name), most))),
    names.length > drawn.size && h("p", { class: "muted" }, `${drawn.size} of ${names.length} sites are drawn, those with most dead units.`),
    ...coverage(runs),
  ];
}

/** Names of all sites of the runs, in forward order. */
export function siteNames(runs) {
  const index = new Map();
  for (const { data } of runs) for (const site of data.sites) if (!index.has(site.site)) index.set(site.site, site.index);
  return [...index.keys()].sort((a, b) => index.get(a) - index.get(b));
}

export const siteOf = (data, name) => data.sites.find((site) => site.site === name);

/** The runs that have the site, each with its counts; "" is the whole network. */
function countsOf(runs, name) {
  return runs.map((run) => ({ ...run, counts: name ? siteOf(run.data, name) : run.data.total })).filter(({ counts }) => counts);
}

/** Fractions over epochs: of dead and rare units among those whose output is a number, of NaN among all; null without any. */
const fractions = (c, state) => c[state].map((count, i) => ratio(count, state === "nan" ? c.units : c.units - c.nan[i]));
const ratio = (count, of) => (of > 0 ? count / of : null);

function fractionChart(name, runs, most) {
  const title = name || "All units";
  const latest = runs.map(({ row, counts }) => (counts.dead.length ? `${row.run}: ${percent(fractions(counts, "dead").at(-1))}` : ""));
  const units = [...new Set(runs.map(({ counts }) => whole(counts.units)))].join(" or ");
  return chartCard({
    title,
    subtitle: `${units} units${name ? describeSite(runs[0].counts) : " in all sites of a run"}`,
    height: name ? 220 : 300,
    wide: !name,
    file: `dead_units_${name || "total"}`,
    label: `Fraction of dead and rare units over epochs, ${title}. Dead at the last epoch: ${latest.join(", ")}.`,
    build: () => ({
      data: runs.flatMap(traces),
      layout: {
        xaxis: epochAxis(runs.map(({ counts }) => counts.epochs)),
        yaxis: { tickformat: ".0%", range: [-0.02 * most, Math.min(1.03, 1.12 * most)], title: { text: "fraction of units" } },
      },
    }),
    table: () => ({
      columns: ["run", "site", "epoch", "n", "units", "dead", "dead_fraction", "rare", "rare_fraction", "not_a_number", "deaths", "revivals"],
      rows: runs.flatMap(({ row, counts: c }) => {
        const [rare, dead] = STATES.map((state) => fractions(c, state));
        return c.epochs.map((epoch, i) => [row.run, name || "all", epoch + 1, c.n[i], c.units, c.dead[i], dead[i], c.rare[i], rare[i], c.nan[i], c.deaths[i], c.revivals[i]]);
      }),
    }),
  });
}

function describeSite(site) {
  const where = site.positions > 1 ? `, ${whole(site.positions)} positions each` : "";
  const window = site.window === "validation" ? "" : `, measured on ${site.window} examples`;
  return `${where}, ${site.activation}${window}${site.first_layer ? ", first layer: its dead rarely come back" : ""}`;
}

function traces({ row, counts: c, look }) {
  const trace = (state, dash, width, size) =>
    lineOf(c.epochs, fractions(c, state), look, "%{y:.1%} (%{customdata[0]} of %{customdata[1]}, %{customdata[2]})", {
      name: `${plotlyText(row.run)}, ${state === "nan" ? "not a number" : state}`,
      customdata: c[state].map((count, i) => [count, state === "nan" ? c.units : c.units - c.nan[i], sampleSize(c.n[i])]),
      line: { color: look.colour, width, dash },
      marker: { color: look.colour, size, symbol: look.symbol },
    });
  const broken = c.nan.some((count) => count > 0) ? [trace("nan", "dash", 2, 5)] : [];
  return [trace("rare", "dot", 1.5, 4), trace("dead", "solid", 2.5, 6), ...broken];
}

/** What is not in the charts, so that nothing is silently missed. */
function coverage(runs) {
  const safe = new Set(runs.flatMap(({ data }) => data.cannot_die.map((entry) => `${entry.site} (${entry.activation})`)));
  const missed = new Set(runs.flatMap(({ data }) => data.unwatched.map((entry) => `${entry.name} (${entry.reason})`)));
  const sentence = (words, entries) => entries.size > 0 && h("p", { class: "muted" }, words, [...entries].join(", "), ".");
  return [sentence("Can't die, so not counted: ", safe), sentence("Not watched: ", missed)];
}
