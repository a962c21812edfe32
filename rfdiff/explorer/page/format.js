// Numbers as text, and curves between their points.

export function format(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === Infinity) return "∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(Math.min(digits - 1, 3)).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

// A curve (xs, ys) at other places, linear in log x; null outside.
export function resampled(xs, ys, places) {
  const result = new Array(places.length).fill(null);
  let i = 0;
  for (let j = 0; j < places.length; j += 1) {
    const x = places[j];
    while (i < xs.length - 2 && xs[i + 1] < x) i += 1;
    if (x < xs[0] * 0.999999 || x > xs[xs.length - 1] * 1.000001) continue;
    result[j] = between(xs, ys, i, x);
  }
  return result;
}

export function valueAt(xs, ys, x) {
  return resampled(xs, ys, [x])[0];
}

function between(xs, ys, i, x) {
  if (ys[i] === null || ys[i + 1] === null) return null;
  const share = xs[i + 1] > xs[i] ? Math.log(x / xs[i]) / Math.log(xs[i + 1] / xs[i]) : 0;
  return ys[i] + share * (ys[i + 1] - ys[i]);
}
