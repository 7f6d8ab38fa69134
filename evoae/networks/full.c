/* Full layers, one block of 16 outputs at a time: rows, inputs and blocks are taken a few at a time, so
 * that sums stay in registers. */

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
#elif defined(__AVX__)
#define HOLD(vector) __asm__("" : "+x"(vector))
#else
#define HOLD(vector)
#endif

INLINE void multiply_tile(const float *restrict w, const float *restrict x, int64_t in, int64_t stride,
                          Pair *restrict sums, const int tile)
{
    wide s[MOST][HALVES] = {{{0}}};
    for (int64_t i = 0; i <= in; i++, w += LANES)
        for (int h = 0; h < HALVES; h++) {
            const wide weight = ((const wide *)w)[h];
            for (int b = 0; b < tile; b++) s[b][h] += weight * x[b * stride + i];
        }
    for (int b = 0; b < tile; b++)
        for (int h = 0; h < HALVES; h++) ((wide *)sums[b])[h] = s[b][h];
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

/* What the optimiser subtracts from weights with gradient g. */
#define CHANGE(name, v, absolute, root)                                                                   \
    INLINE v name(v g, Rule rule, int masked, const v *keep, v *first, v *second)                          \
    {                                                                                                     \
        if (masked) g *= *keep;                                                                           \
        if (!rule.adam) return rule.rate * g / (absolute(g) + 1e-8f); /* the first step of a new Adam */  \
        const v mean = *first = *first + (g - *first) * 0.5f;                                             \
        *second = *second * 0.999f + g * g * 0.001f;                                                      \
        g = rule.rate * mean / (root(*second) * rule.correction + 1e-8f);                                 \
        return masked ? (v)(g * *keep) : g; /* moments from before a prune must not move it */            \
    }
CHANGE(change, v8, absolute8, root8)
CHANGE(change_wide, wide, absolute, root)

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
        v8 sums[MOST];
        wide value[MOST];
        for (int b = 0; b < tile; b++) {
            if (back) sums[b] = back[i * tile + b];
            value[b] = all(x[b * stride + i]);
        }
        for (int64_t block = 0; block < blocks; block++) {
            const Pair *d = delta + block * tile;
            for (int h = 0; back && h < 2; h++) {
                const v8 w = *(v8 *)(weights + block * size + i * LANES + h * 8);
                for (int b = 0; b < tile; b++) sums[b] += d[b][h] * w;
            }
            for (int h = 0; h < HALVES; h++) {
                const int64_t j = block * size + i * LANES + h * WIDTH;
                wide even = {0}, odd = {0}; /* two chains, for their latency */
                for (int b = 0; b < tile; b += 2) {
                    even += ((const wide *)d[b])[h] * value[b];
                    if (b + 1 < tile) odd += ((const wide *)d[b + 1])[h] * value[b + 1];
                }
                *(wide *)(weights + j) -= change_wide(even + odd, rule, masked, (const wide *)(keep + j),
                                                      (wide *)(first + j), (wide *)(second + j));
            }
        }
        if (back)
            for (int b = 0; b < tile; b++) back[i * tile + b] = sums[b];
    }
}

/* Weights of a few inputs in one block that are to be updated, and their gradients. */
typedef struct {
    float *weights, *first, *second;
    const float *keep; /* not used when absent */
    const wide *gradient;
    int inputs; /* that are left */
} Due;

static Due due_at(const Net *net, int64_t at, const wide *gradient, int inputs)
{
    return (Due){net->weights + at, net->first + at, net->second + at, net->keep + at, gradient, inputs};
}

INLINE void update_next(Due *due, Rule rule, int masked)
{
    for (int h = 0; h < HALVES; h++)
        ((wide *)due->weights)[h] -= change_wide(due->gradient[h], rule, masked, (const wide *)due->keep + h,
                                                 (wide *)due->first + h, (wide *)due->second + h);
    *due = (Due){due->weights + LANES, due->first + LANES, due->second + LANES, due->keep + LANES,
                 due->gradient + HALVES, due->inputs - 1};
}

/* Gradients of the weights of a few inputs in one block, for any number of rows. What is due from the
 * patch before is updated meanwhile: an optimiser's root and division keep nothing else waiting then. */
INLINE void patch(wide *restrict gradient, const float *restrict x, int64_t stride, const Pair *restrict delta,
                  int rows, Due due, Rule rule, int masked, const int inputs)
{
    wide even[PATCH][HALVES] = {{{0}}}, odd[PATCH][HALVES] = {{{0}}};
    int b = 0;
    for (; b + 1 < rows; b += 2, x += 2 * stride) {
        for (int h = 0; h < HALVES; h++) {
            wide d = ((const wide *)delta[b])[h];
            HOLD(d);
            for (int i = 0; i < inputs; i++) even[i][h] += d * x[i];
        }
        for (int h = 0; h < HALVES; h++) {
            wide d = ((const wide *)delta[b + 1])[h];
            HOLD(d);
            for (int i = 0; i < inputs; i++) odd[i][h] += d * x[stride + i];
        }
        if (due.inputs) update_next(&due, rule, masked);
    }
    for (int h = 0; b < rows && h < HALVES; h++)
        for (int i = 0; i < inputs; i++) even[i][h] += ((const wide *)delta[b])[h] * x[i];
    while (due.inputs) update_next(&due, rule, masked);
    for (int i = 0; i < inputs; i++)
        for (int h = 0; h < HALVES; h++) gradient[i * HALVES + h] = even[i][h] + odd[i][h];
}

INLINE void update(const Net *net, int64_t at, int64_t size, int blocks, const float *x, int64_t stride,
                   const Pair *delta, int rows, Rule rule, int masked)
{
    const int64_t inputs = size / LANES;
    wide gradients[2][PATCH * HALVES];
    int now = 0;
    Due due = {.inputs = 0};
    for (int64_t i = 0, n; i < inputs; i += n) {
        n = inputs - i < PATCH ? 1 : PATCH;
        for (int block = 0; block < blocks; block++, now = !now) {
            const Pair *d = delta + block * rows;
            if (n == PATCH) patch(gradients[now], x + i, stride, d, rows, due, rule, masked, PATCH);
            else patch(gradients[now], x + i, stride, d, rows, due, rule, masked, 1);
            due = due_at(net, at + block * size + i * LANES, gradients[now], (int)n);
        }
    }
    while (due.inputs) update_next(&due, rule, masked);
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
        BY_TILE(rows, update_tile(net, at + g * size, size, 1, x, l->stride, delta + g * rows, r, masked,     \
                                  NULL, tile))
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
