// @ts-check
// Maps of named numbers over epochs: the scale of activations and of gradients by layer, the accuracy of each class.

import { chartCard } from "./chart.js";
import { h, isNumber, key, keyBox, keyScale, percent, sampleSize } from "./dom.js";
import { layersOf, mapLayout, onScale, scaleOf } from "./maps.js";
import { cut } from "./runs.js";
import { activityScale, token } from "./theme.js";

const MOST_DECADES = 8;

const SIGNAL = {
  activation_scale: { words: "root mean square of what goes into each ReLU", row: "site" },
  gradient_scale: { words: "root mean square of each gradient", row: "parameter" },
};

/**
 * How large activations and gradients are.
 * @param {any[]} runs [{row, data, look}]
 */
export function signalCharts(runs) {
  const parts = Object.entries(SIGNAL).map(([kind, words]) => columnMaps(runs, kind, { ...words, format: ".2e", ...decades(runs, kind) }));
  return parts.some(Boolean) && [
    h("h3", { class: "part" }, "Is the signal kept on its way"),
    h("p", { class: "lede" }, "Forward: what goes into each ReLU, over the window's first batch. Backward: each gradient in the last step of the epoch, before clipping. Layers in forward order: values that fall or rise by decades from layer to layer vanish or explode."),
    parts,
  ];
}

/** A log scale of whole decades around all positive values. */
function decades(runs, kind) {
  const values = runs.flatMap(({ data }) => Object.values(data[kind]?.columns ?? {}).flat()).filter((value) => value > 0);
  const most = values.reduce((a, b) => Math.max(a, b), 1e-30); // too many for the arguments of one call
  const least = values.reduce((a, b) => Math.min(a, b), 1e30);
  const high = Math.ceil(Math.log10(most) + 1e-9);
  const low = Math.max(high - MOST_DECADES, Math.min(high - 1, Math.floor(Math.log10(least))));
  const ticks = [low, Math.round((low + high) / 2), high].map((at) => [at, `1e${at}`]);
  return { scale: { low, high, ticks }, value: (number) => onScale(number, { low, high }) };
}

/**
 * The accuracy of each class, where a run recorded it.
 * @param {any[]} runs [{row, data, look}]
 */
export function classCharts(runs) {
  const known = runs.flatMap(({ data }) => Object.values(data.class_accuracy?.columns ?? {}).flat()).filter(isNumber);
  const low = Math.floor(10 * known.reduce((a, b) => Math.min(a, b), 0.9)) / 10;
  const scale = { low, high: 1, ticks: [low, (1 + low) / 2, 1].map((at) => [at, percent(at, 0)]) };
  const maps = columnMaps(runs, "class_accuracy", { words: "validation accuracy", row: "class", format: ".1%", scale, value: (number) => number });
  return maps && [h("h3", { class: "part" }, "Which classes are learned"), maps];
}

/** A map per run that has the records, under one key; false where none has. */
function columnMaps(runs, kind, { words, row: rowName, format, scale, value }) {
  const having = runs.filter(({ data }) => data[kind]?.epochs.length);
  if (!having.length) return false;
  const epochSets = having.map(({ data }) => data[kind].epochs);
  const scaleWords = `${words}: ${scale.ticks.map(([, text]) => text).join(" to ")}`;
  const zero = format === ".2e" && having.some(({ data }) => Object.values(data[kind].columns).flat().includes(0));
  return [
    key(keyScale(words, scaleWords, activityScale, scale, null), zero && keyBox("var(--still)", "exactly 0"), keyBox("var(--missing)", "no number")),
    h("div", { class: "grid" }, having.map(columnMap)),
  ];

  function columnMap({ row, look, data }) {
    const { epochs, columns, n } = data[kind];
    const names = Object.keys(columns);
    const every = Math.ceil(names.length / 40);
    const grid = (cell) => names.map((name) => columns[name].map(cell));
    return chartCard({
      title: cut(row.label),
      subtitle: kind === "gradient_scale" ? "one step per epoch" : sampleSize(n.at(-1)),
      look,
      height: Math.max(150, Math.min(900, 60 + (names.length > 12 ? 16 : 24) * names.length)),
      file: `${kind}_${row.run}`,
      label: `${words} by ${rowName} and epoch, run ${row.run}.`,
      build: (forExport) => {
        const layer = layersOf(names, epochs, { xgap: epochs.length > 60 ? 0 : 1, ygap: 1 });
        const values = layer(grid(value), activityScale(), grid((number) => number), `${words} %{customdata:${format}}`, scaleOf(words, scale, forExport));
        const still = zero ? [layer(grid((number) => (number === 0 ? 1 : null)), token("still"), null, "exactly 0")] : [];
        return { data: [values, ...still], layout: mapLayout(names, names.filter((_, i) => i % every === 0), epochSets, 60) };
      },
      table: () => ({
        columns: ["run", rowName, "epoch", "n", kind],
        rows: names.flatMap((name) => epochs.map((epoch, i) => [row.run, name, epoch + 1, n[i], columns[name][i]])),
      }),
    });
  }
}
