// The unit x epoch map: activity of every unit of one site, dead cells in a colour of their own.

import { chartCard } from "./chart.js";
import { sampleSize } from "./dom.js";
import { colourBar, layersOf, mapLayout, marks } from "./heat_map.js";
import { key, keyBox, keyMark, keyScale } from "./key.js";
import { activityScale, token } from "./theme.js";

const FLOOR = -3; // log10 of the activity at the scale's low end: one in a thousand, and less
const TICKS = [[-3, "≤ 0.1%"], [-2, "1%"], [-1, "10%"], [0, "100%"]];
const LABELLED_UNITS = 40;

/** `epochSets`: the epochs of all maps beside this one. */
export function unitMap({ row, look, map, order, epochSets }) {
  const rows = map.order.map((unit, i) => ({ unit, activity: map.activity[i] }));
  if (order === "index") rows.sort((a, b) => a.unit - b.unit);
  const last = (value) => rows.filter(({ activity }) => activity.at(-1) === value).length;
  const broken = last(null) > 0 ? `, ${last(null)} not a number` : "";
  const dead = `${last(0)} of ${rows.length} units dead${broken}`;
  return chartCard({
    title: row.run,
    subtitle: `${map.site}: ${dead} at the last epoch, ${sampleSize(map.n.at(-1))}${map.note ? ` (${map.note})` : ""}`,
    swatch: look.colour,
    height: Math.max(260, Math.min(680, 70 + rows.length * (rows.length > 64 ? 2.2 : 8))),
    file: `unit_map_${row.run}_${map.site}`,
    label: `Activity of each unit of ${map.site} over epochs, run ${row.run}. ${dead} at the last epoch.`,
    build: (forExport) => ({ data: traces(map, rows, forExport), layout: layout(rows, order, epochSets) }),
    table: () => ({
      columns: ["run", "site", "unit", "epoch", "n", "activity", "dead", "not_a_number", "upper_bound_95"],
      rows: rows.flatMap(({ unit, activity }) => map.epochs.map((epoch, i) => [row.run, map.site, unit, epoch + 1, map.n[i], ...states(activity[i], map.n[i])])),
    }),
  });
}

/** Activity, whether dead, whether not a number, and how often a dead unit may fire at most (95%; null where unknown). */
const states = (activity, n) => [activity, activity === 0 ? 1 : 0, activity === null ? 1 : 0, activity === 0 ? bound(n) : null];
const bound = (n) => (n ? Math.min(1, 3 / n) : null);

/** What the colours and marks mean: one key for all maps. */
export function mapKey() {
  const ticks = TICKS.map(([at, text]) => [1 - at / FLOOR, at === -2 ? "rare < 1%" : text, at === -2]);
  return key(
    keyBox(token("dead"), "dead: exactly 0"),
    keyScale("activity", "Activity from 0.1% and less to 100% on a log scale; below 1% is rare", activityScale(), ticks),
    keyBox(token("alarm"), "not a number (NaN)"),
    keyBox(token("missing"), "no record"),
    keyMark("×", "died"),
    keyMark("○", "came back"),
  );
}

function traces(map, rows, forExport) {
  const gap = rows.length <= 64 && map.epochs.length <= 60 ? 1 : 0;
  const layer = layersOf(rows.map(({ unit }) => unit), map.epochs, { xgap: gap, ygap: gap });
  const grid = (cell) => rows.map(({ activity }) => activity.map(cell));
  const scale = { zmin: FLOOR, zmax: 0, showscale: forExport, colorbar: colourBar("activity", TICKS) };
  const size = rows.length > 64 ? 4 : 7;
  const died = { symbol: "x", size, color: "rgba(0,0,0,0.8)" };
  const back = { symbol: "circle", size: size + 2, color: "#ffffff", line: { width: 1.5, color: "#000000" } };
  const square = { symbol: "square", size: 12, color: token("dead") };
  return [
    layer(grid((a) => (a > 0 ? Math.max(FLOOR, Math.log10(a)) : null)), activityScale(), grid((a) => a), "unit %{y}, epoch %{x}<br>activity %{customdata:.3~%}", scale),
    layer(
      grid((a) => (a === 0 ? 1 : null)),
      token("dead"),
      rows.map(() => map.n.map((n) => (n ? [`none of ${n} examples`, `at most ${Number((100 * bound(n)).toPrecision(3))}% of all (95%, 3/n)`] : ["no example, n unknown", "an unknown part of all"]))),
      "unit %{y}, epoch %{x}<br>dead: fired on %{customdata[0]}<br>fires on %{customdata[1]}",
    ),
    layer(grid((a) => (a === null ? 1 : null)), token("alarm"), null, "unit %{y}, epoch %{x}<br>not a number (NaN): neither dead nor alive"),
    marks("died", died, map.deaths),
    marks("came back", back, map.revivals),
    ...(forExport ? [{ ...marks("dead: exactly 0", square, []), x: [null], y: [null] }] : []), // for the picture's legend
  ];
}

function layout(rows, order, epochSets) {
  const units = rows.map(({ unit }) => unit);
  const all = rows.length <= LABELLED_UNITS;
  const every = Math.ceil(rows.length / 10);
  const ticks = units.filter((_, i) => all || (order === "index" && i % every === 0)).map((unit) => [unit, unit]);
  return mapLayout(units, ticks, epochSets, 48, { tickfont: { size: all ? 9 : 11 }, title: { text: order === "death" ? "units, dead first" : "unit" } });
}
