// The kernels for one width of vectors. kernel.c includes this file once for each kind of
// processor, with W floats a vector and BODY(name) naming the functions.
//
// A row's results take the same operations in the same order whatever rows are beside it, so
// that they are the same bits in any micro-batch.

typedef float BODY(vf) __attribute__((vector_size(4 * W)));
typedef int32_t BODY(vi) __attribute__((vector_size(4 * W)));
#define vf BODY(vf)
#define vi BODY(vi)

INLINE vf BODY(load)(const float *p) {
	vf x;
	memcpy(&x, p, sizeof x);
	return x;
}

INLINE void BODY(store)(float *p, vf x) { memcpy(p, &x, sizeof x); }

// where returns a where the mask is set, else b.
INLINE vf BODY(where)(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

// total adds up the lanes in float64, in their order.
INLINE double BODY(total)(vf x) {
	double sum = 0;
	for (int k = 0; k < W; k++) sum += x[k];
	return sum;
}

// folded adds up the lanes in float32, halves on halves.
INLINE float BODY(folded)(vf x) {
	float lanes[W];
	BODY(store)(lanes, x);
	for (int half = W / 2; half > 0; half /= 2)
		UNROLL for (int k = 0; k < half; k++) lanes[k] += lanes[k + half];
	return lanes[0];
}

// fetch asks for the tile of ROWS rows, which lie far apart in memory, ahead of their use.
INLINE void BODY(fetch)(const int ROWS, const tile_shape *s, const float *base) {
	for (int i = 0; i < ROWS; i++)
		for (int k = 0; k < s->n; k += 16) __builtin_prefetch(base + i * s->v + k);
}

// exp of x in [-87, 0], or NaN for NaN (by the sums of x itself, not by this). With
// x = n ln 2 + f, |f| <= ln 2 / 2, it is 2^n times the Taylor series of e^f to f^7/7!, whose
// next term is below 6e-9. Adding and subtracting 1.5 * 2^23 rounds to an integer.
INLINE vf BODY(exp)(vf x) {
	const float round = 12582912.0f;
	vf shifted = x * 1.44269504f + round;
	vf n = shifted - round;
	vf f = x - n * 0.693145752f; // ln 2 in two parts, the first with 9 zero bits at its end
	f = f - n * 1.42860677e-6f;
	vf p = f * (1.0f / 5040) + 1.0f / 720;
	p = p * f + 1.0f / 120;
	p = p * f + 1.0f / 24;
	p = p * f + 1.0f / 6;
	p = p * f + 0.5f;
	p = p * f + 1.0f;
	p = p * f + 1.0f;
	vi power = (vi)shifted << 23; // the low bits of shifted are n
	return (vf)((vi)p + power);
}

// floor bounds x from below by the least argument of exp: e^-87 is the last that is a normal number, and vanishes
// beside the 1 of the greatest logit. A comparison with NaN is false, so NaN stays.
INLINE vf BODY(floor)(vf x) { return BODY(where)(x < -87.0f, (vf){0} - 87.0f, x); }

// capped is cap * tanh(x / cap).
INLINE vf BODY(capped)(vf x, float cap) {
	vf y = x / cap;
	vi negative = y < 0.0f;
	vf e = BODY(exp)(BODY(floor)(BODY(where)(negative, y, -y) * 2.0f));
	vf t = (1.0f - e) / (1.0f + e) * cap;
	return BODY(where)(negative, -t, t);
}

// added writes what the head adds to the logits of ROWS rows, [ROWS,stride].
STAGE void BODY(added)(const int ROWS, const tile_shape *s, const float *u, const float *bt, const float *ct,
	int stride, float *out) {
	const int rank = s->r;
	const float scale = s->scale;
	for (int k = 0; k < stride; k += 2 * W) {
		vf sum[KERNEL_ROWS][2];
		UNROLL for (int i = 0; i < ROWS; i++) {
			sum[i][0] = BODY(load)(ct + k);
			sum[i][1] = BODY(load)(ct + k + W);
		}
		for (int r = 0; r < rank; r++) {
			vf b0 = BODY(load)(bt + r * stride + k), b1 = BODY(load)(bt + r * stride + k + W);
			UNROLL for (int i = 0; i < ROWS; i++) {
				sum[i][0] += u[i * rank + r] * b0;
				sum[i][1] += u[i * rank + r] * b1;
			}
		}
		UNROLL for (int i = 0; i < ROWS; i++) {
			BODY(store)(out + i * stride + k, sum[i][0] * scale);
			BODY(store)(out + i * stride + k + W, sum[i][1] * scale);
		}
	}
}

// bend puts the softcap on n frozen logits z and their addition.
STAGE void BODY(bend)(float cap, int n, float *added, float *z) {
	for (int k = 0; k < n; k += W) {
		vf z0 = BODY(load)(z + k), x = BODY(capped)(z0 + BODY(load)(added + k), cap);
		BODY(store)(added + k, x - BODY(capped)(z0, cap));
		BODY(store)(z + k, x);
	}
}

// logits turns one row of added into its logits z; added becomes z - z0. Padding gets a
// logit that no softmax sees.
STAGE void BODY(logits)(const tile_shape *s, const float *base, int stride, float *added, float *z) {
	const float cap = s->cap;
	const int n = s->n, whole = n / W * W;
	for (int k = 0; k < whole; k += W) BODY(store)(z + k, BODY(load)(base + k) + (cap > 0 ? (vf){0} : BODY(load)(added + k)));
	for (int k = whole; k < n; k++) z[k] = base[k] + (cap > 0 ? 0 : added[k]);
	if (cap > 0) BODY(bend)(cap, (n + W - 1) / W * W, added, z);
	for (int k = n; k < stride; k++) z[k] = -3e38f;
}

// sums takes the sums of one row of logits.
STAGE void BODY(sums)(const tile_shape *s, int stride, const float *z, const float *added, tile_sums *out) {
	vf max = BODY(load)(z);
	vi at, top;
	for (int k = 0; k < W; k++) at[k] = k;
	top = at;
	for (int k = W; k < stride; k += W) {
		vf x = BODY(load)(z + k);
		at += W;
		vi more = x > max;
		max = BODY(where)(more, x, max);
		top = (more & at) | (~more & top);
	}
	float m = max[0];
	int32_t first = top[0];
	for (int k = 1; k < W; k++)
		if (max[k] > m || (max[k] == m && top[k] < first)) {
			m = max[k];
			first = top[k];
		}
	vf sum[2] = {0}, sq[2] = {0}, energy[2] = {0}, shift[2] = {0};
	for (int k = 0; k < stride; k += 2 * W)
		UNROLL for (int j = 0; j < 2; j++) {
			vf t = BODY(floor)(BODY(load)(z + k + j * W) - m);
			vf e = BODY(exp)(t);
			sum[j] += e;
			sq[j] += e * e;
			energy[j] += e * t;
			shift[j] += e * BODY(load)(added + k + j * W);
		}
	out->max = m;
	out->top = s->first + first;
	out->sum = BODY(total)(sum[0]) + BODY(total)(sum[1]);
	out->sum_sq = BODY(total)(sq[0]) + BODY(total)(sq[1]);
	out->energy = BODY(total)(energy[0]) + BODY(total)(energy[1]);
	out->shift = BODY(total)(shift[0]) + BODY(total)(shift[1]);
	if (out->energy != out->energy) out->sum = out->energy; // a NaN among the logits
}

// prepare transposes the tile's rows of B to bt [R,stride] and pads c.
STAGE void BODY(prepare)(const tile_shape *s, const float *b, const float *c, int stride, float *bt, float *ct) {
	memset(bt, 0, (size_t)s->r * stride * sizeof *bt);
	for (int k = 0; k < s->n; k++)
		for (int r = 0; r < s->r; r++) bt[r * stride + k] = b[k * s->r + r];
	memset(ct, 0, (size_t)stride * sizeof *ct);
	if (c) memcpy(ct, c, (size_t)s->n * sizeof *ct);
}

INLINE void BODY(forward_rows)(const int ROWS, const tile_shape *s, const float *base, const float *u, const int32_t *targets,
	tile_sums *sums, float *logit, float *frozen, const float *bt, const float *ct, int stride, float *added, float *z) {
	BODY(added)(ROWS, s, u, bt, ct, stride, added);
	for (int i = 0; i < ROWS; i++) {
		float *d = added + i * stride;
		BODY(logits)(s, base + i * s->v, stride, d, z);
		BODY(sums)(s, stride, z, d, sums + (int64_t)i * s->tiles);
		int32_t t = targets[i] - s->first;
		if (t >= 0 && t < s->n) {
			logit[i] = z[t];
			frozen[i] = z[t] - d[t];
			if (s->cap == 0) frozen[i] = base[i * s->v + t];
		}
	}
}

static void BODY(forward)(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, tile_sums *sums, float *logit, float *frozen, float *scratch) {
	int stride = padded(s->n), i = 0;
	float *bt = scratch, *ct = bt + s->r * stride, *added = ct + stride, *z = added + KERNEL_ROWS * stride;
	BODY(prepare)(s, b, c, stride, bt, ct);
	for (; i + KERNEL_ROWS <= s->rows; i += KERNEL_ROWS) {
		if (i + 2 * KERNEL_ROWS <= s->rows) BODY(fetch)(KERNEL_ROWS, s, base + (i + KERNEL_ROWS) * s->v);
		BODY(forward_rows)(KERNEL_ROWS, s, base + i * s->v, u + i * s->r, targets + i, sums + (int64_t)i * s->tiles,
			logit + i, frozen + i, bt, ct, stride, added, z);
	}
	for (; i < s->rows; i++)
		BODY(forward_rows)(1, s, base + i * s->v, u + i * s->r, targets + i, sums + (int64_t)i * s->tiles,
			logit + i, frozen + i, bt, ct, stride, added, z);
}

// slopes turns one row of logits z into dz.
STAGE void BODY(slopes)(const tile_shape *s, int stride, float *z, int32_t target, double coef, float shift, double sum) {
	if (coef == 0) {
		memset(z, 0, (size_t)stride * sizeof *z);
		return;
	}
	float by = (float)(-coef / sum), at = 0;
	target -= s->first;
	int here = target >= 0 && target < s->n;
	if (here) at = z[target];
	const float bent = s->cap > 0 ? 1 / s->cap : 0;
	for (int k = 0; k < stride; k += W) {
		vf x = BODY(load)(z + k), y = x * bent;
		BODY(store)(z + k, BODY(exp)(BODY(floor)(x - shift)) * by * (1.0f - y * y));
	}
	for (int k = s->n; k < stride; k++) z[k] = 0;
	if (here) {
		at *= bent;
		z[target] += (float)(coef * (1 - (double)at * at));
	}
}

// project writes dz B of ROWS rows, [ROWS,R], two columns at a time.
STAGE void BODY(project)(const int ROWS, const tile_shape *s, const float *dz, const float *bt, int stride, float *du) {
	const int rank = s->r;
	for (int r = 0; r < rank; r += 2) {
		const float *b0 = bt + r * stride, *b1 = r + 1 < rank ? b0 + stride : b0;
		vf sum[KERNEL_ROWS][2] = {0};
		for (int k = 0; k < stride; k += W) {
			vf x0 = BODY(load)(b0 + k), x1 = BODY(load)(b1 + k);
			UNROLL for (int i = 0; i < ROWS; i++) {
				vf d = BODY(load)(dz + i * stride + k);
				sum[i][0] += d * x0;
				sum[i][1] += d * x1;
			}
		}
		for (int i = 0; i < ROWS; i++) {
			du[i * rank + r] = BODY(folded)(sum[i][0]);
			if (r + 1 < rank) du[i * rank + r + 1] = BODY(folded)(sum[i][1]);
		}
	}
}

// outer adds u dz of ROWS rows to dbt [R,stride].
STAGE void BODY(outer)(const int ROWS, const tile_shape *s, const float *dz, const float *u, int stride, float *dbt) {
	const int rank = s->r;
	for (int k = 0; k < stride; k += 2 * W) {
		vf d[KERNEL_ROWS][2];
		UNROLL for (int i = 0; i < ROWS; i++) {
			d[i][0] = BODY(load)(dz + i * stride + k);
			d[i][1] = BODY(load)(dz + i * stride + k + W);
		}
		for (int r = 0; r < rank; r++) {
			float *p = dbt + r * stride + k;
			vf g0 = BODY(load)(p), g1 = BODY(load)(p + W);
			UNROLL for (int i = 0; i < ROWS; i++) {
				g0 += u[i * rank + r] * d[i][0];
				g1 += u[i * rank + r] * d[i][1];
			}
			BODY(store)(p, g0);
			BODY(store)(p + W, g1);
		}
	}
}

INLINE void BODY(backward_rows)(const int ROWS, const tile_shape *s, const float *base, const float *u, const int32_t *targets,
	const double *coef, const float *shift, const double *sum, const float *bt, const float *ct, int stride,
	float *du, float *dbt, float *dct, float *z, float *added) {
	if (silent(coef, ROWS)) {
		if (du) memset(du, 0, (size_t)ROWS * s->r * sizeof *du);
		return;
	}
	BODY(added)(ROWS, s, u, bt, ct, stride, added);
	for (int i = 0; i < ROWS; i++) {
		BODY(logits)(s, base + i * s->v, stride, added + i * stride, z + i * stride);
		BODY(slopes)(s, stride, z + i * stride, targets[i], coef[i], shift[i], sum[i]);
	}
	if (du) BODY(project)(ROWS, s, z, bt, stride, du);
	if (dbt) BODY(outer)(ROWS, s, z, u, stride, dbt);
	if (dct)
		for (int i = 0; i < ROWS; i++)
			for (int k = 0; k < stride; k += W)
				BODY(store)(dct + k, BODY(load)(dct + k) + BODY(load)(z + i * stride + k));
}

static void BODY(backward)(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, const double *coef, const float *shift, const double *sum,
	float *du, float *db, float *dc, float *scratch) {
	int stride = padded(s->n);
	float *bt = scratch, *ct = bt + s->r * stride, *added = ct + stride, *z = added + KERNEL_ROWS * stride;
	float *dct = z + KERNEL_ROWS * stride, *dbt = dct + stride;
	BODY(prepare)(s, b, c, stride, bt, ct);
	for (int first = 0; first < s->rows; first += FLUSH_ROWS) {
		int last = first + FLUSH_ROWS < s->rows ? first + FLUSH_ROWS : s->rows, i = first;
		memset(dct, 0, (size_t)(1 + s->r) * stride * sizeof *dct);
		for (; i + KERNEL_ROWS <= last; i += KERNEL_ROWS) {
			if (i + 2 * KERNEL_ROWS <= s->rows) BODY(fetch)(KERNEL_ROWS, s, base + (i + KERNEL_ROWS) * s->v);
			BODY(backward_rows)(KERNEL_ROWS, s, base + i * s->v, u + i * s->r, targets + i, coef + i, shift + i, sum + i, bt, ct,
				stride, du ? du + i * s->r : 0, db ? dbt : 0, dc ? dct : 0, z, added);
		}
		for (; i < last; i++)
			BODY(backward_rows)(1, s, base + i * s->v, u + i * s->r, targets + i, coef + i, shift + i, sum + i, bt, ct,
				stride, du ? du + i * s->r : 0, db ? dbt : 0, dc ? dct : 0, z, added);
		for (int k = 0; k < s->n; k++) {
			if (dc) dc[k] += dct[k];
			for (int r = 0; db && r < s->r; r++) db[k * s->r + r] += dbt[r * stride + k];
		}
	}
}

#undef vf
#undef vi
