// @ts-check
// What comes as base64: pictures, and what a report holds packed in zlib's format, plotly.js among it.

const plotly = document.getElementById("plotly"); // found before the page is filled, which removes it

/** @param {string} base64 */
export const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/**
 * The bytes that were packed.
 * @param {string} packed
 */
export async function unpack(packed) {
  const stream = new Blob([bytesOf(packed)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** @param {string} packed */
export const unpackText = async (packed) => new TextDecoder().decode(await unpack(packed));

/**
 * Runs a script; true once it has run, in a later task of the browser, false if it can't be loaded.
 * @param {string} address
 * @returns {Promise<boolean>}
 */
export function addScript(address) {
  const script = document.createElement("script");
  return new Promise((done) => {
    script.onload = () => setTimeout(() => done(true)); // not in the task that ran it: both together are too long
    script.onerror = () => done(false);
    script.src = address;
    document.head.append(script);
  });
}

/** Runs the plotly.js inside this page, which sets a global; false where there is none. */
export async function addPlotly() {
  if (!plotly?.textContent) return false;
  const code = new Blob([await unpack(plotly.textContent)], { type: "text/javascript" });
  const address = URL.createObjectURL(code); // a browser prepares a script with an address off its main thread
  const added = await addScript(address);
  URL.revokeObjectURL(address);
  return added;
}
