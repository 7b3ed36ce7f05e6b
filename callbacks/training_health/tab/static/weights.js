// How the weights move: update ratio per parameter and epoch, on a log scale around the reference 1e-3.

import { chartCard } from "./chart.js";
import { h } from "./dom.js";
import { colourBar, layersOf, mapLayout, marks } from "./heat_map.js";
import { key, keyBox, keyScale } from "./key.js";
import { ratioScale, token } from "./theme.js";

const LOW = -6;
const HIGH = 0; // the reference 1e-3 is in the middle
const TICKS = [[-6, "1e-6"], [-5, "1e-5"], [-4, "1e-4"], [-3, "1e-3 healthy"], [-2, "1e-2"], [-1, "1e-1"], [0, "1"]];
const LABELLED_PARAMETERS = 40;
const LONGEST_LABEL = 26;

export function weightCharts(runs) {
  const having = runs.map((run) => ({ ...run, table: cells(run.data) })).filter(({ table }) => table.epochs.length);
  if (!having.length) return [h("p", { class: "muted" }, "None of the picked runs recorded its updates (WeightHistogramMonitor).")];
  const epochSets = having.map(({ table }) => table.epochs);
  return [ratioKey(), h("div", { class: "grid maps" }, having.map((run) => ratioChart(run, epochSets)))];
}

function ratioKey() {
  const ticks = TICKS.filter(([at]) => at % 3 === 0).map(([at, text]) => [(at - LOW) / (HIGH - LOW), text, at === -3]);
  return key(
    keyScale("update ratio", "Update ratio from 1e-6 to 1 on a log scale; the reference is 1e-3", ratioScale(), ticks),
    keyBox(token("still"), "no update at all"),
    keyBox(token("alarm"), "✕ NaN or infinite"),
    keyBox(token("missing"), "no record"),
  );
}

function ratioChart({ row, look, table }, epochSets) {
  const { parameters, rows } = table;
  const bad = rows.filter(isBad);
  return chartCard({
    title: row.run,
    subtitle: bad.length ? `${bad.length} of ${rows.length} records hold NaN or infinite numbers` : "All recorded weights and gradients are finite",
    swatch: look.colour,
    height: Math.max(200, Math.min(900, 70 + 22 * parameters.length)),
    file: `update_ratio_${row.run}`,
    label: `Update ratio of each parameter over epochs, run ${row.run}. ${bad.length} records with non-finite numbers.`,
    build: (forExport) => ({ data: traces(table, bad, forExport), layout: layout(parameters, epochSets) }),
    table: () => ({
      columns: ["run", "parameter", "epoch", "update_ratio", "nonfinite_weights", "nonfinite_gradients"],
      rows: rows.map((cell) => [row.run, cell.parameter, cell.epoch + 1, cell.ratio, cell.weights, cell.gradients]),
    }),
  });
}

/** The three kinds of records joined: one row per parameter and epoch that any of them has. */
function cells(data) {
  const kinds = [data.update_ratio, data.nonfinite, data.nonfinite_gradients];
  const parameters = [...new Set(kinds.flatMap((kind) => Object.keys(kind.columns)))];
  const epochs = [...new Set(kinds.flatMap((kind) => kind.epochs))].sort((a, b) => a - b);
  const rowOf = kinds.map((kind) => new Map(kind.epochs.map((epoch, i) => [epoch, i])));
  const rows = parameters.flatMap((parameter) =>
    epochs.map((epoch) => {
      const [ratio, weights, gradients] = kinds.map((kind, i) => kind.columns[parameter]?.[rowOf[i].get(epoch)] ?? null);
      return { parameter, epoch, ratio, weights, gradients };
    }),
  );
  return { parameters, epochs, rows };
}

const isBad = (cell) => cell.weights > 0 || cell.gradients > 0;

function traces({ parameters, epochs, rows }, bad, forExport) {
  const layer = layersOf(parameters, epochs, { xgap: epochs.length > 60 ? 0 : 1, ygap: 1 });
  const grid = (value) => parameters.map((_, p) => epochs.map((_, e) => value(rows[p * epochs.length + e])));
  const ratio = (cell) => (!isBad(cell) && cell.ratio > 0 ? Math.min(HIGH, Math.max(LOW, Math.log10(cell.ratio))) : null);
  const scale = { zmin: LOW, zmax: HIGH, showscale: forExport, colorbar: colourBar("update ratio", TICKS) };
  const numbers = grid((cell) => [cell.weights ?? 0, cell.gradients ?? 0]);
  return [
    layer(grid(ratio), ratioScale(), grid((cell) => cell.ratio), "%{y}, epoch %{x}<br>update ratio %{customdata:.2e}", scale),
    layer(grid((cell) => (!isBad(cell) && cell.ratio === 0 ? 1 : null)), token("still"), null, "%{y}, epoch %{x}<br>no update at all"),
    layer(grid((cell) => (isBad(cell) ? 1 : null)), token("alarm"), numbers, "%{y}, epoch %{x}<br>NaN or infinite: %{customdata[0]} weights, %{customdata[1]} gradients"),
    marks("", { symbol: "x", size: 7, color: "#ffffff" }, bad.map((cell) => [cell.parameter, cell.epoch])),
  ];
}

function layout(parameters, epochSets) {
  const every = Math.ceil(parameters.length / LABELLED_PARAMETERS);
  const short = (name) => (name.length > LONGEST_LABEL ? `…${name.slice(1 - LONGEST_LABEL)}` : name);
  return mapLayout(parameters, parameters.filter((_, i) => i % every === 0).map((name) => [name, short(name)]), epochSets, 60);
}
