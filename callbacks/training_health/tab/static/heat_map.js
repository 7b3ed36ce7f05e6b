// What the maps share: rows by epochs, a layer for the values on a scale and layers of one colour above it.

import { mapEpochAxis, shown } from "./chart.js";
import { plotlyText } from "./dom.js";
import { token } from "./theme.js";

/** A function that makes the layers of one map: `grid` is a list of rows; `colours` a Plotly scale or one colour. */
export function layersOf(names, epochs, gaps) {
  const common = { type: "heatmap", x: shown(epochs), y: names.map(plotlyText), hoverongaps: false, showscale: false };
  return (grid, colours, customdata, hover, more = {}) => ({
    ...common,
    ...gaps,
    z: grid,
    customdata,
    colorscale: typeof colours === "string" ? [[0, colours], [1, colours]] : colours,
    hovertemplate: `${hover}<extra></extra>`,
    ...more,
  });
}

export function colourBar(title, ticks) {
  return { title: { text: title }, tickvals: ticks.map(([at]) => at), ticktext: ticks.map(([, text]) => text), thickness: 12, len: 0.9 };
}

/** Marks on cells, [[row's name, epoch], ...]. */
export function marks(name, marker, cells) {
  return { type: "scatter", mode: "markers", name, x: cells.map(([, epoch]) => epoch + 1), y: cells.map(([row]) => plotlyText(row)), marker, hoverinfo: "skip", showlegend: name !== "" };
}

/** `ticks`: [[row's name, its label], ...]. */
export function mapLayout(names, ticks, epochSets, left, axis) {
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
      tickvals: ticks.map(([name]) => plotlyText(name)),
      ticktext: ticks.map(([, label]) => plotlyText(label)),
      ...axis,
    },
  };
}
