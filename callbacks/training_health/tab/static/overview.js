// Runs at a glance, one row each, with the check boxes that pick what is compared; below, the findings of those.

import { NONE, h, isNumber, percent, points, sampleSize, whole, withCode } from "./dom.js";
import { MOST_PICKED } from "./state.js";

const VERDICT_MARKS = { critical: "✕", warning: "!", notice: "i", healthy: "✓", unknown: "?" }; // worst first

const WORDS = { critical: "Critical", warning: "Warning", notice: "Notice", info: "Explained" };
const LINKS = { units: "See dead units", gap: "See the gap", weights: "See the weights" };

const LINES = `from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor
trainer = pl.Trainer(callbacks=[DeadReLUMonitor(), TrainValGapMonitor(), WeightHistogramMonitor()])
trainer.fit(model, datamodule)`;

const COLUMNS = [
  { key: "run", title: "Run", value: (row) => row.rank, cell: runCell },
  { key: "variant", title: "Variant", value: (row) => row.variant, cell: variantCell },
  { key: "dataset", title: "Dataset", value: (row) => row.dataset, cell: (row) => row.dataset || NONE },
  { key: "seed", title: "Seed", number: true, value: (row) => row.seed, cell: (row) => (isNumber(row.seed) ? String(row.seed) : NONE) },
  { key: "epochs", title: "Epochs", number: true, value: (row) => row.epochs, cell: epochsCell, help: "Epochs done, of those planned" },
  { key: "dead", title: "Dead units", number: true, value: (row) => row.dead_fraction, cell: deadCell, help: "Units that fired on none of the n examples of the last epoch's window" },
  { key: "gap", title: "Gap ± 2 SE", number: true, value: (row) => row.gap ?? row.loss_gap, cell: gapCell, help: "Training minus validation accuracy in eval mode, percentage points ± 2 standard errors (95%); without an accuracy, validation minus training loss" },
  { key: "val", title: "Val. accuracy", number: true, value: (row) => row.val_accuracy, cell: valCell, help: "At the last epoch; the loss where there is no accuracy" },
  { key: "test", title: "Test accuracy", number: true, value: (row) => row.test_accuracy, cell: (row) => percent(row.test_accuracy, 2), help: "Of the best checkpoint, measured once at the end" },
  { key: "verdict", title: "Verdict", value: (row) => Object.keys(VERDICT_MARKS).indexOf(row.verdict.level), cell: (row) => verdictPill(row) },
];

/** `view`: {rows, leftOut, picked, looks, state, update(changes)}. */
export function overviewTable({ rows, leftOut, picked, looks, state, update }) {
  const pickedNames = new Set(picked.map((row) => row.run));
  const pickThose = (wanted) => update({ runs: rows.filter(wanted).map((row) => row.run) });
  const pick = (run, checked) => pickThose((row) => (row.run === run ? checked : pickedNames.has(row.run)));
  const shown = sorted(rows.filter((row) => matches(row, state.filter)), state);
  const button = (text, wanted) => h("button", { type: "button", class: "quiet", onclick: () => pickThose(wanted) }, text);
  const head = h("tr", {}, h("th", { class: "pick", scope: "col" }, h("span", { class: "only-read" }, "Picked")), COLUMNS.map((column) => header(column, state, update)));
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
      h("table", { id: "runs" }, h("thead", {}, head), h("tbody", {}, shown.map((row) => tableRow(row, pickedNames, looks, pick)))),
    ),
    leftOut > 0 && h("p", { class: "muted" }, `${leftOut} older runs are left out. Point --logdir at fewer of them to see the rest.`),
  );
}

function header(column, state, update) {
  const active = state.sort === column.key;
  const direction = active ? (state.descending ? "descending" : "ascending") : "none";
  const sort = () => update({ sort: column.key, descending: active ? !state.descending : column.number === true });
  return h(
    "th",
    { scope: "col", "aria-sort": direction, class: column.number ? "number" : "" },
    h(
      "button",
      { type: "button", class: "sort", id: `sort ${column.key}`, title: column.help ?? `Sort by ${column.title}`, data: { sort: column.key }, onclick: sort },
      column.title,
      h("span", { class: "arrow", "aria-hidden": "true" }, { ascending: "▴", descending: "▾", none: "" }[direction]),
    ),
  );
}

function tableRow(row, pickedNames, looks, pick) {
  const drawable = row.state === "ok";
  const checked = pickedNames.has(row.run);
  const box = h("input", { type: "checkbox", id: `pick ${row.run}`, "aria-label": `Compare ${row.run}`, checked, disabled: !drawable, data: { pick: row.run }, onchange: (event) => pick(row.run, event.target.checked) });
  const swatch = h("span", { class: "swatch", style: { background: looks.get(row.run)?.colour ?? "transparent" } });
  if (!drawable) {
    const why = row.state === "no_monitors" ? "No monitors: this run logged no training-health records." : row.message;
    const measured = isNumber(row.val_accuracy) ? ` Validation accuracy ${percent(row.val_accuracy, 2)}.` : isNumber(row.val_loss) ? ` Validation loss ${short(row.val_loss)}.` : "";
    return h("tr", { class: "silent", data: { run: row.run } }, h("td", { class: "pick" }, box), h("td", { class: "run" }, row.run), h("td", { colspan: COLUMNS.length - 1 }, why + measured));
  }
  const cells = COLUMNS.map((column) => h("td", { class: `${column.key}${column.number ? " number" : ""}` }, column.cell(row)));
  return h("tr", { data: { run: row.run } }, h("td", { class: "pick" }, box, swatch), cells);
}

function runCell(row) {
  return h("span", { title: row.message ? `${row.run}: ${row.message}` : row.run }, row.run, row.message && h("span", { class: "muted" }, " (partly unreadable)"));
}

function variantCell(row) {
  const facts = [row.optimizer, isNumber(row.learning_rate) && `learning rate ${row.learning_rate}`, isNumber(row.parameters) && `${whole(row.parameters)} parameters`];
  return h("span", { title: facts.filter(Boolean).join(", ") }, row.variant || NONE);
}

function epochsCell(row) {
  if (!isNumber(row.epochs)) return NONE;
  const planned = isNumber(row.max_epochs) && row.max_epochs > 0 ? ` / ${row.max_epochs}` : "";
  const early = !row.finished && isNumber(row.max_epochs) && row.max_epochs > row.epochs;
  return h("span", { title: early ? "Still going, or stopped before the end" : "" }, String(row.epochs), h("span", { class: "muted" }, planned), early && h("span", { class: "going", "aria-label": "not finished" }, " ◔"));
}

function deadCell(row) {
  const broken = row.nan > 0 ? h("span", { class: "muted" }, ` ${whole(row.nan)} NaN`) : "";
  if (!isNumber(row.dead_fraction)) return [NONE, broken];
  return h(
    "span",
    { class: "bar-cell", title: `${whole(row.dead)} of ${whole(row.units - row.nan)} units, ${sampleSize(row.n)}` },
    h("span", { class: "bar", "aria-hidden": "true" }, h("span", { style: { width: `${Math.min(100, 100 * row.dead_fraction)}%` } })),
    h("span", {}, percent(row.dead_fraction), broken),
  );
}

function gapCell(row) {
  const margin = (value, text) => h("span", { class: "muted" }, isNumber(value) ? ` ± ${text(value)}` : "");
  if (isNumber(row.gap)) return [points(row.gap), margin(row.gap_margin, (value) => (100 * value).toFixed(1))];
  return isNumber(row.loss_gap) ? ["loss ", short(row.loss_gap), margin(row.loss_gap_margin, short)] : NONE;
}

function valCell(row) {
  return isNumber(row.val_accuracy) || !isNumber(row.val_loss) ? percent(row.val_accuracy, 2) : `loss ${short(row.val_loss)}`;
}

const short = (value) => String(Number(value.toPrecision(3)));

function verdictPill(row) {
  const { level, words } = row.verdict;
  return h("span", { class: `pill ${level}` }, h("span", { class: "mark", "aria-hidden": "true" }, VERDICT_MARKS[level]), words);
}

function matches(row, filter) {
  const wanted = filter.trim().toLowerCase();
  return !wanted || [row.run, row.variant, row.dataset, row.verdict.words].some((text) => text.toLowerCase().includes(wanted));
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

/** Plain sentences with their evidence, the rule behind them, and what to try. */
export function findingsSection({ rows, picked, looks, update, goTo }) {
  const groups = picked.map((row) => runFindings(row, looks.get(row.run).colour, goTo));
  return [alarmsElsewhere(rows, picked, update), groups.length ? h("div", { class: "run-list" }, groups) : h("p", { class: "muted" }, "Pick a run to read its findings.")];
}

function runFindings(row, colour, goTo) {
  const open = row.findings.filter((finding) => finding.severity !== "info");
  const explained = row.findings.filter((finding) => finding.severity === "info");
  return h(
    "article",
    { class: open.length > 1 ? "card double" : "card", data: { run: row.run } },
    h("div", { class: "run-title" }, h("span", { class: "swatch", style: { background: colour } }), h("h3", {}, row.run), verdictPill(row)),
    open.length > 0 && h("div", { class: "findings" }, open.map((finding) => findingCard(finding, goTo))),
    open.length === 0 && h("p", { class: "muted" }, row.epochs ? "No alarm: every rule was checked and none fired." : "No epoch has been recorded yet."),
    explained.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, explained.length === 1 ? "1 number explained" : `${explained.length} numbers explained`),
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
  const foreign = rows.length
    ? `TensorBoard found ${rows.length === 1 ? "1 run" : `${rows.length} runs`} here, but none was logged with the monitors.`
    : "TensorBoard has found no run here yet.";
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
