"use strict";
// A sparse layer's routing as plain logic: loads, blocks of one expert each, and their padding, as in
// tinyllm/experts/align.py. tests/book/test_interactive.py compares the two.
(() => {
  const TOKENS = "Ten tokens";
  const TOP_K = 2;
  const NUM_EXPERTS = 4;

  /** Routes to begin with: for each token its experts, the one that was chosen first in front. */
  const START = [[0, 1], [0, 3], [1, 0], [0, 3], [0, 1], [3, 0], [1, 3], [0, 3], [0, 1], [3, 0]];
  const EVEN = START.map((_, token) => [(2 * token) % NUM_EXPERTS, (2 * token + 1) % NUM_EXPERTS]);
  const ALIKE = START.map(() => [0, 1]);

  /** A token's experts after one of them was asked for, or no longer: the one chosen first gives way to a third. */
  const choose = (route, expert) =>
    route.includes(expert) ? route.filter((other) => other !== expert) : [...route, expert].slice(-TOP_K);

  /** How many pairs each expert has. */
  const counts = (routes, numExperts) => {
    const found = new Array(numExperts).fill(0);
    for (const expert of routes.flat()) found[expert] += 1;
    return found;
  };

  /**
   * The blocks of a grouped product: each has one expert and `blockSize` rows, and a row is a pair or null for padding.
   * Pair i is token i // TOP_K with its expert number i % TOP_K.
   */
  const blocks = (routes, numExperts, blockSize) => {
    const made = [];
    for (let expert = 0; expert < numExperts; expert += 1) {
      const pairs = routes.flatMap((route, token) =>
        route.flatMap((chosen, place) => (chosen === expert ? [token * TOP_K + place] : [])));
      for (let start = 0; start < pairs.length; start += blockSize) {
        const rows = pairs.slice(start, start + blockSize);
        made.push({ expert, rows: [...rows, ...new Array(blockSize - rows.length).fill(null)] });
      }
    }
    return made;
  };

  /** Pairs, rows with padding, the share of rows wasted, experts touched, and the busiest over the mean of all. */
  const summary = (routes, numExperts, blockSize) => {
    const load = counts(routes, numExperts);
    const pairs = load.reduce((sum, count) => sum + count, 0);
    const rows = blocks(routes, numExperts, blockSize).length * blockSize;
    return {
      pairs,
      rows,
      waste: rows ? (rows - pairs) / rows : 0,
      touched: load.filter((count) => count > 0).length,
      imbalance: pairs ? Math.max(...load) * numExperts / pairs : 1,
    };
  };

  const model = { TOKENS, TOP_K, NUM_EXPERTS, START, EVEN, ALIKE, choose, counts, blocks, summary };
  if (typeof module === "undefined") globalThis.courseExperts = model;
  else module.exports = model;
})();
