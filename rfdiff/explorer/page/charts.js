// The charts: losses, score error and spectrum, drawn by uPlot, with ghosts of pinned curves, marks of the times and points of networks.

import { format, resampled } from "./format.js";
import { drawBulks, drawMarks, drawPoints } from "./marks.js";

const DASH = { train: [6, 4], optimum: [1, 4] };
const AXIS_WIDTH = 56;
const LOG_TIME = { time: false, distr: 3, range: (u, low, high) => [low, high] };
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const faint = (color) => `${color}66`;

function axes(xLabel, yLabel) {
  const common = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif" };
  const powers = (u, values) => values.map((value) => (value === null ? null : power(value)));
  return [
    { ...common, label: xLabel, labelSize: 18, size: 34, values: powers },
    { ...common, label: yLabel, labelSize: 18, size: AXIS_WIDTH, values: (u, values) => values.map((value) => (value === null ? null : format(value, 3))) },
  ];
}

function power(value) {
  const exponent = Math.round(Math.log10(value));
  if (Math.abs(Math.log10(value) - exponent) > 1e-6) return null;
  if (exponent >= -1 && exponent <= 3) return String(Number(value.toPrecision(1)));
  return `10${[...String(exponent)].map((digit) => (digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit])).join("")}`;
}

class Chart {
  constructor(box, make) {
    Object.assign(this, { box, make, plot: null, key: "" });
    new ResizeObserver(() => this.resize()).observe(box);
  }

  resize() {
    if (this.plot && this.box.clientWidth > 0) this.plot.setSize({ width: this.box.clientWidth, height: this.box.clientHeight });
  }

  // Data for series that `key` names; another key (classes, theme) makes another plot.
  draw(key, data) {
    if (key !== this.key || !this.plot) {
      this.plot?.destroy();
      const options = { width: Math.max(this.box.clientWidth, 100), height: this.box.clientHeight, cursor: { y: false, drag: { x: false, y: false }, points: { show: false } }, legend: { show: false }, padding: [10, 14, 0, 0] };
      this.plot = new uPlot({ ...options, ...this.make() }, data, this.box);
      this.key = key;
    } else {
      this.plot.setData(data);
    }
  }
}

export class Charts {
  constructor(boxes, colors, pointed) {
    Object.assign(this, { colors, pointed, curves: null, ghost: null, points: null, times: null, spectrumData: null, theme: 0, range: null });
    this.losses = new Chart(boxes.losses, () => this.lossOptions());
    this.score = new Chart(boxes.score, () => this.scoreOptions());
    this.spectrum = new Chart(boxes.spectrum, () => this.spectrumOptions());
  }

  get classes() {
    return this.curves.test_loss.length;
  }

  lossOptions() {
    const series = [{}];
    const paths = uPlot.paths.spline();
    for (let c = 0; c < this.classes; c += 1) {
      const stroke = this.colors[c];
      series.push({ stroke, paths, width: 2, points: { show: false } }, { stroke, paths, width: 1.5, dash: DASH.train, points: { show: false } });
      series.push({ stroke, width: 1.5, dash: DASH.optimum, points: { show: false } });
      series.push({ stroke: faint(stroke), width: 1.5, points: { show: false } }, { stroke: faint(stroke), width: 1, dash: DASH.train, points: { show: false } });
    }
    const hooks = {
      draw: [(u) => drawPoints(u, this.points, ["test_loss", "train_loss"], this.colors, css("--card")), (u) => drawMarks(u, this.curves, this.times, this.colors, css("--ink"))],
      setCursor: [(u) => u.cursor.idx !== null && u.cursor.idx !== undefined && u.cursor.left >= 0 && this.pointed(u.cursor.idx)],
    };
    const y = { range: (u, low, high) => [0, Math.max(1.05, Math.ceil((high ?? 1) * 10.5) / 10)] };
    return { series, hooks, scales: { x: LOG_TIME, y }, axes: axes("training time τ", "loss per coordinate") };
  }

  scoreOptions() {
    const series = [{}];
    for (let c = 0; c < this.classes; c += 1) {
      series.push({ stroke: this.colors[c], paths: uPlot.paths.spline(), width: 2, points: { show: false } }, { stroke: faint(this.colors[c]), width: 1.5, points: { show: false } });
    }
    const hooks = { draw: [(u) => drawPoints(u, this.points, ["score_error"], this.colors, css("--card")), (u) => drawMarks(u, this.curves, this.times, this.colors, css("--ink"), "score_error")] };
    return { series, hooks, scales: { x: LOG_TIME, y: { distr: 3 } }, axes: axes("training time τ", "score error") };
  }

  spectrumOptions() {
    const line = { points: { show: false }, spanGaps: false };
    const series = [{}, { ...line, stroke: css("--ink"), width: 1.5 }];
    this.spectrumData.class_density.forEach((_, c) => series.push({ ...line, stroke: this.colors[c], width: 2 }));
    const hooks = { drawClear: [(u) => drawBulks(u, this.spectrumData?.support, css("--line"))] };
    return { series, hooks, scales: { x: { time: false, distr: 3 }, y: { range: (u, low, high) => [0, (high ?? 1) * 1.1 || 1] } }, axes: axes("eigenvalue λ", "weight per decade") };
  }

  showCurves(curves, times) {
    this.curves = curves;
    if (times) this.times = times;
    const taus = curves.taus;
    const constant = (value) => new Array(taus.length).fill(value);
    const none = constant(null);
    const losses = [taus];
    const score = [taus];
    for (let c = 0; c < this.classes; c += 1) {
      const ghost = this.ghost && c < this.ghost.test_loss.length ? (name) => resampled(this.ghost.taus, this.ghost[name][c], taus) : () => none;
      losses.push(curves.test_loss[c], curves.train_loss[c], constant(curves.optimal_loss[c]), ghost("test_loss"), ghost("train_loss"));
      score.push(positive(curves.score_error[c]), positive(ghost("score_error")));
    }
    const key = `${this.classes} ${this.theme}`;
    this.losses.draw(key, losses);
    this.score.draw(key, score);
  }

  showSpectrum(spectrum) {
    this.spectrumData = spectrum;
    const rows = [spectrum.density, ...spectrum.class_density];
    const data = [[], ...rows.map(() => [])];
    spectrum.eigenvalues.forEach((value, i) => {
      if (i > 0 && spectrum.bulk[i] !== spectrum.bulk[i - 1]) {
        data[0].push(Math.sqrt(value * spectrum.eigenvalues[i - 1])); // a gap between two bulks
        rows.forEach((_, r) => data[r + 1].push(null));
      }
      data[0].push(value);
      rows.forEach((row, r) => data[r + 1].push(row[i]));
    });
    if (data[0].length) this.spectrum.draw(`${spectrum.class_density.length} ${this.theme}`, data);
  }

  redraw() {
    if (this.curves) this.showCurves(this.curves, this.times);
    if (this.spectrumData) this.showSpectrum(this.spectrumData);
  }

  themed() {
    this.theme += 1;
    this.redraw();
  }
}

const positive = (values) => values.map((value) => (value !== null && value > 0 ? value : null));
