/* Attention over the paged KV cache on the CPU: float32, one query token at a time. `native.py` compiles and calls it.

   The algorithm of paged_decode.py: a tile of positions at a time, softmax online (arXiv 1805.02867). What is a program
   of the grid on a GPU is a turn of the loop that threads share here. Most of the time is spent waiting for memory, a
   few KB from a random place for each block; so the rows of a tile are asked for while the tile before is computed. */

#include "vectors.h" /* a row's floats in registers: left to itself, GCC gathers a register from as many rows instead,
                       and then the sum over a tile's values takes half of all the time */

#define TILE 16 /* positions: their scores fill a vector register or two */

/* Where the K (and the V) of the positions from `first` on lie in the pool, in floats; and have them fetched. */
static inline void locate(
    const float *k_cache, const float *v_cache, const int32_t *block_table, int block_size, int first, int context_len,
    int64_t stride, int64_t *offset)
{
    for (int t = 0; t < TILE && first + t < context_len; t++) {
        const int position = first + t;
        const int64_t slot = (int64_t)block_table[position / block_size] * block_size + position % block_size;
        offset[t] = slot * stride;
        for (int64_t i = 0; i < stride; i += LINE) {
            __builtin_prefetch(k_cache + offset[t] + i);
            __builtin_prefetch(v_cache + offset[t] + i);
        }
    }
}

/* One token: q and out are [num_heads][dim]; out holds the weighted sum of the values so far until it is divided. */
static inline __attribute__((always_inline)) void attend(
    const float *restrict q, const float *restrict k_cache, const float *restrict v_cache,
    const int32_t *restrict block_table, int context_len, int block_size, int num_heads, int num_kv_heads, int dim,
    float *restrict out)
{
    const int64_t stride = (int64_t)num_kv_heads * dim; /* floats from one slot to the next */
    const float scale = 1.0f / sqrtf((float)dim);
    float highest[num_heads], total[num_heads]; /* of each head so far: its largest score, and the sum of its weights */
    int64_t offsets[2][TILE];                   /* of this tile and the next */

    for (int head = 0; head < num_heads; head++) {
        highest[head] = -INFINITY;
        total[head] = 0.0f;
    }
    for (int i = 0; i < num_heads * dim; i++)
        out[i] = 0.0f;

    locate(k_cache, v_cache, block_table, block_size, 0, context_len, stride, offsets[0]);
    for (int first = 0; first < context_len; first += TILE) {
        const int tokens = context_len - first < TILE ? context_len - first : TILE;
        const int64_t *offset = offsets[first / TILE % 2];
        int64_t *next = offsets[(first / TILE + 1) % 2];
        locate(k_cache, v_cache, block_table, block_size, first + TILE, context_len, stride, next);

        for (int head = 0; head < num_heads; head++) {
            const int kv = head / (num_heads / num_kv_heads) * dim; /* where its K and V begin in a slot */
            const float *restrict query = q + head * dim;
            float *restrict sum = out + head * dim;
            float weight[TILE];

            for (int t = 0; t < TILE; t++)
                weight[t] = -INFINITY; /* of positions past the end */
            for (int t = 0; t < tokens; t++) {
                const float *restrict key = k_cache + offset[t] + kv;
                float score = 0.0f;
                for (int d = 0; d < dim; d++)
                    score += query[d] * key[d];
                weight[t] = score * scale;
            }

            float top = highest[head], added = 0.0f;
            for (int t = 0; t < TILE; t++)
                top = weight[t] > top ? weight[t] : top;
            for (int t = 0; t < TILE; t++) {
                weight[t] = exp_of(weight[t] - top);
                added += weight[t];
            }
            const float shrink = exp_of(highest[head] - top);
            highest[head] = top;
            total[head] = total[head] * shrink + added;

            const float *restrict values = v_cache + kv;
            int d = 0;
            for (; d + LANES <= dim; d += LANES) {
                lanes part = *(lanes *)(sum + d) * shrink;
                for (int t = 0; t < tokens; t++)
                    part += weight[t] * *(const lanes *)(values + offset[t] + d);
                *(lanes *)(sum + d) = part;
            }
            for (; d < dim; d++) {
                sum[d] *= shrink;
                for (int t = 0; t < tokens; t++)
                    sum[d] += weight[t] * values[offset[t] + d];
            }
        }
    }
    for (int head = 0; head < num_heads; head++)
        for (int d = 0; d < dim; d++)
            out[head * dim + d] /= context_len ? total[head] : 1.0f;
}

/* Query token n stands in row rows[n] of q [T, Hq, D] and sees the first context_lens[n] positions of sequence
   sequences[n], through block_tables [B, table_width]. Its answer, 0 where it sees none, goes to the same row of out. */
void paged_decode(
    const float *q, const float *k_cache, const float *v_cache, const int64_t *rows, const int64_t *sequences,
    const int32_t *context_lens, const int32_t *block_tables, float *out, int num_tokens, int table_width,
    int block_size, int num_heads, int num_kv_heads, int dim, int64_t q_stride)
{
#define ATTEND(D) \
    attend(q + rows[n] * q_stride, k_cache, v_cache, block_tables + sequences[n] * table_width, context_lens[n], \
           block_size, num_heads, num_kv_heads, D, out + rows[n] * num_heads * dim)

#pragma omp parallel for schedule(dynamic)
    for (int n = 0; n < num_tokens; n++)
        switch (dim) { /* a size that the compiler knows keeps a head in registers */
        case 32: ATTEND(32); break;
        case 64: ATTEND(64); break;
        case 128: ATTEND(128); break;
        default: ATTEND(dim);
        }
}
