"use strict";
// Static and continuous batching as plain logic: who computes how many tokens in each step, as in
// tinyllm/engine/scheduler.py with room for every block. tests/book/test_interactive.py compares the two.
(() => {
  /** Requests in order of arrival (the step before which each is there), with their lengths in tokens. */
  const REQUESTS = [
    { name: "A", arrival: 0, prompt: 4, output: 9 },
    { name: "B", arrival: 0, prompt: 3, output: 3 },
    { name: "C", arrival: 0, prompt: 5, output: 4 },
    { name: "D", arrival: 0, prompt: 4, output: 6 },
    { name: "E", arrival: 0, prompt: 3, output: 2 },
    { name: "F", arrival: 0, prompt: 2, output: 5 },
  ];

  /**
   * Every step until all requests are done.
   *
   * @param continuous whether requests are handed over as they come; if not, the next batch of as many as there are
   *   seats is handed over when the last one is done
   * @returns steps, each a list of { name, seat, computed (before the step), tokens, prefill, produces, finishes }
   */
  const run = (requests, { seats, budget, continuous }) => {
    const coming = requests.map((request) => ({ ...request, computed: 0, known: request.prompt }));
    const waiting = [];
    const running = []; // in order of arrival, as is `waiting`
    const steps = [];
    while (coming.length || waiting.length || running.length) {
      const idle = !waiting.length && !running.length;
      let handed = continuous ? Infinity : idle ? seats : 0;
      while (handed-- > 0 && coming[0]?.arrival <= steps.length) waiting.push(coming.shift());

      const shares = [];
      let left = budget;
      const give = (request) => {
        const tokens = Math.min(request.known - request.computed, left);
        left -= tokens;
        shares.push({ request, tokens });
      };
      for (const request of running) if (left > 0) give(request);
      while (left > 0 && waiting.length && running.length < seats) {
        const request = waiting.shift();
        const taken = new Set(running.map(({ seat }) => seat));
        request.seat = [...Array(seats).keys()].find((seat) => !taken.has(seat));
        running.push(request);
        give(request);
      }
      steps.push(shares.map(account));
      for (const { request } of shares) {
        if (request.known === request.prompt + request.output) running.splice(running.indexOf(request), 1);
      }
    }
    return steps;
  };

  /** Note what a request computes in a step, and what it knows afterwards. */
  const account = ({ request, tokens }) => {
    const { name, seat, computed, prompt, output } = request;
    request.computed += tokens;
    const produces = request.computed === request.known;
    if (produces) request.known += 1;
    const finishes = request.known === prompt + output;
    return { name, seat, computed, tokens, prefill: computed < prompt, produces, finishes };
  };

  /** The share of all seats, over all steps, in which a request computes. */
  const seatsUsed = (steps, seats) =>
    steps.reduce((sum, step) => sum + step.length, 0) / (steps.length * seats);

  const model = { REQUESTS, run, seatsUsed };
  if (typeof module === "undefined") globalThis.courseBatching = model;
  else module.exports = model;
})();
