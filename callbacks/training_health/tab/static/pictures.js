// @ts-check
// Pictures as charts: the filters of first layers, and the examples on which the units that fire least fire most.

import { chartCard } from "./chart.js";
import { h, percent, plotlyText, sampleSize } from "./dom.js";
import { bytesOf } from "./packed.js";
import { cut } from "./runs.js";
import { token } from "./theme.js";

const FILTERS_IN_A_ROW = 8;
const EXAMPLES = 9;
const NARROWEST = 300; // pixels of a row on a phone, where the room for captions is least
const CAPTION_OFFSET = 5; // pixels below a picture, whose frame it would touch
const CAPTION = CAPTION_OFFSET + 14; // pixels from a picture to the next

/**
 * The filters of each run's first layers.
 * @param {any[]} runs [{row, data, look}]
 */
export function filterCharts(runs) {
  const having = runs.flatMap((run) => run.data.sites.filter((site) => site.filters).map((site) => ({ ...run, site })));
  return having.length > 0 && h(
    "div",
    {},
    h("h3", { class: "part" }, "What the first layer looks for"),
    h("p", { class: "lede" }, "One picture per unit: its weights, 0 is grey; each is stretched to its own largest weight, so that a filter of tiny weights is as visible as others: the table has the sizes. A frame is around units that are dead (solid), rare (dotted) or not a number (dashed)."),
    h("div", { class: "grid" }, having.map(filterChart)),
  );
}

function filterChart({ row, look, site }) {
  const { filters } = site;
  const [count, states] = [filters.state.length, ["dead", "rare", "not a number"]];
  const marked = states.map((state) => [state, filters.state.filter((one) => one === state).length]).filter(([, n]) => n > 0);
  const subtitle = `${site.site}: weights after epoch ${filters.epoch + 1}; of ${count} units ${marked.map(([state, n]) => `${n} ${state}`).join(", ") || "none dead or rare"} at the last epoch, ${sampleSize(site.n.at(-1))}`;
  const tiles = filters.state.map((state, unit) => ({ text: `${unit}`, frame: state, hover: `unit ${unit}: ${state}<br>norm of its weights ${filters.norm[unit]}, largest ${filters.largest[unit]}` }));
  const table = () => ({
    columns: ["run", "site", "unit", "state", "epoch_of_weights", "l2_norm", "largest_weight"],
    rows: filters.state.map((state, unit) => [row.run, site.site, unit, state, filters.epoch + 1, filters.norm[unit], filters.largest[unit]]),
  });
  const card = { title: cut(row.label), look, subtitle, file: `filters_${row.run}_${site.site}`, label: `Filters of ${site.site}, run ${row.run}. ${subtitle}.`, table };
  return pictureCard(card, filters.shape, bytesOf(filters.pixels), tiles, { across: FILTERS_IN_A_ROW, rowCaptions: false });
}

/**
 * What fires the units that fire least.
 * @param {any[]} runs [{row, data, look}]
 */
export function exampleCharts(runs) {
  const having = runs.filter(({ data }) => data.examples?.units.some(({ values }) => values.length));
  return having.length > 0 && h(
    "div",
    {},
    h("h3", { class: "part" }, "What fires the units that fire least"),
    h("p", { class: "lede" }, "A row per unit: the examples of the window on which it fires most, the strongest first. Which units these are was chosen by the window before: by now one may fire often, or on none, and then has no row."),
    h("div", { class: "grid" }, having.map(exampleChart)),
  );
}

function exampleChart({ row, look, data: { examples } }) {
  const units = examples.units.filter(({ values }) => values.length);
  const pixels = new Uint8Array(units.length * EXAMPLES * size(examples.shape));
  const tiles = units.flatMap(({ site, unit, activity, values, pixels: own }, r) => {
    pixels.set(bytesOf(own).subarray(0, EXAMPLES * size(examples.shape)), r * EXAMPLES * size(examples.shape));
    return Array.from({ length: EXAMPLES }, (_, i) =>
      i < values.length ? { text: i ? "" : plotlyText(`${cut(site, 20)} ${unit}: active ${activity > 0 && activity < 1e-4 ? "under 0.01%" : percent(activity, 2)}`), frame: "", hover: plotlyText(`${site}, unit ${unit}, example ${i + 1}: pre-activation ${values[i]}`) } : null,
    );
  });
  const subtitle = `Epoch ${examples.epoch + 1}, of ${sampleSize(examples.n).replace("n = ", "")} examples`;
  const table = () => ({
    columns: ["run", "site", "unit", "activity", "n", "epoch", "rank", "pre_activation"],
    rows: units.flatMap(({ site, unit, activity, values }) => values.map((value, i) => [row.run, site, unit, activity, examples.n, examples.epoch + 1, i + 1, value])),
  });
  const card = { title: cut(row.label), look, subtitle, file: `examples_${row.run}`, label: `Examples on which ${units.map(({ site, unit }) => `unit ${unit} of ${site}`).join(", ")} fire most, run ${row.run}.`, table };
  return pictureCard(card, examples.shape, pixels, tiles, { across: EXAMPLES, rowCaptions: true });
}

const size = ([channels, height, width]) => channels * height * width;

/**
 * A card with a picture per tile.
 * @param {any} card what `chartCard` takes
 * @param {number[]} shape of a picture: channels, height, width
 * @param {Uint8Array} bytes of all pictures
 * @param {({text: string, frame: string, hover: string} | null)[]} tiles `text` stands below, `frame` is a state around it
 * @param {{across: number, rowCaptions: boolean}} layout pictures in a row; whether a text begins at a row's left end
 */
function pictureCard(card, [channels, height, width], bytes, tiles, { across, rowCaptions }) {
  const rows = Math.ceil(tiles.length / across);
  const right = width + Math.max(1, Math.round(width / 8));
  const inCells = (pixels) => (pixels * across * right) / NARROWEST;
  const down = height + Math.ceil(inCells(CAPTION));
  const [columns, lines] = [right * across, down * rows];
  const place = (i) => [(i % across) * right, Math.floor(i / across) * down];
  const pictures = () => {
    const grid = (value) => Array.from({ length: lines }, () => Array(columns).fill(value));
    const [z, hover] = [grid([0, 0, 0, 0]), grid("")];
    tiles.forEach((tile, i) => {
      const [left, top] = place(i);
      for (let at = 0; tile && at < height * width; at += 1) {
        const [y, x] = [top + Math.floor(at / width), left + (at % width)];
        const colour = (channel) => bytes[(i * channels + channel) * height * width + at];
        z[y][x] = [colour(0), colour(channels > 1 ? 1 : 0), colour(channels > 1 ? 2 : 0), 1];
        hover[y][x] = tile.hover;
      }
    });
    return { z, hover };
  };
  const frames = () => tiles.flatMap((tile, i) => {
    const line = { dead: { color: token("dead"), width: 3 }, rare: { color: token("text"), width: 2, dash: "dot" }, "not a number": { color: token("alarm"), width: 3, dash: "dash" } }[tile?.frame];
    const [left, top] = place(i);
    return line ? [{ type: "rect", x0: left - 0.5, x1: left + width - 0.5, y0: top - 0.5, y1: top + height - 0.5, line }] : [];
  });
  const named = tiles.map((tile, i) => ({ tile, at: place(i) })).filter(({ tile }) => tile?.text);
  const axis = { visible: false, showgrid: false, zeroline: false, automargin: false, constrain: "domain" };
  return chartCard({
    ...card,
    ratio: (columns + 1) / (lines + 1),
    build: () => {
      const { z, hover } = pictures();
      const names = { type: "scatter", mode: "text", x: named.map(({ at }) => at[0] + (rowCaptions ? -0.5 : (width - 1) / 2)), y: named.map(({ at }) => at[1] + height - 0.5 + inCells(CAPTION_OFFSET)), text: named.map(({ tile }) => tile.text), textposition: rowCaptions ? "bottom right" : "bottom center", textfont: { size: rowCaptions ? 11 : 10, color: token("text") }, hoverinfo: "skip", showlegend: false };
      return {
        data: [{ type: "image", colormodel: "rgba", z, text: hover, hovertemplate: "%{text}<extra></extra>" }, names],
        layout: {
          hovermode: "closest",
          margin: { l: 0, r: 0, t: 0, b: 0 },
          shapes: frames(),
          xaxis: { ...axis, range: [-1, columns] },
          yaxis: { ...axis, range: [lines - 0.5, -1], scaleanchor: "x" },
        },
      };
    },
  });
}
