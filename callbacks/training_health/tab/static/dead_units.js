// @ts-check
// Which neurons are dead: the fraction of dead and of rare units over epochs, in total and per site, runs side by side.

import { chartCard, epochAxis, lineOf, shown } from "./chart.js";
import { h, key, keyEntry, keyLine, percent, plotlyText, ratio, sampleSize, whole } from "./dom.js";
import { cut, lookMark } from "./runs.js";
import { faded } from "./theme.js";

const MOST_RARE = 6; // runs whose rare units are drawn too
const MOST_UNIFIED = 8; // runs that one hover label lists
const STATES = ["rare", "dead", "nan"];

/**
 * The fraction of dead units over epochs, of the whole network.
 * @param {any[]} runs [{row, data, look}] of the picked runs, or of their variants
 */
export function totalChart(runs) {
  const having = runs.filter(({ data }) => data.total);
  if (!having.length) return [h("p", { class: "muted" }, "None of the picked runs recorded the activity of its units (DeadReLUMonitor).")];
  const withNaN = having.some(({ data }) => data.total.nan.some((count) => count > 0));
  return [
    key(keyLine("solid", "dead"), having.length <= MOST_RARE ? keyLine("dotted", "rare") : h("span", { class: "muted" }, `rare units: shown for up to ${MOST_RARE} runs`), withNaN && keyLine("dashed", "not a number")),
    legend(having),
    fractionChart("", countsOf(having, "")),
  ];
}

/** The same of one site. */
export const siteChart = (runs, name) => fractionChart(name, countsOf(runs, name));

/** Names, colours and marks of variants: those of runs are in the bar. */
export const legend = (runs) => runs.some(({ data }) => data.total?.spread) && key(runs.map(({ row, look }) => keyEntry(lookMark(look), h("span", { title: row.run }, cut(row.label)))));

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

function fractionChart(name, runs) {
  const title = name || "All units";
  const states = runs.length <= MOST_RARE ? STATES : STATES.slice(1);
  const values = runs.flatMap(({ counts }) => states.flatMap((state) => fractions(counts, state)));
  const most = values.reduce((a, b) => Math.max(a, b ?? 0), 0.05); // too many for the arguments of one call
  const latest = runs.map(({ row, counts }) => (counts.dead.length ? `${row.run}: ${percent(fractions(counts, "dead").at(-1))}` : ""));
  const units = [...new Set(runs.map(({ counts }) => whole(counts.units)))].join(" or ");
  return chartCard({
    title,
    subtitle: `${units} units${name ? describeSite(runs[0].counts) : " in all sites of a run"}${runs.some(({ counts }) => counts.spread) ? "; band: ± 1 standard deviation over seeds" : ""}`,
    height: name ? 240 : 300,
    wide: true,
    file: `dead_units_${name || "total"}`,
    label: `Fraction of dead and rare units over epochs, ${title}. Dead at the last epoch: ${latest.join(", ")}.`,
    build: () => ({
      data: runs.flatMap((run) => traces(run, runs.length)),
      layout: {
        xaxis: epochAxis(runs.map(({ counts }) => counts.epochs)),
        yaxis: { tickformat: ".0%", range: [-0.02 * most, Math.min(1.03, 1.08 * most)], title: { text: "fraction of units" } },
        ...hovering(runs.length),
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

function traces({ row, counts: c, look }, count) {
  const trace = (state, dash, width, size) =>
    lineOf(c.epochs, fractions(c, state), look, "%{y:.1%} (%{customdata[0]} of %{customdata[1]}, %{customdata[2]})", {
      name: `${plotlyText(row.label)}, ${state === "nan" ? "not a number" : state}`,
      customdata: c[state].map((count, i) => [short(count), short(state === "nan" ? c.units : c.units - c.nan[i]), sampleSize(c.n[i])]),
      line: { color: look.colour, width, dash },
      marker: { color: look.colour, size, symbol: look.symbol },
    });
  const rare = count <= MOST_RARE ? [trace("rare", "dot", 1.5, 4)] : [];
  const broken = c.nan.some((nan) => nan > 0) ? [trace("nan", "dash", 2, 5)] : [];
  const dead = fractions(c, "dead");
  const edge = (sign) => bandEdge(c.epochs, dead.map((fraction, i) => fraction + sign * (c.spread[i] ?? 0)));
  const band = c.spread ? [edge(-1), { ...edge(1), fill: "tonexty", fillcolor: faded(look.colour, 0.16) }] : [];
  return [...band, ...rare, trace("dead", "solid", count > MOST_RARE ? 1.8 : 2.5, 6), ...broken];
}

/** An edge of a band, without a line. */
export const bandEdge = (epochs, y) => ({ type: "scatter", mode: "lines", x: shown(epochs), y, line: { width: 0 }, hoverinfo: "skip", showlegend: false, name: "" });

/** One label for all runs at an epoch while they are few; of many, that of the nearest. Anywhere in the chart. */
export const hovering = (runs) => (runs > MOST_UNIFIED ? { hovermode: "closest", hoverdistance: -1 } : { hoverdistance: -1 });

const short = (count) => Number(count.toPrecision(4)); // of a variant it is a mean

/** What is not in the charts, so that nothing is silently missed. */
export function coverage(runs) {
  const safe = new Set(runs.flatMap(({ data }) => data.cannot_die.map((entry) => `${entry.site} (${entry.activation})`)));
  const missed = new Set(runs.flatMap(({ data }) => data.unwatched.map((entry) => `${entry.name} (${entry.reason})`)));
  const sentence = (words, entries) => entries.size > 0 && h("p", { class: "muted" }, words, [...entries].join(", "), ".");
  return [sentence("Can't die, so not counted: ", safe), sentence("Not watched: ", missed)];
}
