// @ts-check
// A chart on the page: a card with its title, its numbers as a table, and its downloads. Drawn when scrolled into view,
// or when the page is printed.

import { NONE, h, plotlyText } from "./dom.js";
import { isReport } from "./host.js";
import { addPlotly, addScript } from "./packed.js";
import { breakable, lookMark } from "./runs.js";
import { baseTemplate, token } from "./theme.js";

const PLOTLY = "./static/plotly-scatter-heatmap-image-4.1.1.min.js";
const MOST_TABLE_ROWS = 500;
const LETTER = 6.6; // pixels, of a subtitle in a picture, about
const CONFIG = {
  displaylogo: false,
  displayModeBar: "hover",
  // what may be there, for plotly.js gains buttons: one of version 4 uploads the chart
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d"]],
  plotlyServerURL: "",
  showSendToCloud: false,
  doubleClick: "reset",
};

/** Plotly's global; undefined until its script has run. */
const plotlyNow = () => /** @type {any} */ (window).Plotly;

const specs = new WeakMap(); // plot element -> its chart

const near = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawSoon(entry.target)),
  { rootMargin: "400px" },
);

// TensorBoard hides an inactive tab by a height of 0, where Plotly must not measure itself
const sizes = new ResizeObserver((entries) => {
  for (const { target: plot, contentRect } of entries) {
    const target = /** @type {HTMLElement} */ (plot);
    if (contentRect.width > 0 && contentRect.height > 0 && target.dataset.drawn) plotlyNow().Plots.resize(target);
  }
});

/**
 * A card with one chart.
 *
 * `build(forExport)` gives {data, layout} for Plotly, `table(forExport)` gives {columns, rows}; both are called when needed.
 * `look`: a run's colour and mark beside the title. `file`: stem of the names of downloads. `height` in pixels, or
 * `ratio`, width to height.
 * @param {{title: string, subtitle?: string, look?: any, height?: number, ratio?: number, file: string, label?: string, build: function(boolean): any, table: function(boolean=): any, wide?: boolean}} chart
 */
export function chartCard({ title, subtitle = "", look, height, ratio, file, label, build, table, wide = false }) {
  const plot = h("div", { class: "plot", role: "group", "aria-label": label ?? `${title}. ${subtitle}`, style: ratio ? { "aspect-ratio": ratio } : { height: `${height}px` } });
  const tableBox = h("div", { class: "table-alternative", hidden: true });
  const toggle = tool("Table", `Show the numbers of ${title} as a table`, () => {
    tableBox.hidden = !tableBox.hidden;
    toggle.setAttribute("aria-expanded", String(!tableBox.hidden));
    showTable(plot);
  });
  toggle.setAttribute("aria-expanded", "false");
  specs.set(plot, { build, title, subtitle, height, table });
  near.observe(plot);
  // so that charts come at once when they are scrolled to, and can be printed without that
  if (!plotly) whenIdle(() => loadPlotly().catch(() => {}));
  sizes.observe(plot);
  return h(
    "figure",
    { class: wide ? "card wide" : "card", data: { chart: file } },
    h(
      "figcaption",
      {},
      h("div", { class: "card-title" }, look && lookMark(look), h("h3", { title }, breakable(title))),
      h(
        "div",
        { class: "tools", role: "toolbar", "aria-label": `Numbers and pictures of ${title}`, onkeydown: arrows },
        toggle,
        tool("CSV", `Download ${title} as CSV`, () => saveCsv(specs.get(plot).table(true), file), -1),
        tool("PNG", `Download ${title} as PNG`, () => savePng(plot, file), -1),
      ),
      subtitle && h("p", { class: "card-subtitle" }, subtitle),
    ),
    plot,
    tableBox,
  );
}

/** One stop of the Tab key for all tools of a chart; the arrow keys go from one to the next. */
function arrows(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  const tools = [...event.currentTarget.children];
  const next = tools.at((tools.indexOf(document.activeElement) + step) % tools.length);
  for (const tool of tools) tool.tabIndex = tool === next ? 0 : -1;
  next.focus();
  event.preventDefault();
}

/** Puts a newer one's contents into a card: its zoom, its open table and the focus in it stay. */
export function adopt(card, fresh) {
  const [plot, newer] = [card, fresh].map((one) => one.querySelector(".plot"));
  specs.set(plot, specs.get(newer));
  dispose(fresh);
  for (const part of [".card-title", ".card-subtitle"]) card.querySelector(part)?.replaceWith(fresh.querySelector(part) ?? "");
  card.className = fresh.className;
  for (const name of ["aria-label", "style"]) plot.setAttribute(name, newer.getAttribute(name));
  showTable(plot);
  delete plot.dataset.drawn; // what is far from the screen is drawn again when it comes near
  near.unobserve(plot);
  near.observe(plot);
  return card;
}

/** Fills the table below a chart, if it is open. */
function showTable(plot) {
  const box = plot.parentElement.querySelector(".table-alternative");
  if (!box.hidden) box.replaceChildren(htmlTable(specs.get(plot).title, specs.get(plot).table()));
}

/** Frees the charts below `root` before it is replaced. */
export function dispose(root) {
  for (const plot of root.querySelectorAll(".plot")) {
    near.unobserve(plot);
    sizes.unobserve(plot);
    specs.delete(plot);
    if (plot.classList.contains("js-plotly-plot")) plotlyNow().purge(plot);
  }
}

let plotly;

/** Loads Plotly once, when the first chart comes into view or the browser is idle. */
function loadPlotly() {
  plotly ??= findPlotly().catch((error) => {
    plotly = undefined; // the next chart tries again
    throw error;
  });
  return plotly;
}

/** It is a plain script that sets a global. */
async function findPlotly() {
  const found = await (isReport ? addPlotly() : addScript(PLOTLY));
  if (!found) throw new Error("plotly.js did not load; reload the page to try again.");
  return plotlyNow();
}

const whenIdle = window.requestIdleCallback ?? setTimeout;

let drawing = Promise.resolve(); // one chart at a time, with room for the browser between them: scrolling never sticks

function drawSoon(plot) {
  drawing = drawing.then(() => draw(plot)).then(() => new Promise((done) => setTimeout(done)));
}

async function draw(plot) {
  try {
    await drawNow(await loadPlotly(), plot);
  } catch (error) {
    plot.replaceChildren(h("p", { class: "failure", role: "alert" }, `This chart could not be drawn: ${error.message}`));
  }
}

function drawNow(Plotly, plot) {
  const spec = specs.get(plot);
  if (!spec || !plot.isConnected) return;
  const { data, layout } = spec.build(false);
  // a copy: Plotly writes a zoom into it, and several charts may have the same range
  const own = structuredClone({ uirevision: "zoom stays", ...layout });
  const done = Plotly.react(plot, data, { ...own, template: baseTemplate(), height: spec.height, autosize: true }, CONFIG);
  // they are for the mouse: the numbers of a chart are in its table
  for (const button of plot.querySelectorAll(".modebar-btn")) button.tabIndex = -1;
  plot.dataset.drawn = "true";
  return done;
}

/** A sheet of paper is light, as wide as style.css says, and holds the charts that nobody scrolled to. */
function drawForPaper() {
  const { dataset } = document.documentElement;
  const screen = dataset.theme;
  const redraw = () => plotlyNow() && document.querySelectorAll(".plot").forEach((plot) => drawNow(plotlyNow(), plot));
  Object.assign(dataset, { theme: "light", paper: "" });
  redraw();
  addEventListener(
    "afterprint",
    () => {
      dataset.theme = screen;
      delete dataset.paper;
      redraw();
    },
    { once: true },
  );
}

addEventListener("beforeprint", drawForPaper);

async function savePng(plot, file) {
  const Plotly = await loadPlotly();
  const { build, title, subtitle } = specs.get(plot);
  const { data, layout } = build(true);
  const [width, lines] = [Math.max(plot.clientWidth, 700), [plotlyText(subtitle)]];
  while (lines.at(-1).length > width / LETTER) lines.push(...broken(lines.pop(), width / LETTER));
  const more = 15 * (lines.length - 1);
  const full = {
    ...layout,
    template: baseTemplate(),
    paper_bgcolor: token("surface"),
    plot_bgcolor: layout.plot_bgcolor ?? token("surface"),
    title: { text: plotlyText(title), font: { size: 16 }, subtitle: { text: lines.join("<br>"), font: { size: 12 } }, x: 0.02, xanchor: "left", y: 1, yanchor: "top", pad: { t: 18 } },
    legend: { orientation: "h", x: 0, yref: "container", y: 0, yanchor: "bottom" },
    showlegend: data.some((trace) => trace.type === "scatter" && trace.showlegend !== false),
    margin: { ...layout.margin, t: 76 + more },
  };
  const size = { width, height: Math.max(plot.clientHeight, 320) + 90 + more };
  save(await Plotly.toImage({ data, layout: full }, { format: "png", scale: 2, ...size }), `${safeName(file)}.png`);
}

function saveCsv({ columns, rows }, file) {
  const cell = (value) => {
    let text = String(value ?? "");
    // a spreadsheet would run a run's name that begins like a formula
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`);
  const address = URL.createObjectURL(new Blob(lines, { type: "text/csv;charset=utf-8" }));
  save(address, `${safeName(file)}.csv`);
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A line's beginning, up to its last blank before `most` letters, and the rest. */
function broken(line, most) {
  const at = line.lastIndexOf(" ", most) > 0 ? line.lastIndexOf(" ", most) : Math.floor(most);
  return [line.slice(0, at), line.slice(at).trimStart()];
}

const save = (address, name) => h("a", { href: address, download: name }).click();

const safeName = (text) => text.replace(/[^A-Za-z0-9._-]+/g, "_").slice(0, 120);

function tool(text, description, onclick, tabindex = 0) {
  return h("button", { type: "button", class: "tool", title: description, "aria-label": description, tabindex, onclick }, text);
}

function htmlTable(caption, { columns, rows }) {
  const cell = (value) => (typeof value === "number" ? h("td", { class: "number" }, String(Number(value.toPrecision(5)))) : h("td", {}, value ?? NONE));
  const head = h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col" }, column))));
  const body = h("tbody", {}, rows.slice(0, MOST_TABLE_ROWS).map((row) => h("tr", {}, row.map(cell))));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, head, body),
    rows.length > MOST_TABLE_ROWS && h("p", { class: "muted" }, `The first ${MOST_TABLE_ROWS} of ${rows.length} rows; the CSV has them all.`),
  );
}

/** A line over epochs; the points show while they are few. */
export function lineOf(epochs, y, look, hover, more = {}) {
  return {
    type: "scatter",
    mode: epochs.length > 40 ? "lines" : "lines+markers",
    x: shown(epochs),
    y,
    hovertemplate: hover,
    line: { color: look.colour, width: 2.5 },
    marker: { color: look.colour, size: 6, symbol: look.symbol },
    ...more,
  };
}

/** The x axis of every chart: how often the training set has been seen. Lightning counts from 0, the page from 1. */
export function epochAxis(epochSets) {
  const last = Math.max(1, ...epochSets.map((epochs) => (epochs.at(-1) ?? 0) + 1));
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((s) => last / s <= 12);
  const range = last > 1 ? [1 - 0.02 * last, 1.02 * last] : [0.5, 1.5];
  const tickvals = [1, ...Array.from({ length: Math.floor(last / step) }, (_, i) => step * (i + 1)).filter((tick) => tick > 1)];
  return { title: { text: "epoch" }, unifiedhovertitle: { text: "epoch %{x}" }, tickmode: "array", tickvals, tickformat: "d", range };
}

/** The same axis for maps, whose cells are an epoch wide; shared, so that runs of different length stay comparable. */
export function mapEpochAxis(epochSets) {
  const epochs = epochSets.flat();
  const thinned = epochSets.some((set) => set.length > 1 && set[1] - set[0] > 1);
  const half = thinned ? (epochSets[0][1] - epochSets[0][0]) / 2 : 0.5;
  return { ...epochAxis(epochSets), range: [Math.min(...epochs) + 1 - half, Math.max(...epochs) + 1 + half] };
}

/** Epochs as shown: 1 is after the first pass. */
export const shown = (epochs) => epochs.map((epoch) => epoch + 1);
