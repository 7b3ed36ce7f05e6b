// @ts-check
// The page: fetches, keeps the reader's choices, and puts the sections together.

import { classCharts, signalCharts } from "./columns.js";
import { deadList } from "./dead_list.js";
import { coverage, siteChart, siteNames, siteOf, totalChart } from "./dead_units.js";
import { every, h, isNumber, percent, segmented } from "./dom.js";
import { gapCharts } from "./gap.js";
import { asVariants, groupsTable } from "./groups.js";
import { get, getOnce, host, isReport, onReload, onTheme } from "./host.js";
import { MEASURE_CHOICES, layerMaps, mapKey, unitMap, weightCharts } from "./maps.js";
import { emptyState, findingsSection, overviewTable } from "./overview.js";
import { exampleCharts, filterCharts } from "./pictures.js";
import { refill } from "./refill.js";
import { cut, describeRuns, lookMark } from "./runs.js";
import { MOST_PICKED, isLookedAt, loadState, onAddress, pickedRows, saveState } from "./state.js";
import { isDark, runLooks } from "./theme.js";

const MOST_MAPS = 6;
const FIRST_PAINT = "training-health-table"; // a mark in the browser's timeline: the table stands

const SECTIONS = [
  ["glance", "Runs at a glance", "One row per run. Tick the runs to compare; their colours are the same in every chart, and the address in your browser is a link to what you see."],
  ["seeds", "Variants over seeds", "Runs of one variant that differ by their seed, put together."],
  ["findings", "Findings", "What the numbers say, checked against published rules. An alarm names its evidence, its rule and what to try."],
  ["units", "Which neurons are dead", "A unit is one channel of a convolution or one feature of a dense layer. Dead: it fired on none of the n examples of the window, at any position. Rare: it fired, but on less than the monitor's limit, 1% by default. That many outputs are zero (sparsity) is normal for a ReLU and is neither."],
  ["gap", "Is the gap real", "Training accuracy as it is usually shown is measured with dropout on, while the weights still change. Here both sides are measured in eval mode with the same weights, on as many training as validation examples. A gap whose band (its 95% interval) includes 0 is noise."],
  ["weights", "How the weights move", "Update ratio: the norm of one optimiser step's change over the norm of the weights, for the last step of each epoch. Around 1e-3 is healthy; far above, the weights are thrown about; far below, they hardly learn."],
];

let state = null; // known with the first overview
let overview = null;
let shown = ""; // the answer on the page, to tell whether a reload brought anything
let pattern = ""; // what the names of all runs have in common
let alarms = null; // of each run when the reader last looked: a new one is told in the title of the window
let atFirst = null; // names of the runs that the first paint compared
let round = 0; // of rendering: an older one that is still waiting for data gives up

/** Entry point: TensorBoard calls it, a report calls it at its end. */
export async function render() {
  document.documentElement.lang = "en";
  document.title ||= "Training Health";
  if (!isReport) await stylesheet();
  document.body.replaceChildren(...skeleton());
  onTheme(showTheme);
  onReload(refetch);
  (host ?? window).document.addEventListener("visibilitychange", tellAlarms);
  onAddress(() => {
    state = loadState(overview?.folder);
    tellAlarms();
    if (overview) renderAll();
  });
  await refetch();
}

/** Waits for it: the charts take their colours from there. */
function stylesheet() {
  return new Promise((done) => document.head.append(h("link", { rel: "stylesheet", href: "./static/style.css", onload: done, onerror: done })));
}

function showTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  if (overview) renderAll();
}

async function refetch() {
  try {
    const { now, ...fetched } = await get("overview");
    pattern = describeRuns(fetched.runs, now);
    const answer = JSON.stringify(fetched);
    notify("");
    if (answer === shown) return;
    fetched.runs.forEach((row, rank) => (row.rank = rank));
    if (!overview) state = loadState(fetched.folder); // what was picked the last time, of these logs
    [overview, shown] = [fetched, answer];
    if (!atFirst?.length) atFirst = pickedNow().map((row) => row.run);
    tellAlarms();
    await renderAll();
  } catch (error) {
    notify(`The records could not be read: ${error.message}. Press reload to try again.`);
  }
}

/** Counts the alarms that came while nobody looked in the title of the window. */
function tellAlarms() {
  const outer = (host ?? window).document;
  if (!overview) return;
  const count = new Map(overview.runs.map((row) => [row.run, row.alarms]));
  if (!alarms || isLookedAt()) alarms = count;
  const fresh = [...count].reduce((sum, [run, known]) => sum + Math.max(0, known - (alarms.get(run) ?? 0)), 0);
  outer.title = `${fresh ? `(${fresh}) ` : ""}${outer.title.replace(/^\(\d+\) /, "")}`;
}

function update(changes) {
  state = { ...state, ...changes };
  saveState(state, overview.folder);
  if (["sort", "filter", "descending"].some((key) => key in changes)) renderTable(context());
  else return renderAll();
}

/** The rows that are compared. Until someone picks: those of the first paint, for a run that begins later takes no other's place. */
const pickedNow = () => pickedRows(state, overview.runs, atFirst);

function context() {
  const rows = overview.runs;
  const picked = pickedNow();
  return { rows, leftOut: overview.left_out, pattern, picked, looks: runLooks(rows, picked), state, update, goTo };
}

async function renderAll() {
  const mine = ++round;
  const view = context();
  const watched = view.rows.some((row) => row.state === "ok" || row.state === "newer_format");
  const blank = document.getElementById("blank");
  for (const id of ["main", "bar"]) document.getElementById(id).hidden = !watched;
  blank.hidden = watched;
  blank.replaceChildren(...(watched ? [] : [emptyState(view.rows)]));
  if (watched) {
    renderTable(view);
    renderChips(view);
    const table = groupsTable(view);
    for (const part of [document.getElementById("seeds"), document.getElementById("to seeds")]) part.hidden = !table;
    fill("seeds", [table]);
    fill("findings", findingsSection(view));
    await renderCharts(view, mine);
  }
  if (mine === round) document.body.dataset.ready = String(mine);
}

function renderTable(view) {
  fill("glance", [overviewTable(view)]);
  if (!performance.getEntriesByName(FIRST_PAINT).length) performance.mark(FIRST_PAINT);
}

function renderChips({ picked, looks }) {
  const without = (run) => picked.map((row) => row.run).filter((name) => name !== run);
  const chips = picked.map(({ run, label }) =>
    h(
      "span",
      { class: "chip", title: run },
      lookMark(looks.get(run)),
      h("span", { class: "chip-name" }, cut(label)),
      h("button", { type: "button", "aria-label": `Stop comparing ${run}`, onclick: () => update({ runs: without(run) }) }, "×"),
    ),
  );
  refill(document.getElementById("chips"), chips);
}

async function renderCharts(view, mine) {
  if (!view.picked.length) {
    for (const id of ["units", "gap", "weights"]) fill(id, [h("p", { class: "muted" }, "Pick a run above to see its charts.")]);
    return;
  }
  const loaded = await Promise.allSettled(view.picked.map((row) => getOnce("run", row)));
  if (mine !== round) return;
  const failed = loaded.find((result) => result.status === "rejected");
  if (failed) {
    shown = ""; // so that a reload asks again
    notify(`Some runs could not be read: ${failed.reason.message}. Press reload to try again.`);
  }
  const runs = view.picked.map((row, i) => ({ row, data: valueOf(loaded[i]), look: view.looks.get(row.run) })).filter(({ data }) => data);
  const names = siteNames(runs);
  const worst = new Map(names.map((name) => [name, Math.max(...runs.map(({ data }) => deadFraction(siteOf(data, name))))]));
  const site = names.includes(state.site) ? state.site : (worstFirst(names, worst)[0] ?? "");
  const maps = site ? await loadMaps(runs, site) : [];
  if (mine !== round) return;
  const drawn = state.draw === "variants" ? asVariants(runs) : runs;
  const metric = runs.some(({ data }) => data.gap.columns.accuracy_gap.some(isNumber)) ? state.metric : "loss";
  const few = runs.slice(0, MOST_MAPS);
  fill("units", [
    deadList(runs),
    ...totalChart(drawn),
    names.length > 1 && layersPart(runs),
    names.length > 0 && sitePart(drawn, names, worst, site, maps),
    h("div", { class: "pictures" }, filterCharts(few), exampleCharts(few)),
    ...coverage(runs),
  ]);
  fill("gap", [segmented("Measure of the gap", [["accuracy", "Accuracy"], ["loss", "Loss"]], metric, (chosen) => update({ metric: chosen })), ...gapCharts(drawn, metric), classCharts(few)]);
  fill("weights", [...weightCharts(few), signalCharts(few), ofAll(runs)]);
}

const deadFraction = (site) => (site?.dead.length ? site.dead.at(-1) / Math.max(1, site.units - site.nan.at(-1)) : 0);
const worstFirst = (names, worst) => [...names].sort((a, b) => worst.get(b) - worst.get(a));

/** What is said where not every picked run has its map. */
const ofAll = (runs) => runs.length > MOST_MAPS && h("p", { class: "muted" }, `Maps of the first ${MOST_MAPS} of ${runs.length} runs are drawn (${runs.slice(0, MOST_MAPS).map(({ row }) => row.label).join(", ")}). Pick fewer runs to see others.`);

/** All sites at a glance. */
function layersPart(runs) {
  const having = runs.filter(({ data }) => data.sites.length);
  return [
    h("h3", { class: "part" }, "Layer by layer"),
    h("p", { class: "lede" }, "One row per ReLU call, one column per epoch. Beside a name: the value at the last epoch."),
    h(
      "div",
      { class: "controls" },
      segmented("What the map of layers shows", MEASURE_CHOICES, state.measure, (measure) => update({ measure })),
      segmented("Order of the layers", [["worst", "Worst first"], ["forward", "Forward order"]], state.layers, (layers) => update({ layers })),
    ),
    ...layerMaps(having.slice(0, MOST_MAPS), state.measure, state.layers === "worst"),
    ofAll(having),
  ];
}

/** One site: its dead units over epochs and the map of its units. */
function sitePart(drawn, names, worst, site, maps) {
  const select = h(
    "select",
    { id: "site", onchange: (event) => update({ site: event.target.value }) },
    worstFirst(names, worst).map((name) => h("option", { value: name, selected: name === site }, `${name}: ${percent(worst.get(name))} dead`)),
  );
  return [
    h("h3", { class: "part", id: "one-site" }, "Every unit of one layer, every epoch"),
    h("p", { class: "lede" }, "One row per unit, one column per epoch. A unit that fired on none of n examples fires, with 95% confidence, on at most 3/n of all examples: dead is a statement about the window."),
    h(
      "div",
      { class: "controls" },
      h("label", {}, "Layer ", select),
      segmented("Order of the units", [["death", "Sorted by death"], ["index", "By index"]], state.order, (order) => update({ order })),
    ),
    siteChart(drawn, site),
    mapKey(),
    maps,
  ];
}

/** @param {PromiseSettledResult<any>} result */
const valueOf = (result) => (result.status === "fulfilled" ? result.value : undefined);

/** The maps of the runs that have the site, and what is not drawn. */
async function loadMaps(runs, site) {
  const having = runs.filter(({ data }) => siteOf(data, site));
  const drawn = having.slice(0, MOST_MAPS);
  const answers = await Promise.allSettled(drawn.map(({ row }) => getOnce("units", row, site)));
  const loaded = drawn.map((run, i) => ({ ...run, map: valueOf(answers[i]) })).filter(({ map }) => map?.epochs.length);
  const epochSets = loaded.map(({ map }) => map.epochs);
  return [h("div", { class: "grid" }, loaded.map((one) => unitMap({ ...one, site: siteOf(one.data, site), order: state.order, epochSets }))), ofAll(having)];
}

/** Jumps to a section, to what it says of a run if one is named, or to a site's map. */
async function goTo(section, site = "", run = "") {
  const picked = pickedNow().map((row) => row.run);
  if (run && !picked.includes(run)) await update({ runs: [...picked.slice(0, MOST_PICKED - 1), run] });
  if (site && site !== state.site) await update({ site });
  const within = document.getElementById(section);
  const card = run && every(within, "[data-finding], [data-fold]").find(({ dataset }) => [dataset.finding, dataset.fold].some((name) => name === run || name === `dead ${run}`));
  const fold = card?.tagName === "DETAILS";
  if (fold) card.open = true;
  const target = site ? (document.getElementById("one-site") ?? within) : (card || within);
  target.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
  if (card) (fold ? card.querySelector("summary") : card).focus({ preventScroll: true });
}

function skeleton() {
  const nav = SECTIONS.map(([id, title]) => h("button", { type: "button", class: "nav", id: `to ${id}`, onclick: () => goTo(id) }, title));
  // in TensorBoard the browser's own command prints the part of this page that is on the screen
  const print = h("button", { type: "button", class: "quiet push", onclick: () => window.print() }, "Print");
  const toggle = isReport && h("button", { type: "button", class: "quiet", onclick: () => showTheme(!isDark()) }, "Light / dark");
  return [
    h("header", { id: "bar", hidden: true }, h("div", { class: "bar-row" }, h("h1", {}, "Training Health"), h("nav", { "aria-label": "Sections" }, nav), print, toggle), h("div", { id: "chips", role: "group", "aria-label": "Picked runs" })),
    h("div", { id: "notice", role: "alert", hidden: true }),
    h("div", { id: "blank", hidden: true }),
    h("main", { id: "main", hidden: true }, SECTIONS.map(([id, title, lede]) => h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), h("p", { class: "lede" }, lede), h("div", { class: "content" })))),
  ];
}

const fill = (id, children) => refill(document.querySelector(`#${id} > .content`), children);

function notify(message) {
  const box = document.getElementById("notice");
  box.hidden = !message;
  box.textContent = message;
}
