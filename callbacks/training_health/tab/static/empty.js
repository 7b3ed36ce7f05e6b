// Nothing to show yet: say what would fill the page.

import { h } from "./dom.js";

const LINES = `from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor
trainer = pl.Trainer(callbacks=[DeadReLUMonitor(), TrainValGapMonitor(), WeightHistogramMonitor()])
trainer.fit(model, datamodule)`;

export function emptyState(rows) {
  const foreign = rows.length
    ? `TensorBoard found ${rows.length === 1 ? "1 run" : `${rows.length} runs`} here, but none was logged with the monitors.`
    : "TensorBoard has found no run here yet.";
  const copied = h("span", { class: "muted", role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(LINES);
      copied.textContent = "Copied.";
    } catch {
      copied.textContent = "Select the lines to copy them.";
    }
  };
  return h(
    "div",
    { class: "empty" },
    h("h2", {}, "No training-health records yet"),
    h("p", {}, foreign, " Three lines fill this page:"),
    h("pre", { tabindex: "0" }, h("code", {}, LINES)),
    h("p", {}, h("button", { type: "button", class: "quiet", onclick: copy }, "Copy"), " ", copied),
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
