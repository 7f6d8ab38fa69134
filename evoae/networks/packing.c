/* The kernel is one source in four files, read one after the other: packing.c, full.c, thin.c, kernel.c.
 *
 * Here: what a network is, how it is packed, and arithmetic on many numbers at a time. A layer's weights
 * are packed as [blocks][in + 1][16]: a block holds 16 outputs, and the bias is one more input whose
 * value is always 1. Padding outputs have zero weights and, as every gradient that reaches them is
 * exactly zero, keep them. A layer of which masks leave little is packed as lists instead.
 *
 * Whatever the size of a batch, and however a layer is packed, each sum has one order: a product's runs
 * over the inputs, a weight's gradient over the even rows and over the odd rows, an input's gradient
 * over the outputs, 8 apart. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
typedef float v8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef float v8u __attribute__((vector_size(32), aligned(4)));
typedef float v4 __attribute__((vector_size(16)));
typedef float v4u __attribute__((vector_size(16), aligned(4)));
typedef double d8 __attribute__((vector_size(64), aligned(8)));

/* As many numbers as a register holds. Up to TILE rows and BESIDE blocks go through a product at once (as
 * many as there are registers for), PATCH inputs through an update, FLOWS inputs through what flows back. */
#ifdef __AVX512VL__
typedef float wide __attribute__((vector_size(64)));
typedef int32_t iwide __attribute__((vector_size(64)));
enum { TILE = 8, BESIDE = 2, FLOWS = 4 };
#else
typedef v8 wide;
typedef i8 iwide;
enum { TILE = 6, BESIDE = 1, FLOWS = 2 };
#endif

/* A block has 16 outputs, in HALVES registers; ABREAST rows of 8 numbers fit one. GROUP blocks of the output
 * layer, or more, go forwards and backwards at a time. Scoring takes SCORED rows, and sums up SUMMED of them in
 * single precision: its bits depend on no batch size. */
enum { LANES = 16, WIDTH = sizeof(wide) / sizeof(float), HALVES = LANES / WIDTH, ABREAST = WIDTH / 8 };
enum { MOST = 8, PATCH = 4, GROUP = 4, SUMMED = 5, SCORED = 40, MAX_LAYERS = 16 };

typedef struct { /* mirrors kernel.py */
    int64_t layers;
    const int64_t *widths;
    float *weights;
    const uint8_t *keep;
    float *first, *second;
    int64_t *steps;
    double *count, *total, *squares, *zeros;
    int64_t networks;
} Side;

typedef struct {
    int64_t in, out, blocks;
    int64_t stride;       /* in + 1, filled up to panels of 16 */
    int64_t flat, packed; /* where its weights start, in the caller's row and packed */
    int64_t unit, lane;   /* where its units start, in the caller's statistics and padded */
} Layer;

typedef struct {
    int64_t layers, flat, packed, units, lanes, bounds;
    Layer layer[MAX_LAYERS];
} Shape;

/* A layer of which little is left: its weights one after the other, by output or by input, whichever
 * are fewer. The entries of output or input m are [from[m], to[m]), and entry k belongs to input or
 * output other[k]. Lists begin at multiples of 8; what lies between is masked. */
typedef struct {
    int on, by_output;
    int32_t *from, *to, *other;
} Thin;

typedef struct { /* a packed network */
    const Shape *shape;
    Thin thin[MAX_LAYERS];
    float *weights, *keep, *first, *second;
    double *total, *squares, count;
    int32_t *zeros;
    int64_t index, steps;
} Net;

typedef struct { /* one optimiser step of one network */
    int adam;
    float rate, correction;
} Rule;

typedef v8 Pair[2] __attribute__((aligned(64))); /* the outputs of a block, of one row */

/* Buffers of one model step. Layers of encoder and decoder are counted through. */
typedef struct {
    float *input[2 * MAX_LAYERS]; /* of each layer, in panels [stride / 16][rows][16] */
    float *code;                  /* what the encoder says: input of the decoder, or means and log-variances */
    Pair *delta;                  /* gradient of a layer's outputs [blocks][rows] */
    v8 *back;                     /* gradient of a layer's inputs [in][lines], its 8 lanes not yet summed */
    wide *halves;                 /* `delta` of a tile, for many rows */
    v8 *turned[2 * MAX_LAYERS];   /* for thin layers: the inputs [in + 1][groups], 8 rows a group, */
    v8 *thin;                     /* the outputs or their gradient [outputs][groups], */
    v8 *lanes;                    /* and 8 partial sums of the gradient of each input */
    const float *target;         /* in panels, as inputs are */
    const float *next;           /* data whose rows `order` are the next batch: asked for meanwhile, */
    const int64_t *order;        /* since they lie anywhere */
    int coming;
    /* If batches are of one row and the next one `follows` to the same encoder, its products with the first
     * layer are taken while the weights are updated, and are `ready` then. */
    int follows, ready;
    float *ahead;                /* the next row, */
    Pair *products;              /* and where the first layer's outputs will lie */
    int64_t group;               /* blocks of the output layer that go together, to stay in a near cache */
} Work;

/* Lists of a thin layer: of its outputs, or of its inputs and biases. */
static int64_t bounds_of(const Layer *l) { return l->out <= l->in ? l->out : l->in + 1; }

static Shape shape_of(const Side *side)
{
    Shape s = {.layers = side->layers};
    for (int64_t l = 0; l < s.layers; l++) {
        int64_t in = side->widths[l], out = side->widths[l + 1], blocks = (out + LANES - 1) / LANES;
        s.layer[l] = (Layer){in, out, blocks, (in / LANES + 1) * LANES, s.flat, s.packed, s.units, s.lanes};
        s.flat += out * (in + 1);
        s.packed += blocks * (in + 1) * LANES;
        s.units += out;
        s.lanes += blocks * LANES;
        s.bounds += bounds_of(&s.layer[l]);
    }
    return s;
}

/* Zeroed memory, aligned to a cache line; all of an arena is freed at once. */
typedef struct Arena { struct Arena *next; } Arena;

static void *take(Arena *arena, int64_t bytes)
{
    void *memory;
    if (posix_memalign(&memory, 64, (size_t)bytes + 64)) return NULL;
    memset(memory, 0, (size_t)bytes + 64);
    ((Arena *)memory)->next = arena->next;
    arena->next = memory;
    return (char *)memory + 64;
}

static void release(Arena *arena)
{
    while (arena->next) {
        Arena *head = arena->next;
        arena->next = head->next;
        free(head);
    }
}

/* ---- packing ---- */

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (i8){__VA_ARGS__})
#endif

INLINE v8 join(v4 a, v4 b)
{
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
#else
    return (v8){a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]};
#endif
}

/* 8 x 8 numbers turned: what was in row r and column c is in row c and column r. `halves` are those of
 * the rows, 4 numbers each; a row of halves is rows r and r + 4, so that no number crosses a half. */
INLINE void turn(const v4u *const *halves, v8 *m)
{
    v8 joined[8]; /* of rows r and r + 4: numbers 0 to 3, and 4 to 7 */
    for (int r = 0; r < 4; r++)
        for (int k = 0; k < 2; k++) joined[4 * k + r] = join(halves[r][k], halves[r + 4][k]);
    for (int k = 0; k < 8; k += 4) {
        const v8 a = SHUFFLE(joined[k], joined[k + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        const v8 b = SHUFFLE(joined[k], joined[k + 1], 2, 10, 3, 11, 6, 14, 7, 15);
        const v8 c = SHUFFLE(joined[k + 2], joined[k + 3], 0, 8, 1, 9, 4, 12, 5, 13);
        const v8 d = SHUFFLE(joined[k + 2], joined[k + 3], 2, 10, 3, 11, 6, 14, 7, 15);
        m[k] = SHUFFLE(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
        m[k + 1] = SHUFFLE(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
        m[k + 2] = SHUFFLE(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
        m[k + 3] = SHUFFLE(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
    }
}

/* to[c][r] = from[r][c], 8 x 8 at a time where there are as many. */
static void transpose(const float *from, int64_t from_stride, float *to, int64_t to_stride, int64_t rows,
                      int64_t columns)
{
    for (int64_t r = 0; r < rows; r += 8)
        for (int64_t c = 0; c < columns; c += 8) {
            if (r + 8 > rows || c + 8 > columns) {
                for (int64_t i = r; i < rows && i < r + 8; i++)
                    for (int64_t j = c; j < columns && j < c + 8; j++)
                        to[j * to_stride + i] = from[i * from_stride + j];
                continue;
            }
            v8 m[8]; /* the next rows lie far apart, and in no near cache */
            const v4u *rows_now[8];
            for (int i = 0; i < 8; i++) __builtin_prefetch(from + (r + 8 + i) * from_stride + c);
            for (int i = 0; i < 8; i++) rows_now[i] = (const v4u *)(from + (r + i) * from_stride + c);
            turn(rows_now, m);
            for (int i = 0; i < 8; i++) *(v8u *)(to + (c + i) * to_stride + r) = m[i];
        }
}

/* Where the weight of an output and an input, or its bias, lies in the caller's layer. */
INLINE int64_t place(const Layer *l, int64_t output, int64_t input)
{
    return input < l->in ? output * l->in + input : l->out * l->in + output;
}

static void repack_thin(const Layer *l, const Thin *t, float *flat, float *packed, int into_packed)
{
    for (int64_t m = 0; m < (t->by_output ? l->out : l->in + 1); m++)
        for (int64_t k = t->from[m]; k < t->to[m]; k++) {
            float *at = flat + (t->by_output ? place(l, m, t->other[k]) : place(l, t->other[k], m));
            if (into_packed) packed[k] = *at;
            else *at = packed[k];
        }
}

/* Between a caller's row of weights and a packed one. */
static void repack(const Shape *s, const Thin *thin, float *flat, float *packed, int into_packed)
{
    for (const Layer *l = s->layer; l < s->layer + s->layers; l++)
        if (thin[l - s->layer].on)
            repack_thin(l, &thin[l - s->layer], flat + l->flat, packed + l->packed, into_packed);
        else for (int64_t o = 0; o < l->out; o += LANES) {
            const int64_t lanes = l->out - o < LANES ? l->out - o : LANES;
            const size_t bytes = (size_t)lanes * sizeof(float);
            float *w = flat + l->flat + o * l->in, *bias = flat + l->flat + l->out * l->in + o;
            float *p = packed + l->packed + o * (l->in + 1), *packed_bias = p + l->in * LANES;
            if (into_packed) {
                /* padding must be zero, whatever another network has left here: 0 * NaN is NaN */
                if (lanes < LANES) memset(p, 0, (size_t)(LANES * (l->in + 1)) * sizeof *p);
                transpose(w, l->in, p, LANES, lanes, l->in);
                memcpy(packed_bias, bias, bytes);
            } else {
                transpose(p, LANES, w, l->in, l->in, lanes);
                memcpy(bias, packed_bias, bytes);
            }
        }
}

/* ---- arithmetic on as many numbers as a register holds ---- */

INLINE wide all(float x) { return x - (wide){0}; }
INLINE wide absolute(wide x) { return (wide)((iwide)x & 0x7fffffff); }
INLINE v8 absolute8(v8 x) { return (v8)((i8)x & 0x7fffffff); }

#ifdef __AVX512VL__ /* else some compilers convert halves */
INLINE d8 doubles(v8 x) { return (d8)_mm512_cvtps_pd((__m256)x); }
#else
INLINE d8 doubles(v8 x) { return __builtin_convertvector(x, d8); }
#endif

/* The lesser, or greater, of a limit and x; NaN stays NaN. */
#if defined(__AVX512VL__)
INLINE wide at_most(float limit, wide x) { return (wide)_mm512_min_ps(_mm512_set1_ps(limit), (__m512)x); }
INLINE wide at_least(float limit, wide x) { return (wide)_mm512_max_ps(_mm512_set1_ps(limit), (__m512)x); }
#elif defined(__AVX__)
INLINE wide at_most(float limit, wide x) { return (wide)_mm256_min_ps(_mm256_set1_ps(limit), (__m256)x); }
INLINE wide at_least(float limit, wide x) { return (wide)_mm256_max_ps(_mm256_set1_ps(limit), (__m256)x); }
#else
INLINE wide choose(iwide mask, wide yes, wide no) { return (wide)((mask & (iwide)yes) | (~mask & (iwide)no)); }
INLINE wide at_most(float limit, wide x) { return choose(x > limit, all(limit), x); }
INLINE wide at_least(float limit, wide x) { return choose(x < limit, all(limit), x); }
#endif

INLINE v8 root8(v8 x, int busy)
{
    (void)busy;
    for (size_t i = 0; i < 8; i++) x[i] = sqrtf(x[i]);
    return x;
}
#ifdef __AVX512VL__
/* Where the divider is `busy`, the same bits by products: the root of each number from 2^-101 on is rounded
 * as the processor does it. What is smaller, the optimiser's 1e-8 swallows. */
INLINE wide root(wide v, int busy)
{
    if (!busy) return (wide)_mm512_sqrt_ps((__m512)v);
    const __m512 x = (__m512)v, half = _mm512_set1_ps(0.5f), y = _mm512_rsqrt14_ps(x);
    const __mmask16 k = _mm512_mask_cmp_ps_mask(_mm512_test_epi32_mask((__m512i)x, (__m512i)x), x,
                                                _mm512_set1_ps(INFINITY), _CMP_LT_OQ); /* else root x is x */
    __m512 h = _mm512_mul_ps(y, half), g = _mm512_mask_mul_ps(x, k, x, y);
    const __m512 e = _mm512_fnmadd_ps(g, h, half);
    g = _mm512_mask_fmadd_ps(g, k, e, g), h = _mm512_fmadd_ps(h, e, h);
    return (wide)_mm512_mask3_fmadd_ps(_mm512_fnmadd_ps(g, g, x), h, g, k);
}
#else
#define root root8
#endif

/* exp(x), with x held within +-87, where the result is still a normal number. NaN stays NaN. */
INLINE wide exponential(wide x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = at_least(-87.0f, at_most(87.0f, x));
    const wide shifted = x * 1.44269504f + shift, power = shifted - shift;
    const wide r = (x - power * 0.693359375f) + power * 2.12194440e-4f, q = r * r;
    wide p = r * 1.9841270e-4f + 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = (p * q + r) + 1.0f;
    return p * (wide)(((iwide)shifted << 23) + 0x3f800000);
}

INLINE wide sigmoid(wide z) { return 1.0f / (1.0f + exponential(-z)); }

/* log(1 + e) for 0 <= e <= 1, as 2 artanh(e / (2 + e)). */
INLINE wide log_one_plus(wide e)
{
    wide u = e / (e + 2.0f), q = u * u, p = q * (2.0f / 15) + 2.0f / 13;
    p = p * q + 2.0f / 11;
    p = p * q + 2.0f / 9;
    p = p * q + 2.0f / 7;
    p = p * q + 2.0f / 5;
    p = p * q + 2.0f / 3;
    return u * 2.0f + u * q * p;
}
