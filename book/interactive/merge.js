"use strict";
// Online softmax as a picture: eight scores, cut in two; the state of each part, and what merging makes of them.
(() => {
  const { el, slider, register } = globalThis.courseKit;
  const { partialState, mergeStates, logSumExp } = globalThis.courseMerge;
  const VALUES = [2, -1, 0.5, 3, -2, 1, 4, -0.5];
  const START = { scores: [1, 2.5, 0, 3, 1.5, -1, 4, 2], split: 5 };

  const digits = (number) => (Object.is(Math.round(number * 1000), -0) ? 0 : number).toFixed(3);

  const mount = (stage, say) => {
    let scores = [...START.scores];
    let split = START.split;

    const bars = scores.map((_, position) => el("span", { class: "bar", "aria-hidden": "true", title: `position ${position}` }));
    const sliders = scores.map((value, position) => {
      const one = slider(`s${position}`, { min: -4, max: 6, step: 0.5, value }, (number) => {
        scores[position] = number;
        draw();
      });
      one.input.setAttribute("aria-label", `Score of position ${position}, whose value is ${VALUES[position]}`);
      return one;
    });
    const cut = slider("The left part has", { min: 1, max: scores.length - 1, value: split }, (value) => {
      split = value;
      draw();
    });
    const body = el("tbody");

    const row = (name, state, whole = "") =>
      el("tr", { class: whole }, el("th", { scope: "row", text: name }),
        ...[state.max, state.sum, state.output, logSumExp(state)].map((number) => el("td", { text: digits(number) })));

    const draw = () => {
      const left = partialState(scores.slice(0, split), VALUES.slice(0, split));
      const right = partialState(scores.slice(split), VALUES.slice(split));
      const merged = mergeStates(left, right);
      const once = partialState(scores, VALUES);
      scores.forEach((score, position) => {
        const weight = Math.exp(score - merged.max) / merged.sum;
        bars[position].style.setProperty("--weight", weight.toFixed(4));
        columns[position].classList.toggle("part-left", position < split);
        columns[position].classList.toggle("part-right", position >= split);
        weights[position].textContent = weight.toFixed(3);
      });
      body.replaceChildren(
        row(`left: ${split} positions`, left, "part-left"), row(`right: ${scores.length - split} positions`, right, "part-right"),
        row("merged", merged, "merged"), row("all at once", once));
      const [scaleLeft, scaleRight] = merged.scale.map(digits);
      say(`The common maximum is ${digits(merged.max)}. The left sum is scaled by ` +
        `exp(${digits(left.max)} \u2212 ${digits(merged.max)}) = ${scaleLeft}, the right one by ` +
        `exp(${digits(right.max)} \u2212 ${digits(merged.max)}) = ${scaleRight}. ` +
        `Sum: ${digits(left.sum)} \u00b7 ${scaleLeft} + ${digits(right.sum)} \u00b7 ${scaleRight} = ${digits(merged.sum)}.`);
    };

    const weights = scores.map(() => el("span", { class: "weight" }));
    const columns = scores.map((_, position) => el("li", {},
      el("span", { class: "bar-space" }, bars[position]), weights[position], sliders[position].element,
      el("span", { class: "value", text: `v = ${VALUES[position]}` })));
    const reset = el("button", { type: "button", text: "Reset", click: () => {
      scores = [...START.scores];
      sliders.forEach((one, position) => one.set(scores[position]));
      split = START.split;
      cut.set(split);
      draw();
    } });
    const heads = ["", "max m", "sum l", "output o", "m + log l"].map((text) =>
      text ? el("th", { scope: "col", text }) : el("td"));
    stage.append(
      el("div", { class: "controls" }, cut.element, reset),
      el("ol", { class: "scores", "aria-label": "Positions with their share of the softmax" }, ...columns),
      el("div", { class: "scroller" }, el("table", { class: "states" },
        el("caption", { text: "What each part keeps" }), el("thead", {}, el("tr", {}, ...heads)), body)));
    draw();
  };

  register("merge", "Merging two partial attention states", mount);
})();
