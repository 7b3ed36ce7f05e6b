// Where the data comes from: TensorBoard's server, or the JSON inside a report.

const embedded = document.getElementById("training-health-data");

/** True in a report: there is no server, no host page and no reload. */
export const isReport = embedded !== null;

const answers = new Map(); // address -> {revision, promise}: kept until the run's revision changes

function kept(route, parameters, revision) {
  const address = `${route}?${new URLSearchParams(parameters)}`;
  const last = answers.get(address);
  if (last?.revision === revision) return last.promise;
  const promise = get(address);
  answers.set(address, { revision, promise });
  promise.catch(() => answers.delete(address)); // a failed one is asked for again
  return promise;
}

async function get(address) {
  const response = await fetch(`./${address}`);
  if (!response.ok) throw new Error((await response.text()).slice(0, 300) || `the server answered ${response.status}`);
  return response.json();
}

const server = {
  overview: () => get("overview"),
  run: (row) => kept("run", { run: row.run }, row.revision),
  units: (row, site) => kept("units", { run: row.run, site }, row.revision),
};

function report() {
  const data = JSON.parse(embedded.textContent);
  return {
    overview: async () => data.overview,
    run: async (row) => data.runs[row.run],
    units: async (row, site) => data.units[row.run]?.[site],
  };
}

export const source = isReport ? report() : server;

let plotly;

/** Loads Plotly once, when the first chart comes into view. It is a plain script that sets a global. */
export function loadPlotly(version) {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `./static/plotly.min.js?v=${encodeURIComponent(version)}`;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      plotly = undefined;
      reject(new Error("plotly.js did not load. Is the Python package plotly installed where TensorBoard runs?"));
    };
    document.head.append(script);
  });
  return plotly;
}
