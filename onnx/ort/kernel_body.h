// The kernels for one width of vectors. kernel.c includes this file once for each kind of
// processor, with W floats a vector and BODY(name) naming the functions.
//
// A row's results take the same operations in the same order whatever rows are beside it, so
// that they are the same bits in any micro-batch.
//
// The three products (B u, dz B, u dz) keep GROUP by two vectors of sums in registers: the 8 that it takes to start
// two multiply-adds every cycle, and some to spare for loads that come late. What they read is laid out in
// panels of two vectors, so that it comes in one stream.

typedef float BODY(vf) __attribute__((vector_size(4 * W)));
typedef int32_t BODY(vi) __attribute__((vector_size(4 * W)));
#define vf BODY(vf)
#define vi BODY(vi)

enum { BODY(PANEL) = 2 * W };
#define PANEL BODY(PANEL)

INLINE vf BODY(load)(const float *p) {
	vf x;
	memcpy(&x, p, sizeof x);
	return x;
}

INLINE void BODY(store)(float *p, vf x) { memcpy(p, &x, sizeof x); }

INLINE void BODY(add)(float *p, vf x) { BODY(store)(p, BODY(load)(p) + x); }

// where returns a where the mask is set, else b.
INLINE vf BODY(where)(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

// greater returns the greater of both, b where one is NaN.
INLINE vf BODY(greater)(vf a, vf b) {
#ifdef MAX
	return MAX(a, b);
#else
	return BODY(where)(a > b, a, b);
#endif
}

// total adds up the lanes of two vectors.
INLINE double BODY(total)(const vf x[2]) {
	float lanes[W];
	BODY(store)(lanes, x[0] + x[1]);
	double sum = 0;
	UNROLL for (int k = 0; k < W / 2; k++) sum += lanes[k] + lanes[k + W / 2];
	return sum;
}

// exps replaces n vectors x in [-87, 0] by their exponentials, NaN by something (sums notice NaN by x itself). With
// x = (i + f) ln 2, |f| <= 1/2, that is 2^i times a polynomial: of those of degree 6 that are 1 at 0, the one whose
// relative error to 2^f is least, below 3e-9. Adding and subtracting 1.5 * 2^23 rounds to an integer, which is then in the
// low bits of shifted. Each step waits for the one before, so n vectors, at most 4, go through them side by side.
INLINE void BODY(exps)(const int n, vf *x) {
	static const float terms[] = {0.001340667473f, 0.009617692603f, 0.05550310467f, 0.2402265279f, 0.693147215f, 1.0f};
	const float round = 12582912.0f, log2e = 1.44269504f;
	vf shifted[4], f[4];
	UNROLL for (int j = 0; j < n; j++) shifted[j] = x[j] * log2e + round;
	UNROLL for (int j = 0; j < n; j++) f[j] = shifted[j] - round;
	UNROLL for (int j = 0; j < n; j++) f[j] = x[j] * log2e - f[j];
	UNROLL for (int j = 0; j < n; j++) x[j] = (vf){0} + 0.0001559476199f;
	UNROLL for (int t = 0; t < 6; t++)
		UNROLL for (int j = 0; j < n; j++) x[j] = x[j] * f[j] + terms[t];
	UNROLL for (int j = 0; j < n; j++) x[j] = (vf)((vi)x[j] + ((vi)shifted[j] << 23));
}

// floor bounds x from below by the least argument of exp: e^-87 is the last that is a normal number, and vanishes
// beside the 1 of the greatest logit. NaN stays.
INLINE vf BODY(floor)(vf x) { return BODY(greater)((vf){0} - 87.0f, x); }

// capped is cap * tanh(x / cap).
INLINE vf BODY(capped)(vf x, float cap) {
	vf y = x / cap;
	vi negative = y < 0.0f;
	vf e = BODY(floor)(BODY(where)(negative, y, -y) * 2.0f);
	BODY(exps)(1, &e);
	vf t = (1.0f - e) / (1.0f + e) * cap;
	return BODY(where)(negative, -t, t);
}

// times adds x[t] y[t] over n terms to sum, for GROUP items of x and a panel of y of VECTORS vectors. In x a term is term
// floats behind the one before it, and an item item floats. A single vector takes two terms at a time, so that there
// are as many sums to add to; n is even then.
INLINE void BODY(times)(const int VECTORS, int n, const float *x, int term, int item, const float *y, vf sum[GROUP][2]) {
	_Pragma("GCC unroll 4") // most loops end after few turns, and an end costs more than a turn
	for (int t = 0; t < n; t += 3 - VECTORS, x += (3 - VECTORS) * term, y += PANEL) {
		vf y0 = BODY(load)(y), y1 = BODY(load)(y + W);
		UNROLL for (int i = 0; i < GROUP; i++) {
			sum[i][0] += x[i * item] * y0;
			sum[i][1] += x[(2 - VECTORS) * term + i * item] * y1;
		}
	}
}

// greatest_rows writes the greatest lane of each vector, all at a time as every comparison waits for the one before.
INLINE void BODY(greatest_rows)(const vf x[GROUP], float max[GROUP]) {
	float lanes[GROUP][W];
	memcpy(lanes, x, sizeof lanes);
	UNROLL for (int i = 0; i < GROUP; i++) max[i] = lanes[i][0];
	for (int k = 1; k < W; k++)
		UNROLL for (int i = 0; i < GROUP; i++) max[i] = lanes[i][k] > max[i] ? lanes[i][k] : max[i];
}

// logits writes what the head adds to the logits of a group to added, which may be NULL, and that plus the frozen logits
// to z. Padding, and rows that a group is short of, are HIDDEN. Frozen logits come
// from far away in memory and are asked for AHEAD of their use, those of the next group behind the last. With added,
// the greatest logits of the rows go to x->max.
STAGE void BODY(logits)(const tile_shape *s, int first, const float *base, const float *u, const scratch_space *x, float *added, float *z) {
	enum { AHEAD = 128 };
	const int rank = s->r, stride = padded(s->n), rows = least(GROUP, s->rows - first);
	for (int r = 0; r < rank; r++)
		for (int i = 0; i < GROUP; i++) x->u[r * GROUP + i] = i < rows ? s->scale * u[(int64_t)(first + i) * rank + r] : 0;
	base += first * s->v;
	vf max[GROUP];
	UNROLL for (int i = 0; i < GROUP; i++) max[i] = (vf){0} + HIDDEN;
	for (int k = 0; k < stride; k += PANEL) {
		const float *from = base + k;
		int64_t step = s->v;
		float edge[GROUP * PANEL];
		if (k + PANEL > s->n || rows < GROUP) {
			for (int i = 0; i < GROUP; i++)
				for (int j = 0; j < PANEL; j++) edge[i * PANEL + j] = i < rows && k + j < s->n ? from[i * step + j] : HIDDEN;
			from = edge;
			step = PANEL;
		} else {
			const float *next = from + (k + AHEAD < stride ? AHEAD : first + 2 * GROUP <= s->rows ? GROUP * step + AHEAD - stride : 0);
			UNROLL for (int i = 0; i < GROUP; i++, next += step)
				for (int line = 0; line < PANEL; line += 16) __builtin_prefetch(next + line);
		}
		vf sum[GROUP][2];
		UNROLL for (int i = 0; i < GROUP; i++) {
			sum[i][0] = BODY(load)(x->c + k);
			sum[i][1] = BODY(load)(x->c + k + W);
		}
		BODY(times)(2, rank, x->u, GROUP, 1, x->panels + (int64_t)k * rank, sum);
		if (added)
			UNROLL for (int i = 0; i < GROUP; i++) {
				BODY(store)(added + i * APART + k, sum[i][0]);
				BODY(store)(added + i * APART + k + W, sum[i][1]);
			}
		UNROLL for (int i = 0; i < GROUP; i++, from += step) {
			KEEP(step); // or else six multiples of it take the registers
			vf z0 = BODY(load)(from) + sum[i][0], z1 = BODY(load)(from + W) + sum[i][1];
			BODY(store)(z + i * APART + k, z0);
			BODY(store)(z + i * APART + k + W, z1);
			if (added) max[i] = BODY(greater)(z1, BODY(greater)(z0, max[i]));
		}
	}
	if (added) BODY(greatest_rows)(max, x->max);
}

// greatest returns the greatest lane.
INLINE float BODY(greatest)(vf x) {
	float m = x[0];
	for (int k = 1; k < W; k++) m = x[k] > m ? x[k] : m;
	return m;
}

// bend puts the softcap on one row of n logits z, and added, which may be NULL, becomes the difference to the frozen ones.
// It returns the greatest logit.
STAGE float BODY(bend)(float cap, int n, int stride, const float *base, float *added, float *z) {
	for (int k = 0; k < n; k += W) {
		vf x = BODY(capped)(BODY(load)(z + k), cap);
		BODY(store)(z + k, x);
		if (!added) continue;
		float frozen[W] = {0};
		memcpy(frozen, base + k, (size_t)least(W, n - k) * sizeof *base);
		BODY(store)(added + k, x - BODY(capped)(BODY(load)(frozen), cap));
	}
	for (int k = n; k < stride; k++) {
		z[k] = HIDDEN;
		if (added) added[k] = 0;
	}
	vf max = BODY(load)(z);
	for (int k = W; k < stride; k += W) max = BODY(greater)(BODY(load)(z + k), max);
	return BODY(greatest)(max);
}

// place returns the first place of x in a row of logits, 0 where it has none.
STAGE int BODY(place)(int stride, const float *z, float x) {
	enum { VECTORS = KERNEL_PAD / W };
	for (int k = 0; k < stride; k += KERNEL_PAD) {
		vi same = {0};
		UNROLL for (int j = 0; j < VECTORS; j++) same |= BODY(load)(z + k + j * W) == x;
		int64_t any = 0, half[W / 2];
		memcpy(half, &same, sizeof same);
		for (int j = 0; j < W / 2; j++) any |= half[j];
		if (!any) continue;
		while (z[k] != x) k++;
		return k;
	}
	return 0;
}

// sums takes the sums of one row of logits, the greatest of which is m. Only one that is not below best, the row's greatest in
// the tiles that this thread took before, is searched for its place.
STAGE void BODY(sums)(const tile_shape *s, int stride, const float *z, const float *added, float m, float *best, tile_sums *out) {
	vf sum[2] = {0}, sq[2] = {0}, energy[2] = {0}, shift[2] = {0};
	for (int k = 0; k < stride; k += ABREAST * W) {
		vf t[ABREAST], e[ABREAST];
		UNROLL for (int j = 0; j < ABREAST; j++) e[j] = t[j] = BODY(floor)(BODY(load)(z + k + j * W) - m);
		BODY(exps)(ABREAST, e);
		UNROLL for (int j = 0; j < ABREAST; j++) sum[j % 2] += e[j];
		UNROLL for (int j = 0; j < ABREAST; j++) sq[j % 2] += e[j] * e[j];
		UNROLL for (int j = 0; j < ABREAST; j++) energy[j % 2] += e[j] * t[j];
		UNROLL for (int j = 0; j < ABREAST; j++) shift[j % 2] += e[j] * BODY(load)(added + k + j * W);
	}
	out->max = m;
	out->sum = BODY(total)(sum);
	out->sum_sq = BODY(total)(sq);
	out->energy = BODY(total)(energy);
	out->shift = BODY(total)(shift);
	if (out->energy != out->energy) out->sum = out->energy; // a NaN among the logits
	out->top = s->first;
	if (m < *best) return;
	*best = m;
	out->top += BODY(place)(stride, z, m);
}

static void BODY(forward)(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, tile_sums *sums, float *logit, float *frozen, const scratch_space *x) {
	const int stride = padded(s->n);
	pack(s, b, c, PANEL, x->panels, x->c);
	for (int i = 0; i < s->rows; i++) {
		float *z = x->z + i % GROUP * APART, *added = x->added + i % GROUP * APART;
		if (i % GROUP == 0) BODY(logits)(s, i, base, u, x, added, z);
		float max = x->max[i % GROUP];
		if (s->cap > 0) max = BODY(bend)(s->cap, s->n, stride, base + i * s->v, added, z);
		BODY(sums)(s, stride, z, added, max, x->best + i, sums + (int64_t)i * s->tiles);
		int32_t t = targets[i] - s->first;
		if (t < 0 || t >= s->n) continue;
		logit[i] = z[t];
		frozen[i] = s->cap > 0 ? z[t] - added[t] : base[i * s->v + t];
	}
}

// slope replaces n logits z by exp(z - shift) by, times the softcap's derivative where they are bent.
INLINE void BODY(slope)(const int bent, float cap, int n, float *z, float shift, float by) {
	for (int k = 0; k < n; k += ABREAST * W) {
		vf x[ABREAST], e[ABREAST];
		UNROLL for (int j = 0; j < ABREAST; j++) x[j] = BODY(load)(z + k + j * W);
		UNROLL for (int j = 0; j < ABREAST; j++) e[j] = BODY(floor)(x[j] - shift);
		BODY(exps)(ABREAST, e);
		UNROLL for (int j = 0; j < ABREAST; j++) {
			e[j] *= by;
			if (bent) e[j] *= 1.0f - x[j] / cap * (x[j] / cap);
			BODY(store)(z + k + j * W, e[j]);
		}
	}
}

// slopes turns one row of logits z into dz.
STAGE void BODY(slopes)(float cap, int n, int stride, float *z, int32_t target, double coef, float shift, double sum) {
	if (coef == 0) {
		memset(z, 0, (size_t)stride * sizeof *z);
		return;
	}
	const int here = target >= 0 && target < n;
	const float by = (float)(-coef / sum), at = here && cap > 0 ? z[target] / cap : 0;
	if (cap > 0)
		BODY(slope)(1, cap, stride, z, shift, by);
	else
		BODY(slope)(0, cap, stride, z, shift, by);
	for (int k = n; k < stride; k++) z[k] = 0;
	if (here) z[target] += (float)(coef * (1 - (double)at * at));
}

// widen lays rows of r floats out in panels [wide/PANEL,stride,PANEL], the last of which may be one vector wide, from
// row at on. They are filled up with zeros.
STAGE void BODY(widen)(int rows, int r, const float *from, int wide, int stride, int at, float *to) {
	for (int k = 0; k < wide; k += PANEL) {
		const int width = wide - k < PANEL ? W : PANEL;
		float *p = to + (int64_t)k * stride + at * width;
		for (int i = 0; i < rows; i++, p += width)
			for (int j = 0; j < width; j++) p[j] = k + j < r ? from[(int64_t)i * r + k + j] : 0;
	}
}

INLINE void BODY(cleared)(vf sum[GROUP][2]) {
	UNROLL for (int i = 0; i < GROUP; i++) sum[i][0] = sum[i][1] = (vf){0};
}

// project_panel adds dz B, summed over n tokens, to VECTORS vectors of du.
INLINE void BODY(project_panel)(const int VECTORS, int n, const float *dz, const float *panel, int wide, float *du) {
	vf sum[GROUP][2];
	BODY(cleared)(sum);
	BODY(times)(VECTORS, n, dz, 1, APART, panel, sum);
	UNROLL for (int i = 0; i < GROUP; i++) {
		BODY(add)(du + i * wide, VECTORS == 2 ? sum[i][0] : sum[i][0] + sum[i][1]);
		if (VECTORS == 2) BODY(add)(du + i * wide + W, sum[i][1]);
	}
}

// project adds dz B to du [BLOCK,wide] of groups of rows.
STAGE void BODY(project)(int groups, int stride, int wide, const scratch_space *x) {
	for (int first = 0; first < stride; first += BLOCK)
		for (int r = 0; r < wide; r += PANEL)
			for (int g = 0; g < groups; g++) {
				const int n = least(BLOCK, stride - first);
				const float *dz = x->z + g * GROUP * APART + first, *panels = x->b + (int64_t)r * stride;
				float *du = x->du + g * GROUP * wide + r;
				if (r + PANEL <= wide)
					BODY(project_panel)(2, n, dz, panels + first * PANEL, wide, du);
				else
					BODY(project_panel)(1, n, dz, panels + first * W, wide, du);
			}
}

// outer_panel adds u dz, summed over rows, to ranks of a panel of db, for as many tokens as are left of GROUP.
INLINE void BODY(outer_panel)(const int VECTORS, int rows, const float *dz, const float *u, float *db, int rank, int ranks, int left) {
	vf sum[GROUP][2];
	BODY(cleared)(sum);
	UNROLL for (int i = 0; i < GROUP; i++) __builtin_prefetch(db + i * rank, 1);
	BODY(times)(VECTORS, rows, dz, APART, 1, u, sum);
	if (ranks >= VECTORS * W && left >= GROUP) {
		UNROLL for (int i = 0; i < GROUP; i++) {
			BODY(add)(db + i * rank, VECTORS == 2 ? sum[i][0] : sum[i][0] + sum[i][1]);
			if (VECTORS == 2) BODY(add)(db + i * rank + W, sum[i][1]);
		}
		return;
	}
	float lanes[GROUP][PANEL];
	UNROLL for (int i = 0; i < GROUP; i++) {
		BODY(store)(lanes[i], VECTORS == 2 ? sum[i][0] : sum[i][0] + sum[i][1]);
		BODY(store)(lanes[i] + W, sum[i][1]);
	}
	for (int i = 0; i < least(GROUP, left); i++)
		for (int j = 0; j < least(VECTORS * W, ranks); j++) db[i * rank + j] += lanes[i][j];
}

// outer adds u dz, summed over groups of rows, to db [n,R].
STAGE void BODY(outer)(int groups, int n, int rank, int wide, const scratch_space *x, float *db) {
	for (int k = 0; k < n; k += GROUP)
		for (int r = 0; r < wide; r += PANEL) {
			float *p = db + (int64_t)k * rank + r;
			if (r + PANEL <= wide)
				BODY(outer_panel)(2, groups * GROUP, x->z + k, x->ub + r * BLOCK, p, rank, rank - r, n - k);
			else
				BODY(outer_panel)(1, groups * GROUP, x->z + k, x->ub + r * BLOCK, p, rank, rank - r, n - k);
		}
}

// gradients writes dz of the groups that begin at rows first, and 0 for rows that a group is short of.
static void BODY(gradients)(const tile_shape *s, int groups, const int *first, const float *base, const float *u, const int32_t *targets,
	const double *coef, const float *shift, const double *sum, const scratch_space *x) {
	const int stride = padded(s->n);
	for (int g = 0; g < groups; g++) {
		const int last = least(first[g] + GROUP, s->rows);
		float *z = x->z + g * GROUP * APART;
		BODY(logits)(s, first[g], base, u, x, 0, z);
		for (int i = first[g]; i < last; i++, z += APART) {
			if (s->cap > 0) BODY(bend)(s->cap, s->n, stride, base + i * s->v, 0, z);
			BODY(slopes)(s->cap, s->n, stride, z, targets[i] - s->first, coef[i], shift[i], sum[i]);
		}
		for (int i = last; i < first[g] + GROUP; i++, z += APART) memset(z, 0, (size_t)stride * sizeof *z);
	}
}

// total_rows adds the sums of dz over the rows of groups to dc [n].
STAGE void BODY(total_rows)(int groups, int n, const scratch_space *x, float *dc) {
	const int stride = padded(n);
	memset(x->dc, 0, (size_t)stride * sizeof *x->dc);
	for (int i = 0; i < groups * GROUP; i++)
		for (int k = 0; k < stride; k += W) BODY(add)(x->dc + k, BODY(load)(x->z + i * APART + k));
	for (int k = 0; k < n; k++) dc[k] += x->dc[k];
}

static void BODY(backward)(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, const double *coef, const float *shift, const double *sum,
	float *du, float *db, float *dc, const scratch_space *x) {
	const int stride = padded(s->n), rank = s->r, wide = (rank + W - 1) / W * W;
	pack(s, b, c, PANEL, x->panels, x->c);
	if (du) {
		memset(x->b, 0, (size_t)wide * stride * sizeof *x->b);
		BODY(widen)(s->n, rank, b, wide, stride, 0, x->b);
		memset(du, 0, (size_t)s->rows * rank * sizeof *du);
	}
	for (int next = 0; next < s->rows;) {
		int first[BLOCK_GROUPS], rows[BLOCK_GROUPS], groups = 0;
		for (; next < s->rows && groups < BLOCK_GROUPS; next += GROUP) {
			first[groups] = next;
			rows[groups] = least(GROUP, s->rows - next);
			groups += !silent(coef + next, rows[groups]);
		}
		BODY(gradients)(s, groups, first, base, u, targets, coef, shift, sum, x);
		if (dc) BODY(total_rows)(groups, s->n, x, dc);
		if (db) {
			memset(x->ub, 0, (size_t)BLOCK * wide * sizeof *x->ub);
			for (int g = 0; g < groups; g++) BODY(widen)(rows[g], rank, u + (int64_t)first[g] * rank, wide, BLOCK, g * GROUP, x->ub);
			BODY(outer)(groups, s->n, rank, wide, x, db);
		}
		if (!du) continue;
		memset(x->du, 0, (size_t)BLOCK * wide * sizeof *x->du);
		BODY(project)(groups, stride, wide, x);
		for (int g = 0; g < groups; g++)
			for (int i = 0; i < rows[g]; i++)
				memcpy(du + (int64_t)(first[g] + i) * rank, x->du + (g * GROUP + i) * wide, (size_t)rank * sizeof *du);
	}
}

#undef PANEL
#undef vf
#undef vi
