// The page: it asks for curves while a slider moves, for exact ones when it rests, and shows what comes back.

import { Charts } from "./charts.js";
import { Controls } from "./controls.js";
import { format } from "./format.js";
import { Leave } from "./leave.js";
import { Model } from "./model.js";
import { Networks } from "./networks.js";
import { PhaseMap } from "./phase.js";
import { connection, fetchJson, Newest } from "./server.js";
import { showBulks, showLegend, showReadout, showSpeciation, showTimes } from "./tables.js";

const REST = 90; // milliseconds without a change after which a slider that was let go counts as resting
const HELD = 400; // and one that is still held
const NUMBERS = 120; // between two changes of the numbers beside moving curves, which nobody reads faster: text costs as much as a chart
const BACK = 4000; // for which the page says that the server is back
const $ = (id) => document.getElementById(id);

class Page {
  constructor(start) {
    const state = { ...start.state, noise_draws: start.state.noise_draws ?? Infinity };
    Object.assign(this, { start, axis: start.axis, index: 60, inputs: [], rest: 0, refusedSerial: -1, exactSerial: -1, drawn: -1, counted: 0, later: 0, held: false });
    this.model = new Model(state);
    this.controls = new Controls($("controls"), this.model, start, (text) => ($("refusal").textContent = text));
    this.charts = new Charts({ losses: $("losses"), score: $("score"), spectrum: $("spectrum") }, start.colors, (index) => this.pointed(index));
    this.map = new PhaseMap({ start: $("map-start"), cancel: $("map-cancel"), first: $("map-first"), second: $("map-second"), quantity: $("map-quantity"), progress: $("map-progress"), canvas: $("map"), note: $("map-note") }, this.model, start.colors);
    this.networks = new Networks({ start: $("train"), cancel: $("train-cancel"), d: $("train-d"), seeds: $("train-seeds"), progress: $("train-progress"), note: $("train-note") }, this.model, this.charts, () => this.axis);
    this.leave = new Leave({ downloads: $("downloads"), link: $("link"), copy: $("copy-link"), python: $("python"), command: $("command") }, this.model, start.files);
    const refused = (message, serial) => serial === this.model.serial && this.refused(message);
    this.preview = new Newest("/api/preview", (answer, serial) => this.previewed(answer, serial), refused);
    this.exact = new Newest("/api/exact", (answer, serial) => this.settled(answer, serial), (message, serial) => {
      refused(message, serial);
      if (serial === this.model.serial) this.afterCurves();
    }, true);
    this.spectrum = new Newest("/api/spectrum", (answer, serial) => serial === this.model.serial && this.spectrumOf(answer), this.unanswered("spectrum", "bulks"), true);
    this.speciation = new Newest("/api/speciation", (answer, serial) => serial === this.model.serial && this.speciationOf(answer), this.unanswered("speciation"));
    this.snippets = new Newest("/api/snippets", (answer) => this.snippetsOf(answer), () => {});
    this.listen();
    this.legend(this.model.classes);
    this.changed();
  }

  listen() {
    const { model } = this;
    model.addEventListener("changed", () => this.changed());
    model.addEventListener("committed", () => this.committed());
    $("undo").addEventListener("click", () => model.undo());
    $("redo").addEventListener("click", () => model.redo());
    $("pin").addEventListener("click", () => this.pin());
    $("theme").addEventListener("click", () => this.theme());
    $("read-at").addEventListener("input", (event) => this.pointed(Number(event.target.value)));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.themed());
    document.addEventListener("keydown", (event) => {
      const typing = document.activeElement?.type === "text" || document.activeElement?.type === "number";
      if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || typing) return;
      event.preventDefault();
      if (event.shiftKey) model.redo();
      else model.undo();
    });
    $("controls").addEventListener("pointerdown", () => (this.held = true));
    document.addEventListener("keydown", () => (this.held = false), true);
    connection.addEventListener("lost", (event) => this.banner(event.detail));
    connection.addEventListener("back", () => {
      this.banner("The server is back.", true);
      setTimeout(() => $("banner").textContent === "The server is back." && this.banner(""), BACK);
      this.changed();
    });
  }

  banner(text, there = !text) {
    $("banner").textContent = text;
    $("banner").hidden = !text;
    document.body.dataset.connection = there ? "there" : "lost";
  }

  say(text, warn = false) {
    if ($("status").textContent !== text) {
      $("status").textContent = text;
      $("status").title = text;
    }
    $("status").classList.toggle("warn", warn);
  }

  changed() {
    const { model } = this;
    this.inputs.push({ serial: model.serial, at: performance.now() });
    if (this.inputs.length > 500) this.inputs.shift();
    mark("settled", "no");
    this.preview.ask(`${model.query()}&axis=${this.axis.join(",")}`, model.serial);
    this.restIn(HELD);
  }

  restIn(milliseconds) {
    clearTimeout(this.rest);
    this.rest = setTimeout(() => this.rested(), milliseconds);
  }

  rested() {
    const { model } = this;
    if (document.body.dataset.ready !== "true" && this.refusedSerial !== model.serial) {
      this.restIn(REST); // the first curves come before everything else
      return;
    }
    for (const question of [this.exact, this.spectrum]) question.ask(model.query(), model.serial); // each has a core of two
    this.leave.show();
  }

  // What is asked once the curves are exact, or refused: beside them it would make them wait.
  afterCurves() {
    for (const question of [this.snippets, this.speciation]) question.ask(this.model.query(), this.model.serial);
  }

  previewed(answer, serial) {
    if (answer.kind === "compiling") {
      clearTimeout(this.later);
      if (![this.exactSerial, this.refusedSerial].includes(serial) && serial === this.model.serial) this.say(`Compiling for ${answer.what}; the curves below are of the state before.`, true);
      return;
    }
    if (this.exactSerial === this.model.serial || serial < this.drawn) return;
    this.show(answer, serial);
    const wait = this.counted + NUMBERS - performance.now();
    clearTimeout(this.later);
    if (wait <= 0) this.count(answer);
    else this.later = setTimeout(() => this.count(answer), wait);
  }

  settled(answer, serial) {
    if (serial !== this.model.serial) return;
    this.axis = answer.axis;
    this.exactSerial = serial;
    clearTimeout(this.later);
    this.show(answer, serial);
    this.count(answer);
    $("words").textContent = answer.times.words.join(" ");
    this.say(`Exact, losses to ${format(answer.error, 1)}`);
    document.body.dataset.settled = "yes";
    document.body.dataset.serial = serial;
    this.afterCurves();
  }

  show(answer, serial) {
    this.drawn = serial;
    this.curves = answer;
    this.legend(answer.test_loss.length);
    this.charts.showCurves(answer, answer.times ?? { tau_gen: { values: [] }, tau_stop: { values: [] }, tau_mem: { values: [] }, tau_opt: { values: [] } });
    mark("ready", "true");
    afterPaint(() => this.painted(serial));
  }

  // The numbers of the curves that are shown: times, the readout at one τ, and how far a preview can be trusted.
  count(answer) {
    this.counted = performance.now();
    if (answer.kind !== "exact") this.say(previewText(answer.error));
    if (answer.times) showTimes($("times"), answer.times, this.start.colors, answer.kind !== "exact");
    else $("times").classList.add("stale");
    if (Number($("read-at").max) !== answer.taus.length - 1) $("read-at").max = answer.taus.length - 1;
    this.pointed(Math.min(this.index, answer.taus.length - 1));
  }

  // Tells how long each input up to a state waited for its picture.
  painted(serial) {
    const now = performance.now();
    const shown = this.inputs.filter((input) => input.serial <= serial);
    this.inputs = this.inputs.filter((input) => input.serial > serial);
    if (shown.length) document.dispatchEvent(new CustomEvent("painted", { detail: shown.map((input) => now - input.at) }));
  }

  refused(message) {
    clearTimeout(this.later);
    this.refusedSerial = this.model.serial;
    this.say(message, true);
    document.body.dataset.settled = "refused";
  }

  legend(count) {
    const key = `${count} ${this.charts.ghost !== null}`;
    if (key === this.legendKey) return;
    this.legendKey = key;
    showLegend($("legend"), count, this.start.colors, this.charts.ghost !== null);
  }

  // What marks parts of the page as those of an earlier state, when the question for them was refused.
  unanswered(...names) {
    return (message, serial) => serial === this.model.serial && stale(names, true);
  }

  speciationOf(answer) {
    stale(["speciation"], false);
    showSpeciation($("speciation"), answer);
  }

  spectrumOf(answer) {
    stale(["spectrum", "bulks"], false);
    this.charts.showSpectrum(answer);
    showBulks($("bulks"), answer);
  }

  snippetsOf(answer) {
    this.leave.snippets(answer);
    this.map.offer(answer.map_names);
  }

  pointed(index) {
    if (!this.curves) return;
    this.index = index;
    if (Number($("read-at").value) !== index) $("read-at").value = index;
    const text = `τ = ${format(this.curves.taus[index], 4)}`;
    if ($("read-tau").textContent !== text) {
      $("read-tau").textContent = text;
      $("read-at").setAttribute("aria-valuetext", text);
    }
    showReadout($("readout"), this.curves, index, this.start.colors);
  }

  pin() {
    const on = this.charts.ghost === null;
    this.charts.ghost = on ? this.curves : null;
    $("pin").setAttribute("aria-pressed", String(on));
    if (this.curves) this.legend(this.curves.test_loss.length);
    this.charts.redraw();
  }

  theme() {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    this.themed();
  }

  themed() {
    this.themeName();
    this.charts.themed();
    this.map.draw();
  }

  themeName() {
    $("theme").textContent = getComputedStyle(document.documentElement).colorScheme === "dark" ? "Light" : "Dark";
  }

  committed() {
    this.restIn(this.held ? 0 : REST); // a key may be pressed again, a pointer that let go is done
    $("undo").disabled = this.model.past.length === 0;
    $("redo").disabled = this.model.future.length === 0;
  }
}

// Marks the page, unless it is marked so already: every change makes the browser look at all styles again.
function mark(name, value) {
  if (document.body.dataset[name] !== value) document.body.dataset[name] = value;
}

const previewText = (error) => (error === null ? "Preview; how good it is, is not known" : `Preview, losses to about ${format(error, 1)}`);

function stale(names, old) {
  for (const name of names) $(name).classList.toggle("stale", old);
}

const painter = new MessageChannel();
let waiting = [];
painter.port1.onmessage = () => {
  for (const call of waiting.splice(0)) call();
};

// Call a function once the browser has painted what was drawn just now: a frame, and the first task after it.
function afterPaint(call) {
  requestAnimationFrame(() => {
    waiting.push(call);
    painter.port2.postMessage(0);
  });
}

async function begin() {
  for (;;) {
    try {
      const start = await fetchJson(`/api/start${location.search}`);
      const page = new Page(start);
      page.themeName();
      return;
    } catch (error) {
      $("status").textContent = error.message;
      if (!error.lost) return;
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

begin();
