// @ts-check
// Colours: of the runs, of the scales, and of Plotly's furniture.

const RUN_COLOURS = 7; // in style.css
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross"];

// activity, low to high: even perceptual steps (seaborn's "mako" reversed), so that quiet units stand out in both themes
const MAKO = ["#DEF5E5", "#96DDB5", "#4BC1AD", "#359FAA", "#357BA2", "#3E5590", "#3A2F62", "#21141F"];
// update ratio: slow is blue, the reference 1e-3 neutral, fast is brown (ColorBrewer's BrBG and RdBu ends)
const RATIO = {
  light: ["#08519c", "#4292c6", "#9ecae1", "#f2f0ec", "#dfc27d", "#bf812d", "#6d3f05"],
  dark: ["#9ecae1", "#4f9bd0", "#2a5f93", "#3c3f44", "#8a5a1c", "#c98d3c", "#f3d79b"],
};

export const isDark = () => document.documentElement.dataset.theme === "dark";

const declared = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
/** A colour of style.css in the present theme, for charts: what the page and its charts share has one home. */
export const token = (name) => declared(name).match(/#\w+/g)[Number(isDark())];

/** Colour scales for Plotly. The darkest end of activity is cut off where it would melt into the page. */
export const activityScale = (dark = isDark()) => evenly(dark ? MAKO.slice(0, 7) : MAKO);
export const ratioScale = (dark = isDark()) => evenly(RATIO[dark ? "dark" : "light"]);

const evenly = (colours) => colours.map((colour, i) => [i / (colours.length - 1), colour]);

/**
 * A look for each picked run that is the same in every chart: a run's preferred colour depends on its rank among all
 * runs, so it survives the picking of others; a taken colour gives way to the next free one.
 */
export function runLooks(allRows, picked) {
  const rank = new Map(allRows.filter((row) => row.state === "ok").map((row, i) => [row.run, i]));
  const uses = Array(RUN_COLOURS).fill(0);
  const looks = new Map();
  for (const row of picked) {
    let slot = rank.get(row.run) % RUN_COLOURS;
    const least = Math.min(...uses);
    while (uses[slot] > least) slot = (slot + 1) % RUN_COLOURS;
    looks.set(row.run, new Look(slot, SYMBOLS[uses[slot] % SYMBOLS.length]));
    uses[slot] += 1;
  }
  return looks;
}

/** How a run is drawn: `colour` in the present theme, for charts, and `swatch` in any, for the page itself. */
class Look {
  constructor(slot, symbol) {
    this.slot = slot;
    this.symbol = symbol;
    this.swatch = `var(--run-${slot})`;
  }

  get colour() {
    return token(`run-${this.slot}`);
  }
}

export function faded(colour, opacity) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

/** What every chart looks like where its own layout says nothing. */
export function baseTemplate() {
  const [text, muted, grid, zero] = ["text", "muted", "line", "zero"].map(token);
  const axis = {
    gridcolor: grid,
    zerolinecolor: zero,
    linecolor: zero,
    tickcolor: zero,
    tickfont: { color: muted, size: 11 },
    title: { font: { color: muted, size: 12 }, standoff: 6 },
    automargin: true,
    zeroline: false,
  };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: 'Roboto, "Helvetica Neue", Arial, sans-serif', size: 12, color: text },
    margin: { l: 44, r: 14, t: 10, b: 38 },
    showlegend: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: token("raised"), bordercolor: grid, font: { color: text, size: 12 }, namelength: 40 },
    xaxis: { ...axis, showgrid: false, ticks: "outside", ticklen: 4 },
    yaxis: axis,
  };
  return { layout };
}
