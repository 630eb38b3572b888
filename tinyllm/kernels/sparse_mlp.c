/* The experts of a sparse layer on the CPU: float32. `sparse_mlp.py` compiles and calls it.

   A weight matrix lies with the numbers that one sum takes side by side, and so do the tokens' rows. So both are read
   as they are, nothing is packed or copied: 12 sums at a time, of M rows and 12 / M weight rows, stay in registers.
   A block of weight rows comes from memory once for a tile of its expert's rows, while the block before is at work.
   Every sum is taken in the same order, whatever M it falls under, so that a token's answer does not hang on who else
   is in the batch. */

#include "vectors.h"

#define SUMS 12 /* in registers at once; with four rows and three weight rows they fill the 16 registers of AVX2 */
#define ROWS 4  /* at most, of one such step */
#define TURN 8  /* blocks of weight rows that a thread takes at a time */

/* As `lanes`, of a fixed size. */
typedef float eight __attribute__((vector_size(8 * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef float four __attribute__((vector_size(4 * sizeof(float)), aligned(sizeof(float)), may_alias));

#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t places __attribute__((vector_size(8 * sizeof(int32_t))));
#define PICK(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

/* total += x * y. Said in assembly where sums and factors fill all 16 registers: left to itself, GCC keeps one sum in
   memory, or loads a factor anew for each use, and either takes as long again as the products do. */
#if defined(__FMA__) && LANES == 8
#define ADD_PRODUCT(total, x, y) __asm__("vfmadd231ps %2, %1, %0" : "+x"(total) : "x"(x), "x"(y))
#else
#define ADD_PRODUCT(total, x, y) total += (x) * (y)
#endif

#define INLINE static inline __attribute__((always_inline))

/* The two halves of a register, added up. */
INLINE eight fold(lanes x)
{
#if LANES == 16
    const union { lanes whole; eight half[2]; } parts = {x};
    return parts.half[0] + parts.half[1];
#else
    return x;
#endif
}

/* The sum of each of four registers. */
INLINE four sum_each(lanes w, lanes x, lanes y, lanes z)
{
    const eight a = fold(w), b = fold(x), c = fold(y), d = fold(z);
    const eight ab = PICK(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + PICK(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    const eight cd = PICK(c, d, 0, 8, 1, 9, 4, 12, 5, 13) + PICK(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
    const union { eight whole; four half[2]; } abcd = {
        PICK(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) + PICK(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15)};
    return abcd.half[0] + abcd.half[1];
}

/* `count` numbers, and zeros behind them. */
INLINE lanes load(const float *from, int count)
{
    if (count == LANES)
        return *(const lanes *)from;
    lanes some = {0};
    for (int i = 0; i < count; i++)
        some[i] = from[i];
    return some;
}

/* Add `count` products to each of the sums: of M rows and 12 / M weight rows, from number d on. */
INLINE void add_products(
    const float *const *rows, const float *const *weights, int d, int count, const int M, lanes *total)
{
    lanes weight[SUMS];
#pragma GCC unroll 12
    for (int n = 0; n < SUMS / M; n++)
        weight[n] = load(weights[n] + d, count);
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        const lanes row = load(rows[m] + d, count);
#pragma GCC unroll 12
        for (int n = 0; n < SUMS / M; n++)
            ADD_PRODUCT(total[n * M + m], weight[n], row);
    }
}

/* sums[n * M + m]: the product of row m and weight row n, both `dim` long, for M rows and 12 / M weight rows. */
INLINE void dots(const float *const *rows, const float *const *weights, int dim, const int M, float *restrict sums)
{
    lanes total[SUMS] = {0};
    int d = 0;
    for (; d + LANES <= dim; d += LANES)
        add_products(rows, weights, d, LANES, M, total);
    if (d < dim)
        add_products(rows, weights, d, dim - d, M, total);
    for (int i = 0; i < SUMS; i += 4)
        *(four *)(sums + i) = sum_each(total[i], total[i + 1], total[i + 2], total[i + 3]);
}

/* exp of any number: at 89 its power of two is infinity. */
INLINE float exp_of_any(float x)
{
    return exp_of(x > 89.0f ? 89.0f : x);
}

/* Weights that are needed next. Some of their lines are asked for at each step: all at once would keep the products
   waiting, and none at all, once more at the start of each block. */
typedef struct {
    const float *from, *end;
    int64_t step;
} ahead;

/* So many numbers, in that many steps. Past the end of an array they are only asked for, which does no harm. */
INLINE ahead ask_for(const float *from, int64_t floats, int steps)
{
    return (ahead){from, from + floats, (floats / steps + LINE) / LINE * LINE};
}

INLINE void ask(ahead *next)
{
    const float *end = next->from + next->step < next->end ? next->from + next->step : next->end;
    for (; next->from < end; next->from += LINE)
        __builtin_prefetch(next->from);
}

/* SwiGLU of M rows: six weight rows of gate, then their six of up; `columns` of the six are written to each out[m]. */
INLINE void gate_and_up(
    const float *const *rows, const float *const *weights, int dim, const int M, int columns, float *const *out,
    ahead *next)
{
    float sums[2 * ROWS * SUMS / 2], hidden[ROWS * SUMS / 2];
    for (int n = 0; n < SUMS; n += SUMS / M) {
        ask(&next[0]);
        ask(&next[1]);
        dots(rows, weights + n, dim, M, sums + n * M);
    }
    for (int i = 0; i < M * SUMS / 2; i++)
        hidden[i] = sums[i] / (1.0f + exp_of_any(-sums[i])) * sums[M * SUMS / 2 + i];
    for (int n = 0; n < columns; n++)
        for (int m = 0; m < M; m++)
            out[m][n] = hidden[n * M + m];
}

/* The product of M rows and twelve weight rows, of which `columns` are written to each out[m]. */
INLINE void down(
    const float *const *rows, const float *const *weights, int dim, const int M, int columns, float *const *out,
    ahead *next)
{
    float sums[ROWS * SUMS];
    for (int n = 0; n < columns; n += SUMS / M) {
        ask(next);
        dots(rows, weights + n, dim, M, sums + n * M);
    }
    for (int n = 0; n < columns; n++)
        for (int m = 0; m < M; m++)
            out[m][n] = sums[n * M + m];
}

typedef struct {
    int32_t expert, first, rows; /* rows first, first + 1 .. of the pairs sorted by expert */
} tile;

/* Pairs sorted by expert, those left out of it; then tiles of as even a size as can be. Returns how many tiles. */
static int sort_pairs(
    const int64_t *topk_ids, int num_pairs, int num_experts, int tile_rows, int32_t *order, tile *tiles)
{
    int32_t ends[num_experts + 1];
    for (int e = 0; e <= num_experts; e++)
        ends[e] = 0;
    for (int i = 0; i < num_pairs; i++)
        if (topk_ids[i] >= 0 && topk_ids[i] < num_experts)
            ends[topk_ids[i] + 1]++;
    int num_tiles = 0;
    for (int e = 0; e < num_experts; e++) {
        const int count = ends[e + 1], parts = (count + tile_rows - 1) / tile_rows;
        for (int part = 0, first = 0; part < parts; part++) {
            const int end = (int)((int64_t)count * (part + 1) / parts + ROWS - 1) / ROWS * ROWS;
            const int last = end < count ? end : count;
            tiles[num_tiles++] = (tile){e, ends[e] + first, last - first};
            first = last;
        }
        ends[e + 1] += ends[e];
    }
    for (int i = 0; i < num_pairs; i++)
        if (topk_ids[i] >= 0 && topk_ids[i] < num_experts)
            order[ends[topk_ids[i]]++] = i; /* ends[e] is where e begins until its pairs have come */
    return num_tiles;
}

/* The M rows from row r on, with M known to the compiler. */
#define STEP(PRODUCT, rows, ...) \
    switch (rows) { \
    case 1: PRODUCT(in, weights, dim, 1, __VA_ARGS__); break; \
    case 2: PRODUCT(in, weights, dim, 2, __VA_ARGS__); break; \
    case 3: PRODUCT(in, weights, dim, 3, __VA_ARGS__); break; \
    default: PRODUCT(in, weights, dim, 4, __VA_ARGS__); \
    }

/* x [T, hidden_size] with rows x_stride apart, topk_weights and topk_ids [T, K], gate_up_proj [E, 2I, hidden_size],
   down_proj [E, hidden_size, I] -> out [T, hidden_size]. Room to work: hidden [T * K, I], answers [T * K, hidden_size],
   order [T * K], tiles [E + T * K / tile_rows]. */
void sparse_mlp(
    const float *x, const float *topk_weights, const int64_t *topk_ids, const float *gate_up_proj,
    const float *down_proj, float *out, float *hidden, float *answers, int32_t *order, tile *tiles, int num_tokens,
    int top_k, int num_experts, int hidden_size, int inner, int tile_rows, int64_t x_stride)
{
    const int num_tiles = sort_pairs(topk_ids, num_tokens * top_k, num_experts, tile_rows, order, tiles);
    const int up_width = SUMS / 2 * TURN, up_turns = (inner + up_width - 1) / up_width;
    const int down_width = SUMS * TURN / 2, down_turns = (hidden_size + down_width - 1) / down_width;

#pragma omp parallel
    {
#pragma omp for schedule(dynamic)
        for (int64_t turn = 0; turn < (int64_t)num_tiles * up_turns; turn++) {
            const tile t = tiles[turn / up_turns];
            const int begin = (int)(turn % up_turns) * up_width, dim = hidden_size;
            const int end = begin + up_width < inner ? begin + up_width : inner;
            const float *gate = gate_up_proj + (int64_t)t.expert * 2 * inner * dim, *up = gate + (int64_t)inner * dim;
            for (int column = begin; column < end; column += SUMS / 2) {
                const float *weights[SUMS];
                for (int n = 0; n < SUMS / 2; n++) { /* past the last column, the last one again */
                    const int64_t row = column + n < end ? column + n : end - 1;
                    weights[n] = gate + row * dim;
                    weights[SUMS / 2 + n] = up + row * dim;
                }
                const int columns = end - column < SUMS / 2 ? end - column : SUMS / 2;
                const int64_t block = (int64_t)SUMS / 2 * dim, behind = column * (int64_t)dim + block;
                ahead next[2] = {ask_for(gate + behind, block, t.rows), ask_for(up + behind, block, t.rows)};
                for (int r = 0; r < t.rows; r += ROWS) {
                    const int rows = t.rows - r < ROWS ? t.rows - r : ROWS;
                    const float *in[ROWS];
                    float *to[ROWS];
                    for (int m = 0; m < rows; m++) {
                        in[m] = x + order[t.first + r + m] / top_k * x_stride;
                        to[m] = hidden + (int64_t)(t.first + r + m) * inner + column;
                    }
                    STEP(gate_and_up, rows, columns, to, next)
                }
            }
        }
#pragma omp for schedule(dynamic)
        for (int64_t turn = 0; turn < (int64_t)num_tiles * down_turns; turn++) {
            const tile t = tiles[turn / down_turns];
            const int begin = (int)(turn % down_turns) * down_width, dim = inner;
            const int end = begin + down_width < hidden_size ? begin + down_width : hidden_size;
            for (int column = begin; column < end; column += SUMS) {
                const float *weights[SUMS];
                for (int n = 0; n < SUMS; n++) {
                    const int row = column + n < end ? column + n : end - 1;
                    weights[n] = down_proj + ((int64_t)t.expert * hidden_size + row) * dim;
                }
                const int columns = end - column < SUMS ? end - column : SUMS;
                const int64_t block = (int64_t)SUMS * dim;
                ahead next = ask_for(weights[0] + block, block, t.rows);
                for (int r = 0; r < t.rows; r += ROWS) {
                    const int rows = t.rows - r < ROWS ? t.rows - r : ROWS;
                    const float *in[ROWS];
                    float *to[ROWS];
                    for (int m = 0; m < rows; m++) {
                        in[m] = hidden + (int64_t)(t.first + r + m) * dim;
                        to[m] = answers + (int64_t)order[t.first + r + m] * hidden_size + column;
                    }
                    STEP(down, rows, columns, to, &next)
                }
            }
        }
#pragma omp for
        for (int token = 0; token < num_tokens; token++) {
            float *sum = out + (int64_t)token * hidden_size;
            for (int h = 0; h < hidden_size; h++)
                sum[h] = 0.0f;
            for (int64_t pair = (int64_t)token * top_k; pair < (int64_t)(token + 1) * top_k; pair++) {
                if (topk_ids[pair] < 0 || topk_ids[pair] >= num_experts)
                    continue;
                const float weight = topk_weights[pair], *answer = answers + pair * hidden_size;
                for (int h = 0; h < hidden_size; h++)
                    sum[h] += weight * answer[h];
            }
        }
    }
}
