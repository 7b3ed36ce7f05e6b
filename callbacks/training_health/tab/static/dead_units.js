// Which neurons are dead: the share of dead and of rare units over epochs, in total and per site, runs side by side.

import { chartCard, epochAxis, shown } from "./chart.js";
import { h, percent, plotlyText, segmented, whole } from "./dom.js";

const MOST_SITES = 11;

/** `runs`: [{row, data, look}] of the picked runs. */
export function deadUnitsCharts(runs) {
  const total = runs.filter(({ data }) => data.total);
  if (!total.length) return [h("p", { class: "muted" }, "None of the picked runs recorded the activity of its units (DeadReLUMonitor).")];
  const names = siteNames(runs);
  const drawn = mostDead(runs, names).slice(0, MOST_SITES);
  const kept = names.filter((name) => drawn.includes(name));
  const most = Math.max(0.05, ...total.flatMap(({ data }) => [...data.sites, data.total].flatMap((c) => [...c.dead, ...c.rare].map((d) => d / c.units))));
  const totalChart = shareChart("All units", total, (data) => data.total, most, true);
  const charts = [];
  for (const name of kept) {
    const having = total.filter(({ data }) => siteOf(data, name));
    charts.push(shareChart(name, having, (data) => siteOf(data, name), most, false));
  }
  return [
    h("div", { class: "key" }, line("solid", "dead"), line("dot", "rare"), h("span", { class: "muted" }, "colours: the runs above")),
    totalChart,
    h("div", { class: "grid" }, charts),
    names.length > kept.length && h("p", { class: "muted" }, `${kept.length} of ${names.length} sites are drawn, those with most dead units.`),
    ...coverage(runs),
  ];
}

/** Names of all sites of the runs, in forward order. */
export function siteNames(runs) {
  const places = new Map();
  for (const { data } of runs) for (const site of data.sites) if (!places.has(site.site)) places.set(site.site, site.index);
  return [...places.keys()].sort((a, b) => places.get(a) - places.get(b));
}

export function siteOf(data, name) {
  return data.sites.find((site) => site.site === name);
}

function mostDead(runs, names) {
  const worst = (name) => Math.max(...runs.map(({ data }) => siteOf(data, name)).map((site) => (site ? (site.dead.at(-1) ?? 0) / site.units : 0)));
  return [...names].sort((a, b) => worst(b) - worst(a));
}

function shareChart(title, runs, pick, most, isTotal) {
  const latest = runs.map(({ row, data }) => {
    const c = pick(data);
    return c.dead.length ? `${row.run}: ${percent(c.dead.at(-1) / c.units)}` : "";
  });
  const first = pick(runs[0].data);
  const units = new Set(runs.map(({ data }) => pick(data).units));
  const subtitle = `${[...units].map(whole).join(" or ")} units${isTotal ? ` in all sites of a run` : describeSite(first)}`;
  return chartCard({
    title,
    subtitle,
    height: isTotal ? 300 : 220,
    wide: isTotal,
    file: isTotal ? "dead_units_total" : `dead_units_${title}`,
    label: `Share of dead and rare units over epochs, ${title}. Dead at the last epoch: ${latest.join(", ")}.`,
    build: () => ({
      data: runs.flatMap(({ row, data, look }) => shareTraces(row.run, pick(data), look)),
      layout: {
        xaxis: epochAxis(runs.map(({ data }) => pick(data).epochs)),
        yaxis: { tickformat: ".0%", range: [-0.02 * most, Math.min(1.03, 1.12 * most)], title: { text: "share of units" } },
      },
    }),
    table: () => ({
      columns: ["run", "site", "epoch", "n", "units", "dead", "dead_share", "rare", "rare_share", "deaths", "revivals"],
      rows: runs.flatMap(({ row, data }) => {
        const c = pick(data);
        return c.epochs.map((epoch, i) => [row.run, isTotal ? "all" : title, epoch + 1, c.n[i], c.units, c.dead[i], c.dead[i] / c.units, c.rare[i], c.rare[i] / c.units, c.deaths[i], c.revivals[i]]);
      }),
    }),
  });
}

function describeSite(site) {
  const where = site.positions > 1 ? `, ${whole(site.positions)} positions each` : "";
  const window = site.window === "validation" ? "" : `, measured on ${site.window} images`;
  return `${where}, ${site.activation}${window}${site.first_layer ? ", first layer: its dead can't come back" : ""}`;
}

function shareTraces(run, c, look) {
  const trace = (counts, words, dash, width, opacity) => ({
    type: "scatter",
    mode: c.epochs.length > 40 ? "lines" : "lines+markers",
    name: `${plotlyText(run)}, ${words}`,
    x: shown(c.epochs),
    y: counts.map((count) => count / c.units),
    customdata: counts.map((count, i) => [count, c.units, c.n[i]]),
    hovertemplate: "%{y:.1%} (%{customdata[0]} of %{customdata[1]}, n = %{customdata[2]})",
    line: { color: look.colour, width, dash },
    marker: { color: look.colour, size: words === "dead" ? 6 : 4, symbol: look.symbol },
    opacity,
  });
  return [trace(c.rare, "rare", "dot", 1.5, 0.75), trace(c.dead, "dead", "solid", 2.5, 1)];
}

/** What is not in the charts, so that nothing is silently missed. */
function coverage(runs) {
  const safe = new Set(runs.flatMap(({ data }) => data.cannot_die.map((entry) => `${entry.site} (${entry.activation})`)));
  const missed = new Set(runs.flatMap(({ data }) => data.unwatched.map((entry) => `${entry.name} (${entry.reason})`)));
  const sentence = (words, entries) => entries.size > 0 && h("p", { class: "muted" }, words, [...entries].join(", "), ".");
  return [sentence("Can't die, so not counted: ", safe), sentence("Not watched: ", missed)];
}

function line(dash, words) {
  return h("span", { class: "key-entry" }, h("span", { class: `key-line ${dash}` }), words);
}

/** The pills that choose the site of the map. */
export function sitePicker(names, chosen, choose) {
  return segmented("Site of the map", names.map((name) => [name, name]), chosen, choose);
}
