//go:build cgo

#include "kernel.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
// A stage is compiled by itself: inlined into one function they run out of registers.
#define STAGE static __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 4")

// Sums of float32 over rows are as long as this and then go to the gradient: short chains
// of additions lose less.
enum { FLUSH_ROWS = 64 };

INLINE int padded(int32_t n) { return (n + KERNEL_PAD - 1) / KERNEL_PAD * KERNEL_PAD; }

// silent says that no row has a gradient, as those of tokens that both completions of a pair
// begin with under most objectives.
INLINE int silent(const double *coef, int rows) {
	for (int i = 0; i < rows; i++)
		if (coef[i] != 0) return 0;
	return 1;
}

int64_t kernel_scratch(int32_t n, int32_t r) {
	return (int64_t)padded(n) * (2 * r + 2 + 2 * KERNEL_ROWS);
}

#define W 4
#define BODY(name) base_##name
#include "kernel_body.h"
#undef BODY
#undef W

#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE 1

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define W 8
#define BODY(name) avx2_##name
#include "kernel_body.h"
#undef BODY
#undef W
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq")
#endif
#define W 16
#define BODY(name) avx512_##name
#include "kernel_body.h"
#undef BODY
#undef W
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

static int widest = 16;

void kernel_widest(int floats) { widest = floats; }

// DISPATCH calls the widest body that the processor has and kernel_widest lets it.
#ifdef WIDE
#define DISPATCH(name, ...) \
	if (widest >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) \
		avx512_##name(__VA_ARGS__); \
	else if (widest >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) \
		avx2_##name(__VA_ARGS__); \
	else \
		base_##name(__VA_ARGS__)
#else
#define DISPATCH(name, ...) base_##name(__VA_ARGS__)
#endif

void kernel_forward(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, tile_sums *sums, float *logit, float *frozen, float *scratch) {
	DISPATCH(forward, s, base, u, b, c, targets, sums, logit, frozen, scratch);
}

void kernel_backward(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, const double *coef, const float *shift, const double *sum,
	float *du, float *db, float *dc, float *scratch) {
	DISPATCH(backward, s, base, u, b, c, targets, coef, shift, sum, du, db, dc, scratch);
}
