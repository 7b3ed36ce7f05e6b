// Where the data comes from: TensorBoard's server, or the JSON inside a report.

const embedded = document.getElementById("training-health-data");

/** True in a report: there is no server, no host page and no reload. */
export const isReport = embedded !== null;

class ServerSource {
  #runs = new Map(); // "run" -> {revision, promise}
  #units = new Map(); // "run\nsite" -> {revision, promise}

  overview() {
    return get("overview", {});
  }

  run(row) {
    return cached(this.#runs, row.run, row.revision, () => get("run", { run: row.run }));
  }

  units(row, site) {
    return cached(this.#units, `${row.run}\n${site}`, row.revision, () => get("units", { run: row.run, site }));
  }
}

class ReportSource {
  #data = JSON.parse(embedded.textContent);

  async overview() {
    return this.#data.overview;
  }

  async run(row) {
    return this.#data.runs[row.run];
  }

  async units(row, site) {
    return this.#data.units[row.run]?.[site];
  }
}

/** Answers are kept until the run's revision changes; a failed one is asked for again. */
function cached(cache, key, revision, fetchIt) {
  const kept = cache.get(key);
  if (kept && kept.revision === revision) return kept.promise;
  const promise = fetchIt();
  cache.set(key, { revision, promise });
  promise.catch(() => cache.delete(key));
  return promise;
}

async function get(route, parameters) {
  const query = new URLSearchParams(parameters).toString();
  const response = await fetch(`./${route}${query ? `?${query}` : ""}`);
  if (!response.ok) throw new Error((await response.text()).slice(0, 300) || `the server answered ${response.status}`);
  return response.json();
}

export const source = isReport ? new ReportSource() : new ServerSource();

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
