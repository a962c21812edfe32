// Requests to the server: one in flight for each question, the newest state wins; and whether the server is there at all.

const AGAIN = 1000; // milliseconds between two looks at a server that does not answer
const IDLE = 3000; // and at one that answered the last question: a page at rest notices too that its server has ended
const COMPILED = 80; // and at a program that is being compiled

export const ENDED = "Ended by another tab or a restart of the server.";
export const connection = new EventTarget();
let lost = "";

function tell(reason) {
  if (reason === lost) return;
  const before = lost;
  lost = reason;
  connection.dispatchEvent(new CustomEvent(reason ? "lost" : "back", { detail: reason || before }));
  if (reason && !before) look();
}

async function look() {
  while (lost) {
    await new Promise((done) => setTimeout(done, AGAIN));
    await fetchJson("/api/alive").catch(() => {});
  }
}

setInterval(() => lost || fetchJson("/api/alive").catch(() => {}), IDLE);

// The answer of the server; throws an Error with its refusal. `lost` is set on errors of the connection alone.
export async function fetchJson(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw Object.assign(error, { lost: true });
    tell("The server does not answer. Start rfdiff explore again on the same port; this page then goes on by itself.");
    throw Object.assign(new Error("no connection"), { lost: true });
  }
  const answer = await response.json().catch((error) => {
    if (error.name === "AbortError") throw Object.assign(error, { lost: true });
    return { error: `status ${response.status}` };
  });
  if (response.status === 403) {
    tell(answer.error);
    throw Object.assign(new Error(answer.error), { lost: true });
  }
  tell("");
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// A question that is asked again and again. `answered(answer, asked)` and `refused(message, asked)` hear of the newest one only.
// With `impatient` a newer question does not wait for the answer to the one before, which may be compiling.
export class Newest {
  constructor(address, answered, refused, impatient = false) {
    Object.assign(this, { address, answered, refused, impatient, waiting: null, busy: false, stop: null });
  }

  ask(query, asked) {
    this.waiting = { query, asked };
    if (!this.busy) this.work();
    else if (this.impatient) this.stop?.abort();
  }

  async work() {
    this.busy = true;
    let show = () => {};
    while (this.waiting) {
      const { query, asked } = this.waiting;
      this.waiting = null;
      this.stop = new AbortController();
      try {
        const coming = fetchJson(`${this.address}?${query}`, { signal: this.stop.signal });
        show(); // the answer before is drawn while the server computes this one
        show = () => {};
        const answer = await coming;
        show = () => this.answered(answer, asked);
        if (this.waiting) continue;
        show();
        show = () => {};
        if (answer.kind === "compiling" && !this.waiting) {
          await new Promise((done) => setTimeout(done, COMPILED));
          if (!this.waiting) this.waiting = { query, asked };
        }
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        if (!error.lost && !this.waiting) this.refused(error.message, asked);
      }
    }
    this.busy = false;
  }
}
