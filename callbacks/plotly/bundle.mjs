// Writes plotly.js with the traces of our charts alone, and the licences of all that is in it, into the tab's folder.
// What plotly publishes for cartesian charts takes three times as long to start: it has traces that we do not draw, and
// a wrapper with which Chromium compiles all of it on the thread of the page.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const TRACES = ["heatmap", "image"]; // and scatter, which is in every bundle
const STATIC = "../training_health/tab/static";
const { version } = JSON.parse(readFileSync("node_modules/plotly.js/package.json", "utf8"));

const entry = `
  const Plotly = require("plotly.js/lib/core");
  Plotly.register([${TRACES.map((name) => `require("plotly.js/lib/${name}")`)}]);
  module.exports = Plotly;
`;
const { metafile } = await build({
  stdin: { contents: entry, resolveDir: "." },
  outfile: `${STATIC}/plotly-scatter-${TRACES.join("-")}-${version}.min.js`,
  bundle: true,
  minify: true,
  metafile: true,
  format: "iife", // the function is in parentheses: browsers compile it at once, on another thread
  globalName: "Plotly",
  target: "es2020",
  define: { global: "window" },
  loader: { ".css": "empty" }, // of maps
  banner: { js: `/* plotly.js ${version} with the traces scatter, ${TRACES.join(", ")}; licences in plotly-LICENSE.txt */` },
  // it decodes pictures for their size; ours come as pixels
  plugins: [{ name: "no-addresses", setup: ({ onLoad }) => onLoad({ filter: /traces\/image\/helpers\.js$/ }, () => ({ contents: "" })) }],
});

const [{ inputs }] = Object.values(metafile.outputs);
const files = Object.keys(inputs).filter((path) => inputs[path].bytesInOutput > 0 && !path.endsWith(".css"));
const packages = new Set(files.flatMap((path) => path.match(/^.*node_modules\/(@[^/]+\/)?[^/]+/)?.[0] ?? []));
const licences = [...packages].sort().map((folder) => {
  const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
  return `${name} ${version} (${license})\n\n${file ? readFileSync(`${folder}/${file}`, "utf8").trim() : "Its package has no licence file."}\n`;
});
writeFileSync(`${STATIC}/plotly-LICENSE.txt`, licences.join(`\n${"-".repeat(80)}\n\n`));
