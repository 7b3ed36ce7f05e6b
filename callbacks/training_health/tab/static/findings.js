// Findings: plain sentences with their evidence, the rule behind them, and what to try.

import { h, withCode } from "./dom.js";
import { verdictPill } from "./overview.js";

const WORDS = { critical: "Critical", warning: "Warning", notice: "Notice", info: "Explained" };
const LINKS = { units: "See dead units", gap: "See the gap", weights: "See the weights" };

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
