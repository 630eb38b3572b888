"use strict";
// The block pool as plain logic: allocator, block tables, copy-on-write and prefix cache, as in tinyllm/kv_cache.
// Tokens are letters. tests/book/test_interactive.py holds it against the course's own classes.
(() => {
  class OutOfBlocks extends Error {}

  class Pool {
    constructor(numBlocks, blockSize) {
      this.blockSize = blockSize;
      this.freeIds = Array.from({ length: numBlocks }, (_, id) => id);
      this.refCounts = new Array(numBlocks).fill(0);
      this.contents = Array.from({ length: numBlocks }, () => []);
      this.tables = new Map(); // name -> { blockIds, tokens }
      this.prefixes = new Map(); // all letters up to the end of a full block -> block id, least recently used first
    }

    // ---------------------------------------------------------------- what a request does

    /** Open a table with the cached blocks that `tokens` begins with, and blocks for the rest. */
    start(name, tokens) {
      const hit = this.match(tokens);
      const table = { blockIds: [...hit], tokens: tokens.slice(0, hit.length * this.blockSize) };
      const numNew = this.numNewBlocks(table, tokens.length - table.tokens.length);
      if (!this.makeRoom(numNew)) {
        for (const id of [...hit].reverse()) this.release(id);
        throw new OutOfBlocks(`${numNew} blocks wanted, ${this.freeIds.length} free`);
      }
      this.tables.set(name, table);
      const added = this.append(name, tokens.slice(table.tokens.length));
      return { hit, allocated: added.allocated };
    }

    /** Add tokens to a table; a last block that another owner can see is copied before it is written. */
    append(name, tokens) {
      const table = this.tables.get(name);
      const copies = tokens.length > 0 && this.needsCopy(table);
      const numNew = this.numNewBlocks(table, tokens.length) + Number(copies);
      if (!this.makeRoom(numNew)) throw new OutOfBlocks(`${numNew} blocks wanted, ${this.freeIds.length} free`);
      const allocated = this.allocate(numNew);
      let copied = null;
      if (copies) {
        copied = { from: table.blockIds.pop(), to: allocated[0] };
        this.contents[copied.to] = [...this.contents[copied.from]];
        this.release(copied.from);
      }
      table.blockIds.push(...allocated);
      for (const token of tokens) {
        const position = table.tokens.length;
        const id = table.blockIds[Math.floor(position / this.blockSize)];
        this.contents[id][position % this.blockSize] = token;
        table.tokens += token;
      }
      return { allocated, copied };
    }

    /** A second table of the same tokens that shares every block. */
    fork(parent, child) {
      const { blockIds, tokens } = this.tables.get(parent);
      for (const id of blockIds) this.refCounts[id] += 1;
      this.tables.set(child, { blockIds: [...blockIds], tokens });
    }

    /** End a request: its full blocks go into the prefix cache, and its own references are given up, last first. */
    free(name) {
      const { blockIds, tokens } = this.tables.get(name);
      this.insert(tokens, blockIds);
      for (const id of [...blockIds].reverse()) this.release(id);
      this.tables.delete(name);
    }

    // ---------------------------------------------------------------- blocks

    allocate(numBlocks) {
      const ids = this.freeIds.splice(0, numBlocks);
      for (const id of ids) {
        this.refCounts[id] = 1;
        this.contents[id] = [];
      }
      return ids;
    }

    release(id) {
      this.refCounts[id] -= 1;
      if (this.refCounts[id] === 0) this.freeIds.push(id);
    }

    numNewBlocks(table, numTokens) {
      return Math.max(0, Math.ceil((table.tokens.length + numTokens) / this.blockSize) - table.blockIds.length);
    }

    needsCopy(table) {
      return table.tokens.length % this.blockSize !== 0 && this.refCounts[table.blockIds.at(-1)] > 1;
    }

    makeRoom(numBlocks) {
      if (numBlocks > this.freeIds.length) this.evict(numBlocks - this.freeIds.length);
      return numBlocks <= this.freeIds.length;
    }

    // ---------------------------------------------------------------- the prefix cache

    /** The beginnings of `tokens` that fill whole blocks. The course hashes them; here the letters are their own key. */
    prefixesOf(tokens) {
      const ends = Math.floor(tokens.length / this.blockSize);
      return Array.from({ length: ends }, (_, block) => tokens.slice(0, (block + 1) * this.blockSize));
    }

    /** Blocks that are there already, each with one owner more; at least one token is left to compute. */
    match(tokens) {
      const hit = [];
      for (const prefix of this.prefixesOf(tokens.slice(0, -1))) {
        if (!this.prefixes.has(prefix)) break;
        hit.push(prefix);
      }
      const ids = hit.map((prefix) => this.prefixes.get(prefix));
      for (const id of ids) this.refCounts[id] += 1;
      for (const prefix of hit.reverse()) this.touch(prefix);
      return ids;
    }

    insert(tokens, blockIds) {
      const known = this.prefixesOf(tokens).map((prefix, block) => [prefix, blockIds[block]]);
      for (const [prefix, id] of known.reverse()) {
        if (!this.prefixes.has(prefix)) {
          this.refCounts[id] += 1;
          this.prefixes.set(prefix, id);
        }
        this.touch(prefix);
      }
    }

    /** Make an entry the most recently used. */
    touch(prefix) {
      const id = this.prefixes.get(prefix);
      this.prefixes.delete(prefix);
      this.prefixes.set(prefix, id);
    }

    evict(numBlocks) {
      const unused = [...this.prefixes].filter(([, id]) => this.refCounts[id] === 1).slice(0, numBlocks);
      for (const [prefix, id] of unused) {
        this.prefixes.delete(prefix);
        this.release(id);
      }
    }

    /** For each block the names of the requests whose table holds it. */
    owners() {
      const owners = this.refCounts.map(() => []);
      for (const [name, { blockIds }] of this.tables) for (const id of blockIds) owners[id].push(name);
      return owners;
    }
  }

  const model = { Pool, OutOfBlocks };
  if (typeof module === "undefined") globalThis.coursePool = model;
  else module.exports = model;
})();
