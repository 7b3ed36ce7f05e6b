// Is the gap real: eval-mode training against validation, with the error bar, and the effect of the mode by itself.

import { chartCard, epochAxis, shown } from "./chart.js";
import { h, isNumber, plotlyText, points } from "./dom.js";
import { faded, surface } from "./theme.js";

const METRICS = {
  accuracy: { running: "running_accuracy", train: "train_eval_accuracy", val: "val_accuracy", gap: "accuracy_gap", se: "accuracy_gap_se", unit: "points", scale: 100, curves: ".0%", hover: ".2%", effect: "mode_effect" },
  loss: { running: "running_loss", train: "train_eval_loss", val: "val_loss", gap: "loss_gap", se: "loss_gap_se", unit: "loss", scale: 1, curves: "", hover: ".4f", effect: null },
};

export function gapCharts(runs, metric) {
  const having = runs.filter(({ data }) => data.gap && data.gap.epochs.length);
  if (!having.length) return [h("p", { class: "muted" }, "None of the picked runs recorded its gap (TrainValGapMonitor).")];
  const m = METRICS[metric];
  const span = range(having.flatMap(({ data }) => [m.running, m.train, m.val].flatMap((name) => data.gap.columns[name])));
  return [
    h("div", { class: "grid halves" }, gapChart(having, metric, m), effectChart(having, metric, m)),
    h("div", { class: "key" }, key("solid", "training, eval mode"), key("dash", "validation"), key("dot", "training as it ran: dropout on, averaged over the epoch"), h("span", { class: "key-entry" }, h("span", { class: "key-box band" }), "the gap")),
    h("div", { class: "grid" }, having.map((run) => curvesChart(run, metric, m, span, having.map(({ data }) => data.gap.epochs)))),
  ];
}

function gapChart(runs, metric, m) {
  const last = runs.map(({ row, data }) => `${row.run}: ${points(data.gap.columns.accuracy_gap.at(-1))} points`);
  return chartCard({
    title: metric === "accuracy" ? "Gap: training minus validation accuracy" : "Gap: validation minus training loss",
    subtitle: `Both in eval mode with the same weights; band: ± 2 standard errors (${samples(runs)})`,
    height: 320,
    file: `gap_${metric}`,
    label: `Gap over epochs with its band of two standard errors. Accuracy gap at the last epoch: ${last.join(", ")}.`,
    build: () => ({
      data: runs.flatMap(({ row, data, look }) => gapTraces(row.run, data.gap, look, m)),
      layout: { xaxis: epochAxis(runs.map(({ data }) => data.gap.epochs)), yaxis: { title: { text: m.unit === "points" ? "percentage points" : "loss" }, zeroline: true, zerolinewidth: 1.5 } },
    }),
    table: () => gapTable(runs),
  });
}

function gapTraces(run, gap, look, m) {
  const x = shown(gap.epochs);
  const at = (sign) => gap.columns[m.gap].map((g, i) => (isNumber(g) && isNumber(gap.columns[m.se][i]) ? m.scale * (g + sign * 2 * gap.columns[m.se][i]) : null));
  const edge = { type: "scatter", mode: "lines", x, line: { width: 0 }, hoverinfo: "skip", showlegend: false, name: "" };
  return [
    { ...edge, y: at(-1) },
    { ...edge, y: at(+1), fill: "tonexty", fillcolor: faded(look.colour, 0.16) },
    {
      type: "scatter",
      mode: x.length > 40 ? "lines" : "lines+markers",
      name: plotlyText(run),
      x,
      y: gap.columns[m.gap].map((g) => (isNumber(g) ? m.scale * g : null)),
      customdata: gap.columns[m.se].map((se) => (isNumber(se) ? 2 * m.scale * se : null)),
      hovertemplate: m.unit === "points" ? "%{y:+.2f} ± %{customdata:.2f} points" : "%{y:+.4f} ± %{customdata:.4f}",
      line: { color: look.colour, width: 2.5 },
      marker: { color: look.colour, size: 6, symbol: look.symbol },
    },
  ];
}

function effectChart(runs, metric, m) {
  const effect = ({ gap }) => (m.effect ? gap.columns[m.effect] : gap.columns[m.running].map((r, i) => (isNumber(r) && isNumber(gap.columns[m.train][i]) ? r - gap.columns[m.train][i] : null)));
  return chartCard({
    title: "Mode effect: what the running curve hides",
    subtitle: metric === "accuracy" ? "Eval-mode minus running training accuracy: dropout, augmentation, averaging over the epoch. Not overfitting" : "Running minus eval-mode training loss: dropout, augmentation, averaging over the epoch. Not overfitting",
    height: 320,
    file: `mode_effect_${metric}`,
    build: () => ({
      data: runs.map(({ row, data, look }) => ({
        type: "scatter",
        mode: data.gap.epochs.length > 40 ? "lines" : "lines+markers",
        name: plotlyText(row.run),
        x: shown(data.gap.epochs),
        y: effect(data).map((e) => (isNumber(e) ? m.scale * e : null)),
        hovertemplate: m.unit === "points" ? "%{y:+.2f} points" : "%{y:+.4f}",
        line: { color: look.colour, width: 2.5 },
        marker: { color: look.colour, size: 6, symbol: look.symbol },
      })),
      layout: { xaxis: epochAxis(runs.map(({ data }) => data.gap.epochs)), yaxis: { title: { text: m.unit === "points" ? "percentage points" : "loss" }, zeroline: true, zerolinewidth: 1.5 } },
    }),
    table: () => gapTable(runs),
  });
}

function curvesChart({ row, data, look }, metric, m, span, epochSets) {
  const { epochs, columns } = data.gap;
  const x = shown(epochs);
  const trace = (name, words, dash, width, more = {}) => ({
    type: "scatter",
    mode: "lines",
    name: words,
    x,
    y: columns[name],
    hovertemplate: `%{y:${m.hover}}`,
    line: { color: look.colour, width, dash },
    ...more,
  });
  return chartCard({
    title: row.run,
    subtitle: metric === "accuracy" ? "Accuracy" : "Loss",
    swatch: look.colour,
    height: 230,
    file: `${metric}_${row.run}`,
    label: `${metric} of ${row.run} over epochs: training in eval mode, validation, and running training ${metric}.`,
    build: () => ({
      data: [
        trace(m.val, "validation", "dash", 2),
        trace(m.train, "training, eval mode", "solid", 2.5, { fill: "tonexty", fillcolor: faded(look.colour, 0.13) }),
        trace(m.running, "training, running", "dot", 2, { line: { color: surface().muted, width: 2, dash: "dot" } }),
      ],
      layout: { xaxis: epochAxis(epochSets), yaxis: { tickformat: m.curves, range: span } },
    }),
    table: () => gapTable([{ row, data }]),
  });
}

function gapTable(runs) {
  const names = Object.keys(runs[0].data.gap.columns);
  return {
    columns: ["run", "epoch", ...names],
    rows: runs.flatMap(({ row, data }) => data.gap.epochs.map((epoch, i) => [row.run, epoch + 1, ...names.map((name) => data.gap.columns[name][i])])),
  };
}

function samples(runs) {
  const texts = new Set(runs.map(({ data: { gap } }) => (gap.n_train && gap.n_val ? `${gap.n_train.toLocaleString("en-US")} training and ${gap.n_val.toLocaleString("en-US")} validation images` : "n unknown")));
  return [...texts].join("; ");
}

/** A range shared by all panels, with a little air; undefined lets Plotly choose. */
function range(values) {
  const known = values.filter(isNumber);
  if (!known.length) return undefined;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const air = Math.max(0.04 * (high - low), 1e-4);
  return [low - air, high + air];
}

function key(dash, words) {
  return h("span", { class: "key-entry" }, h("span", { class: `key-line ${dash}` }), words);
}
