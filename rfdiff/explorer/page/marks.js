// What is drawn over the curves: marks of the times, points of networks with error bars, and the bulks behind a spectrum.

import { valueAt } from "./format.js";

export const MARKS = { tau_gen: "▲ learned (τ_gen)", tau_stop: "▼ best test loss (τ_stop)", tau_mem: "◆ memorised (τ_mem)", tau_opt: "○ half way to the optimum (τ_opt)" };
const SIZE = 5.5;

function path(context, name, x, y, size) {
  context.beginPath();
  if (name === "tau_opt") {
    context.arc(x, y, size * 0.85, 0, 2 * Math.PI);
    return;
  }
  const corners = { tau_gen: [[0, -1], [0.95, 0.75], [-0.95, 0.75]], tau_stop: [[0, 1], [0.95, -0.75], [-0.95, -0.75]], tau_mem: [[0, -1.1], [0.9, 0], [0, 1.1], [-0.9, 0]] }[name];
  corners.forEach(([dx, dy], i) => (i ? context.lineTo(x + dx * size, y + dy * size) : context.moveTo(x + dx * size, y + dy * size)));
  context.closePath();
}

function clipped(u, draw) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  draw(ctx);
  ctx.restore();
}

// The times of each class on one of its curves, with a thin line down to the axis for τ_gen and τ_mem.
export function drawMarks(u, curves, times, colors, ink, curve = "test_loss") {
  if (!curves || !times) return;
  const ratio = devicePixelRatio;
  clipped(u, (context) => {
    for (const name of Object.keys(MARKS)) {
      times[name].values.forEach((tau, c) => {
        if (tau === null || !(tau > 0) || !curves[curve][c]) return;
        const value = valueAt(curves.taus, curves[curve][c], tau);
        if (value === null || (u.scales.y.distr === 3 && value <= 0)) return;
        const x = u.valToPos(tau, "x", true);
        const y = u.valToPos(value, "y", true);
        if (name === "tau_gen" || name === "tau_mem") {
          context.strokeStyle = `${colors[c]}77`;
          context.lineWidth = ratio;
          context.setLineDash(name === "tau_gen" ? [2 * ratio, 3 * ratio] : [6 * ratio, 3 * ratio]);
          context.beginPath();
          context.moveTo(x, y);
          context.lineTo(x, u.bbox.top + u.bbox.height);
          context.stroke();
          context.setLineDash([]);
        }
        path(context, name, x, y, SIZE * ratio);
        context.fillStyle = name === "tau_opt" ? "transparent" : colors[c];
        context.fill();
        context.strokeStyle = name === "tau_opt" ? colors[c] : ink;
        context.lineWidth = (name === "tau_opt" ? 2 : 1) * ratio;
        context.stroke();
      });
    }
  });
}

// Networks: circles for the first curve named, squares for the second, with one standard error up and down.
export function drawPoints(u, points, names, colors, ground) {
  if (!points?.taus) return;
  const ratio = devicePixelRatio;
  clipped(u, (context) => {
    context.globalAlpha = points.stale ? 0.3 : 1;
    context.setLineDash([]);
    names.forEach((name, which) => points[name].forEach((values, c) => values.forEach((value, i) => {
      if (value === null || (u.scales.y.distr === 3 && value <= 0)) return;
      const x = u.valToPos(points.taus[i], "x", true);
      const place = (level) => u.valToPos(u.scales.y.distr === 3 ? Math.max(level, u.scales.y.min) : level, "y", true);
      const error = points[`${name}_stderr`][c][i] ?? 0;
      Object.assign(context, { strokeStyle: colors[c], fillStyle: which ? ground : colors[c], lineWidth: 1.5 * ratio });
      context.beginPath();
      context.moveTo(x, place(value - error));
      context.lineTo(x, place(value + error));
      context.stroke();
      const size = 3 * ratio;
      context.beginPath();
      if (which) context.rect(x - size, place(value) - size, 2 * size, 2 * size);
      else context.arc(x, place(value), size, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    })));
  });
}

export function drawBulks(u, support, color) {
  if (!support) return;
  clipped(u, (context) => {
    context.fillStyle = color;
    context.globalAlpha = 0.45;
    for (const [low, high] of support) {
      const left = u.valToPos(Math.max(low, u.scales.x.min), "x", true);
      const right = u.valToPos(Math.min(high, u.scales.x.max), "x", true);
      if (right > left) context.fillRect(left, u.bbox.top, right - left, u.bbox.height);
    }
  });
}
