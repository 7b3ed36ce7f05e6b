// @ts-check
// What is around the page: TensorBoard's server, its theme and its reload button; or, in a report, the JSON inside it.

import { unpack, unpackText } from "./packed.js";

const embedded = document.getElementById("training-health-data");

/** True in a report: there is no server, no host page and no reload. */
export const isReport = embedded !== null;

const report = isReport && JSON.parse(embedded.textContent);
const answers = new Map(); // address -> {revision, promise}: kept until the run's revision changes

/** The answer of one of the plugin's routes; `names`: of the run and of the site, as far as the route takes them. */
export async function get(route, ...names) {
  if (isReport) return fromReport(names.reduce((part, name) => part?.[name], report[route]));
  const response = await fetch(`./${route}?${new URLSearchParams(names.map((name, i) => [["run", "site"][i], name]))}`);
  if (!response.ok) throw new Error((await response.text()).slice(0, 300) || `the server answered ${response.status}`);
  return response.json();
}

/** Runs are packed JSON; a site's units are that, without their activity, which is packed by itself. */
async function fromReport(part) {
  if (typeof part === "string") return JSON.parse(await unpackText(part));
  if (!Array.isArray(part)) return part; // the overview
  const [units, bytes] = [JSON.parse(await unpackText(part[0])), await unpack(part[1])];
  const [columns, cells] = [units.epochs.length, bytes.length / 2];
  const value = (i) => fromCode((bytes[i] << 8) | bytes[cells + i]);
  return { ...units, activity: units.order.map((_, row) => units.epochs.map((_, column) => value(row * columns + column))) };
}

/** 0, null (not a number), or the three digits that `one_file.py` kept. */
const fromCode = (code) => (code < 2 ? [0, null][code] : (((code - 2) % 900) + 100) / 10 ** (2 + Math.floor((code - 2) / 900)));

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

function hostWindow() {
  try {
    // same origin, so readable; a foreign frame throws
    return !isReport && window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null;
  }
}

/** TensorBoard's window; null where the page stands alone. */
export const host = hostWindow();

/** Calls back whenever TensorBoard has read its logs again: by its reload button or by itself. */
export function onReload(refetch) {
  if (!host) return;
  const channel = new MessageChannel();
  channel.port1.onmessage = ({ data }) => {
    const { type, id, isReply } = JSON.parse(data);
    if (isReply) return;
    channel.port1.postMessage(JSON.stringify({ type, id, payload: null, error: null, isReply: true }));
    if (type === "experimental.DataReloaded") refetch();
  };
  host.postMessage("experimental.bootstrap", window.location.origin, [channel.port2]);
}

/** Calls back with true for dark, now and at each change. */
export function onTheme(apply) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const read = () => apply(host ? host.document.body.classList.contains("dark-mode") : system.matches);
  if (host) new MutationObserver(read).observe(host.document.body, { attributes: true, attributeFilter: ["class"] });
  else system.addEventListener("change", read);
  read();
}
