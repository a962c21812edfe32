// The sliders: one row for each number, with a field to type it. Everything is a native input, so the keyboard works throughout.

import { format } from "./format.js";

const STEPS = 400;
const MEANINGS = {
  t: "diffusion time t", psi_p: "features per dimension, ψ_p = p/d", psi_n: "training samples per dimension, ψ_n = n/d",
  noise_draws: "noise draws m for each sample; ∞ averages exactly", fraction: "class fraction π", variance: "variance σ² per coordinate",
  norm: "length of the centroid, ‖μ‖/√d", angle: "direction of the centroid in degrees", loss_weight: "weight ω in the training loss",
  overlap: "share of the directions in which all classes vary; in the others each class varies alone", weight_decay: "weight decay ρ",
  averaging: "time constant T of a moving average of the weights, in units of τ; 0 for none", step_size: "step size η in units of τ",
  batch: "batch size over d",
};
const DRAWS = [1, 2, 3, 4, 6, 8, 16, 32, 64, 128, 256, 512, 1000, Infinity];
const SCALARS = [
  { title: "Network and data", rows: [
    ["t", "diffusion t", "log"], ["psi_p", "features ψ_p", "log"], ["psi_n", "samples ψ_n", "log"],
    ["noise_draws", "noise draws m", "draws"],
  ] },
];
const CLASS_ROWS = [
  ["fraction", "fraction π", "linear"], ["variance", "variance σ²", "log"], ["norm", "centroid norm", "linear"], ["angle", "angle, °", "linear"],
];
const RULE_ROWS = [["weight_decay", "weight decay ρ", "log0", 1e-5], ["averaging", "averaging T", "log0", 1e-2]];
const SGD_ROWS = [["step_size", "step size η", "log"], ["batch", "batch B/d", "log"]];

function scale(kind, bounds, least) {
  const [low, high] = bounds;
  const bottom = kind === "log0" ? least : low;
  const rounded = (value) => Number(value.toPrecision(4));
  if (kind === "draws") {
    const place = (value) => DRAWS.reduce((best, draw, i) => (Math.abs(Math.log(draw / value)) < Math.abs(Math.log(DRAWS[best] / value)) ? i : best), 0);
    return { steps: DRAWS.length - 1, at: (value) => (value === Infinity ? DRAWS.length - 1 : place(value)), value: (step) => DRAWS[step] };
  }
  if (kind === "linear") {
    return { steps: STEPS, at: (value) => Math.round((STEPS * (value - low)) / (high - low)), value: (step) => rounded(low + (step * (high - low)) / STEPS) };
  }
  const start = kind === "log0" ? 1 : 0; // step 0 stands for 0
  const ratio = Math.log(high / bottom);
  return {
    steps: STEPS,
    at: (value) => (value <= 0 ? 0 : start + Math.round(((STEPS - start) * Math.log(Math.max(value, bottom) / bottom)) / ratio)),
    value: (step) => (step < start ? 0 : rounded(Math.min(high, Math.max(bottom, bottom * Math.exp((ratio * (step - start)) / (STEPS - start)))))),
  };
}

export class Controls {
  // `refuse` is told why a typed value is not taken, and "" once there is nothing of that kind any more.
  constructor(form, model, settings, refuse) {
    Object.assign(this, { form, model, settings, refuse, rows: [] });
    form.addEventListener("submit", (event) => event.preventDefault());
    model.addEventListener("changed", (event) => (event.detail === "shape" ? this.build() : this.show()));
    this.build();
  }

  build() {
    const focused = document.activeElement?.id;
    this.rows = [];
    const { model } = this;
    const many = model.classes > 1;
    const parts = [this.choices()];
    for (const { title, rows } of SCALARS) parts.push(this.group(title, rows.map((row) => this.row(row, null))));
    for (let c = 0; c < model.classes; c += 1) {
      const rows = CLASS_ROWS.filter(([name]) => many || !["fraction", "angle"].includes(name));
      const made = rows.map((row) => this.row(row, c));
      if (model.state.loss_weight.length) made.push(this.row(["loss_weight", "loss weight ω", "linear"], c));
      parts.push(this.group(`Class ${c}`, made, this.settings.colors[c]));
    }
    if (many) parts.push(this.group("Geometry", [this.row(["overlap", "overlap", "linear"], null), this.weightsChoice()]));
    const rule = [this.ruleChoice(), ...RULE_ROWS.map((row) => this.row(row, null))];
    if (model.state.rule === "sgd") rule.push(...SGD_ROWS.map((row) => this.row(row, null)));
    parts.push(this.group("Training rule", rule));
    this.form.replaceChildren(...parts);
    this.show();
    if (focused) document.getElementById(focused)?.focus();
  }

  group(title, children, color) {
    const set = document.createElement("fieldset");
    const legend = document.createElement("legend");
    if (color) legend.append(chip(color));
    legend.append(title);
    set.append(legend, ...children);
    return set;
  }

  row([name, label, kind, least], index) {
    const bounds = this.settings.bounds[name];
    const map = scale(kind, bounds, least);
    const id = index === null ? name : `${name}-${index}`;
    const row = document.createElement("div");
    row.className = "slider";
    const text = Object.assign(document.createElement("label"), { htmlFor: `${id}-value`, textContent: label, title: MEANINGS[name] });
    const range = Object.assign(document.createElement("input"), { type: "range", id, min: 0, max: map.steps, step: 1 });
    range.setAttribute("aria-label", index === null ? MEANINGS[name] : `${MEANINGS[name]}, class ${index}`);
    const field = Object.assign(document.createElement("input"), { type: "text", id: `${id}-value`, inputMode: "decimal" });
    range.addEventListener("input", () => this.model.move(name, index, map.value(Number(range.value))));
    range.addEventListener("change", () => this.model.commit(id));
    field.addEventListener("change", () => this.typed(field, name, index, bounds));
    row.append(text, range, field);
    this.rows.push({ name, index, range, field, map });
    return row;
  }

  // A typed value; one that is no number or out of range is marked and changes nothing.
  typed(field, name, index, [low, high]) {
    const words = field.value.trim().toLowerCase();
    const value = name === "noise_draws" && ["inf", "∞", "infinity"].includes(words) ? Infinity : Number(words.replace(",", "."));
    const whole = name !== "noise_draws" || value === Infinity || Number.isInteger(value);
    const good = words !== "" && whole && ((value >= low && value <= high) || (name === "noise_draws" && value === Infinity));
    field.setAttribute("aria-invalid", String(!good));
    const allowed = name === "noise_draws" ? `whole numbers from ${low} to ${high}, or inf` : `${low} to ${high}`;
    field.title = good ? "" : `allowed: ${allowed}`;
    this.refuse(good ? "" : `${MEANINGS[name]}: ${words || "nothing"}; allowed: ${allowed}`);
    if (good) this.model.set(name, index, value);
  }

  show() {
    let wrong = false;
    for (const { name, index, range, field, map } of this.rows) {
      const value = index === null ? this.model.state[name] : this.model.state[name][index];
      const text = value === Infinity ? "∞" : format(value, 5);
      const step = String(map.at(value));
      if (range.value !== step) range.value = step;
      if (range.getAttribute("aria-valuetext") !== text) range.setAttribute("aria-valuetext", text);
      if (document.activeElement === field && field.getAttribute("aria-invalid") === "true") {
        wrong = true; // still being typed
        continue;
      }
      if (field.value !== text) field.value = text;
      if (field.getAttribute("aria-invalid") !== "true") continue;
      field.setAttribute("aria-invalid", "false");
      field.title = "";
    }
    if (!wrong) this.refuse("");
  }

  choices() {
    const count = select("classes", [1, 2, 3, 4].slice(0, this.settings.most_classes), this.model.classes, (value) => this.model.setClasses(Number(value)));
    const activation = select("activation", this.settings.activations, this.model.state.activation, (value) => this.model.set("activation", null, value));
    return this.group("Problem", [choice("Classes", count), choice("Activation", activation)]);
  }

  weightsChoice() {
    const own = Object.assign(document.createElement("input"), { type: "checkbox", id: "own-weights", checked: this.model.state.loss_weight.length > 0 });
    own.addEventListener("change", () => this.model.setLossWeights(own.checked));
    return choice("Own weights in the loss", own);
  }

  ruleChoice() {
    const rules = select("rule", ["flow", "sgd"], this.model.state.rule, (value) => {
      this.model.state.rule = value;
      this.model.changed("shape");
      this.model.commit();
    });
    rules.options[0].textContent = "gradient flow";
    rules.options[1].textContent = "minibatch SGD";
    return choice("Rule", rules);
  }
}

export function chip(color) {
  const mark = document.createElement("span");
  mark.className = "chip";
  mark.style.background = color;
  return mark;
}

function select(id, values, chosen, changed) {
  const made = Object.assign(document.createElement("select"), { id });
  made.append(...values.map((value) => Object.assign(document.createElement("option"), { value, textContent: value, selected: value === chosen })));
  made.addEventListener("change", () => changed(made.value));
  return made;
}

function choice(text, input) {
  const label = Object.assign(document.createElement("label"), { className: "choice" });
  label.append(text, input);
  return label;
}
