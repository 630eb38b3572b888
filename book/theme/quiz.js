"use strict";
// Quizzes: says whether the answer is right, and why; the same reasons can be unfolded without this script.
(() => {
  const verdict = (form) => {
    if (form.dataset.number !== undefined) {
      const typed = form.querySelector("input").value.trim().replace(",", ".");
      if (!typed || Number.isNaN(Number(typed))) return null;
      const wanted = Number(form.dataset.number);
      const right = Math.abs(Number(typed) - wanted) <= 1e-3 * Math.abs(wanted);
      const hints = JSON.parse(form.dataset.hints);
      const known = Object.keys(hints).find((key) => Number(key) === Number(typed));
      return { right, reason: right ? form.querySelector(".why").innerHTML : (known && hints[known]) || "" };
    }
    const chosen = form.querySelector("input:checked");
    if (!chosen) return null;
    const row = form.querySelector(`li[data-choice="${chosen.value}"]`);
    return { right: row.dataset.right === "true", reason: row.querySelector("span").innerHTML };
  };

  for (const form of document.querySelectorAll(".quiz form")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const status = form.querySelector("[role=status]");
      const result = verdict(form);
      status.className = result === null ? "" : result.right ? "quiz-right" : "quiz-wrong";
      status.innerHTML = result === null
        ? "Give an answer first."
        : `${result.right ? "Right." : "Not yet."} ${result.reason}`;
    });
  }
})();
