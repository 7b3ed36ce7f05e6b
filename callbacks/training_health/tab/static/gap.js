// Is the gap real: eval-mode training against validation, with the error bar, and the effect of the mode by itself.

import { chartCard, epochAxis, lineOf, shown } from "./chart.js";
import { NONE, h, isNumber, key, keyBox, keyLine, plotlyText, whole } from "./dom.js";
import { faded, token } from "./theme.js";

// `sign` turns running minus eval-mode into the effect that is drawn
const METRICS = {
  accuracy: { gap: "Gap: training minus validation accuracy", effect: "Eval-mode minus running training accuracy", sign: -1, unit: "percentage points", scale: 100, curves: ".0%", hover: ".2%", y: "+.2f", suffix: " points" },
  loss: { gap: "Gap: validation minus training loss", effect: "Running minus eval-mode training loss", sign: 1, unit: "loss", scale: 1, curves: "", hover: ".4f", y: "+.4f", suffix: "" },
};

export function gapCharts(runs, metric) {
  const having = runs.filter(({ data }) => data.gap.epochs.length).map((run) => ({ ...run, epochs: run.data.gap.epochs, columns: run.data.gap.columns }));
  if (!having.length) return [h("p", { class: "muted" }, "None of the picked runs recorded its gap (TrainValGapMonitor).")];
  const sides = [`running_${metric}`, `train_eval_${metric}`, `val_${metric}`];
  const span = range(having.flatMap(({ columns }) => sides.flatMap((side) => columns[side])));
  return [
    h("div", { class: "grid large" }, gapChart(having, metric), effectChart(having, metric)),
    key(keyLine("solid", "training, eval mode"), keyLine("dashed", "validation"), keyLine("dotted", "training as it ran: dropout on, averaged over the epoch"), keyBox("color-mix(in srgb, currentcolor 16%, transparent)", "the gap")),
    h("div", { class: "grid" }, having.map((run) => curvesChart(run, metric, span, having))),
  ];
}

/** What both differences share: an axis around zero, all runs, one table. */
function differenceChart(runs, metric, more, tracesOf) {
  const yaxis = { title: { text: METRICS[metric].unit }, zeroline: true, zerolinewidth: 1.5 };
  const build = () => ({ data: runs.flatMap(tracesOf), layout: { xaxis: axis(runs), yaxis } });
  return chartCard({ ...more, height: 320, build, table: () => gapTable(runs) });
}

function gapChart(runs, metric) {
  const { gap: title, scale, y, suffix } = METRICS[metric];
  const last = runs.map(({ row, columns }) => `${row.run}: ${times(scale, columns[`${metric}_gap`].at(-1))?.toFixed(2) ?? NONE}${suffix}`);
  const subtitle = `Both in eval mode with the same weights; band: ± 2 standard errors, 95% (${samples(runs)}). A band that includes 0 is noise`;
  const label = `Gap over epochs with its band of two standard errors. At the last epoch: ${last.join(", ")}.`;
  return differenceChart(runs, metric, { title, subtitle, file: `gap_${metric}`, label }, ({ row, epochs, columns, look }) => {
    const gap = columns[`${metric}_gap`].map((g) => times(scale, g));
    const noise = columns[`${metric}_gap_margin`].map((margin) => times(scale, margin));
    const edge = (sign) => ({ type: "scatter", mode: "lines", x: shown(epochs), y: gap.map((g, i) => plus(g, times(sign, noise[i]))), line: { width: 0 }, hoverinfo: "skip", showlegend: false, name: "" });
    const hover = `%{y:${y}} ± %{customdata:${y.slice(1)}}${suffix}`;
    return [edge(-1), { ...edge(1), fill: "tonexty", fillcolor: faded(look.colour, 0.16) }, lineOf(epochs, gap, look, hover, { name: plotlyText(row.run), customdata: noise })];
  });
}

function effectChart(runs, metric) {
  const { effect, sign, scale, y, suffix } = METRICS[metric];
  const subtitle = `${effect}: dropout, augmentation, averaging over the epoch. Not overfitting`;
  return differenceChart(runs, metric, { title: "Mode effect: what the running curve hides", subtitle, file: `mode_effect_${metric}` }, ({ row, epochs, columns, look }) => {
    const difference = columns[`running_${metric}`].map((running, i) => times(sign * scale, plus(running, times(-1, columns[`train_eval_${metric}`][i]))));
    return [lineOf(epochs, difference, look, `%{y:${y}}${suffix}`, { name: plotlyText(row.run) })];
  });
}

function curvesChart(run, metric, span, runs) {
  const { row, epochs, columns, look } = run;
  const { curves, hover } = METRICS[metric];
  const trace = (side, name, line, more = {}) => lineOf(epochs, columns[`${side}_${metric}`], look, `%{y:${hover}}`, { mode: "lines", name, line: { color: look.colour, ...line }, ...more });
  return chartCard({
    title: row.run,
    subtitle: metric === "accuracy" ? "Accuracy" : "Loss",
    swatch: look.colour,
    height: 230,
    file: `${metric}_${row.run}`,
    label: `${metric} of ${row.run} over epochs: training in eval mode, validation, and running training ${metric}.`,
    build: () => ({
      data: [
        trace("val", "validation", { width: 2, dash: "dash" }),
        trace("train_eval", "training, eval mode", { width: 2.5 }, { fill: "tonexty", fillcolor: faded(look.colour, 0.13) }),
        trace("running", "training, running", { color: token("muted"), width: 2, dash: "dot" }),
      ],
      layout: { xaxis: axis(runs), yaxis: { tickformat: curves, range: span } },
    }),
    table: () => gapTable([run]),
  });
}

function gapTable(runs) {
  const names = Object.keys(runs[0].columns);
  return {
    columns: ["run", "epoch", ...names],
    rows: runs.flatMap(({ row, epochs, columns }) => epochs.map((epoch, i) => [row.run, epoch + 1, ...names.map((name) => columns[name][i])])),
  };
}

function samples(runs) {
  const texts = runs.map(({ data: { gap } }) => (gap.n_train && gap.n_val ? `${whole(gap.n_train)} training and ${whole(gap.n_val)} validation examples` : "n unknown"));
  return [...new Set(texts)].join("; ");
}

const axis = (runs) => epochAxis(runs.map(({ epochs }) => epochs));

// null, which is unknown, stays null
const times = (factor, value) => (isNumber(value) ? factor * value : null);
const plus = (a, b) => (isNumber(a) && isNumber(b) ? a + b : null);

/** A range shared by all panels, with a little air; undefined lets Plotly choose. */
function range(values) {
  const known = values.filter(isNumber);
  if (!known.length) return undefined;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const air = Math.max(0.04 * (high - low), 1e-4);
  return [low - air, high + air];
}
