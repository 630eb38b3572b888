"use strict";
// Attention of one query over scored positions, in parts: what tinyllm/kernels/reference.py does with tensors, for a
// values vector of length 1. tests/book/test_interactive.py compares the two.
(() => {
  /** The state of some positions: highest score, sum of exponentials, and output. No position: -Infinity, 0, 0. */
  const partialState = (scores, values) => {
    const max = Math.max(-Infinity, ...scores);
    const weights = scores.map((score) => Math.exp(score - max));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const weighted = weights.reduce((total, weight, position) => total + weight * values[position], 0);
    return { max, sum, output: sum ? weighted / sum : 0 };
  };

  /** Two states as one: both sums are brought to the higher maximum, and the outputs are weighted with them. */
  const mergeStates = (left, right) => {
    const max = Math.max(left.max, right.max);
    const scale = [left, right].map((state) => (state.max === -Infinity ? 0 : Math.exp(state.max - max)));
    const shares = [left.sum * scale[0], right.sum * scale[1]];
    const sum = shares[0] + shares[1];
    const output = sum ? (shares[0] * left.output + shares[1] * right.output) / sum : 0;
    return { max, sum, output, scale };
  };

  /** max + log(sum): all that has to be kept beside the output. */
  const logSumExp = ({ max, sum }) => (sum ? max + Math.log(sum) : -Infinity);

  const model = { partialState, mergeStates, logSumExp };
  if (typeof module === "undefined") globalThis.courseMerge = model;
  else module.exports = model;
})();
