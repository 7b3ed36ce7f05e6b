// The range of an axis that several runs share.

import { isNumber } from "./dom.js";

/**
 * The range of all values; where a few runs are so far away that the others would be squeezed into a third of it, of the others.
 * @param {{name: string, values: (number | null)[]}[]} series one per run
 * @returns {{range: [number, number] | undefined, outside: string[]}} `outside`: the runs that are not in the range
 */
export function commonRange(series) {
  const known = series.map(({ name, values }) => ({ name, values: values.filter(isNumber) })).filter(({ values }) => values.length);
  if (!known.length) return { range: undefined, outside: [] };
  const all = known.flatMap(({ values }) => values).sort((a, b) => a - b);
  const middle = all[Math.floor(all.length / 2)];
  const distance = ({ values }) => Math.max(...values.map((value) => Math.abs(value - middle)));
  const farFirst = [...known].sort((a, b) => distance(b) - distance(a));
  const most = known.length < 3 ? 0 : Math.max(1, Math.floor(known.length / 4));
  const whole = span(known);
  for (let left = 1; left <= most; left += 1) {
    const [low, high] = span(farFirst.slice(left));
    if (3 * (high - low) < whole[1] - whole[0]) return { range: airy(low, high), outside: farFirst.slice(0, left).map(({ name }) => name) };
  }
  return { range: airy(...whole), outside: [] };
}

/** What a chart's subtitle says of the runs that its axis leaves out. */
export const outsideWords = (outside) => (outside.length ? `. Outside of the drawn range, in the table: ${outside.join(", ")}` : "");

function span(series) {
  const ends = series.map(({ values }) => [Math.min(...values), Math.max(...values)]);
  return [Math.min(...ends.map(([low]) => low)), Math.max(...ends.map(([, high]) => high))];
}

function airy(low, high) {
  const air = Math.max(0.04 * (high - low), 1e-4);
  return [low - air, high + air];
}
