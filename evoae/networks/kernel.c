/* Training and scoring of autoencoders one at a time, with the weights in cache. Called by kernel.py.
 *
 * A layer's weights are packed as [blocks][in + 1][16]: a block holds 16 outputs, and the bias is one
 * more input whose value is always 1. Padding outputs have zero weights and, as every gradient that
 * reaches them is exactly zero, keep them.
 *
 * Whatever the size of a batch, each sum has one order: a product's runs over the inputs, a weight's
 * gradient over the even rows and over the odd rows, an input's gradient over the outputs. Rows, inputs
 * and blocks are taken a few at a time, so that these sums stay in registers. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define WIDE __attribute__((vector_size(32)))
typedef float v8 WIDE;
typedef int32_t i8 WIDE;
typedef float v8u __attribute__((vector_size(32), aligned(4)));
typedef float v4 __attribute__((vector_size(16)));
typedef double d4 WIDE;
typedef double d8 __attribute__((vector_size(64), aligned(8)));

/* Up to TILE rows go through a product at once (so many as registers hold), PATCH inputs through an update, GROUP blocks of the output
 * layer forwards and backwards; scoring takes SCORED rows, so that its bits depend on no batch size. */
enum { LANES = 16, MOST = 8, PATCH = 4, GROUP = 4, SCORED = 5, MAX_LAYERS = 16 };
#ifdef __AVX512VL__
enum { TILE = MOST }; /* 32 registers */
#else
enum { TILE = 6 };
#endif

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
    int64_t stride;       /* of a row of inputs: in + 1, padded */
    int64_t flat, packed; /* where its weights start, in the caller's row and packed */
    int64_t unit, lane;   /* where its units start, in the caller's statistics and padded */
} Layer;

typedef struct {
    int64_t layers, flat, packed, units, lanes;
    Layer layer[MAX_LAYERS];
} Shape;

typedef struct { /* a packed network */
    const Shape *shape;
    float *weights, *keep, *first, *second;
    double *total, *squares, count;
    int32_t *zeros;
    int64_t index, steps;
} Net;

typedef struct { /* one optimiser step of one network */
    int adam;
    float rate, correction;
} Rule;

typedef v8 Pair[2]; /* the 16 outputs of a block, of one row */

/* Buffers of one model step. Layers of encoder and decoder are counted through. */
typedef struct {
    float *input[2 * MAX_LAYERS]; /* of each layer [rows][stride] */
    float *code;                  /* what the encoder says: input of the decoder, or means and log-variances */
    Pair *delta;                  /* gradient of a layer's outputs before ReLU [blocks][rows] */
    v8 *back;                     /* gradient of a layer's inputs [in][rows], its 8 lanes not yet summed */
    const float *target;
    int64_t target_stride;
} Work;

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

/* to[c][r] = from[r][c], 8 x 8 at a time where there are as many, exchanging blocks of 4, 2 and 1. */
static void transpose(const float *from, int64_t from_stride, float *to, int64_t to_stride, int64_t rows,
                      int64_t columns)
{
#define EXCHANGE(k, d, low, high)                                             \
    {                                                                         \
        const v8 a = m[k], b = m[k + d];                                      \
        m[k] = SHUFFLE(a, b, low);                                            \
        m[k + d] = SHUFFLE(a, b, high);                                       \
    }
#define LOW4 0, 1, 2, 3, 8, 9, 10, 11
#define HIGH4 4, 5, 6, 7, 12, 13, 14, 15
#define LOW2 0, 1, 8, 9, 4, 5, 12, 13
#define HIGH2 2, 3, 10, 11, 6, 7, 14, 15
#define LOW1 0, 8, 2, 10, 4, 12, 6, 14
#define HIGH1 1, 9, 3, 11, 5, 13, 7, 15
    for (int64_t r = 0; r < rows; r += 8)
        for (int64_t c = 0; c < columns; c += 8) {
            if (r + 8 > rows || c + 8 > columns) {
                for (int64_t i = r; i < rows && i < r + 8; i++)
                    for (int64_t j = c; j < columns && j < c + 8; j++)
                        to[j * to_stride + i] = from[i * from_stride + j];
                continue;
            }
            v8 m[8]; /* the next rows lie far apart, and in no near cache */
            for (int i = 0; i < 8; i++) __builtin_prefetch(from + (r + 8 + i) * from_stride + c);
            for (int i = 0; i < 8; i++) m[i] = *(const v8u *)(from + (r + i) * from_stride + c);
            for (int i = 0; i < 4; i++) EXCHANGE(i, 4, LOW4, HIGH4)
            for (int i = 0; i < 8; i += i & 1 ? 3 : 1) EXCHANGE(i, 2, LOW2, HIGH2)
            for (int i = 0; i < 8; i += 2) EXCHANGE(i, 1, LOW1, HIGH1)
            for (int i = 0; i < 8; i++) *(v8u *)(to + (c + i) * to_stride + r) = m[i];
        }
}

/* Between a caller's row of weights and a packed one. */
static void repack(const Shape *s, float *flat, float *packed, int into_packed)
{
    for (const Layer *l = s->layer; l < s->layer + s->layers; l++)
        for (int64_t o = 0; o < l->out; o += LANES) {
            const int64_t lanes = l->out - o < LANES ? l->out - o : LANES;
            const size_t bytes = (size_t)lanes * sizeof(float);
            float *w = flat + l->flat + o * l->in, *bias = flat + l->flat + l->out * l->in + o;
            float *p = packed + l->packed + o * (l->in + 1), *packed_bias = p + l->in * LANES;
            if (into_packed) {
                transpose(w, l->in, p, LANES, lanes, l->in);
                memcpy(packed_bias, bias, bytes);
            } else {
                transpose(p, LANES, w, l->in, l->in, lanes);
                memcpy(bias, packed_bias, bytes);
            }
        }
}

/* ---- arithmetic on 8 lanes ---- */

INLINE v8 choose(i8 mask, v8 yes, v8 no) { return (v8)((mask & (i8)yes) | (~mask & (i8)no)); }
INLINE v8 all(float x) { return (v8){x, x, x, x, x, x, x, x}; }
INLINE v8 absolute(v8 x) { return (v8)((i8)x & 0x7fffffff); }

/* Adds 8 floats to 8 doubles. */
INLINE void add(double *to, v8 x)
{
    v4 half[2];
    memcpy(half, &x, sizeof x);
    for (int k = 0; k < 2; k++) ((d4 *)to)[k] += __builtin_convertvector(half[k], d4);
}

INLINE v8 root(v8 x)
{
    for (int i = 0; i < 8; i++) x[i] = sqrtf(x[i]);
    return x;
}

/* exp(x), with x held within +-87, where the result is still a normal number. NaN stays NaN. */
INLINE v8 exponential(v8 x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = choose(x > 87.0f, all(87.0f), x);
    x = choose(x < -87.0f, all(-87.0f), x);
    const v8 shifted = x * 1.44269504f + shift, power = shifted - shift;
    const v8 r = (x - power * 0.693359375f) + power * 2.12194440e-4f, q = r * r;
    v8 p = r * 1.9841270e-4f + 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = (p * q + r) + 1.0f;
    return p * (v8)(((i8)shifted << 23) + 0x3f800000);
}

INLINE v8 sigmoid(v8 z) { return 1.0f / (1.0f + exponential(-z)); }

/* log(1 + e) for 0 <= e <= 1, as 2 artanh(e / (2 + e)). */
INLINE v8 log_one_plus(v8 e)
{
    v8 u = e / (e + 2.0f), q = u * u, p = q * (2.0f / 15) + 2.0f / 13;
    p = p * q + 2.0f / 11;
    p = p * q + 2.0f / 9;
    p = p * q + 2.0f / 7;
    p = p * q + 2.0f / 5;
    p = p * q + 2.0f / 3;
    return u * 2.0f + u * q * p;
}

/* ---- one block of 16 outputs ---- */

/* Does the same for each number of rows in a tile, known to the compiler as `tile`. */
#define BY_TILE(rows, ...)                                                                             \
    switch (rows) {                                                                                    \
    case 1: { enum { tile = 1 }; __VA_ARGS__; } break;                                                 \
    case 2: { enum { tile = 2 }; __VA_ARGS__; } break;                                                 \
    case 3: { enum { tile = 3 }; __VA_ARGS__; } break;                                                 \
    case 4: { enum { tile = 4 }; __VA_ARGS__; } break;                                                 \
    case 5: { enum { tile = 5 }; __VA_ARGS__; } break;                                                 \
    case 6: { enum { tile = 6 }; __VA_ARGS__; } break; \
    case 7: { enum { tile = 7 }; __VA_ARGS__; } break; \
    default: { enum { tile = MOST }; __VA_ARGS__; } \
    }

/* Rows in the next tile, of those that are left: tiles of about equal size. */
INLINE int next_tile(int left)
{
    const int tiles = (left + TILE - 1) / TILE;
    return (left + tiles - 1) / tiles;
}

/* Keeps the compiler from reading a vector from memory again at each of its uses. */
#if defined(__AVX512VL__)
#define HOLD(vector) __asm__("" : "+v"(vector))
#elif defined(__SSE__)
#define HOLD(vector) __asm__("" : "+x"(vector))
#else
#define HOLD(vector)
#endif

INLINE void multiply_tile(const float *restrict w, const float *restrict x, int64_t in, int64_t stride,
                          Pair *restrict sums, const int tile)
{
    v8 s[MOST][2] = {{{0}}};
    for (int64_t i = 0; i <= in; i++) {
        const v8 w0 = *(const v8 *)(w + i * LANES), w1 = *(const v8 *)(w + i * LANES + 8);
        for (int b = 0; b < tile; b++) {
            const float value = x[b * stride + i];
            s[b][0] += w0 * value;
            s[b][1] += w1 * value;
        }
    }
    for (int b = 0; b < tile; b++) sums[b][0] = s[b][0], sums[b][1] = s[b][1];
}

static void multiply(const float *w, const float *x, int64_t in, int64_t stride, Pair *sums, int rows)
{
    for (int b = 0, n; b < rows; b += n) {
        n = next_tile(rows - b);
        BY_TILE(n, multiply_tile(w, x + b * stride, in, stride, sums + b, tile))
    }
}

/* Adds to `back` what a few blocks, `size` floats each, say of the gradient of one or two inputs. */
INLINE void flow_tile(const float *restrict w, int64_t size, int blocks, const Pair *restrict delta,
                      int rows, v8 *restrict back, const int inputs, const int tile)
{
    v8 s[2][MOST], value[2];
    for (int i = 0; i < inputs; i++)
        for (int b = 0; b < tile; b++) s[i][b] = back[i * rows + b];
    for (int block = 0; block < blocks; block++, w += size, delta += rows)
        for (int h = 0; h < 2; h++) {
            for (int i = 0; i < inputs; i++) {
                value[i] = *(const v8 *)(w + i * LANES + h * 8);
                HOLD(value[i]);
            }
            for (int b = 0; b < tile; b++) {
                v8 d = delta[b][h];
                HOLD(d);
                for (int i = 0; i < inputs; i++) s[i][b] += d * value[i];
            }
        }
    for (int i = 0; i < inputs; i++)
        for (int b = 0; b < tile; b++) back[i * rows + b] = s[i][b];
}

static void flow(const float *w, int64_t in, int blocks, const Pair *delta, int rows, v8 *back)
{
    const int64_t size = (in + 1) * LANES;
    for (int b = 0, n; b < rows; b += n) {
        n = next_tile(rows - b);
        for (int64_t i = 0; i + 1 < in; i += 2)
            BY_TILE(n, flow_tile(w + i * LANES, size, blocks, delta + b, rows, back + i * rows + b, 2, tile))
        if (in % 2) {
            const int64_t i = in - 1;
            BY_TILE(n, flow_tile(w + i * LANES, size, blocks, delta + b, rows, back + i * rows + b, 1, tile))
        }
    }
}

/* What the optimiser subtracts from 8 weights with gradient g. */
INLINE v8 change(v8 g, Rule rule, int masked, const v8 *keep, v8 *first, v8 *second)
{
    if (masked) g *= *keep;
    if (!rule.adam) return rule.rate * g / (absolute(g) + 1e-8f); /* the first step of a new Adam */
    *first += (g - *first) * 0.5f;
    *second = *second * 0.999f + g * g * 0.001f;
    g = rule.rate * *first / (root(*second) * rule.correction + 1e-8f);
    return masked ? (v8)(g * *keep) : g; /* moments from before a prune must not move it */
}

/* Gradient and update of the weights of one input after the other in a few blocks, `size` floats each;
 * for one tile of rows. Adds to `back` the gradient of the inputs, which is that of the weights before. */
INLINE void update_tile(const Net *net, int64_t at, int64_t size, int blocks, const float *restrict x,
                        int64_t stride, const Pair *restrict delta, Rule rule, int masked,
                        v8 *restrict back, const int tile)
{
    float *restrict weights = net->weights + at, *restrict first = net->first + at;
    float *restrict second = net->second + at;
    const float *restrict keep = net->keep + at; /* not used when absent */
    for (int64_t i = 0; i < size / LANES; i++) {
        v8 sums[MOST], value[MOST];
        for (int b = 0; b < tile; b++) {
            if (back) sums[b] = back[i * tile + b];
            value[b] = all(x[b * stride + i]);
        }
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t h = 0; h < 2; h++) {
                const int64_t j = block * size + i * LANES + h * 8;
                const v8 w = *(v8 *)(weights + j);
                v8 even = {0}, odd = {0}; /* two chains, for their latency */
                for (int b = 0; b < tile; b += 2) {
                    even += delta[block * tile + b][h] * value[b];
                    if (b + 1 < tile) odd += delta[block * tile + b + 1][h] * value[b + 1];
                }
                for (int b = 0; back && b < tile; b++) sums[b] += delta[block * tile + b][h] * w;
                *(v8 *)(weights + j) = w - change(even + odd, rule, masked, (const v8 *)(keep + j),
                                                  (v8 *)(first + j), (v8 *)(second + j));
            }
        if (back)
            for (int b = 0; b < tile; b++) back[i * tile + b] = sums[b];
    }
}

/* Gradient and update of the weights of a few inputs, in one block, for any number of rows. */
INLINE void update_patch(const Net *net, int64_t at, const float *restrict x, int64_t stride,
                         const Pair *restrict delta, int rows, Rule rule, int masked, const int inputs)
{
    v8 even[PATCH][2] = {{{0}}}, odd[PATCH][2] = {{{0}}};
    for (int b = 0; b < rows; b += 2, x += 2 * stride) {
        v8 d0 = delta[b][0], d1 = delta[b][1];
        HOLD(d0);
        HOLD(d1);
        for (int i = 0; i < inputs; i++) {
            even[i][0] += d0 * x[i];
            even[i][1] += d1 * x[i];
        }
        if (b + 1 == rows) break;
        d0 = delta[b + 1][0], d1 = delta[b + 1][1];
        HOLD(d0);
        HOLD(d1);
        for (int i = 0; i < inputs; i++) {
            odd[i][0] += d0 * x[stride + i];
            odd[i][1] += d1 * x[stride + i];
        }
    }
    float *restrict weights = net->weights + at;
    const float *restrict keep = net->keep + at; /* not used when absent */
    float *restrict first = net->first + at, *restrict second = net->second + at;
    for (int i = 0; i < inputs; i++)
        for (int h = 0; h < 2; h++) {
            const int j = i * LANES + h * 8;
            *(v8 *)(weights + j) -= change(even[i][h] + odd[i][h], rule, masked, (const v8 *)(keep + j),
                                           (v8 *)(first + j), (v8 *)(second + j));
        }
}

INLINE void update(const Net *net, int64_t at, int64_t size, int blocks, const float *x, int64_t stride,
                   const Pair *delta, int rows, Rule rule, int masked)
{
    const int64_t inputs = size / LANES;
    for (int64_t i = 0; i < inputs; i += i + PATCH <= inputs ? PATCH : 1)
        for (int block = 0; block < blocks; block++) {
            const int64_t to = at + block * size + i * LANES;
            const Pair *d = delta + block * rows;
            if (i + PATCH <= inputs) update_patch(net, to, x + i, stride, d, rows, rule, masked, PATCH);
            else update_patch(net, to, x + i, stride, d, rows, rule, masked, 1);
        }
}

/* Gradient and update of some blocks of a layer, and what flows back, if something does. */
static void update_blocks(const Net *net, const Layer *l, int64_t block, int blocks, const float *x,
                          const Pair *delta, int rows, Rule rule, v8 *back)
{
    const int64_t size = (l->in + 1) * LANES, at = l->packed + block * size;
    const Rule adam = {1, rule.rate, rule.correction}, fresh = {0, rule.rate, 0};
#define BY_RULE(UPDATE)                                                                                  \
    if (rule.adam) { if (net->keep) { UPDATE(adam, 1) } else { UPDATE(adam, 0) } }                        \
    else { if (net->keep) { UPDATE(fresh, 1) } else { UPDATE(fresh, 0) } }
#define FEW(r, masked)                                                                                    \
    if (back) {                                                                                           \
        BY_TILE(rows, update_tile(net, at, size, blocks, x, l->stride, delta, r, masked, back, tile))      \
    } else for (int g = 0; g < blocks; g++)                                                               \
        BY_TILE(rows, update_tile(net, at + g * size, size, 1, x, l->stride, delta + g * rows, r, masked, NULL, tile))
    if (rows <= TILE) {
        BY_RULE(FEW)
        return;
    }
    if (back) flow(net->weights + at, l->in, blocks, delta, rows, back);
#define MANY(r, masked) update(net, at, size, blocks, x, l->stride, delta, rows, r, masked);
    BY_RULE(MANY)
}

INLINE void add_statistics(Net *net, int64_t lane, const Pair *values, int rows)
{
    for (int h = 0; h < 2; h++, lane += 8) {
        d8 sum = {0}, squares = {0}; /* the deviation is a small difference of large sums */
        i8 zeros = {0};
        for (int b = 0; b < rows; b++) {
            const d8 a = __builtin_convertvector(values[b][h], d8);
            sum += a;
            squares += a * a;
            zeros -= values[b][h] == 0.0f;
        }
        *(d8 *)(net->total + lane) += sum;
        *(d8 *)(net->squares + lane) += squares;
        *(i8 *)(net->zeros + lane) += zeros;
    }
}

static void statistics(Net *net, int64_t lane, const Pair *values, int rows)
{
    if (!net->total) return;
    if (rows > TILE) add_statistics(net, lane, values, rows);
    else BY_TILE(rows, add_statistics(net, lane, values, tile))
}

/* ---- whole layers ---- */

/* A hidden or code layer: inputs x to outputs y, the inputs of the next layer. `h` holds one block. */
static void forward(Net *net, const Layer *l, const float *x, float *y, Pair *h, int rows, int relu)
{
    const int64_t stride = (l->out / LANES + 1) * LANES;
    for (int64_t block = 0; block < l->blocks; block++) {
        multiply(net->weights + l->packed + block * (l->in + 1) * LANES, x, l->in, l->stride, h, rows);
        for (int b = 0; b < rows; b++)
            for (int k = 0; k < 2; k++) {
                if (relu) h[b][k] = choose(h[b][k] < 0.0f, all(0.0f), h[b][k]);
                ((v8 *)(y + b * stride + block * LANES))[k] = h[b][k];
            }
        statistics(net, l->lane + block * LANES, h, rows);
    }
    for (int b = 0; b < rows; b++) y[b * stride + l->out] = 1.0f;
}

/* Which of 8 lanes, the first of them output `lane`, are outputs and not padding. */
INLINE i8 present(const Layer *l, int64_t lane)
{
    return (i8){0, 1, 2, 3, 4, 5, 6, 7} < (int32_t)(l->out - lane);
}

/* From outputs before the sigmoid the gradient of the loss, in place, for a tile of rows. */
INLINE void output_tile(Pair *z, const Layer *l, int64_t lane, const float *target, int64_t stride, int bce,
                        float scale, const int tile)
{
    Pair e[MOST];
    for (int b = 0; b < tile; b++)
        for (int h = 0; h < 2; h++) e[b][h] = exponential(-z[b][h]);
    for (int b = 0; b < tile; b++)
        for (int h = 0; h < 2; h++) {
            const v8 y = *(const v8u *)(target + b * stride + lane + h * 8);
            const v8 s = 1.0f / (1.0f + e[b][h]), d = s - y;
            const i8 slope = (i8)(s * (1.0f - s) * scale) ^ ((i8)d & INT32_MIN);
            const v8 found = bce ? d * scale : (v8)(slope & (d != 0.0f)) + d * 0.0f;
            z[b][h] = (v8)((i8)found & present(l, lane + h * 8));
        }
}

/* The output layer, forwards and backwards a few blocks at a time while their weights are in L1. */
static void output_layer(Net *net, const Layer *l, const Work *work, const float *x, int rows, int bce,
                         float scale, Rule rule)
{
    for (int64_t from = 0; from < l->blocks; from += GROUP) {
        const int blocks = (int)(l->blocks - from < GROUP ? l->blocks - from : GROUP);
        for (int g = 0; g < blocks; g++) {
            const int64_t lane = (from + g) * LANES, stride = work->target_stride;
            Pair *z = work->delta + g * rows;
            multiply(net->weights + l->packed + lane * (l->in + 1), x, l->in, l->stride, z, rows);
            statistics(net, l->lane + lane, z, rows);
            for (int b = 0, n; b < rows; b += n) {
                n = next_tile(rows - b);
                BY_TILE(n, output_tile(z + b, l, lane, work->target + b * stride, stride, bce, scale, tile))
            }
        }
        update_blocks(net, l, from, blocks, x, work->delta, rows, rule, work->back);
    }
}

/* Sum of the losses of the rows over the outputs. */
static double loss(const Net *net, const Layer *l, const Work *work, const float *x, int rows, int bce)
{
    _Alignas(32) double lanes[LANES] = {0};
    double sum = 0;
    Pair z[SCORED];
    for (int64_t block = 0; block < l->blocks; block++) {
        v8 sums[2] = {{0}};
        multiply(net->weights + l->packed + block * (l->in + 1) * LANES, x, l->in, l->stride, z, rows);
        for (int b = 0; b < rows; b++)
            for (int k = 0; k < 2; k++) {
                const v8 y = ((const v8 *)(work->target + b * work->target_stride + block * LANES))[k];
                const v8 a = z[b][k], positive = choose(a < 0.0f, all(0.0f), a);
                if (bce) sums[k] += positive - a * y + log_one_plus(exponential(-absolute(a)));
                else sums[k] += absolute(sigmoid(a) - y);
            }
        for (int k = 0; k < 2; k++)
            add(lanes + k * 8, choose(present(l, block * LANES + k * 8), sums[k], all(0.0f)));
    }
    for (int i = 0; i < LANES; i++) sum += lanes[i];
    return sum;
}

/* The gradient of one input of a layer for one row. */
INLINE float summed(v8 s) { return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])); }

/* From the gradient of a layer's outputs y, in `back`, that before its ReLU, in `delta`. */
static void through_relu(const Work *work, const Layer *l, const float *y, int rows)
{
    const int64_t stride = (l->out / LANES + 1) * LANES;
    for (int64_t o = 0; o < l->blocks * LANES; o++)
        for (int b = 0; b < rows; b++) {
            const int dead = o >= l->out || y[b * stride + o] <= 0.0f;
            ((float *)work->delta[o / LANES * rows + b])[o % LANES] = dead ? 0.0f : summed(work->back[o * rows + b]);
        }
}

/* The decoder's inputs drawn around the code's means, with the deviations that it says. */
static void draw_codes(const Work *work, const Layer *code, float *x, const float *noise, int rows)
{
    const int64_t n = code->out / 2, from = (code->out / LANES + 1) * LANES, to = (n / LANES + 1) * LANES;
    for (int b = 0; b < rows; b++) {
        const float *mean = work->code + b * from, *log_variance = mean + n;
        for (int64_t i = 0; i < n; i++)
            x[b * to + i] = mean[i] + noise[b * n + i] * exponential(all(0.5f * log_variance[i]))[0];
        x[b * to + n] = 1.0f;
    }
}

/* From the gradient of the codes that were drawn, that of means and log-variances; the divergence from
 * the normal distribution, -1/2 sum (1 + log_variance - mean^2 - variance), adds its own. */
static void through_draw(const Work *work, const Layer *code, const float *noise, int rows)
{
    const int64_t n = code->out / 2, stride = (code->out / LANES + 1) * LANES;
    for (int b = 0; b < rows; b++)
        for (int64_t i = 0; i < n; i++) {
            const float mean = work->code[b * stride + i], half = 0.5f * work->code[b * stride + n + i];
            const float deviation = exponential(all(half))[0], found = summed(work->back[i * rows + b]);
            const float to[2] = {found + mean, 0.5f * (found * noise[b * n + i] * deviation +
                                                       deviation * deviation - 1.0f)};
            for (int64_t k = 0; k < 2; k++) {
                const int64_t o = k * n + i;
                ((float *)work->delta[o / LANES * rows + b])[o % LANES] = to[k];
            }
        }
    for (int64_t o = code->out; o < code->blocks * LANES; o++)
        for (int b = 0; b < rows; b++) ((float *)work->delta[o / LANES * rows + b])[o % LANES] = 0.0f;
}

static Rule rule_of(Net *net, double rate, int adam)
{
    if (!adam) return (Rule){0, (float)rate, 0.0f};
    const double t = (double)++net->steps;
    return (Rule){1, (float)(rate / (1 - pow(0.5, t))), (float)(1 / sqrt(1 - pow(0.999, t)))};
}

/* `latent` is the noise [rows][code] of a variational autoencoder, whose loss is a sum over the batch,
 * or NULL: then the loss is the mean over rows and outputs. */
static void step(Net *encoder, Net *decoder, const Work *work, int rows, const float *latent, int bce,
                 double rate, int adam)
{
    Net *nets[2] = {encoder, decoder};
    const Rule rules[2] = {rule_of(encoder, rate, adam), rule_of(decoder, rate, adam)};
    const int64_t split = encoder->shape->layers, last = split + decoder->shape->layers - 1;
#define SIDE(c) ((c) >= split)
#define LAYER(c) (&nets[SIDE(c)]->shape->layer[(c) - (SIDE(c) ? split : 0)])
    for (int64_t c = 0; c < last; c++) {
        float *y = c + 1 == split ? work->code : work->input[c + 1];
        forward(nets[SIDE(c)], LAYER(c), work->input[c], y, work->delta, rows, !latent || c + 1 != split);
        if (latent && c + 1 == split) draw_codes(work, LAYER(c), work->input[split], latent, rows);
    }
    const Layer *output = LAYER(last);
    const float scale = latent ? 1.0f : 1.0f / ((float)rows * (float)output->out);
    memset(work->back, 0, (size_t)((output->in + 1) * rows) * sizeof *work->back);
    output_layer(decoder, output, work, work->input[last], rows, bce, scale, rules[1]);
    for (int64_t c = last - 1; c >= 0; c--) {
        const Layer *l = LAYER(c);
        if (latent && c + 1 == split) through_draw(work, l, latent, rows);
        else through_relu(work, l, work->input[c + 1], rows);
        memset(work->back, 0, (size_t)((l->in + 1) * rows * (c > 0)) * sizeof *work->back);
        update_blocks(nets[SIDE(c)], l, 0, (int)l->blocks, work->input[c], work->delta, rows, rules[SIDE(c)],
                      c ? work->back : NULL);
    }
    encoder->count += rows;
    decoder->count += rows;
}

/* ---- networks in use ---- */

typedef struct { /* the networks of one side that the present visit has packed */
    const Side *side;
    Shape shape;
    Net *nets;
    int64_t *slot, used;
    float *scratch;
    int trains;
    Arena *arena;
} Cast;

static int cast_open(Cast *cast, const Side *side, int trains, Arena *arena)
{
    *cast = (Cast){.side = side, .shape = shape_of(side), .trains = trains, .arena = arena};
    cast->nets = take(arena, side->networks * (int64_t)sizeof(Net));
    cast->slot = take(arena, side->networks * (int64_t)sizeof(int64_t));
    cast->scratch = take(arena, cast->shape.flat * (int64_t)sizeof(float));
    if (!cast->nets || !cast->slot || !cast->scratch) return 0;
    memset(cast->slot, -1, (size_t)side->networks * sizeof(int64_t));
    return 1;
}

/* The packed network, packed now if this visit has not used it yet; NULL when memory is out. */
static Net *enter(Cast *cast, int64_t index)
{
    const Side *side = cast->side;
    const Shape *s = &cast->shape;
    if (cast->slot[index] >= 0) return &cast->nets[cast->slot[index]];
    Net *net = &cast->nets[cast->used];
    if (!net->weights) { /* the first time this slot is used */
        const int64_t n = s->packed;
        const int parts = 1 + (cast->trains && side->keep) + 2 * (cast->trains && side->first);
        float *memory = take(cast->arena, parts * n * (int64_t)sizeof(float));
        if (!memory) return NULL;
        net->shape = s;
        net->weights = memory;
        if (cast->trains && side->keep) net->keep = memory += n;
        if (cast->trains && side->first) net->first = memory + n, net->second = memory + 2 * n;
        if (cast->trains && side->total) {
            double *sums = take(cast->arena, s->lanes * (int64_t)(2 * sizeof(double) + sizeof(int32_t)));
            if (!sums) return NULL;
            net->total = sums;
            net->squares = sums + s->lanes;
            net->zeros = (int32_t *)(sums + 2 * s->lanes);
        }
    }
    net->index = index;
    net->count = 0;
    net->steps = cast->trains && side->steps ? side->steps[index] : 0;
    if (net->total) memset(net->total, 0, (size_t)s->lanes * (2 * sizeof(double) + sizeof(int32_t)));
    repack(s, side->weights + index * s->flat, net->weights, 1);
    if (net->first) {
        repack(s, side->first + index * s->flat, net->first, 1);
        repack(s, side->second + index * s->flat, net->second, 1);
    }
    if (net->keep) {
        for (int64_t i = 0; i < s->flat; i++) cast->scratch[i] = side->keep[index * s->flat + i];
        repack(s, cast->scratch, net->keep, 1);
    }
    cast->slot[index] = cast->used++;
    return net;
}

/* End of a visit: write back what training changed, and forget the networks. */
static void leave(Cast *cast)
{
    const Side *side = cast->side;
    const Shape *s = &cast->shape;
    for (Net *net = cast->nets; net < cast->nets + cast->used; net++) {
        const int64_t row = net->index;
        cast->slot[row] = -1;
        if (!cast->trains) continue;
        repack(s, side->weights + row * s->flat, net->weights, 0);
        if (net->first) {
            repack(s, side->first + row * s->flat, net->first, 0);
            repack(s, side->second + row * s->flat, net->second, 0);
            side->steps[row] = net->steps;
        }
        if (!net->total) continue;
        side->count[row] += net->count;
        for (const Layer *l = s->layer; l < s->layer + s->layers; l++)
            for (int64_t o = 0; o < l->out; o++) {
                side->total[row * s->units + l->unit + o] += net->total[l->lane + o];
                side->squares[row * s->units + l->unit + o] += net->squares[l->lane + o];
                side->zeros[row * s->units + l->unit + o] += net->zeros[l->lane + o];
            }
    }
    cast->used = 0;
}

/* Buffers for batches of up to `rows`. Encoders are read into `code`: a plain one's is the decoder's input. */
static int work_open(Work *work, const Shape *encoder, const Shape *decoder, int rows, Arena *arena)
{
    int64_t widest = 0, blocks = GROUP, c = 0;
    *work = (Work){0};
    for (int side = 0; side < 2; side++) {
        const Shape *s = side ? decoder : encoder;
        for (const Layer *l = s->layer; l < s->layer + s->layers; l++, c++) {
            work->input[c] = take(arena, rows * l->stride * (int64_t)sizeof(float));
            if (!work->input[c]) return 0;
            if (c && l->in > widest) widest = l->in; /* nothing flows back into the data */
            const int output = side && l == s->layer + s->layers - 1;
            if (!output && l->blocks > blocks) blocks = l->blocks;
        }
    }
    const Layer *code = &encoder->layer[encoder->layers - 1];
    work->code = work->input[encoder->layers];
    if (code->out != decoder->layer[0].in)
        work->code = take(arena, rows * (code->out / LANES + 1) * LANES * (int64_t)sizeof(float));
    work->delta = take(arena, blocks * rows * (int64_t)sizeof *work->delta);
    work->back = take(arena, (widest + 1) * rows * (int64_t)sizeof *work->back);
    return work->code && work->delta && work->back;
}

/* The rows of one batch; padding is 1, so that the bias is one more input. */
static void load(float *to, int64_t stride, const float *data, int64_t width, const int64_t *order, int rows)
{
    for (int b = 0; b < rows; b++, to += stride) {
        memcpy(to, data + order[b] * width, (size_t)width * sizeof *to);
        for (int64_t i = width; i < stride; i++) to[i] = 1.0f;
    }
}

/* ---- what kernel.py calls; 0, or one of these before any work is done ---- */

enum { OUT_OF_MEMORY = 1, OUT_OF_RANGE = 2 };

static int within(const int64_t *index, int64_t n, int64_t apart, int64_t size)
{
    int ok = 1;
    for (int64_t i = 0; i < n; i++) ok &= index[i * apart] >= 0 && index[i * apart] < size;
    return ok;
}

/* Whether pairs, and the n row indices of each of the items, can be followed. */
static int in_range(const Side *encoder, const Side *decoder, const int64_t *pairs, int64_t number,
                    const int64_t *rows, int64_t items, int64_t n, const int64_t *sizes)
{
    int ok = within(pairs, number, 2, encoder->networks) && within(pairs + 1, number, 2, decoder->networks);
    for (int64_t m = 0; m < items; m++) ok = ok && within(rows + m * n, n, 1, sizes[m]);
    return ok;
}

/* Numbers below 1e-38 become 0 while training: the kept Adam's moments of silent units decay to
   where each operation costs a hundred times more, and next to its 1e-8 they move no weight. A weight
   that small becomes 0 too, and counts as one. */
static unsigned flush_to_zero(void)
{
#ifdef __SSE__
    const unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040);
    return before;
#else
    return 0;
#endif
}

static void restore(unsigned before)
{
#ifdef __SSE__
    __builtin_ia32_ldmxcsr(before);
#else
    (void)before;
#endif
}

/* `latent` is the noise [n][code] of each visit, in the order of its rows, or NULL. */
int evoae_train(const Side *encoder, const Side *decoder, int64_t visits, int64_t batches, int64_t k,
                const int64_t *pairs, const float *const *inputs, const float *const *targets,
                const int64_t *sizes, const int64_t *order, int64_t n, int64_t batch_size,
                const double *rates, const float *latent, int bce, int adam)
{
    if (!in_range(encoder, decoder, pairs, visits * batches * k, order, visits, n, sizes))
        return OUT_OF_RANGE;
    Arena arena = {NULL};
    Cast encoders, decoders;
    Work work;
    const int most = (int)(n < batch_size ? n : batch_size);
    int ok = cast_open(&encoders, encoder, 1, &arena) && cast_open(&decoders, decoder, 1, &arena) &&
             work_open(&work, &encoders.shape, &decoders.shape, most, &arena);
    const Layer *first = encoders.shape.layer;
    float *target = ok ? take(&arena, most * first->stride * (int64_t)sizeof *target) : NULL;
    ok = ok && target;
    work.target_stride = first->stride;
    const unsigned before = flush_to_zero();
    for (int64_t v = 0; ok && v < visits; v++) {
        for (int64_t i = 0; ok && i < batches * k; i++) { /* pack them all before any moves */
            const int64_t *pair = pairs + (v * batches * k + i) * 2;
            ok = enter(&encoders, pair[0]) && enter(&decoders, pair[1]);
        }
        for (int64_t b = 0; ok && b < batches; b++) {
            const int64_t at = v * n + b * batch_size;
            const int rows = (int)(n - b * batch_size < most ? n - b * batch_size : most);
            load(work.input[0], first->stride, inputs[v], first->in, order + at, rows);
            work.target = work.input[0];
            if (targets[v] != inputs[v]) {
                load(target, first->stride, targets[v], first->in, order + at, rows);
                work.target = target;
            }
            const float *noise = latent ? latent + at * decoders.shape.layer[0].in : NULL;
            for (int64_t j = 0; j < k; j++) {
                const int64_t *pair = pairs + ((v * batches + b) * k + j) * 2;
                step(enter(&encoders, pair[0]), enter(&decoders, pair[1]), &work, rows, noise, bce, rates[v],
                     adam);
            }
        }
        if (ok) leave(&encoders), leave(&decoders);
    }
    restore(before);
    release(&arena);
    return ok ? 0 : OUT_OF_MEMORY;
}

/* Mean loss of each of the k pairs of an item on its rows; codes are computed once per encoder. A
 * variational encoder's code is its mean: what lies behind it is not read. */
int evoae_losses(const Side *encoder, const Side *decoder, int64_t items, int64_t k, const int64_t *pairs,
                 const float *const *inputs, const int64_t *sizes, const int64_t *rows, int64_t n, int bce,
                 double *losses)
{
    if (!in_range(encoder, decoder, pairs, items * k, rows, items, n, sizes)) return OUT_OF_RANGE;
    Arena arena = {NULL};
    Cast encoders, decoders;
    Work work = {0};
    int ok = cast_open(&encoders, encoder, 0, &arena) && cast_open(&decoders, decoder, 0, &arena) &&
             work_open(&work, &encoders.shape, &decoders.shape, SCORED, &arena);
    const Layer *first = encoders.shape.layer, *code = ok ? decoders.shape.layer : NULL;
    const int64_t split = encoder->layers, last = decoder->layers - 1;
    const int64_t said = encoders.shape.layer[split - 1].out, stride = (said / LANES + 1) * LANES;
    const int variational = ok && said != code->in;
    work.target = work.input[0], work.target_stride = first->stride; /* they are the targets too */
    const int64_t size = ok ? SCORED * code->stride : 0;
    float *codes = ok ? take(&arena, encoder->networks * size * (int64_t)sizeof(float)) : NULL;
    ok = ok && codes;
    for (int64_t m = 0; ok && m < items; m++) {
        const int64_t *pair = pairs + m * k * 2;
        for (int64_t j = 0; ok && j < k; j++)
            ok = enter(&encoders, pair[2 * j]) && enter(&decoders, pair[2 * j + 1]);
        for (int64_t row = 0; ok && row < n; row += SCORED) {
            const int rows_now = (int)(n - row < SCORED ? n - row : SCORED);
            load(work.input[0], first->stride, inputs[m], first->in, rows + m * n + row, rows_now);
            for (int64_t e = 0; e < encoders.used; e++) {
                float *own = codes + e * size;
                for (int64_t c = 0; c < split; c++) {
                    float *y = c + 1 < split ? work.input[c + 1] : variational ? work.code : own;
                    forward(&encoders.nets[e], &encoders.shape.layer[c], work.input[c], y, work.delta, rows_now,
                            !variational || c + 1 < split);
                }
                for (int64_t b = 0; variational && b < rows_now; b++) {
                    memcpy(own + b * code->stride, work.code + b * stride, (size_t)code->in * sizeof *own);
                    own[b * code->stride + code->in] = 1.0f;
                }
            }
            for (int64_t j = 0; j < k; j++) {
                Net *net = enter(&decoders, pair[2 * j + 1]);
                const float *x = codes + encoders.slot[pair[2 * j]] * size;
                for (int64_t c = 0; c < last; x = work.input[split + ++c])
                    forward(net, &decoders.shape.layer[c], x, work.input[split + c + 1], work.delta, rows_now, 1);
                losses[m * k + j] += loss(net, &decoders.shape.layer[last], &work, x, rows_now, bce);
            }
        }
        for (int64_t j = 0; ok && j < k; j++)
            losses[m * k + j] /= (double)n * (double)decoders.shape.layer[last].out;
        leave(&encoders), leave(&decoders);
    }
    release(&arena);
    return ok ? 0 : OUT_OF_MEMORY;
}
