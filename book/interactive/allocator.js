"use strict";
// The page allocator as a picture: blocks, who owns them, and the buttons that change it.
(() => {
  const { el, button, named, register } = globalThis.courseKit;
  const { Pool, OutOfBlocks } = globalThis.coursePool;
  const NUM_BLOCKS = 16;
  const BLOCK_SIZE = 4;
  const NAMES = ["A", "B", "C", "D", "E"]; // one for each color

  const mount = (stage, say) => {
    let pool;
    let chosen; // the name of the request that the buttons act on

    const prompt = el("input", { type: "text", value: "Ten tokens", maxlength: 24, autocomplete: "off", spellcheck: "false" });
    const select = el("select", { change: () => { chosen = select.value; draw(); } });
    const acting = [
      button("Append a token", () => act(appendOne)),
      button("Fork", () => act(fork)),
      button("Free", () => act(free)),
    ];
    const start = button("New request", () => act(startOne));
    const grid = el("ol", { class: "pool", "aria-label": "Blocks of the pool" });
    const tables = el("ul", { class: "tables", "aria-label": "Block tables" });

    const unusedName = () => NAMES.find((name) => !pool.tables.has(name));

    // ---------------------------------------------------------------- the buttons

    const startOne = () => {
      const name = unusedName();
      const { hit, allocated } = pool.start(name, prompt.value);
      chosen = name;
      const cached = hit.length
        ? `Prefix hit: ${named("block", hit)}, so ${hit.length * BLOCK_SIZE} tokens need no computing. `
        : "No prefix is known. ";
      return `${name} starts with ${prompt.value.length} tokens. ${cached}Allocated: ${named("block", allocated)}.`;
    };

    const appendOne = () => {
      const { allocated, copied } = pool.append(chosen, chosen.toLowerCase());
      if (copied) {
        return `Copy on write: another owner can see block ${copied.from}, so ${chosen} gets a copy of it, ` +
          `block ${copied.to}, and writes there.`;
      }
      if (allocated.length) return `The last block of ${chosen} is full. Allocated: ${named("block", allocated)}.`;
      return `${chosen} writes into the last block of its table. Nothing is allocated.`;
    };

    const fork = () => {
      const child = unusedName();
      pool.fork(chosen, child);
      return `${child} shares ${named("block", pool.tables.get(child).blockIds)} with ${chosen}. Nothing is copied.`;
    };

    const free = () => {
      const before = new Set(pool.freeIds);
      const name = chosen;
      pool.free(name);
      const freed = pool.freeIds.filter((id) => !before.has(id));
      return `${name} is done and gives up its references. Back in the pool: ${named("block", freed)}. ` +
        "Full blocks stay in the prefix cache.";
    };

    const act = (operation) => {
      try {
        say(operation());
      } catch (error) {
        if (!(error instanceof OutOfBlocks)) throw error;
        say(`Out of blocks: ${error.message}. The request must wait until another is done.`);
      }
      draw();
    };

    // ---------------------------------------------------------------- the picture

    const block = (id, owners, cached) => {
      const count = pool.refCounts[id];
      const who = count === 0 ? "free" : [...owners, ...(cached ? ["cache"] : [])].join(" ");
      const letters = count === 0 ? [] : pool.contents[id];
      const slots = Array.from({ length: BLOCK_SIZE }, (_, slot) =>
        el("span", { class: letters[slot] ? "slot full" : "slot", text: letters[slot] === " " ? "\u2423" : letters[slot] ?? "" }));
      const state = count === 0 ? "free" : owners.length > 1 ? "shared" : owners.length ? "owned" : "cached";
      const mine = owners.includes(chosen) ? " mine" : "";
      return el("li", { class: `block ${state}${mine} c${NAMES.indexOf(owners[0]) + 1}` },
        el("span", { class: "number" }, el("span", { class: "visually-hidden", text: "block " }), String(id)),
        el("span", { class: "slots" }, ...slots),
        el("span", { class: "who", text: count > 1 ? `${who} \u00b7 ${count} refs` : who }));
    };

    const row = ([name, { blockIds, tokens }]) => {
      const text = `${name}: block_table [${blockIds.join(", ")}], ${tokens.length} tokens`;
      return el("li", { class: name === chosen ? "mine" : "", text });
    };

    const draw = () => {
      if (!pool.tables.has(chosen)) chosen = [...pool.tables.keys()].at(-1);
      select.replaceChildren(...[...pool.tables.keys()].map((name) =>
        el("option", { value: name, text: name, selected: name === chosen })));
      const focused = document.activeElement;
      select.disabled = !chosen;
      for (const one of acting) one.disabled = !chosen;
      acting[1].disabled ||= !unusedName();
      start.disabled = !unusedName();
      if (focused?.disabled && stage.contains(focused)) start.focus();
      const cached = new Set(pool.prefixes.values());
      grid.replaceChildren(...pool.owners().map((owners, id) => block(id, owners, cached.has(id))));
      tables.replaceChildren(...[...pool.tables].map(row), el("li", {
        text: `prefix cache: ${named("block", [...cached])}; free: ${pool.freeIds.length} of ${NUM_BLOCKS}`,
      }));
    };

    const reset = () => {
      pool = new Pool(NUM_BLOCKS, BLOCK_SIZE);
      prompt.value = "Ten tokens";
      return startOne();
    };

    prompt.addEventListener("input", () => { start.disabled = !prompt.value || !unusedName(); });
    stage.append(
      el("div", { class: "controls" },
        el("label", {}, el("span", { text: "Prompt, one letter a token" }), prompt), start,
        el("label", {}, el("span", { text: "Request" }), select), ...acting, button("Reset", () => act(reset))),
      grid, tables);
    act(reset);
  };

  register("allocator", "Page allocator", mount);
})();
