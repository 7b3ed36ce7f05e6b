// Where the data comes from: TensorBoard's server, or the JSON inside a report. And plotly.js, from where that is.

import { h } from "./dom.js";

const embedded = document.getElementById("training-health-data");

/** True in a report: there is no server, no host page and no reload. */
export const isReport = embedded !== null;

const report = isReport && JSON.parse(embedded.textContent);
const answers = new Map(); // address -> {revision, promise}: kept until the run's revision changes

/** The answer of one of the plugin's routes; `names`: those of the run and of the site, as far as the route takes them. */
export async function get(route, ...names) {
  if (isReport) return names.reduce((part, name) => part?.[name], report[route]);
  const response = await fetch(`./${route}?${new URLSearchParams(names.map((name, i) => [["run", "site"][i], name]))}`);
  if (!response.ok) throw new Error((await response.text()).slice(0, 300) || `the server answered ${response.status}`);
  return response.json();
}

/** What `get` answers for the run of a row of the overview, asked for once per revision of that run. */
export function getOnce(route, { run, revision }, ...names) {
  const address = JSON.stringify([route, run, ...names]);
  const last = answers.get(address);
  if (last?.revision === revision) return last.promise;
  const promise = get(route, run, ...names);
  answers.set(address, { revision, promise });
  promise.catch(() => answers.delete(address)); // a failed one is asked for again
  return promise;
}

let plotly;

/** Loads Plotly once, when the first chart comes into view. It is a plain script that sets a global. */
export function loadPlotly() {
  if (window.Plotly) return window.Plotly;
  plotly ??= new Promise((resolve, reject) => {
    const onload = () => resolve(window.Plotly);
    const onerror = () => {
      plotly = undefined;
      reject(new Error("plotly.js did not load. Is the Python package plotly installed where TensorBoard runs?"));
    };
    document.head.append(h("script", { src: "./static/plotly.min.js", onload, onerror }));
  });
  return plotly;
}
