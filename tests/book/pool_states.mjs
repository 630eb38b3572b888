// Runs lists of operations on the page allocator's model; one JSON list a line in, the states after each operation out.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const { Pool, OutOfBlocks } = createRequire(import.meta.url)("../../book/interactive/allocator_model.js");

const state = (pool) => ({
  free: pool.freeIds,
  counts: pool.refCounts,
  tables: Object.fromEntries([...pool.tables].map(([name, { blockIds, tokens }]) => [name, [blockIds, tokens]])),
  cached: [...pool.prefixes.values()],
});

for await (const line of createInterface({ input: process.stdin })) {
  const { numBlocks, blockSize, operations } = JSON.parse(line);
  const pool = new Pool(numBlocks, blockSize);
  const states = operations.map(([name, ...args]) => {
    let fits = true;
    try {
      pool[name](...args);
    } catch (error) {
      if (!(error instanceof OutOfBlocks)) throw error;
      fits = false;
    }
    return { fits, ...structuredClone(state(pool)) };
  });
  process.stdout.write(JSON.stringify(states) + "\n");
}
