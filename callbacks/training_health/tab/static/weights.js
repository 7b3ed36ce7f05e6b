// How the weights move: update ratio per parameter and epoch, on a log scale around the reference 1e-3.

import { chartCard, mapEpochAxis } from "./chart.js";
import { h, plotlyText } from "./dom.js";
import { alarm, gradient, ratioScale, still, surface } from "./theme.js";

const LOW = -6;
const HIGH = 0;
const REFERENCE = -3; // the middle of the scale
const TICKS = [-6, -5, -4, -3, -2, -1, 0];

export function weightCharts(runs) {
  const having = runs.filter(({ data }) => data.update_ratio || data.nonfinite || data.nonfinite_gradients);
  if (!having.length) return [h("p", { class: "muted" }, "None of the picked runs recorded its updates (WeightHistogramMonitor).")];
  const epochSets = having.map(({ data }) => cells(data).epochs);
  return [ratioKey(), h("div", { class: "grid maps" }, having.map((run) => ratioChart(run, epochSets)))];
}

function ratioKey() {
  const box = (colour, words) => h("span", { class: "key-entry" }, h("span", { class: "key-box", style: { background: colour } }), words);
  return h(
    "div",
    { class: "key" },
    h(
      "span",
      { class: "key-entry" },
      "update ratio",
      h(
        "span",
        { class: "key-scale", role: "img", "aria-label": "Update ratio from 1e-6 to 1 on a log scale; the reference is 1e-3" },
        h("span", { class: "key-gradient", style: { background: gradient(ratioScale()) } }),
        h("span", { class: "key-reference", "aria-hidden": "true" }),
        h("span", { class: "key-ticks" }, [-6, -3, 0].map((at) => h("span", { style: { left: `${(100 * (at - LOW)) / (HIGH - LOW)}%` } }, at === REFERENCE ? h("strong", {}, "1e-3 healthy") : at === 0 ? "1" : `1e${at}`))),
      ),
    ),
    box(still(), "no update at all"),
    box(alarm(), "✕ NaN or infinite"),
    box(surface().missing, "no record"),
  );
}

function ratioChart({ row, data, look }, epochSets) {
  const table = cells(data);
  const { parameters } = table;
  const bad = table.rows.filter((cell) => cell.nonfinite > 0 || cell.nonfiniteGradients > 0);
  return chartCard({
    title: row.run,
    subtitle: bad.length ? `${bad.length} of ${table.rows.length} records hold NaN or infinite numbers` : "All recorded weights and gradients are finite",
    swatch: look.colour,
    height: Math.max(200, Math.min(900, 70 + 22 * parameters.length)),
    file: `update_ratio_${row.run}`,
    label: `Update ratio of each parameter over epochs, run ${row.run}. ${bad.length} records with non-finite numbers.`,
    build: (forExport) => ({ data: traces(table, forExport), layout: layout(parameters, epochSets) }),
    table: () => ({
      columns: ["run", "parameter", "epoch", "update_ratio", "nonfinite_weights", "nonfinite_gradients"],
      rows: table.rows.map((cell) => [row.run, cell.parameter, cell.epoch + 1, cell.ratio, cell.nonfinite, cell.nonfiniteGradients]),
    }),
  });
}

/** The three kinds of records joined: one row per parameter and epoch that any of them has. */
function cells(data) {
  const kinds = { ratio: data.update_ratio, nonfinite: data.nonfinite, nonfiniteGradients: data.nonfinite_gradients };
  const present = Object.values(kinds).filter(Boolean);
  const parameters = [...new Set(present.flatMap((kind) => kind.parameters))];
  const epochs = [...new Set(present.flatMap((kind) => kind.epochs))].sort((a, b) => a - b);
  const lookUp = (kind) => {
    if (!kind) return () => null;
    const places = new Map(kind.parameters.map((name, i) => [name, i]));
    const columns = new Map(kind.epochs.map((epoch, i) => [epoch, i]));
    return (name, epoch) => (places.has(name) && columns.has(epoch) ? kind.values[places.get(name)][columns.get(epoch)] : null);
  };
  const [ratio, nonfinite, nonfiniteGradients] = [kinds.ratio, kinds.nonfinite, kinds.nonfiniteGradients].map(lookUp);
  const rows = parameters.flatMap((parameter) =>
    epochs.map((epoch) => ({ parameter, epoch, ratio: ratio(parameter, epoch), nonfinite: nonfinite(parameter, epoch), nonfiniteGradients: nonfiniteGradients(parameter, epoch) })),
  );
  return { parameters, epochs, rows };
}

function traces({ parameters, epochs, rows }, forExport) {
  const x = epochs.map((epoch) => epoch + 1);
  const grid = (value) => parameters.map((_, p) => epochs.map((_, e) => value(rows[p * epochs.length + e])));
  const isBad = (cell) => cell.nonfinite > 0 || cell.nonfiniteGradients > 0;
  const gaps = { xgap: x.length > 60 ? 0 : 1, ygap: 1 };
  const common = { type: "heatmap", x, y: parameters.map(plotlyText), ...gaps, hoverongaps: false, showscale: false };
  const solid = (colour) => [
    [0, colour],
    [1, colour],
  ];
  const bad = rows.filter(isBad);
  return [
    {
      ...common,
      z: grid((cell) => (!isBad(cell) && cell.ratio > 0 ? Math.min(HIGH, Math.max(LOW, Math.log10(cell.ratio))) : null)),
      customdata: grid((cell) => cell.ratio),
      colorscale: ratioScale(),
      zmin: LOW,
      zmax: HIGH,
      showscale: forExport,
      colorbar: { title: { text: "update ratio" }, tickvals: TICKS, ticktext: TICKS.map((t) => (t === REFERENCE ? "1e-3 ◂ healthy" : t === 0 ? "1" : `1e${t}`)), thickness: 12, len: 0.9 },
      hovertemplate: "%{y}, epoch %{x}<br>update ratio %{customdata:.2e}<extra></extra>",
    },
    { ...common, z: grid((cell) => (!isBad(cell) && cell.ratio === 0 ? 1 : null)), colorscale: solid(still()), hovertemplate: "%{y}, epoch %{x}<br>no update at all<extra></extra>" },
    {
      ...common,
      z: grid((cell) => (isBad(cell) ? 1 : null)),
      customdata: grid((cell) => [cell.nonfinite ?? 0, cell.nonfiniteGradients ?? 0]),
      colorscale: solid(alarm()),
      hovertemplate: "%{y}, epoch %{x}<br>NaN or infinite: %{customdata[0]} weights, %{customdata[1]} gradients<extra></extra>",
    },
    {
      type: "scatter",
      mode: "markers",
      name: "NaN or infinite",
      x: bad.map((cell) => cell.epoch + 1),
      y: bad.map((cell) => plotlyText(cell.parameter)),
      marker: { symbol: "x", size: 7, color: "#ffffff" },
      hoverinfo: "skip",
      showlegend: false,
    },
  ];
}

function layout(parameters, epochSets) {
  const names = parameters.map(plotlyText);
  return {
    hovermode: "closest",
    plot_bgcolor: surface().missing,
    margin: { l: 60, r: 10, t: 6, b: 38 },
    xaxis: mapEpochAxis(epochSets),
    yaxis: {
      type: "category",
      categoryorder: "array",
      categoryarray: names,
      range: [names.length - 0.5, -0.5],
      showgrid: false,
      tickvals: names.length <= 40 ? names : names.filter((_, i) => i % Math.ceil(names.length / 40) === 0),
      ticktext: (names.length <= 40 ? parameters : parameters.filter((_, i) => i % Math.ceil(names.length / 40) === 0)).map((name) => plotlyText(name.length > 26 ? `…${name.slice(-25)}` : name)),
    },
  };
}
