/* What the C kernels share: vector registers of the processor that they are compiled for, and exp in them. */

#include <math.h>
#include <stdint.h>

#define LINE 16 /* floats in a line of the processor's cache */
#ifdef __AVX512F__
#define LANES 16 /* floats in a vector register */
#else
#define LANES 8 /* on processors with four, the compiler takes two registers */
#endif

/* Floats side by side; they need not be aligned. */
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

/* exp(x) for x up to 89, to two units in the last place, in operations that the compiler turns into vector instructions:
   x = n ln 2 + r, so exp(x) = 2^n exp(r) with |r| <= ln 2 / 2. Below -87, where floats end, exp(-87); NaN stays NaN. */
static inline float exp_of(float x)
{
    x = x < -87.0f ? -87.0f : x;
    const float n = rintf(x * 1.44269504f);
    const float r = x - n * 0.693145752f - n * 1.42860677e-6f; /* ln 2 in two parts: the first product is exact */
    const float series = 1 + r * (1 + r * (1 / 2.f + r * (1 / 6.f + r * (1 / 24.f + r * (1 / 120.f + r / 720.f)))));
    const union { int32_t bits; float value; } power = {((int32_t)n + 127) << 23};
    return series * power.value;
}
