// @ts-check
// What a report holds in packed form: text and numbers as zlib's format in base64, and plotly.js among them.

const plotly = document.getElementById("plotly"); // found before the page is filled, which removes it

/**
 * The bytes that were packed.
 * @param {string} packed
 */
export async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** @param {string} packed */
export const unpackText = async (packed) => new TextDecoder().decode(await unpack(packed));

/**
 * Runs a script; true once it has run, false if it can't be loaded.
 * @param {string} address
 * @returns {Promise<boolean>}
 */
export function addScript(address) {
  const script = document.createElement("script");
  return new Promise((done) => {
    script.onload = () => done(true);
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
