// @ts-check
// Is the gap real: eval-mode training against validation, with the error bar, and the effect of the mode by itself.

import { chartCard, epochAxis, lineOf } from "./chart.js";
import { bandEdge, hovering, legend } from "./dead_units.js";
import { h, isNumber, key, keyBox, keyLine, plotlyText, whole } from "./dom.js";
import { cut } from "./runs.js";
import { commonRange, outsideWords } from "./scales.js";
import { faded, token } from "./theme.js";

const MOST_CURVES = 6;
const MOST_BANDS = 2; // more of them lie over each other

// `sign` turns running minus eval-mode into the effect that is drawn
const METRICS = {
  accuracy: { gap: "Gap: training minus validation accuracy", effect: "Eval-mode minus running training accuracy", sign: -1, unit: "percentage points", scale: 100, curves: ".0%", hover: ".2%", y: "+.2f", suffix: " points" },
  loss: { gap: "Gap: validation minus training loss", effect: "Running minus eval-mode training loss", sign: 1, unit: "loss", scale: 1, curves: "", hover: ".4f", y: "+.4f", suffix: "" },
};

/**
 * The gap now and over epochs, the mode effect, and both sides' curves.
 * @param {any[]} runs [{row, data, look}] of the picked runs, or of their variants
 * @param {"accuracy" | "loss"} metric
 */
export function gapCharts(runs, metric) {
  const having = runs.filter(({ data }) => data.gap.epochs.length).map((run) => ({ ...run, epochs: run.data.gap.epochs, columns: run.data.gap.columns }));
  if (!having.length) return [h("p", { class: "muted" }, "None of the picked runs recorded its gap (TrainValGapMonitor).")];
  const drawn = having.slice(0, MOST_CURVES);
  const sides = [`running_${metric}`, `train_eval_${metric}`, `val_${metric}`];
  const { range } = commonRange(drawn.map(({ row, columns }) => ({ name: row.label, values: sides.flatMap((side) => columns[side]) })));
  return [
    intervalChart(having, metric),
    legend(having),
    h("div", { class: "grid" }, gapChart(having, metric), effectChart(having, metric)),
    key(keyLine("solid", "training, eval mode"), keyLine("dashed", "validation"), keyLine("dotted", "training as it ran: dropout on, averaged over the epoch"), keyBox("color-mix(in srgb, currentcolor 16%, transparent)", "the gap")),
    h("div", { class: "grid" }, drawn.map((run) => curvesChart(run, metric, range, drawn))),
    having.length > drawn.length && h("p", { class: "muted" }, `${having.length} picked: both sides' curves of the first ${drawn.length} are drawn. Pick fewer runs to see others.`),
  ];
}

/** The gap at each run's last epoch as a dot with its 95% interval, against zero. */
function intervalChart(runs, metric) {
  const { scale, unit, y, suffix } = METRICS[metric];
  const rows = runs.map(({ row, columns, look, epochs }) => {
    const [gap, margin] = [columns[`${metric}_gap`], columns[`${metric}_gap_margin`]].map((column) => times(scale, column.at(-1)));
    return { row, look, gap, margin, epoch: epochs.at(-1) + 1, words: wordsOf(gap, margin) };
  });
  const known = rows.filter(({ gap }) => isNumber(gap));
  const sentence = known.map(({ row, words }) => `${row.label}: ${words}`).join(", ");
  return chartCard({
    title: "Is it real? The gap at the last epoch",
    subtitle: `${METRICS[metric].gap}, both in eval mode with the same weights, with its 95% interval (${intervalWords(runs)}; ${samples(runs)}). An interval that includes 0 is noise`,
    height: 70 + Math.max(22, Math.min(30, 400 / known.length)) * known.length,
    wide: true,
    file: `gap_now_${metric}`,
    label: `Gap at the last epoch against zero: ${sentence || "unknown"}.`,
    build: () => ({
      data: known.map(({ row, look, gap, margin, epoch, words }) => ({
        type: "scatter",
        mode: "markers",
        name: plotlyText(row.label),
        x: [gap],
        y: [plotlyText(row.run)],
        customdata: [[isNumber(margin) ? margin.toFixed(2) : "unknown", epoch, words]],
        error_x: { type: "data", array: [margin ?? 0], thickness: 2, width: 5, color: look.colour },
        marker: { color: look.colour, size: 10, symbol: look.symbol },
        hovertemplate: `%{x:${y}} ± %{customdata[0]}${suffix}, %{customdata[2]}, epoch %{customdata[1]}`,
      })),
      layout: {
        hovermode: "closest",
        hoverdistance: -1,
        xaxis: { title: { text: unit }, rangemode: "tozero", zeroline: true, zerolinewidth: 2, showgrid: true },
        yaxis: {
          type: "category",
          categoryorder: "array",
          categoryarray: known.map(({ row }) => plotlyText(row.run)),
          range: [known.length - 0.5, -0.5],
          showgrid: false,
          ticklabelstandoff: 6,
          tickvals: known.map(({ row }) => plotlyText(row.run)),
          ticktext: known.map(({ row, words }) => plotlyText(`${cut(row.label, 26)}: ${words}`)),
        },
      },
    }),
    table: () => ({
      columns: ["run", "epoch", "gap", "half_of_95_interval", "verdict"],
      rows: rows.map(({ row, epoch, gap, margin, words }) => [row.run, epoch, gap, margin, words]),
    }),
  });
}

/** "real", "noise" or "unknown error". */
export const wordsOf = (gap, margin) => (!isNumber(gap) ? "unknown" : !isNumber(margin) ? "error unknown" : Math.abs(gap) > margin ? "real" : "noise");

const intervalWords = (runs) => (runs.some(({ data }) => data.total?.spread) ? "of a variant's mean over seeds, by Student's t" : "± 2 standard errors, or the log's own");

/** What both differences share: an axis around zero, all runs, one table. */
function differenceChart(runs, valuesOf, metric, more, tracesOf) {
  const { range, outside } = commonRange(runs.map((run) => ({ name: run.row.label, values: [0, ...valuesOf(run)] })));
  const yaxis = { title: { text: METRICS[metric].unit }, zeroline: true, zerolinewidth: 1.5, range };
  const build = () => ({ data: runs.flatMap(tracesOf), layout: { xaxis: axis(runs), yaxis, ...hovering(runs.length) } });
  return chartCard({ ...more, subtitle: more.subtitle + outsideWords(outside), height: 320, build, table: () => gapTable(runs) });
}

function gapChart(runs, metric) {
  const { gap: title, scale, y, suffix } = METRICS[metric];
  const banded = runs.length <= MOST_BANDS;
  const ends = ({ columns }, i) => [-1, 0, 1].map((sign) => plus(times(scale, columns[`${metric}_gap`][i]), times(banded ? sign * scale : 0, columns[`${metric}_gap_margin`][i] ?? 0)));
  const subtitle = banded ? `Band: 95% interval (${intervalWords(runs)})` : `Bands are drawn for up to ${MOST_BANDS} runs; the last epoch's intervals are above`;
  return differenceChart(runs, (run) => run.epochs.flatMap((_, i) => ends(run, i)), metric, { title, subtitle, file: `gap_${metric}`, label: `${title}, over epochs.` }, ({ row, epochs, columns, look }) => {
    const gap = columns[`${metric}_gap`].map((g) => times(scale, g));
    const noise = columns[`${metric}_gap_margin`].map((margin) => times(scale, margin));
    const edge = (sign) => bandEdge(epochs, gap.map((g, i) => plus(g, times(sign, noise[i]))));
    const band = banded ? [edge(-1), { ...edge(1), fill: "tonexty", fillcolor: faded(look.colour, 0.16) }] : [];
    return [...band, lineOf(epochs, gap, look, `%{y:${y}} ± %{customdata:${y.slice(1)}}${suffix}`, { name: plotlyText(row.label), customdata: noise })];
  });
}

function effectChart(runs, metric) {
  const { effect, sign, scale, y, suffix } = METRICS[metric];
  const subtitle = `${effect}: dropout, augmentation, averaging over the epoch. Not overfitting`;
  const difference = ({ columns }) => columns[`running_${metric}`].map((running, i) => times(sign * scale, plus(running, times(-1, columns[`train_eval_${metric}`][i]))));
  return differenceChart(runs, difference, metric, { title: "Mode effect: what the running curve hides", subtitle, file: `mode_effect_${metric}` }, (run) => [
    lineOf(run.epochs, difference(run), run.look, `%{y:${y}}${suffix}`, { name: plotlyText(run.row.label) }),
  ]);
}

function curvesChart(run, metric, span, runs) {
  const { row, epochs, columns, look } = run;
  const { curves, hover } = METRICS[metric];
  const trace = (side, name, line, more = {}) => lineOf(epochs, columns[`${side}_${metric}`], look, `%{y:${hover}}`, { mode: "lines", name, line: { color: look.colour, ...line }, ...more });
  return chartCard({
    title: cut(row.label),
    subtitle: metric === "accuracy" ? "Accuracy" : "Loss",
    look,
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
