// @ts-check
// Runs at a glance, one row each, with the check boxes that pick what is compared; below, the findings of those.

import { NONE, h, isNumber, percent, points, sampleSize, whole, withCode } from "./dom.js";
import { wordsOf } from "./gap.js";
import { bestByDataset, breakable, cut, lookMark, verdictOf } from "./runs.js";
import { MOST_PICKED } from "./state.js";

const VERDICT_MARKS = { critical: "✕", warning: "!", notice: "i", healthy: "✓", unknown: "?" }; // worst first

const WORDS = { critical: "Critical", warning: "Warning", notice: "Notice", info: "Explained" };
const LINKS = { units: "See dead units", gap: "See the gap", weights: "See the weights" };

// of runs without records, by what `describeRuns` found
const NO_RECORDS = {
  "": "No monitors: this run logged no training-health records.",
  begun: "No training-health record yet: the run has just begun, or it has no monitors.",
  empty: "Nothing measured yet: the run has just begun, or it ended before it logged a number.",
};

const LINES = `from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor
trainer = pl.Trainer(callbacks=[DeadReLUMonitor(), TrainValGapMonitor(), WeightHistogramMonitor()])
trainer.fit(model, datamodule)`;

const COLUMNS = [
  { key: "run", title: "Run", value: (row) => row.rank, cell: runCell },
  { key: "verdict", title: "Verdict", value: (row) => Object.keys(VERDICT_MARKS).indexOf(verdictOf(row).level), cell: verdictCell, help: "The worst finding. Press it to read what was seen and what to try" },
  { key: "dead", title: "Dead units", number: true, value: (row) => row.dead_fraction, cell: deadCell, help: "Units that fired on none of the n examples of the last epoch's window. Press a number to see which, since when and why" },
  { key: "gap", title: "Gap (95%)", number: true, value: (row) => row.gap ?? row.loss_gap, cell: gapCell, help: "Training minus validation accuracy in eval mode, percentage points ± half of the 95% interval; without an accuracy, validation minus training loss. Noise: the interval includes 0" },
  { key: "val", title: "Val. accuracy", number: true, value: (row) => row.val_accuracy, cell: valCell, help: "At the last epoch; the loss where there is no accuracy. Highest: of the runs on the same dataset" },
  { key: "test", title: "Test accuracy", number: true, value: (row) => row.test_accuracy, cell: (row) => percent(row.test_accuracy, 2), help: "Of the best checkpoint, measured once at the end" },
  { key: "epochs", title: "Epochs", number: true, value: (row) => row.epochs, cell: epochsCell, help: "Epochs done, of those planned" },
  { key: "variant", title: "Variant", text: (row) => row.variant, value: (row) => row.variant, cell: variantCell },
  { key: "dataset", title: "Dataset", text: (row) => row.dataset, value: (row) => row.dataset, cell: (row) => row.dataset || NONE },
  { key: "seed", title: "Seed", number: true, text: (row) => (isNumber(row.seed) ? String(row.seed) : ""), value: (row) => row.seed, cell: (row) => (isNumber(row.seed) ? String(row.seed) : NONE) },
];

/** The columns that tell runs apart, and in words what the others say. */
function columnsOf(rows, pattern) {
  const known = rows.filter((row) => row.state === "ok");
  const same = (text) => known.every((row) => text(row) === text(known[0]));
  const inName = (text) => known.every((row) => row.label.split("/").includes(text(row)));
  const folded = known.length ? COLUMNS.filter(({ text }) => text && (same(text) || inName(text))) : [];
  const facts = folded.filter(({ text }) => same(text) && text(known[0])).map(({ title, text }) => `${title.toLowerCase()} ${text(known[0])}`);
  if (pattern) facts.push(`names ${pattern}`);
  return { columns: COLUMNS.filter((column) => !folded.includes(column)), common: facts.length ? `${known.length > 1 ? "All runs" : "This run"}: ${facts.join(", ")}.` : "" };
}

/** `view`: {rows, leftOut, pattern, picked, looks, state, update(changes), goTo(section, site, run)}. */
export function overviewTable(view) {
  const { rows, leftOut, pattern, picked, state, update } = view;
  const { columns, common } = columnsOf(rows, pattern);
  const best = bestByDataset(rows, (row) => row.dataset, (row) => row.val_accuracy);
  const pickedNames = new Set(picked.map((row) => row.run));
  const pickThose = (wanted) => update({ runs: rows.filter(wanted).map((row) => row.run) });
  const pick = (run, checked) => pickThose((row) => (row.run === run ? checked : pickedNames.has(row.run)));
  const shown = sorted(rows.filter((row) => matches(row, state.filter)), state);
  const button = (text, wanted) => h("button", { type: "button", class: "quiet", onclick: () => pickThose(wanted) }, text);
  const head = h("tr", {}, h("th", { class: "pick", scope: "col" }, h("span", { class: "only-read" }, "Picked")), columns.map((column) => header(column, state, update)));
  return h(
    "div",
    { class: "card wide" },
    h(
      "div",
      { class: "table-tools" },
      h("input", {
        type: "search",
        id: "filter",
        placeholder: "Filter runs",
        "aria-label": "Show only runs whose name, variant or verdict contains",
        value: state.filter,
        oninput: (event) => update({ filter: event.target.value }),
      }),
      button("Pick all shown", (row) => row.state === "ok" && shown.includes(row)),
      button("Pick none", () => false),
      h("span", { class: "muted push" }, `${pickedNames.size} of ${rows.length} runs picked${pickedNames.size >= MOST_PICKED ? ", the most that are compared" : ""}`),
    ),
    h(
      "div",
      { class: "scroll overview", tabindex: "0", role: "region", "aria-label": "Table of the runs" },
      h("table", { id: "runs" }, h("thead", {}, head), h("tbody", {}, shown.map((row) => tableRow(row, columns, pick, { ...view, best, pickedNames })))),
    ),
    common && h("p", { class: "muted common" }, common),
    leftOut > 0 && h("p", { class: "muted" }, `${leftOut} older runs are left out. Point --logdir at fewer of them to see the rest.`),
  );
}

function header(column, state, update) {
  const active = state.sort === column.key;
  const direction = active ? (state.descending ? "descending" : "ascending") : "none";
  const sort = () => update({ sort: column.key, descending: active ? !state.descending : column.number === true });
  return h(
    "th",
    { scope: "col", "aria-sort": direction, class: `${column.key}${column.number ? " number" : ""}` },
    h(
      "button",
      { type: "button", class: "sort", id: `sort ${column.key}`, title: column.help ?? `Sort by ${column.title}`, data: { sort: column.key }, onclick: sort },
      column.title,
      h("span", { class: "arrow", "aria-hidden": "true" }, { ascending: "▴", descending: "▾", none: "" }[direction]),
    ),
  );
}

function tableRow(row, columns, pick, view) {
  const drawable = row.state === "ok";
  const look = view.looks.get(row.run);
  const box = h("input", { type: "checkbox", id: `pick ${row.run}`, "aria-label": `Compare ${row.run}`, checked: view.pickedNames.has(row.run), disabled: !drawable, data: { pick: row.run }, onchange: (event) => pick(row.run, event.target.checked) });
  const picked = h("td", { class: "pick" }, box, look && lookMark(look));
  if (!drawable) {
    const why = row.state === "no_monitors" ? NO_RECORDS[row.fresh] : row.message;
    const measured = isNumber(row.val_accuracy) ? ` Validation accuracy ${percent(row.val_accuracy, 2)}.` : isNumber(row.val_loss) ? ` Validation loss ${short(row.val_loss)}.` : "";
    return h("tr", { class: "silent", data: { run: row.run } }, picked, h("td", { class: "run" }, breakable(row.run)), h("td", { colspan: columns.length - 1 }, why + measured));
  }
  return h("tr", { data: { run: row.run } }, picked, columns.map((column) => h("td", { class: `${column.key}${column.number ? " number" : ""}` }, column.cell(row, view))));
}

function runCell(row) {
  return h("span", { title: row.message ? `${row.run}: ${row.message}` : row.run }, breakable(cut(row.label)), row.message && h("span", { class: "muted" }, " (partly unreadable)"));
}

function verdictCell(row, { goTo }) {
  return h("button", { type: "button", "aria-label": `Findings of ${row.run}: ${verdictOf(row).words}`, onclick: () => goTo("findings", "", row.run) }, verdictPill(row));
}

function variantCell(row) {
  const facts = [row.optimizer, isNumber(row.learning_rate) && `learning rate ${row.learning_rate}`, isNumber(row.parameters) && `${whole(row.parameters)} parameters`];
  return h("span", { title: facts.filter(Boolean).join(", ") }, row.variant || NONE);
}

function epochsCell(row) {
  const planned = isNumber(row.max_epochs) && row.max_epochs > 0 ? ` / ${row.max_epochs}` : "";
  return [String(row.epochs ?? 0), h("span", { class: "muted" }, planned), row.progress && h("span", { class: `progress ${row.progress}` }, ` ${row.progress}`)];
}

function deadCell(row, { goTo }) {
  const broken = row.nan > 0 ? h("span", { class: "muted" }, ` ${whole(row.nan)} NaN`) : "";
  if (!isNumber(row.dead_fraction)) return [NONE, broken];
  return h(
    "button",
    { type: "button", class: "bar-cell", onclick: () => goTo("units", "", row.run), "aria-label": `Dead units of ${row.run}: ${percent(row.dead_fraction)}`, title: `${whole(row.dead)} of ${whole(row.units - row.nan)} units, ${sampleSize(row.n)}` },
    h("span", { class: "bar", "aria-hidden": "true" }, h("span", { style: { width: `${Math.min(100, 100 * row.dead_fraction)}%` } })),
    h("span", { class: "bar-number" }, percent(row.dead_fraction)),
    broken,
  );
}

function gapCell(row) {
  const margin = (value, text) => h("span", { class: "muted" }, isNumber(value) ? ` ± ${text(value)}` : "");
  const word = (gap, noise) => h("span", { class: "gap-word" }, isNumber(noise) ? ` ${wordsOf(gap, noise)}` : "");
  if (isNumber(row.gap)) return [points(row.gap), margin(row.gap_margin, (value) => (100 * value).toFixed(1)), word(row.gap, row.gap_margin)];
  return isNumber(row.loss_gap) ? ["loss ", short(row.loss_gap), margin(row.loss_gap_margin, short), word(row.loss_gap, row.loss_gap_margin)] : NONE;
}

function valCell(row, { best }) {
  if (!isNumber(row.val_accuracy) && isNumber(row.val_loss)) return `loss ${short(row.val_loss)}`;
  const highest = best.get(row.dataset);
  if (!highest || !isNumber(row.val_accuracy)) return percent(row.val_accuracy, 2);
  if (row.val_accuracy === highest.val_accuracy) return [h("span", { class: "best" }, "highest "), h("strong", {}, percent(row.val_accuracy, 2))];
  const variance = [row, highest].map(({ val_accuracy: p, n_val: n }) => (n ? (p * (1 - p)) / n : NaN));
  const near = highest.val_accuracy - row.val_accuracy <= 2 * Math.sqrt(variance[0] + variance[1]);
  return [near && h("span", { class: "best", title: `Within 2 standard errors of the highest, n = ${row.n_val}` }, "≈ "), percent(row.val_accuracy, 2)];
}

const short = (value) => String(Number(value.toPrecision(3)));

function verdictPill(row) {
  const { level, words } = verdictOf(row);
  return h("span", { class: `pill ${level}` }, h("span", { class: "mark", "aria-hidden": "true" }, VERDICT_MARKS[level]), words);
}

function matches(row, filter) {
  const wanted = filter.trim().toLowerCase();
  return !wanted || [row.run, row.variant, row.dataset, row.progress, verdictOf(row).words].some((text) => text.toLowerCase().includes(wanted));
}

/** Rows by the chosen column; rows without a value come last either way, equal ones keep their natural order (a sort is stable). */
function sorted(rows, state) {
  const column = COLUMNS.find((c) => c.key === state.sort) ?? COLUMNS[0];
  const known = (row) => row.state === "ok" && column.value(row) !== null && column.value(row) !== "";
  const sign = state.descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    if (!known(a) || !known(b)) return Number(known(b)) - Number(known(a));
    const [x, y] = [column.value(a), column.value(b)];
    return sign * (x < y ? -1 : x > y ? 1 : 0);
  });
}

/** Plain sentences with their evidence, the rule behind them, and what to try: the worst run first. */
export function findingsSection({ rows, picked, looks, update, goTo }) {
  const rank = (row) => Object.keys(VERDICT_MARKS).indexOf(verdictOf(row).level);
  const worstFirst = [...picked].sort((a, b) => rank(a) - rank(b) || b.alarms - a.alarms);
  // apart, for long cards beside short ones leave holes
  const groups = [true, false].map((found) => worstFirst.filter((row) => row.findings.some(isOpen) === found).map((row) => runFindings(row, looks.get(row.run), goTo)));
  return [
    alarmsElsewhere(rows, picked, update),
    groups.filter((cards) => cards.length).map((cards) => h("div", { class: "run-list" }, cards)),
    !picked.length && h("p", { class: "muted" }, "Pick a run to read its findings."),
  ];
}

const isOpen = (finding) => finding.severity !== "info";

function runFindings(row, look, goTo) {
  const open = row.findings.filter(isOpen);
  const explained = row.findings.filter((finding) => !isOpen(finding));
  return h(
    "article",
    { class: ["card", "card found", "card double"][Math.min(open.length, 2)], tabindex: "-1", data: { run: row.run, finding: row.run } },
    h("div", { class: "run-title" }, lookMark(look), h("h3", { title: row.run }, cut(row.label)), verdictPill(row)),
    row.progress === "stalled" && h("p", {}, `No record for a long time, and ${row.epochs ?? 0} of ${row.max_epochs} epochs done: killed, or waiting. The findings are of what it left.`),
    row.message && h("p", { class: "muted" }, row.message),
    open.length > 0 && h("div", { class: "findings" }, open.map((finding) => findingCard(finding, goTo))),
    open.length === 0 && h("p", { class: "muted" }, row.epochs ? "No alarm: every rule was checked and none fired." : "No epoch has been recorded yet."),
    explained.filter(({ rule }) => rule === "gap_in_words").map(({ title, evidence }) => h("p", {}, h("strong", {}, `${title}. `), withCode(evidence))),
    explained.length > 0 &&
      h(
        "details",
        { data: { fold: `explained ${row.run}` } },
        h("summary", {}, `Explained: ${explained.map((finding) => finding.title).join("; ")}`),
        h("div", { class: "findings" }, explained.map((finding) => findingCard(finding, goTo))),
      ),
  );
}

function findingCard(finding, goTo) {
  return h(
    "section",
    { class: `finding ${finding.severity}`, data: { rule: finding.rule } },
    h("header", {}, h("span", { class: `pill ${finding.severity}` }, WORDS[finding.severity]), h("h4", {}, finding.title)),
    h("p", { class: "evidence" }, withCode(finding.evidence)),
    finding.advice.length > 0 && h("div", { class: "advice" }, h("strong", {}, "Try"), h("ul", {}, finding.advice.map((advice) => h("li", {}, withCode(advice))))),
    h("p", { class: "rule" }, h("strong", {}, "Rule "), finding.threshold, " ", h("span", { class: "source" }, `Source: ${finding.source}.`)),
    h("button", { type: "button", class: "link", onclick: () => goTo(finding.section, finding.site) }, LINKS[finding.section]),
  );
}

function alarmsElsewhere(rows, picked, update) {
  const names = new Set(picked.map((row) => row.run));
  const others = rows.filter((row) => row.state === "ok" && !names.has(row.run) && row.alarms > 0);
  if (!others.length) return null;
  const add = () => update({ runs: rows.filter((row) => names.has(row.run) || others.includes(row)).map((row) => row.run) });
  return h(
    "p",
    { class: "muted" },
    others.length === 1 ? "1 run that is not picked has an alarm. " : `${others.length} runs that are not picked have alarms. `,
    h("button", { type: "button", class: "link", onclick: add }, "Pick them too"),
  );
}

/** Nothing to show yet: what would fill the page. */
export function emptyState(rows) {
  const found = `TensorBoard found ${rows.length === 1 ? "1 run" : `${rows.length} runs`} here`;
  const fresh = rows.filter((row) => row.fresh).length;
  const foreign = !rows.length ? "TensorBoard has found no run here yet." : fresh ? `${found}; ${fresh < rows.length ? `${fresh} of them` : fresh > 1 ? "they" : "it"} may have just begun.` : `${found}, but none was logged with the monitors.`;
  return h(
    "div",
    { class: "empty" },
    h("h2", {}, "No training-health records yet"),
    h("p", {}, foreign, " Three lines fill this page:"),
    h("pre", { tabindex: "0" }, h("code", {}, LINES)),
    h(
      "ul",
      {},
      h("li", {}, h("strong", {}, "Dead units: "), "which neurons fired on none of the validation examples, and since when."),
      h("li", {}, h("strong", {}, "An honest gap: "), "training and validation accuracy, both in eval mode with the same weights, with an error bar."),
      h("li", {}, h("strong", {}, "Weights in motion: "), "how far one step moves each parameter, and whether any number is no number."),
    ),
    h("p", { class: "muted" }, "The first records arrive at the end of the first epoch. Then press TensorBoard's reload button, or switch on its automatic reload."),
  );
}
