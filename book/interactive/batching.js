"use strict";
// Static and continuous batching as a picture: two timelines, seats down and steps across, shown step by step.
(() => {
  const { el, button, slider, register } = globalThis.courseKit;
  const { REQUESTS, run, seatsUsed } = globalThis.courseBatching;
  const KINDS = [["Static batching", false], ["Continuous batching", true]];

  const mount = (stage, say) => {
    const settings = { seats: 3, budget: 12 };
    let runs = []; // the steps of each kind
    let shown = 0; // steps that can be seen

    const length = () => Math.max(...runs.map((steps) => steps.length));
    const place = slider("Steps shown", { min: 0, max: 30, value: 0 }, (value) => show(value));
    const back = button("Back", () => show(shown - 1));
    const next = button("Step", () => show(shown + 1));
    const end = button("To the end", () => show(length()));
    const timelines = el("div", { class: "timelines" });

    // ---------------------------------------------------------------- in words

    const share = ({ name, computed, tokens, prefill, finishes }) => {
      const which = tokens === 1 ? `token ${computed + 1}` : `tokens ${computed + 1} to ${computed + tokens}`;
      return `${name} ${prefill ? `computes prompt ${which}` : "decodes 1 token"}${finishes ? " and is done" : ""}`;
    };

    const told = (steps, kind) => {
      if (shown > steps.length) return `${kind}: all done since step ${steps.length}.`;
      const step = steps[shown - 1];
      const tokens = step.reduce((sum, { tokens }) => sum + tokens, 0);
      return `${kind}: ${step.map(share).join("; ") || "nothing to do"} (${tokens} of ${settings.budget} tokens).`;
    };

    // ---------------------------------------------------------------- the picture

    const cell = (item, index) => {
      if (index >= shown) return el("td", { class: "later" });
      if (!item) return el("td", { class: "idle" }, el("span", { class: "visually-hidden", text: "no work" }));
      const { name, tokens, prefill, finishes } = item;
      const color = REQUESTS.findIndex((request) => request.name === name) + 1;
      return el("td", { class: `c${color}${prefill ? " prefill" : ""}${finishes ? " finish" : ""}` },
        el("b", { text: name }), el("span", { class: "tokens", text: String(tokens) }));
    };

    const timeline = (steps, kind) => {
      const columns = [...Array(length()).keys()];
      const head = el("tr", {}, el("td"), ...columns.map((index) =>
        el("th", { scope: "col", class: index === shown - 1 ? "now" : "", text: String(index + 1) })));
      const rows = [...Array(settings.seats).keys()].map((seat) => {
        const cells = columns.map((index) =>
          index < steps.length ? cell(steps[index].find((item) => item.seat === seat), index) : el("td", { class: "later" }));
        return el("tr", {}, el("th", { scope: "row", text: `seat ${seat + 1}` }), ...cells);
      });
      const used = Math.round(100 * seatsUsed(steps, settings.seats));
      const caption = shown >= steps.length ? `${kind}: ${steps.length} steps, ${used} % of the seats at work` : kind;
      return el("div", { class: "scroller" },
        el("table", { class: "timeline" }, el("caption", { text: caption }), el("thead", {}, head), el("tbody", {}, ...rows)));
    };

    const draw = () => {
      const scrolled = [...timelines.children].map((child) => child.scrollLeft);
      timelines.replaceChildren(...runs.map((steps, kind) => timeline(steps, KINDS[kind][0])));
      [...timelines.children].forEach((child, index) => {
        child.scrollLeft = scrolled[index] ?? 0;
        if (child.scrollWidth > child.clientWidth) child.tabIndex = 0;
        const now = child.querySelector(".now");
        const hidden = now && now.offsetLeft + now.offsetWidth > child.scrollLeft + child.clientWidth;
        if (hidden) child.scrollLeft = now.offsetLeft + now.offsetWidth - child.clientWidth;
      });
    };

    const show = (step) => {
      shown = Math.min(Math.max(step, 0), length());
      place.input.max = length();
      place.set(shown);
      back.setAttribute("aria-disabled", String(shown === 0));
      next.setAttribute("aria-disabled", String(shown === length()));
      draw();
      say(shown === 0
        ? "Six requests are waiting. Step, and see who takes part."
        : `Step ${shown}. ${runs.map((steps, kind) => told(steps, KINDS[kind][0])).join(" ")}`);
    };

    const restart = (step) => {
      runs = KINDS.map(([, continuous]) => run(REQUESTS, { ...settings, continuous }));
      show(step);
    };

    const seats = slider("Seats (max_num_seqs)", { min: 1, max: 6, value: settings.seats }, (value) => {
      settings.seats = value;
      restart(length());
    });
    const budget = slider("Token budget of a step", { min: 2, max: 16, value: settings.budget }, (value) => {
      settings.budget = value;
      restart(length());
    });
    const waiting = REQUESTS.map(({ name, prompt, output }) => `${name} ${prompt} + ${output}`).join(", ");
    stage.append(
      el("p", { class: "given", text: `Prompt + output tokens: ${waiting}. A cell says who computes how many tokens; ` +
        "prompts are striped, a bar at the right marks the last token." }),
      el("div", { class: "controls" }, seats.element, budget.element, place.element, back, next, end),
      timelines);
    restart(1);
  };

  register("batching", "Static and continuous batching", mount);
})();
