// The map of two numbers: started and watched on the server, drawn on a canvas with the shown state in it.

import { format } from "./format.js";
import { ENDED, fetchJson } from "./server.js";

const LOOK = 400;
const SYMBOLS = { t: "t", psi_p: "ψ_p", psi_n: "ψ_n", weight: "fraction", samples: "samples n/d", loss_weight: "loss weight", variance: "variance", centroid_norm: "‖μ‖²/d" };

function symbol(name) {
  const match = /^(\w+)_(\d)$/.exec(name);
  return match && SYMBOLS[match[1]] ? `${SYMBOLS[match[1]]} of class ${match[2]}` : SYMBOLS[name] ?? name;
}

// The value of a number of the map in a state of the page.
export function valueIn(state, name) {
  if (name in state && !Array.isArray(state[name])) return state[name];
  const [, kind, c] = /^(\w+)_(\d)$/.exec(name);
  const weights = state.loss_weight.length ? state.loss_weight : state.fraction;
  return { weight: state.fraction[c], samples: state.psi_n * state.fraction[c], loss_weight: weights[c], variance: state.variance[c], centroid_norm: state.norm[c] ** 2 }[kind];
}

// What a map over two numbers depends on besides these two, as text: a state in which it differs has another map.
function besides(state, names) {
  const rest = structuredClone(state);
  const without = (values, c) => {
    const others = values.map((value, i) => (i === Number(c) ? 0 : value));
    const sum = others.reduce((a, b) => a + b, 0) || 1;
    return others.map((value) => Number((value / sum).toPrecision(6)));
  };
  for (const name of names) {
    const [, kind, c] = /^(\w+)_(\d)$/.exec(name) ?? [null, name, null];
    if (kind === "weight") rest.fraction = without(rest.fraction, c);
    else if (kind === "loss_weight") rest.loss_weight = without(rest.loss_weight, c);
    else if (kind === "samples") {
      rest.fraction = rest.fraction.map((share, i) => (i === Number(c) ? 0 : Number((share * rest.psi_n).toPrecision(6))));
      rest.psi_n = 1;
    } else if (c === null) rest[kind] = 0;
    else rest[kind === "centroid_norm" ? "norm" : kind][c] = 0;
  }
  return JSON.stringify(rest);
}

export class PhaseMap {
  constructor(parts, model, colors) {
    Object.assign(this, { ...parts, model, colors, answer: null, names: "", number: null, text: "" });
    this.start.addEventListener("click", () => this.begin());
    this.cancel.addEventListener("click", () => this.end());
    model.addEventListener("changed", () => this.draw());
  }

  offer(names) {
    if (names.join() === this.names) return;
    this.names = names.join();
    for (const [box, otherwise] of [[this.first, "psi_n"], [this.second, "variance_0"]]) {
      const chosen = names.includes(box.value) ? box.value : otherwise;
      box.replaceChildren(...names.map((name) => Object.assign(document.createElement("option"), { value: name, textContent: symbol(name), selected: name === chosen })));
    }
  }

  async begin() {
    const query = new URLSearchParams({ first: this.first.value, second: this.second.value, quantity: this.quantity.value });
    const before = this.number;
    this.number = null; // the watcher of an earlier map ends
    const state = structuredClone(this.model.state);
    try {
      this.number = (await fetchJson(`/api/map?${this.model.query()}&${query}`, { method: "POST" })).number;
    } catch (error) {
      this.note.textContent = error.message;
      if (before !== null) this.watch((this.number = before), this.asked);
      return;
    }
    this.asked = state;
    this.cancel.disabled = false;
    this.note.textContent = "Computing the map; the first one takes longer. The sliders stay usable.";
    this.watch(this.number, state);
  }

  async end() {
    const before = this.number;
    this.number = null;
    try {
      await fetchJson("/api/map/cancel", { method: "POST" });
      this.ended("Cancelled.");
    } catch (error) {
      this.note.textContent = error.message;
      if (before !== null) this.watch((this.number = before), this.asked);
    }
  }

  async watch(number, state) {
    for (;;) {
      await new Promise((done) => setTimeout(done, LOOK));
      if (this.number !== number) return;
      const answer = await fetchJson("/api/map").catch(() => null);
      if (this.number !== number) return;
      if (answer === null) continue;
      if (answer.number !== number) return this.ended(ENDED);
      this.progress.value = answer.total ? answer.done / answer.total : 0;
      if (answer.first_class) {
        this.answer = Object.assign(answer, { state });
        this.draw();
      }
      if (!answer.running) return this.ended(answer.error || this.summary());
    }
  }

  ended(text) {
    Object.assign(this, { number: null, text });
    this.cancel.disabled = true;
    this.progress.value = 0;
    this.tell();
  }

  // Whether something else than the two numbers of the map has moved since it was asked for.
  get old() {
    return this.answer !== null && besides(this.model.state, this.answer.names) !== besides(this.answer.state, this.answer.names);
  }

  tell() {
    if (this.number === null && this.text) this.note.textContent = `${this.old ? "Map of an earlier state. " : ""}${this.text}`;
  }

  summary() {
    const flat = this.answer.first_class.flat();
    const shares = [...new Set(flat)].sort().map((c) => `${c < 0 ? "none" : `class ${c}`} in ${format((100 * flat.filter((x) => x === c).length) / flat.length, 3)} %`);
    const text = `First by ${this.answer.quantity}: ${shares.join(", ")} of the map. Full colour: at least ten times earlier than the next. The cross is the shown state.`;
    this.canvas.setAttribute("aria-label", `map: ${text}`);
    return text;
  }

  draw() {
    if (!this.answer) return;
    this.tell();
    const faint = this.old ? 0.3 : 1;
    const { canvas, answer } = this;
    const context = canvas.getContext("2d");
    const ratio = devicePixelRatio;
    const [width, height] = [canvas.clientWidth || 520, Math.round((canvas.clientWidth || 520) * 0.577)];
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    context.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const box = { left: 62, top: 8, width: width - 76, height: height - 48 };
    const [xs, ys] = [answer.first_axis, answer.second_axis];
    const [w, h] = [box.width / xs.length, box.height / ys.length];
    answer.first_class.forEach((column, i) => column.forEach((c, j) => {
      context.globalAlpha = faint * (c < 0 ? 0.15 : 0.2 + 0.8 * Math.min(1, answer.lead[i][j] ?? 1));
      context.fillStyle = c < 0 ? "#888888" : this.colors[c];
      context.fillRect(box.left + i * w, box.top + box.height - (j + 1) * h, w + 0.5, h + 0.5);
    }));
    context.globalAlpha = 1;
    Object.assign(context, { fillStyle: style.getPropertyValue("--soft"), font: "12px system-ui, sans-serif", textAlign: "center" });
    for (const i of [0, Math.floor(xs.length / 2), xs.length - 1]) context.fillText(format(xs[i], 3), box.left + (i + 0.5) * w, box.top + box.height + 16);
    context.fillText(symbol(answer.names[0]), box.left + box.width / 2, box.top + box.height + 34);
    context.textAlign = "right";
    for (const j of [0, Math.floor(ys.length / 2), ys.length - 1]) context.fillText(format(ys[j], 3), box.left - 6, box.top + box.height - (j + 0.5) * h + 4);
    context.save();
    context.translate(12, box.top + box.height / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(symbol(answer.names[1]), 0, 0);
    context.restore();
    this.cross(context, box, xs, ys, style.getPropertyValue("--ink"));
  }

  cross(context, box, xs, ys, ink) {
    if (this.answer.names.some((name) => Number(/_(\d)$/.exec(name)?.[1] ?? 0) >= this.model.classes)) return;
    const place = (values, value) => {
      const linear = Math.abs(values[1] - values[0] - (values.at(-1) - values.at(-2))) < 1e-6 * values.at(-1);
      const f = linear ? (x) => x : Math.log;
      return (f(value) - f(values[0])) / (f(values.at(-1)) - f(values[0]));
    };
    const [a, b] = [place(xs, valueIn(this.model.state, this.answer.names[0])), place(ys, valueIn(this.model.state, this.answer.names[1]))];
    if (!(a >= -0.05 && a <= 1.05 && b >= -0.05 && b <= 1.05)) return;
    const [w, h] = [box.width / xs.length, box.height / ys.length];
    const x = box.left + w / 2 + a * (box.width - w);
    const y = box.top + box.height - h / 2 - b * (box.height - h);
    Object.assign(context, { strokeStyle: ink, lineWidth: 2 });
    context.beginPath();
    for (const [dx, dy] of [[9, 0], [0, 9]]) {
      context.moveTo(x - dx, y - dy);
      context.lineTo(x + dx, y + dy);
    }
    context.stroke();
    Object.assign(this.canvas.dataset, { x: a.toFixed(4), y: b.toFixed(4) });
  }
}
