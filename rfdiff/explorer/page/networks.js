// Networks beside the curves: started, watched, cancelled; their points arrive seed by seed.

import { queryOf } from "./model.js";
import { fetchJson } from "./server.js";

const LOOK = 400;

export class Networks {
  constructor(parts, model, charts, axis) {
    Object.assign(this, { ...parts, model, charts, axis, watching: false, trained: "" });
    this.start.addEventListener("click", () => this.begin());
    this.cancel.addEventListener("click", () => this.end());
    model.addEventListener("changed", () => this.age());
  }

  async begin() {
    const query = new URLSearchParams({ d: this.d.value, num_seeds: this.seeds.value, axis: this.axis().join(",") });
    this.note.textContent = "Starting.";
    try {
      this.trained = queryOf(this.model.state);
      await fetchJson(`/api/train?${this.trained}&${query}`, { method: "POST" });
    } catch (error) {
      this.note.textContent = error.message;
      return;
    }
    this.cancel.disabled = false;
    this.charts.points = null;
    this.watch();
  }

  async end() {
    await fetchJson("/api/train/cancel", { method: "POST" }).catch(() => {});
    this.cancel.disabled = true;
    this.progress.value = 0;
    this.note.textContent = `Cancelled. ${this.note.textContent.replace(/^Cancelled\. /, "")}`;
  }

  async watch() {
    if (this.watching) return;
    this.watching = true;
    while (!this.cancel.disabled) {
      await new Promise((done) => setTimeout(done, LOOK));
      const answer = await fetchJson("/api/train").catch(() => null);
      if (answer === null || this.cancel.disabled) continue;
      this.progress.value = answer.num_seeds ? answer.done / answer.num_seeds : 0;
      const bars = answer.done > 1 ? ", bars are one standard error" : "";
      this.note.textContent = answer.error || `${answer.done ?? 0} of ${answer.num_seeds ?? this.seeds.value} networks at d = ${answer.d ?? this.d.value}: filled points test, open squares train${bars}.`;
      if (answer.taus && answer.done !== this.charts.points?.done) {
        this.charts.points = answer;
        this.age(true);
      }
      if (!answer.running) this.cancel.disabled = true;
    }
    this.watching = false;
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
