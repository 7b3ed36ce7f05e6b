// The page around ours: TensorBoard's theme, its reload button and its address bar. None of it may be there.

import { isReport } from "./api.js";

const PLUGIN = "training_health";

function hostWindow() {
  try {
    // same origin, so readable; a foreign frame throws
    return !isReport && window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null;
  }
}

const host = hostWindow();
const outer = host ?? window; // whose address bar the reader sees

/** Calls back whenever TensorBoard has read its logs again: by its reload button or by itself. */
export function onReload(refetch) {
  if (!host) return;
  const channel = new MessageChannel();
  channel.port1.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.isReply) return;
    channel.port1.postMessage(JSON.stringify({ type: message.type, id: message.id, payload: null, error: null, isReply: true }));
    if (message.type === "experimental.DataReloaded") refetch();
  };
  host.postMessage("experimental.bootstrap", window.location.origin, [channel.port2]);
}

/** Calls back with true for dark, now and at each change. */
export function onTheme(apply) {
  if (host) {
    const body = host.document.body;
    const read = () => apply(body.classList.contains("dark-mode"));
    new MutationObserver(read).observe(body, { attributes: true, attributeFilter: ["class"] });
    read();
  } else {
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => apply(dark.matches));
    apply(dark.matches);
  }
}

// TensorBoard's address is #<tab>&key=value...; ours is #view=...
const KEY = host ? `p.${PLUGIN}.view` : "view";

/** What the address bar says after #; null while another of TensorBoard's tabs is shown. */
function parameters() {
  const hash = outer.location.hash.slice(1);
  if (!host) return new URLSearchParams(hash);
  return hash === PLUGIN || hash.startsWith(`${PLUGIN}&`) ? new URLSearchParams(hash.slice(PLUGIN.length)) : null;
}

/** The state in the address bar as JSON, so that a link brings back what its sender saw; null if there is none. */
export function readAddress() {
  return parameters()?.get(KEY) ?? null;
}

/** Puts the state into the address bar without a navigation, if our tab is the one that is shown. */
export function writeAddress(state) {
  const all = parameters();
  if (!all) return;
  all.set(KEY, state);
  const url = new URL(outer.location.href);
  url.hash = host ? `${PLUGIN}&${all}` : String(all);
  outer.history.replaceState(outer.history.state, "", url);
}

/** Calls back when someone pastes or walks back to another address of our tab. */
export function onAddress(changed) {
  outer.addEventListener("hashchange", () => parameters() && changed());
}
