"use strict";
// Routing as a picture: choose two experts for each token, and see how they are loaded and how their blocks are filled.
(() => {
  const { el, button, slider, register } = globalThis.courseKit;
  const { TOKENS, TOP_K, NUM_EXPERTS, START, EVEN, ALIKE, choose, counts, blocks, summary } = globalThis.courseExperts;
  const EXPERTS = [...Array(NUM_EXPERTS).keys()];

  const letter = (token) => (TOKENS[token] === " " ? "\u2423" : TOKENS[token]);
  const spoken = (token) => (TOKENS[token] === " " ? "the space" : `"${TOKENS[token]}"`);
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const percent = (share) => `${Math.round(100 * share)} %`;

  const mount = (stage, say) => {
    let routes = START;
    let numTokens = TOKENS.length;
    let blockSize = 4;
    const shown = () => routes.slice(0, numTokens);

    // ---------------------------------------------------------------- the router: a box for each token and expert

    const boxes = EXPERTS.map((expert) => [...TOKENS].map((_, token) => el("input", {
      type: "checkbox",
      "aria-label": `token ${token}, ${spoken(token)}, to expert ${expert}`,
      change: () => {
        const before = routes[token];
        const after = choose(before, expert);
        routes = routes.map((route, index) => (index === token ? after : route));
        const gone = before.find((other) => other !== expert && !after.includes(other));
        const left = after.length === TOP_K ? "" : ` It has ${count(after.length, "expert")} now: the rest is left out.`;
        draw(`Token ${token}, ${spoken(token)}, ${after.includes(expert) ? "goes to" : "leaves"} expert ${expert}` +
          `${gone === undefined ? "" : ` in place of ${gone}`}.${left}`);
      },
    })));
    const heads = [...TOKENS].map((_, token) => el("th", { scope: "col", text: letter(token) }));
    const loads = EXPERTS.map(() => el("td", { class: "load" }));
    const rows = EXPERTS.map((expert) => el("tr", { class: `c${expert + 1}` },
      el("th", { scope: "row", text: `expert ${expert}` }),
      ...boxes[expert].map((box) => el("td", {}, box)), loads[expert]));
    const router = el("table", { class: "router" }, el("caption", { text: `Each token goes to ${TOP_K} experts` }),
      el("thead", {}, el("tr", {}, el("td"), ...heads, el("th", { scope: "col", text: "load" }))),
      el("tbody", {}, ...rows));
    const grid = el("ol", { class: "expert-blocks", "aria-label": "Blocks of one expert each" });

    // ---------------------------------------------------------------- the blocks

    const block = ({ expert, rows: pairs }) => {
      const slots = pairs.map((pair) => (pair === null
        ? el("span", { class: "slot padding" }, el("span", { class: "visually-hidden", text: "padding" }))
        : el("span", { class: "slot full", text: letter(Math.floor(pair / TOP_K)) })));
      return el("li", { class: `block owned c${expert + 1}` },
        el("span", { class: "slots" }, ...slots), el("span", { class: "who", text: `expert ${expert}` }));
    };

    const draw = (first = "") => {
      const load = counts(shown(), NUM_EXPERTS);
      boxes.forEach((line, expert) => line.forEach((box, token) => {
        box.checked = routes[token].includes(expert);
        box.disabled = token >= numTokens;
      }));
      loads.forEach((cell, expert) => {
        cell.textContent = String(load[expert]);
        cell.style.setProperty("--share", String(load[expert] / numTokens));
      });
      grid.style.setProperty("--rows", String(blockSize));
      grid.replaceChildren(...blocks(shown(), NUM_EXPERTS, blockSize).map(block));
      const { pairs, rows: padded, waste, touched, imbalance } = summary(shown(), NUM_EXPERTS, blockSize);
      say(`${first} ${count(pairs, "pair")} in ${count(padded, "row")}: ${padded - pairs} are padding, ` +
        `${percent(waste)}. ${touched} of ${NUM_EXPERTS} experts are touched; the busiest has ` +
        `${imbalance.toFixed(2)} times the mean load.`);
    };

    const preset = (text, wanted, words) => button(text, () => {
      routes = wanted;
      draw(words);
    });
    const size = slider("Rows of a block", { min: 1, max: 8, value: blockSize }, (value) => {
      blockSize = value;
      draw();
    });
    const tokens = slider("Tokens in the step", { min: 1, max: TOKENS.length, value: numTokens }, (value) => {
      numTokens = value;
      draw();
    });
    stage.append(
      el("div", { class: "controls" }, size.element, tokens.element,
        preset("As above", START, "The routes of the chapter."),
        preset("Evenly", EVEN, "Every expert has as many pairs as the others."),
        preset("All alike", ALIKE, "Every token goes to experts 0 and 1.")),
      el("div", { class: "scroller" }, router), grid);
    draw();
  };

  register("experts", "Routing tokens to experts", mount);
})();
