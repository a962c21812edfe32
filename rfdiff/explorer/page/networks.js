// Networks beside the curves: started, watched, cancelled; their points arrive seed by seed.

import { queryOf } from "./model.js";
import { ENDED, fetchJson } from "./server.js";

const LOOK = 400;

export class Networks {
  constructor(parts, model, charts, axis) {
    Object.assign(this, { ...parts, model, charts, axis, number: null, trained: "" });
    this.start.addEventListener("click", () => this.begin());
    this.cancel.addEventListener("click", () => this.end());
    model.addEventListener("changed", () => this.age());
  }

  async begin() {
    const query = new URLSearchParams({ d: this.d.value, num_seeds: this.seeds.value, axis: this.axis().join(",") });
    const before = this.number;
    this.number = null; // the watcher of earlier networks ends
    this.note.textContent = "Starting.";
    const state = queryOf(this.model.state);
    try {
      this.number = (await fetchJson(`/api/train?${state}&${query}`, { method: "POST" })).number;
    } catch (error) {
      this.note.textContent = error.message;
      if (before !== null) this.watch((this.number = before));
      return;
    }
    this.trained = state;
    this.cancel.disabled = false;
    this.charts.points = null;
    this.watch(this.number);
  }

  async end() {
    const before = this.number;
    this.number = null;
    try {
      await fetchJson("/api/train/cancel", { method: "POST" });
    } catch (error) {
      this.note.textContent = error.message;
      if (before !== null) this.watch((this.number = before));
      return;
    }
    this.ended("Cancelled; the network in hand is finished first.");
    this.progress.value = 0;
  }

  ended(text) {
    this.number = null;
    this.cancel.disabled = true;
    if (text) this.note.textContent = text;
  }

  async watch(number) {
    for (;;) {
      await new Promise((done) => setTimeout(done, LOOK));
      if (this.number !== number) return;
      const answer = await fetchJson("/api/train").catch(() => null);
      if (this.number !== number) return;
      if (answer === null) continue;
      if (answer.number !== number) return this.ended(ENDED);
      this.progress.value = answer.num_seeds ? answer.done / answer.num_seeds : 0;
      const bars = answer.done > 1 ? ", bars are one standard error" : "";
      this.note.textContent = answer.error || `${answer.done ?? 0} of ${answer.num_seeds ?? this.seeds.value} networks at d = ${answer.d ?? this.d.value}: filled points test, open squares train${bars}.`;
      if (answer.taus && answer.done !== this.charts.points?.done) {
        this.charts.points = answer;
        this.age(true);
      }
      if (!answer.running) return this.ended("");
    }
  }

  // Points of an earlier state stay, faint.
  age(redraw = false) {
    const points = this.charts.points;
    if (!points) return;
    const stale = this.trained !== queryOf(this.model.state);
    if (stale !== points.stale || redraw) {
      points.stale = stale;
      this.charts.redraw();
    }
  }
}
