"""mdBook preprocessor, and how a chapter is written for it. Whatever is wrong stops the build with chapter and line.

**Front matter**, the first lines of every chapter, shown below its heading::

    ---
    minutes: 30
    needs: nothing but this page; the notebook takes four hours
    prerequisites: [Day 0](day0.md)
    verified: 2026-11-26
    ---
    # Day 1: a paged KV cache

`minutes` is how long reading takes; `needs` is what must be at hand; `prerequisites` links the chapters to read before,
or is `none`; `verified` is the day on which somebody last worked through the page.

**Listings**, cut from the sources by the name of an object (nothing is copied)::

    {{#object tinyllm/kv_cache/allocator.py:BlockAllocator.allocate OutOfBlocksError}}   whole objects
    {{#contract tinyllm/kv_cache/allocator.py:BlockAllocator}}                           signatures and docstrings

**Pictures**, drawn by a function of that name in book/figures/, diagrams too: `style.py` there has boxes and arrows, so
that a diagram is made from the course's own objects, follows the reader's theme and needs no other tool::

    {{#figure pool | What the picture shows, for those who cannot see it | The caption.}}

**Interactive pictures**, with a drawn figure in their place where there is no script. The caption may be left out::

    {{#interactive allocator | The caption.}}     allocate, append, fork, free, find a prefix
    {{#interactive batching | The caption.}}      static against continuous batching, step by step
    {{#interactive merge | The caption.}}         two partial attention states become one
    {{#interactive experts | The caption.}}       route tokens to experts by hand

**Numbers** of committed measurements. A note with machine and date is put at the end of the page::

    {{#number benchmarks/results/kv_memory.json:traces.alpaca.block_16.waste_percent | .1f}}

**Terms**. The glossary defines each once; its text follows on the next lines, up to the next definition or heading. A
list of the pages that use the term is put below. Anywhere else, `term` links to the definition::

    {{#define block table | block tables, table of blocks}}       after the bar: other forms of the word
    {{#term block table}}   {{#term block tables}}   {{#term block table | its table}}     after the bar: what is shown

**The rest**::

    {{#quiz day1}}                          book/quizzes/day1.toml, a reason for each wrong choice
    {{#notebook day1_paged_kv_cache}}       a link that downloads the release notebook
    {{#solution day1_paged_kv_cache}}       a link to the solved notebook, run and shown as a page
    $a_i$ and $$\\frac{1}{2}$$                formulas, TeX to MathML
    > [!NOTE]                               mdBook's own boxes: NOTE, TIP, IMPORTANT, WARNING, CAUTION
    ![alternative text](file.png)           a picture needs the text
    <details><summary>...</summary>         answers to unfold; open on the print page

A block (all but `number` and `term`) stands on a line of its own. Chapters are linked as `[Day 1](day1.md)`.
Every page that was ever published is listed in book/pages.txt: add a line for a new chapter; a chapter that moves or
goes needs a line under `[output.html.redirect]` in book.toml.
"""
