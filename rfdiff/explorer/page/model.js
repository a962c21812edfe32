// The state of the page: the numbers on its sliders, what a change of one does to others, undo, and the query string of a link.

export const LISTS = ["fraction", "variance", "norm", "angle", "loss_weight"];
const MOST_UNDO = 200;
const TOGETHER = 800; // milliseconds
const LEAST_SHARE = 0.01;
const NEW_CLASS = { variance: 1, norm: 0.7, angle: 0 };

const copy = (state) => structuredClone(state);
const word = (value) => (value === Infinity ? "inf" : String(value));

export function queryOf(state) {
  const words = Object.entries(state)
    .filter(([name, value]) => !(name === "loss_weight" && value.length === 0))
    .map(([name, value]) => `${name}=${Array.isArray(value) ? value.map(word).join(",") : word(value)}`);
  return words.join("&");
}

// Shares that sum to 1 when one of them is set; the others keep their proportions, and none falls below its least.
export function withShare(shares, index, value, least = LEAST_SHARE) {
  const others = shares.length - 1;
  if (others === 0) return [1];
  const wanted = Math.min(Math.max(value, least), 1 - others * least);
  const rest = shares.reduce((sum, share, i) => (i === index ? sum : sum + share), 0);
  const free = 1 - wanted - others * least;
  const above = rest - others * least;
  const result = shares.map((share, i) => {
    if (i === index) return wanted;
    return Math.max(least, least + free * (above > 1e-12 ? (share - least) / above : 1 / others));
  });
  const last = index === shares.length - 1 ? 0 : shares.length - 1; // takes what rounding leaves
  const sum = result.reduce((total, share, i) => (i === last ? total : total + share), 0);
  result[last] = Math.max(least, 1 - sum);
  return result;
}

export class Model extends EventTarget {
  constructor(state) {
    super();
    this.state = copy(state);
    this.serial = 0; // of the shown state: answers of earlier ones are told by it
    this.past = [];
    this.future = [];
    this.last = { source: null, at: 0 };
    this.committed = copy(state);
  }

  get classes() {
    return this.state.fraction.length;
  }

  query() {
    return queryOf(this.state);
  }

  // A number while its slider moves; `commit` ends the move.
  move(name, index, value) {
    if (name === "fraction") this.state.fraction = withShare(this.state.fraction, index, value);
    else if (name === "loss_weight") this.state.loss_weight = withShare(this.state.loss_weight, index, value, 0);
    else if (index === null) this.state[name] = value;
    else this.state[name][index] = value;
    this.changed("moved");
  }

  set(name, index, value) {
    this.move(name, index, value);
    this.commit();
  }

  setClasses(count) {
    const state = this.state;
    const before = this.classes;
    if (count === before) return;
    if (count < before) {
      for (const name of LISTS) state[name] = state[name].slice(0, count);
      const sum = state.fraction.reduce((a, b) => a + b, 0);
      state.fraction = state.fraction.map((share) => share / sum);
    }
    for (let c = before; c < count; c += 1) {
      state.fraction = withShare([...state.fraction, 0], c, 1 / (c + 1));
      for (const [name, value] of Object.entries(NEW_CLASS)) state[name].push(name === "angle" ? (90 * c) % 360 : value);
    }
    state.loss_weight = [];
    this.changed("shape");
    this.commit();
  }

  setLossWeights(own) {
    this.state.loss_weight = own ? this.state.fraction.map(() => 1 / this.classes) : [];
    this.changed("shape");
    this.commit();
  }

  // `source` names a slider: its moves in quick succession, as of a held arrow key, are undone together.
  commit(source = null) {
    if (queryOf(this.committed) === this.query()) return;
    const now = performance.now();
    const same = source !== null && source === this.last.source && now - this.last.at < TOGETHER && this.past.length > 0;
    this.last = { source, at: now };
    if (!same) this.past.push(this.committed);
    if (this.past.length > MOST_UNDO) this.past.shift();
    this.future = [];
    this.committed = copy(this.state);
    this.dispatchEvent(new Event("committed"));
  }

  undo() {
    this.travel(this.past, this.future);
  }

  redo() {
    this.travel(this.future, this.past);
  }

  travel(from, to) {
    if (!from.length) return;
    this.last = { source: null, at: 0 };
    to.push(this.committed);
    this.committed = from.pop();
    this.state = copy(this.committed);
    this.changed("shape");
    this.dispatchEvent(new Event("committed"));
  }

  changed(kind) {
    this.serial += 1;
    this.dispatchEvent(new CustomEvent("changed", { detail: kind }));
  }
}
