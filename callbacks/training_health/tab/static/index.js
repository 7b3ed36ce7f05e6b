// The page: fetches, keeps the reader's choices, and puts the sections together.

import { dispose } from "./chart.js";
import { deadUnitsCharts, siteNames, siteOf } from "./dead_units.js";
import { h, isNumber, segmented } from "./dom.js";
import { gapCharts } from "./gap.js";
import { get, getOnce, isReport, onReload, onTheme } from "./host.js";
import { mapKey, unitMap, weightCharts } from "./maps.js";
import { emptyState, findingsSection, overviewTable } from "./overview.js";
import { loadState, onAddress, pickedRows, saveState } from "./state.js";
import { isDark, runLooks } from "./theme.js";

const MOST_MAPS = 6;
const FIRST_PAINT = "training-health-table"; // a mark in the browser's timeline: the table stands

const SECTIONS = [
  ["glance", "Runs at a glance", "One row per run. Tick the runs to compare; their colours are the same in every chart, and the address in your browser is a link to what you see."],
  ["findings", "Findings", "What the numbers say, checked against published rules. An alarm names its evidence, its rule and what to try."],
  ["units", "Which neurons are dead", "A unit is one channel of a convolution or one feature of a dense layer. Dead: it fired on none of the n examples of the window, at any position. Rare: it fired, but on less than 1%. That many outputs are zero (sparsity) is normal for a ReLU and is neither."],
  ["gap", "Is the gap real", "Training accuracy as it is usually shown is measured with dropout on, while the weights still change. Here both sides are measured in eval mode with the same weights, on as many training as validation examples. A gap whose band (± 2 standard errors, 95%) includes 0 is noise."],
  ["weights", "How the weights move", "Update ratio: the norm of one optimiser step's change over the norm of the weights, for the last step of each epoch. Around 1e-3 is healthy; far above, the weights are thrown about; far below, they hardly learn."],
];

let state = null; // known with the first overview
let overview = null;
let shown = ""; // the answer on the page, to tell whether a reload brought anything
let round = 0; // of rendering: an older one that is still waiting for data gives up

/** Entry point: TensorBoard calls it, a report calls it at its end. */
export async function render() {
  document.documentElement.lang = "en";
  document.title ||= "Training Health";
  if (!isReport) await stylesheet();
  document.body.replaceChildren(...skeleton());
  onTheme(showTheme);
  onReload(refetch);
  onAddress(() => {
    state = loadState(overview?.folder);
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
    const fetched = await get("overview");
    const answer = JSON.stringify(fetched);
    notify("");
    if (answer === shown) return; // charts keep their zoom, the page its scroll position
    fetched.runs.forEach((row, rank) => (row.rank = rank));
    if (!overview) state = loadState(fetched.folder); // what was picked the last time, of these logs
    [overview, shown] = [fetched, answer];
    await renderAll();
  } catch (error) {
    notify(`The records could not be read: ${error.message}. Press reload to try again.`);
  }
}

function update(changes) {
  state = { ...state, ...changes };
  saveState(state, overview.folder);
  if (["sort", "filter", "descending"].some((key) => key in changes)) renderTable(context());
  else renderAll();
}

function context() {
  const rows = overview.runs;
  const picked = pickedRows(state, rows);
  return { rows, leftOut: overview.left_out, picked, looks: runLooks(rows, picked), state, update, goTo };
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
    fill("findings", findingsSection(view));
    await renderCharts(view, mine);
  }
  if (mine === round) document.body.dataset.ready = String(mine);
}

function renderTable(view) {
  const scrolled = document.querySelector(".overview")?.scrollTop ?? 0;
  fill("glance", [overviewTable(view)]);
  document.querySelector(".overview").scrollTop = scrolled;
  if (!performance.getEntriesByName(FIRST_PAINT).length) performance.mark(FIRST_PAINT);
}

function renderChips({ picked, looks }) {
  const without = (run) => picked.map((row) => row.run).filter((name) => name !== run);
  const chips = picked.map(({ run }) =>
    h(
      "span",
      { class: "chip", title: run },
      h("span", { class: "swatch", style: { background: looks.get(run).colour } }),
      h("span", { class: "chip-name" }, run),
      h("button", { type: "button", "aria-label": `Stop comparing ${run}`, onclick: () => update({ runs: without(run) }) }, "×"),
    ),
  );
  document.getElementById("chips").replaceChildren(...chips);
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
  const runs = view.picked.map((row, i) => ({ row, data: loaded[i].value, look: view.looks.get(row.run) })).filter(({ data }) => data);
  const names = siteNames(runs);
  const metric = runs.some(({ data }) => data.gap.columns.accuracy_gap.some(isNumber)) ? state.metric : "loss";
  const site = names.includes(state.site) ? state.site : (names.at(-1) ?? "");
  const mapBox = h("div", { class: "maps-box" });
  fill("units", [...deadUnitsCharts(runs), names.length > 0 && mapHeader(names, site), mapBox]);
  fill("gap", [segmented("Measure of the gap", [["accuracy", "Accuracy"], ["loss", "Loss"]], metric, (chosen) => update({ metric: chosen })), ...gapCharts(runs, metric)]);
  fill("weights", weightCharts(runs));
  if (site) await renderMaps(runs, site, mapBox, mine);
}

function mapHeader(names, site) {
  return h(
    "div",
    { class: "map-header" },
    h("h3", {}, "Every unit, every epoch"),
    h("p", { class: "lede" }, "One row per unit, one column per epoch. A unit that fired on none of n examples fires, with 95% confidence, on at most 3/n of all examples: dead is a statement about the window."),
    h(
      "div",
      { class: "controls" },
      segmented("Site of the map", names.map((name) => [name, name]), site, (chosen) => update({ site: chosen })),
      segmented("Order of the units", [["death", "Sorted by death"], ["index", "By index"]], state.order, (order) => update({ order })),
    ),
    mapKey(),
  );
}

async function renderMaps(runs, site, box, mine) {
  const having = runs.filter(({ data }) => siteOf(data, site));
  const drawn = having.slice(0, MOST_MAPS);
  const maps = await Promise.allSettled(drawn.map(({ row }) => getOnce("units", row, site)));
  if (mine !== round) return;
  const loaded = drawn.map((run, i) => ({ ...run, map: maps[i].value, order: state.order })).filter(({ map }) => map?.epochs.length);
  const epochSets = loaded.map(({ map }) => map.epochs);
  box.replaceChildren(
    h("div", { class: "grid large" }, loaded.map((one) => unitMap({ ...one, epochSets }))),
    ...(having.length > drawn.length ? [h("p", { class: "muted" }, `The first ${drawn.length} of ${having.length} picked runs are drawn.`)] : []),
  );
}

/** Jumps to a section; to a site's map if one is named. */
function goTo(section, site = "") {
  if (site && site !== state.site) update({ site });
  document.getElementById(section).scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
}

function skeleton() {
  const nav = SECTIONS.map(([id, title]) => h("button", { type: "button", class: "nav", onclick: () => goTo(id) }, title));
  const toggle = isReport && h("button", { type: "button", class: "quiet push", onclick: () => showTheme(!isDark()) }, "Light / dark");
  return [
    h("header", { id: "bar", hidden: true }, h("div", { class: "bar-row" }, h("h1", {}, "Training Health"), h("nav", { "aria-label": "Sections" }, nav), toggle), h("div", { id: "chips", role: "group", "aria-label": "Picked runs" })),
    h("div", { id: "notice", role: "alert", hidden: true }),
    h("div", { id: "blank", hidden: true }),
    h("main", { id: "main", hidden: true }, SECTIONS.map(([id, title, lede]) => h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), h("p", { class: "lede" }, lede), h("div", { class: "content" })))),
  ];
}

/** Puts new children into a section; the control that had the focus, known by its id, has it again. */
function fill(id, children) {
  const content = document.querySelector(`#${id} > .content`);
  const focused = content.contains(document.activeElement) ? document.activeElement.id : "";
  dispose(content);
  content.replaceChildren(...children.flat(Infinity).filter(Boolean));
  const target = focused && document.getElementById(focused);
  if (!target) return;
  target.focus({ preventScroll: true });
  if (target.type === "search") target.setSelectionRange(target.value.length, target.value.length);
}

function notify(message) {
  const box = document.getElementById("notice");
  box.hidden = !message;
  box.textContent = message;
}
