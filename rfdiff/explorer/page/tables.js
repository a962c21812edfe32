// Numbers beside the charts: values at a training time, times of each class and their order, speciation times, bulks and atoms.

import { chip } from "./controls.js";
import { format } from "./format.js";

const CURVES = { test_loss: "test", train_loss: "train", optimal_loss: "optimum", score_error: "score err." };
const TIMES = { tau_gen: "τ_gen", tau_stop: "τ_stop", tau_mem: "τ_mem", tau_opt: "τ_opt(½)" };

// Fills a table, in place where it has as many rows: a moving slider then changes texts and no layout.
function filled(table, headings, rows) {
  if (table.rows.length === rows.length + 1 && table.rows[0].cells.length === headings.length) {
    rows.forEach((cells, r) => cells.forEach(({ content, data = {} }, i) => i > 0 && refilled(table.rows[r + 1].cells[i], content, data)));
    return;
  }
  const cell = (tag, content, data = {}) => {
    const made = document.createElement(tag);
    made.append(...(Array.isArray(content) ? content : [content]));
    Object.assign(made.dataset, data);
    if (data.title) made.title = data.title;
    return made;
  };
  const head = document.createElement("tr");
  head.append(...headings.map((heading) => cell("th", heading)));
  const body = rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map(({ content, data }) => cell("td", content, data)));
    return row;
  });
  table.replaceChildren(head, ...body);
}

function refilled(cell, content, data) {
  if (cell.textContent !== content) cell.textContent = content;
  if (data.title !== undefined && data.title !== cell.title) {
    cell.title = data.title;
    cell.dataset.title = data.title;
  }
}

const named = (c, colors) => ({ content: [chip(colors[c]), `class ${c}`] });

export function showReadout(table, curves, index, colors) {
  const rows = curves.test_loss.map((_, c) => [
    named(c, colors),
    ...Object.keys(CURVES).map((name) => {
      const value = name === "optimal_loss" ? curves[name][c] : curves[name][c][index];
      return { content: value !== null && value > 1e-3 ? value.toPrecision(4) : format(value, 4), data: { name, class: c } };
    }),
  ]);
  filled(table, ["", ...Object.values(CURVES)], rows);
}

export function showTimes(table, times, colors, stale) {
  const count = times.tau_gen.texts.length;
  const rows = Array.from({ length: count }, (_, c) => [
    named(c, colors),
    ...Object.keys(TIMES).map((name) => ({ content: times[name].texts[c], data: { name, class: c, title: times.reasons[name][c] } })),
  ]);
  filled(table, ["τ", ...Object.values(TIMES)], rows);
  table.classList.toggle("stale", stale);
}

export function showSpeciation(line, answer) {
  if (answer.times === null) {
    line.textContent = `Speciation times of the exact score: ${answer.reason}.`;
    return;
  }
  const parts = answer.times.map((time, c) => `class ${c}${time === null ? ": never, the classes overlap too much" : ` at t = ${format(time, 4)}`}`);
  line.textContent = `Speciation: with the exact score at d = ${answer.dimension} the backward process decides for ${parts.join(", ")}.`;
}

export function showBulks(line, spectrum) {
  const bulks = spectrum.support.map(([low, high]) => `${format(low, 3)} … ${format(high, 3)}`).join(", ");
  const atoms = spectrum.atoms.map(([place, weight]) => `${format(weight, 3)} of the modes at ${format(place, 3)}`).join(", ");
  line.textContent = `Bulks: ${bulks || "none"}. ${atoms ? `Atoms: ${atoms}. ` : ""}Lines in the colours of the classes are their parts, the dark line is the whole.`;
}

export function showLegend(box, count, colors, pinned) {
  const parts = Array.from({ length: count }, (_, c) => {
    const entry = document.createElement("span");
    entry.append(chip(colors[c]), `class ${c}`);
    return entry;
  });
  const notes = ["— test", "- - train", "··· optimum", "▲ learned", "▼ best test loss", "◆ memorised", "○ half way to the optimum", ...(pinned ? ["faint: pinned"] : [])];
  parts.push(...notes.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
  box.replaceChildren(...parts);
}
