// The unit x epoch map: activity of every unit of one site, dead cells in a colour of their own.

import { chartCard, mapEpochAxis } from "./chart.js";
import { h } from "./dom.js";
import { activityScale, dead, gradient, surface } from "./theme.js";

const FLOOR = -3; // log10 of the activity at the scale's low end: one in a thousand, and less
const TICKS = [
  [-3, "≤ 0.1%"],
  [-2, "1%"],
  [-1, "10%"],
  [0, "100%"],
];
const LABELLED_UNITS = 40;

/** `epochSets`: the epochs of all maps beside this one. */
export function unitMap({ row, look, map, order, epochSets }) {
  const rows = sortedRows(map, order);
  const height = Math.max(260, Math.min(680, 70 + rows.length * (rows.length > 64 ? 2.2 : 8)));
  const deadNow = rows.filter(({ activity }) => activity.at(-1) === 0).length;
  const subtitle = `${map.site}: ${deadNow} of ${rows.length} units dead at the last epoch, n = ${map.n.at(-1)?.toLocaleString("en-US") ?? 0} images${map.note ? ` (${map.note})` : ""}`;
  return chartCard({
    title: row.run,
    subtitle,
    swatch: look.colour,
    height,
    file: `unit_map_${row.run}_${map.site}`,
    label: `Activity of each unit of ${map.site} over epochs, run ${row.run}. ${deadNow} of ${rows.length} units are dead at the last epoch.`,
    build: (forExport) => ({ data: traces(map, rows, forExport), layout: layout(rows, order, epochSets) }),
    table: () => ({
      columns: ["run", "site", "unit", "epoch", "n", "activity", "dead", "upper_bound_95"],
      rows: rows.flatMap(({ unit, activity }) => map.epochs.map((epoch, i) => [row.run, map.site, unit, epoch + 1, map.n[i], activity[i], activity[i] === 0 ? 1 : 0, activity[i] === 0 ? 3 / map.n[i] : null])),
    }),
  });
}

/** What the colours and marks mean: one key for all maps. */
export function mapKey() {
  const mark = (symbol, words) => h("span", { class: "key-entry" }, h("span", { class: "key-mark", "aria-hidden": "true" }, symbol), words);
  const box = (colour, words) => h("span", { class: "key-entry" }, h("span", { class: "key-box", style: { background: colour } }), words);
  return h(
    "div",
    { class: "key" },
    box(dead(), "dead: exactly 0"),
    h(
      "span",
      { class: "key-entry" },
      "activity",
      h(
        "span",
        { class: "key-scale", role: "img", "aria-label": "Activity from 0.1% and less to 100% on a log scale; below 1% is rare" },
        h("span", { class: "key-gradient", style: { background: gradient(activityScale()) } }),
        h("span", { class: "key-ticks" }, TICKS.map(([at, text]) => h("span", { style: { left: `${100 * (1 - at / FLOOR)}%` } }, at === -2 ? h("strong", { title: "Below this a unit is rare" }, "rare < 1%") : text))),
      ),
    ),
    box(surface().missing, "no record"),
    mark("×", "died"),
    mark("○", "came back"),
  );
}

function sortedRows(map, order) {
  const rows = map.order.map((unit, i) => ({ unit, activity: map.activity[i] }));
  return order === "index" ? rows.sort((a, b) => a.unit - b.unit) : rows;
}

function traces(map, rows, forExport) {
  const x = map.epochs.map((epoch) => epoch + 1);
  const y = rows.map(({ unit }) => String(unit));
  const few = rows.length <= 64 && x.length <= 60;
  const common = { type: "heatmap", x, y, xgap: few ? 1 : 0, ygap: few ? 1 : 0 };
  const alive = {
    ...common,
    z: rows.map(({ activity }) => activity.map((a) => (a > 0 ? Math.max(FLOOR, Math.log10(a)) : null))),
    customdata: rows.map(({ activity }) => activity),
    colorscale: activityScale(),
    zmin: FLOOR,
    zmax: 0,
    showscale: forExport,
    colorbar: { title: { text: "activity" }, tickvals: TICKS.map(([at]) => at), ticktext: TICKS.map(([, text]) => text), thickness: 12, len: 0.9 },
    hovertemplate: "unit %{y}, epoch %{x}<br>activity %{customdata:.3~%}<extra></extra>",
    hoverongaps: false,
  };
  const zero = {
    ...common,
    z: rows.map(({ activity }) => activity.map((a) => (a === 0 ? 1 : null))),
    customdata: rows.map(() => map.n.map((n) => [n, n > 0 ? 3 / n : 1])),
    colorscale: [
      [0, dead()],
      [1, dead()],
    ],
    showscale: false,
    hovertemplate: "unit %{y}, epoch %{x}<br>dead: fired on none of %{customdata[0]} images<br>fires on at most %{customdata[1]:.2~%} of all (95%, 3/n)<extra></extra>",
    hoverongaps: false,
  };
  const drawn = new Set(map.order);
  const size = rows.length > 64 ? 4 : 7;
  const died = { symbol: "x", size, color: "rgba(0,0,0,0.8)" };
  const back = { symbol: "circle", size: size + 2, color: "#ffffff", line: { width: 1.5, color: "#000000" } };
  const key = { type: "scatter", mode: "markers", name: "dead: exactly 0", x: [null], y: [null], marker: { symbol: "square", size: 12, color: dead() } };
  return [alive, zero, marks("died", died, map.deaths, drawn), marks("came back", back, map.revivals, drawn), ...(forExport ? [key] : [])];
}

function marks(name, marker, pairs, drawn) {
  const kept = pairs.filter(([unit]) => drawn.has(unit));
  return {
    type: "scatter",
    mode: "markers",
    name,
    x: kept.map(([, epoch]) => epoch + 1),
    y: kept.map(([unit]) => String(unit)),
    marker,
    hoverinfo: "skip",
  };
}

function layout(rows, order, epochSets) {
  const units = rows.map(({ unit }) => String(unit));
  const all = rows.length <= LABELLED_UNITS;
  const every = Math.ceil(rows.length / 10);
  const ticks = all || order === "index" ? units.filter((_, i) => all || i % every === 0) : [];
  return {
    hovermode: "closest",
    plot_bgcolor: surface().missing,
    margin: { l: 48, r: 10, t: 6, b: 38 },
    xaxis: mapEpochAxis(epochSets),
    yaxis: {
      type: "category",
      categoryorder: "array",
      categoryarray: units,
      range: [rows.length - 0.5, -0.5],
      showgrid: false,
      tickvals: ticks,
      tickfont: { size: all ? 9 : 11 },
      title: { text: order === "death" ? "units, dead first" : "unit" },
    },
  };
}
