"use strict";
// What all interactive pictures share: making elements, and taking the place of the drawn picture.
(() => {
  if (globalThis.courseKit) return; // a page may hold several pictures

  /** An element; `attributes` also takes `text`, and functions for events (`click: () => ...`). */
  const el = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") element.textContent = value;
      else if (typeof value === "function") element.addEventListener(name, value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };

  const button = (text, click) => el("button", { type: "button", text, click });

  /** A slider with its label and its value in digits; `changed` gets the new number. */
  const slider = (text, { min, max, step = 1, value }, changed) => {
    const output = el("span", { class: "number", "aria-hidden": "true", text: String(value) }); // the slider says it itself
    const input = el("input", {
      type: "range", min, max, step, value,
      input: () => { output.textContent = input.value; changed(Number(input.value)); },
    });
    const set = (number) => { input.value = number; output.textContent = String(number); };
    return { element: el("label", { class: "slider" }, el("span", { text }), input, output), input, set };
  };

  /** Counts and names in a sentence: "no block", "block 3", "blocks 3, 5". */
  const named = (noun, list) =>
    list.length === 0 ? `no ${noun}` : `${noun}${list.length > 1 ? "s" : ""} ${list.join(", ")}`;

  /**
   * Put a picture into every figure that asks for it. `mount(stage, say)` fills the stage; `say` tells what has just
   * happened, to eyes and to screen readers.
   */
  const register = (name, label, mount) => {
    for (const figure of document.querySelectorAll(`figure[data-interactive="${name}"]:not(.live)`)) {
      const status = el("p", { class: "status", role: "status" });
      const stage = el("div", { class: "stage", role: "group", "aria-label": label });
      const say = (text) => { status.textContent = text; };
      figure.classList.add("live");
      figure.querySelector(".still").after(stage, status);
      mount(stage, say);
    }
  };

  globalThis.courseKit = { el, button, slider, named, register };
})();
