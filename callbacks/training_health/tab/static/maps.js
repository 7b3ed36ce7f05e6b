// @ts-check
// Maps, rows by epochs: the dead fraction of every site, the activity of every unit of a site, and the update ratio of
// every parameter. Each has a layer for the values and layers of one colour above it, for what the scale can't show.

import { chartCard, mapEpochAxis, shown } from "./chart.js";
import { sinceWords } from "./dead_list.js";
import { h, isNumber, key, keyBox, keyMark, keyScale, percent, plotlyText, ratio, sampleSize } from "./dom.js";
import { cut } from "./runs.js";
import { activityScale, isDark, ratioScale, token } from "./theme.js";

// `ticks`: [[log10 of the value, text], ...]; the low end stands for less too
const ACTIVITY = { low: -3, high: 0, ticks: [[-3, "≤ 0.1%"], [-2, "rare < 1%"], [-1, "10%"], [0, "100%"]] };
const RATIO = { low: -6, high: 0, ticks: [[-6, "1e-6"], [-3, "1e-3 healthy"], [0, "1"]] };
const MOST_LABELS = 40;
const LONGEST_LABEL = 26;

/** The map of a site's units. `site`: its counts; `epochSets`: the epochs of all maps beside this one. */
export function unitMap({ row, look, site, map, order, epochSets }) {
  const rows = map.order.map((unit, i) => ({ unit, activity: map.activity[i] }));
  if (order === "index") rows.sort((a, b) => a.unit - b.unit);
  const last = (value) => rows.filter(({ activity }) => activity.at(-1) === value).length;
  const dead = `${last(0)} of ${rows.length} units dead${last(null) > 0 ? `, ${last(null)} not a number` : ""} at the last epoch`;
  return chartCard({
    title: cut(row.label),
    subtitle: `${map.site}: ${dead}, ${sampleSize(map.n.at(-1))}${map.note ? ` (${map.note})` : ""}`,
    look,
    height: Math.max(260, Math.min(680, 70 + rows.length * (rows.length > 64 ? 2.2 : 8))),
    file: `unit_map_${row.run}_${map.site}`,
    label: `Activity of each unit of ${map.site} over epochs, run ${row.run}. ${dead}.`,
    build: (forExport) => ({ data: unitTraces(map, rows, forExport), layout: unitLayout(rows, order, epochSets) }),
    table: (forExport) => unitTable(row.run, site, map, rows, forExport),
  });
}

/** One row per unit; a download has its activity at each epoch too. */
function unitTable(run, site, map, rows, forExport) {
  const { dead_units: dead } = site;
  const place = new Map(dead.unit.map((unit, i) => [unit, i]));
  const times = (events, unit) => events.filter(([one]) => one === unit).length;
  const n = map.n.at(-1);
  const epochs = forExport ? map.epochs : [];
  return {
    columns: ["run", "site", "unit", "state", "dead_since", "times_died", "times_revived", "times_new_weights", "cause", "depth_sd", "last_activity", "n", "upper_bound_95", ...epochs.map((epoch) => `activity_epoch_${epoch + 1}`)],
    rows: rows.map(({ unit, activity }) => {
      const [i, last] = [place.get(unit), activity.at(-1)];
      const why = i === undefined ? [null, null] : [dead.cause?.[i] ?? "not recorded", dead.depth?.[i] ?? null];
      return [run, map.site, unit, stateOf(last, site), i === undefined ? null : sinceWords(dead, i), times(map.deaths, unit), times(map.revivals, unit), times(map.new_weights, unit), ...why, last, n, last === 0 ? bound(n) : null, ...(forExport ? activity : [])];
    }),
  };
}

const stateOf = (activity, { rare_below: rare }) => (activity === null ? "not a number" : activity === 0 ? "dead" : activity < rare ? "rare" : "alive");

/** How often a unit that is dead on n examples may fire at most (95%; null where unknown). */
const bound = (n) => (n ? Math.min(1, 3 / n) : null);

/** What the colours and marks of the units' maps mean: one key for all. */
export function mapKey() {
  return key(
    keyBox("var(--dead)", "dead: exactly 0"),
    keyScale("activity", "Activity from 0.1% and less to 100% on a log scale; below 1% is rare", activityScale, ACTIVITY, -2),
    keyBox("var(--alarm)", "not a number (NaN)"),
    keyBox("var(--missing)", "no record"),
    keyMark("×", "died"),
    keyMark("○", "came back"),
    keyMark("+", "got new weights"),
  );
}

function unitTraces(map, rows, forExport) {
  const gap = rows.length <= 64 && map.epochs.length <= 60 ? 1 : 0;
  const layer = layersOf(rows.map(({ unit }) => unit), map.epochs, { xgap: gap, ygap: gap });
  const grid = (cell) => rows.map(({ activity }) => activity.map(cell));
  const size = rows.length > 64 ? 4 : 7;
  const died = { symbol: "x", size, color: "rgba(0,0,0,0.8)" };
  const back = { symbol: "circle", size: size + 2, color: "#ffffff", line: { width: 1.5, color: "#000000" } };
  const given = { symbol: "cross-thin", color: "#ffffff", ...(rows.length > 64 ? { size: 3, line: { width: 1, color: "#ffffff" } } : { size: 10, line: { width: 2.5, color: "#ffffff" } }) };
  const square = { symbol: "square", size: 12, color: token("dead") };
  const meaning = (n) => (n ? `none of ${n} examples<br>fires on at most ${Number((100 * bound(n)).toPrecision(3))}% of all (95%, 3/n)` : "no example, n unknown");
  return [
    layer(grid((a) => onScale(a, ACTIVITY)), activityScale(), grid((a) => a), "activity %{customdata:.3~%}", scaleOf("activity", ACTIVITY, forExport)),
    layer(grid((a) => (a === 0 ? 1 : null)), token("dead"), rows.map(() => map.n.map(meaning)), "dead: fired on %{customdata}"),
    layer(grid((a) => (a === null ? 1 : null)), token("alarm"), null, "not a number (NaN): neither dead nor alive"),
    marks("died", died, map.deaths),
    marks("came back", back, map.revivals),
    marks("got new weights", given, map.new_weights),
    ...(forExport ? [{ ...marks("dead: exactly 0", square, []), x: [null], y: [null] }] : []), // for the picture's legend
  ];
}

function unitLayout(rows, order, epochSets) {
  const all = rows.length <= MOST_LABELS;
  const every = Math.ceil(rows.length / 10);
  const units = rows.map(({ unit }) => unit);
  const title = { text: order === "death" ? "units, dead first" : "unit" };
  const labelled = units.filter((_, i) => all || (order === "index" && i % every === 0));
  return mapLayout(units, labelled, epochSets, 48, { tickfont: { size: all ? 9 : 11 }, title });
}

const MEASURES = {
  dead: { title: "Dead", value: (site, i) => ratio(site.dead[i], site.units - site.nan[i]) },
  rare: { title: "Rare", value: (site, i) => ratio(site.rare[i], site.units - site.nan[i]) },
  sparsity: { title: "Sparsity", value: (site, i) => site.sparsity[i] },
};
export const MEASURE_CHOICES = Object.entries(MEASURES).map(([name, { title }]) => [name, title]);

/**
 * Sites by epochs of each run: the fraction of dead or rare units, or of zero outputs.
 * @param {any[]} runs [{row, data, look}]
 * @param {"dead" | "rare" | "sparsity"} measure
 * @param {boolean} worstFirst else in forward order
 */
export function layerMaps(runs, measure, worstFirst) {
  const { title, value } = MEASURES[measure];
  const tables = runs.map(({ data }) => data.sites.map((site) => ({ site, values: site.epochs.map((_, i) => value(site, i)) })));
  const most = Math.max(0.05, ...tables.flat().flatMap(({ values }) => values.filter(isNumber)));
  const epochSets = tables.flat().map(({ site }) => site.epochs);
  const scale = { low: 0, high: most, ticks: [0, most / 2, most].map((at) => [at, percent(at)]) };
  const colours = measure === "dead" ? deadScale : activityScale;
  const words = { dead: "dead units", rare: "rare units", sparsity: "zero outputs" }[measure];
  return [
    key(keyScale(words, `${title} from 0% to ${percent(most)}`, colours, scale, null), measure === "dead" && keyBox("var(--surface)", "none dead"), keyBox("var(--missing)", "no record")),
    h("div", { class: "grid" }, runs.map((run, r) => layerMap(run, tables[r]))),
  ];

  function layerMap({ row, look }, sites) {
    const last = ({ values }) => values.at(-1) ?? -1;
    const rows = worstFirst ? [...sites].sort((a, b) => last(b) - last(a)) : sites;
    const names = rows.map(({ site }) => site.site);
    const epochs = [...new Set(sites.flatMap(({ site }) => site.epochs))].sort((a, b) => a - b);
    const at = rows.map(({ site, values }) => new Map(site.epochs.map((epoch, i) => [epoch, [values[i], site.dead[i], site.rare[i], site.units, site.n[i]]])));
    const grid = (cell) => at.map((known) => epochs.map((epoch) => (known.has(epoch) ? cell(...known.get(epoch)) : null)));
    const worst = [...sites].sort((a, b) => last(b) - last(a))[0];
    const subtitle = `${words} per site, of ${sites.length}; worst at the last epoch: ${worst.site.site} ${percent(worst.values.at(-1))}`;
    return chartCard({
      title: cut(row.label),
      subtitle,
      look,
      height: Math.max(150, Math.min(1000, 60 + (rows.length > 12 ? 15 : 26) * rows.length)),
      file: `sites_${measure}_${row.run}`,
      label: `${title} by site and epoch, run ${row.run}. ${subtitle}.`,
      build: (forExport) => {
        const layer = layersOf(names, epochs, { xgap: epochs.length > 60 ? 0 : 1, ygap: 1 });
        const hover = `${words} %{customdata[0]:.1%}<br>%{customdata[1]} dead, %{customdata[2]} rare of %{customdata[3]}, n = %{customdata[4]}`;
        const numbers = grid((...cell) => cell);
        const zero = measure === "dead" ? [layer(grid((v) => (v === 0 ? 1 : null)), token("surface"), numbers, hover)] : [];
        const values = layer(grid((v) => (v === 0 && zero.length ? null : v)), colours(), numbers, hover, scaleOf(words, scale, forExport));
        const ticks = Math.ceil(names.length / 60);
        const layout = mapLayout(names, names.filter((_, i) => i % ticks === 0), [epochs, ...epochSets], 60);
        const ticktext = layout.yaxis.ticktext.map((text, i) => `${text} ${percent(rows[i * ticks].values.at(-1))}`);
        return { data: [values, ...zero], layout: { ...layout, yaxis: { ...layout.yaxis, ticktext, tickfont: { size: names.length > 24 ? 9 : 11 } } } };
      },
      table: () => ({
        columns: ["run", "site", "epoch", "n", "units", "dead", "rare", "sparsity"],
        rows: rows.flatMap(({ site }) => site.epochs.map((epoch, i) => [row.run, site.site, epoch + 1, site.n[i], site.units, site.dead[i], site.rare[i], site.sparsity[i]])),
      }),
    });
  }
}

/** From few to many dead units; none has no colour. */
function deadScale(dark = isDark()) {
  const colours = dark ? ["#5a3a22", "#ff8a3d", "#ffe0c4"] : ["#ffe3cc", "#d55e00", "#5e2300"];
  return colours.map((colour, i) => [i / 2, colour]);
}

/** How the weights move: a map of the update ratio for each run. */
export function weightCharts(runs) {
  const having = runs.map((run) => ({ ...run, table: cells(run.data) })).filter(({ table }) => table.epochs.length);
  if (!having.length) return [h("p", { class: "muted" }, "None of the picked runs recorded its updates (WeightHistogramMonitor).")];
  const epochSets = having.map(({ table }) => table.epochs);
  const ratioKey = key(
    keyScale("update ratio", "Update ratio from 1e-6 to 1 on a log scale; the reference is 1e-3", ratioScale, RATIO, -3),
    keyBox("var(--still)", "no update at all"),
    keyBox("var(--alarm)", "✕ NaN or infinite"),
    keyBox("var(--missing)", "no record"),
  );
  return [ratioKey, h("div", { class: "grid" }, having.map((run) => ratioChart(run, epochSets)))];
}

function ratioChart({ row, look, table }, epochSets) {
  const { parameters, rows } = table;
  const bad = rows.filter(isBad);
  const every = Math.ceil(parameters.length / MOST_LABELS);
  const labelled = parameters.filter((_, i) => i % every === 0);
  return chartCard({
    title: cut(row.label),
    subtitle: bad.length ? `${bad.length} of ${rows.length} records hold NaN or infinite numbers` : "All recorded weights and gradients are finite",
    look,
    height: Math.max(200, Math.min(900, 70 + 22 * parameters.length)),
    file: `update_ratio_${row.run}`,
    label: `Update ratio of each parameter over epochs, run ${row.run}. ${bad.length} records with non-finite numbers.`,
    build: (forExport) => ({ data: ratioTraces(table, bad, forExport), layout: mapLayout(parameters, labelled, epochSets, 60) }),
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

function ratioTraces({ parameters, epochs, rows }, bad, forExport) {
  const layer = layersOf(parameters, epochs, { xgap: epochs.length > 60 ? 0 : 1, ygap: 1 });
  const grid = (value) => parameters.map((_, p) => epochs.map((_, e) => value(rows[p * epochs.length + e])));
  const ratios = grid((cell) => (isBad(cell) ? null : onScale(cell.ratio, RATIO)));
  const numbers = grid((cell) => [cell.weights ?? 0, cell.gradients ?? 0]);
  return [
    layer(ratios, ratioScale(), grid((cell) => cell.ratio), "update ratio %{customdata:.2e}", scaleOf("update ratio", RATIO, forExport)),
    layer(grid((cell) => (!isBad(cell) && cell.ratio === 0 ? 1 : null)), token("still"), null, "no update at all"),
    layer(grid((cell) => (isBad(cell) ? 1 : null)), token("alarm"), numbers, "NaN or infinite: %{customdata[0]} weights, %{customdata[1]} gradients"),
    marks("", { symbol: "x", size: 7, color: "#ffffff" }, bad.map((cell) => [cell.parameter, cell.epoch])),
  ];
}

/** A value's position on a log scale; null for 0 and what is unknown. */
export const onScale = (value, { low, high }) => (value > 0 ? Math.min(high, Math.max(low, Math.log10(value))) : null);

export function scaleOf(title, { low, high, ticks }, showscale) {
  const [tickvals, ticktext] = [ticks.map(([at]) => at), ticks.map(([, text]) => text)];
  return { zmin: low, zmax: high, showscale, colorbar: { title: { text: title }, tickvals, ticktext, thickness: 12, len: 0.9 } };
}

/** A function that makes the layers of one map: `z` is a list of rows; `colours` a Plotly scale or one colour. */
export function layersOf(names, epochs, gaps) {
  const common = { type: "heatmap", x: shown(epochs), y: names.map(plotlyText), hoverongaps: false, showscale: false, ...gaps };
  const row = typeof names[0] === "number" ? "unit %{y}" : "%{y}";
  return (z, colours, customdata, hover, more = {}) => ({
    ...common,
    z,
    customdata,
    colorscale: typeof colours === "string" ? [[0, colours], [1, colours]] : colours,
    hovertemplate: `${row}, epoch %{x}<br>${hover}<extra></extra>`,
    ...more,
  });
}

/** Marks on cells, [[row's name, epoch], ...]. */
function marks(name, marker, cells) {
  return { type: "scatter", mode: "markers", name, x: cells.map(([, epoch]) => epoch + 1), y: cells.map(([row]) => plotlyText(row)), marker, hoverinfo: "skip", showlegend: name !== "" };
}

export function mapLayout(names, labelled, epochSets, left, axis = {}) {
  const short = (name) => (String(name).length > LONGEST_LABEL ? `…${name.slice(1 - LONGEST_LABEL)}` : name);
  return {
    hovermode: "closest",
    plot_bgcolor: token("missing"),
    margin: { l: left, r: 10, t: 6, b: 38 },
    xaxis: mapEpochAxis(epochSets),
    yaxis: {
      type: "category",
      categoryorder: "array",
      categoryarray: names.map(plotlyText),
      range: [names.length - 0.5, -0.5],
      showgrid: false,
      tickvals: labelled.map(plotlyText),
      ticktext: labelled.map((name) => plotlyText(short(name))),
      ...axis,
    },
  };
}
