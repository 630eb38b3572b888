"use strict";
// What mdBook's own pages lack for keyboards and screen readers.
(() => {
  const find = (selector) => document.querySelector(selector);

  const main = find("main");
  if (main) {
    main.id ||= "content";
    main.tabIndex = -1;
    const skip = document.createElement("a");
    skip.className = "skip-link";
    skip.href = `#${main.id}`;
    skip.textContent = "Skip to the text";
    document.body.prepend(skip);
  }

  find("#mdbook-menu-bar")?.setAttribute("role", "banner");

  // The book's title is an h1 on every page, and so is the chapter's.
  const title = find("h1.menu-title");
  if (title) {
    const paragraph = document.createElement("p");
    paragraph.className = "menu-title";
    paragraph.textContent = title.textContent;
    title.replaceWith(paragraph);
  }

  // The menu button is a label (rust-lang/mdBook#2615).
  const label = find("label#mdbook-sidebar-toggle");
  const box = find("#mdbook-sidebar-toggle-anchor");
  if (label && box) {
    const button = document.createElement("button");
    button.type = "button";
    button.id = label.id;
    button.className = label.className;
    button.title = label.title;
    button.innerHTML = label.innerHTML;
    button.setAttribute("aria-label", label.title);
    button.setAttribute("aria-controls", "mdbook-sidebar");
    const sync = () => button.setAttribute("aria-expanded", String(box.checked));
    box.addEventListener("change", sync);
    button.addEventListener("click", () => box.click());
    sync();
    label.replaceWith(button);
  }

  // Whatever scrolls sideways can be reached by keyboard.
  const scrollers = () => {
    for (const element of document.querySelectorAll("pre > code, .math, .table-wrapper, .fig-scroll, .stage .scroller")) {
      if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
      else element.removeAttribute("tabindex");
    }
  };
  addEventListener("load", scrollers);
  addEventListener("resize", scrollers);
  document.addEventListener("toggle", scrollers, true);
  scrollers();

  // Arrow keys turn the page, but not from inside what scrolls or is chosen with them (rust-lang/mdBook#1789, #518).
  const own = "pre, .math, .fig-scroll, .table-wrapper, .quiz, .interactive";
  document.addEventListener("keydown", (event) => {
    const arrow = event.key === "ArrowLeft" || event.key === "ArrowRight";
    if (arrow && (event.target.closest?.(own) || String(getSelection()))) event.stopImmediatePropagation();
  }, true);

  // On paper everything is unfolded.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not([open])")) {
      details.open = true;
      details.dataset.reclose = "";
    }
  });
  addEventListener("afterprint", () => {
    for (const details of document.querySelectorAll("details[data-reclose]")) details.open = false;
  });
})();
