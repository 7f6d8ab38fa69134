/* Full layers, in blocks of 16 outputs: rows, inputs and blocks are taken a few at a time, so that sums stay
 * in registers. */

/* Does the same for each number of rows in a tile, known to the compiler as `tile`. */
#define CASE(label, n, ...) label: { enum { tile = n }; __VA_ARGS__; } break;
#define BY_TILE(rows, ...)                                                                                \
    switch (rows) {                                                                                       \
    CASE(case 1, 1, __VA_ARGS__) CASE(case 2, 2, __VA_ARGS__) CASE(case 3, 3, __VA_ARGS__)                \
    CASE(case 4, 4, __VA_ARGS__) CASE(case 5, 5, __VA_ARGS__) CASE(case 6, 6, __VA_ARGS__)                \
    CASE(case 7, 7, __VA_ARGS__) CASE(default, MOST, __VA_ARGS__)                                         \
    }

/* The size of the next tile, at most `most`, of what is left: tiles of about equal size. */
INLINE int next_tile(int left, int most)
{
    const int tiles = (left + most - 1) / most;
    return (left + tiles - 1) / tiles;
}

/* Rows of `back` for an input: filled up to whole registers, where there are many. */
INLINE int lines_of(int rows) { return rows > TILE ? (rows + ABREAST - 1) / ABREAST * ABREAST : rows; }

/* Keeps the compiler from reading a vector from memory again at each of its uses. */
#if defined(__AVX512VL__)
#define HOLD(vector) __asm__("" : "+v"(vector))
#elif defined(__AVX__)
#define HOLD(vector) __asm__("" : "+x"(vector))
#else
#define HOLD(vector) (void)(vector)
#endif

/* Where a number of a row lies in panels of 16: [panels][rows][16]. */
INLINE int64_t spot(int rows, int64_t b, int64_t i) { return (i / LANES * rows + b) * LANES + i % LANES; }

INLINE void multiply_tile(const float *restrict w, int64_t size, const float *restrict x, int64_t in,
                          Pair *restrict sums, int rows, const int blocks, const int tile)
{
    wide s[BESIDE][MOST][HALVES] = {{{{0}}}};
    for (int64_t panel = 0; panel <= in; panel += LANES, x += rows * LANES)
        for (int64_t i = 0; i < LANES && panel + i <= in; i++, w += LANES) {
            wide weight[BESIDE][HALVES];
            for (int k = 0; k < blocks; k++)
                for (int h = 0; h < HALVES; h++) weight[k][h] = ((const wide *)(w + k * size))[h];
            for (int b = 0; b < tile; b++) {
                wide value = all(x[b * LANES + i]);
                if (blocks > 1) HOLD(value);
                for (int k = 0; k < blocks; k++)
                    for (int h = 0; h < HALVES; h++) s[k][b][h] += weight[k][h] * value;
            }
        }
    for (int k = 0; k < blocks; k++)
        for (int b = 0; b < tile; b++)
            for (int h = 0; h < HALVES; h++) ((wide *)sums[k * rows + b])[h] = s[k][b][h];
}

/* Products of some blocks of a layer, the first of which is at w, with rows of inputs: [blocks][rows]. */
static void multiply(const float *w, int64_t blocks, const float *x, int64_t in, Pair *sums, int rows)
{
    const int64_t size = (in + 1) * LANES;
    for (int64_t k = 0, beside; k < blocks; k += beside, w += beside * size, sums += beside * rows) {
        beside = blocks - k < BESIDE ? 1 : BESIDE;
        for (int b = 0, n; b < rows; b += n) {
            const float *from = x + b * LANES;
            n = next_tile(rows - b, TILE);
            if (beside == 1) BY_TILE(n, multiply_tile(w, size, from, in, sums + b, rows, 1, tile))
            else BY_TILE(n, multiply_tile(w, size, from, in, sums + b, rows, BESIDE, tile))
        }
    }
}

/* Eight weights for each of the rows of a register, and these rows' gradients of eight outputs. */
#ifdef __AVX512VL__
INLINE wide abreast(const float *w) { return (wide)_mm512_broadcast_f32x8(_mm256_load_ps(w)); }
INLINE wide halves_of(const Pair *rows, int h)
{
    const __m512 *z = (const __m512 *)rows;
    return (wide)(h ? _mm512_shuffle_f32x4(z[0], z[1], 0xee) : _mm512_shuffle_f32x4(z[0], z[1], 0x44));
}
#else
INLINE wide abreast(const float *w) { return *(const wide *)w; }
INLINE wide halves_of(const Pair *rows, int h) { return rows[0][h]; }
#endif

/* Adds to `back` what a few blocks, `size` floats each, say of the gradient of FLOWS inputs: `tile`
 * registers of rows, of which `halves` holds [blocks][2][tile]. */
INLINE void flow_tile(const float *restrict w, int64_t size, int blocks, const wide *restrict halves, int lines,
                      v8 *restrict back, int anew, const int tile)
{
    wide s[FLOWS][MOST], value[FLOWS];
    for (int i = 0; i < FLOWS; i++)
        for (int b = 0; b < tile; b++) s[i][b] = anew ? all(0.0f) : ((const wide *)(back + i * lines))[b];
    for (int block = 0; block < blocks; block++, w += size)
        for (int h = 0; h < 2; h++, halves += tile) {
            for (int i = 0; i < FLOWS; i++) {
                value[i] = abreast(w + i * LANES + h * 8);
                HOLD(value[i]);
            }
            for (int b = 0; b < tile; b++) {
                wide d = halves[b];
                HOLD(d);
                for (int i = 0; i < FLOWS; i++) s[i][b] += d * value[i];
            }
        }
    for (int i = 0; i < FLOWS; i++)
        for (int b = 0; b < tile; b++) ((wide *)(back + i * lines))[b] = s[i][b];
}

/* What flows back from some blocks to all inputs. What lies behind the last one is garbage: nobody reads it. */
static void flow(const float *w, int64_t in, int blocks, const Pair *delta, int rows, wide *halves, v8 *back,
                 int anew)
{
    const int64_t size = (in + 1) * LANES;
    const int lines = lines_of(rows), most = TILE / ABREAST;
    for (int b = 0, n; b < lines; b += n * ABREAST) {
        n = next_tile((lines - b) / ABREAST, most);
        wide *to = halves;
        for (int block = 0; block < blocks; block++)
            for (int h = 0; h < 2; h++)
                for (int r = 0; r < n; r++) *to++ = halves_of(delta + block * rows + b + r * ABREAST, h);
        for (int64_t i = 0; i < in; i += FLOWS)
            BY_TILE(n, flow_tile(w + i * LANES, size, blocks, halves, lines, back + i * lines + b, anew,
                                 tile))
    }
}

/* What the optimiser subtracts from weights with gradient g. */
#define CHANGE(name, v, absolute, root)                                                                   \
    INLINE v name(v g, Rule rule, int masked, int busy, const v *keep, v *first, v *second)                \
    {                                                                                                     \
        if (masked) g *= *keep;                                                                           \
        if (!rule.adam) return rule.rate * g / (absolute(g) + 1e-8f); /* the first step of a new Adam */  \
        const v mean = *first = *first + (g - *first) * 0.5f;                                             \
        *second = *second * 0.999f + g * g * 0.001f;                                                      \
        g = rule.rate * mean / (root(*second, busy) * rule.correction + 1e-8f);                           \
        return masked ? (v)(g * *keep) : g; /* moments from before a prune must not move it */            \
    }
CHANGE(change, v8, absolute8, root8)
CHANGE(change_wide, wide, absolute, root)

/* Gradient and update of the weights of one input after the other in a few blocks, `size` floats each;
 * for one tile of rows. Adds to `back` the gradient of the inputs, which is that of the weights before.
 * Without it there is one block; of one row the products of the new weights with `ahead` go to `products`. */
INLINE void update_tile(const Net *net, int64_t at, int64_t size, int blocks, const float *restrict x,
                        const Pair *restrict delta, Rule rule, int masked, v8 *restrict back,
                        const float *restrict ahead, wide *restrict products, const int tile)
{
    wide next[HALVES] = {{0}};
    float *restrict weights = net->weights + at, *restrict first = net->first + at;
    float *restrict second = net->second + at;
    const float *restrict keep = net->keep + at; /* not used when absent */
    for (int64_t i = 0; i < size / LANES; i++) {
        v8 sums[MOST];
        wide value[MOST];
        for (int b = 0; b < tile; b++) {
            if (back) sums[b] = back[i * tile + b];
            value[b] = all(x[spot(tile, b, i)]);
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
                const wide w = *(wide *)(weights + j) -=
                    change_wide(tile > 1 ? even + odd : even, rule, masked, tile < 5, (const wide *)(keep + j),
                                (wide *)(first + j), (wide *)(second + j));
                if (!back && tile == 1) next[h] += w * all(ahead[i]);
            }
        }
        if (back)
            for (int b = 0; b < tile; b++) back[i * tile + b] = sums[b];
    }
    for (int h = 0; !back && tile == 1 && h < HALVES; h++) products[h] = next[h];
}

/* Weights of a few inputs in some blocks, `size` floats each, that are to be updated, and their gradients. */
typedef struct {
    const Net *net;
    const wide *gradient;
    int64_t at, size;
    int inputs, input, blocks; /* inputs of a block, the next one, and blocks that are left */
} Due;

INLINE void update_next(Due *due, Rule rule, int masked)
{
    const Net *net = due->net;
    const int64_t at = due->at + due->input * LANES;
    for (int h = 0; h < HALVES; h++) {
        const int64_t j = at + h * WIDTH;
        *(wide *)(net->weights + j) -=
            change_wide(*due->gradient++, rule, masked, 0, (const wide *)(net->keep + j),
                        (wide *)(net->first + j), (wide *)(net->second + j));
    }
    if (++due->input < due->inputs) return;
    due->gradient += (PATCH - due->inputs) * HALVES;
    due->input = 0, due->at += due->size, due->blocks--;
}

/* Adds one row to the gradients of the weights of PATCH inputs in a block or two, `apart` rows apart. */
INLINE void add_row(wide (*restrict sums)[PATCH][HALVES], const float *restrict x, const Pair *restrict delta,
                    int64_t apart, const int blocks)
{
    wide d[BESIDE][HALVES];
    for (int k = 0; k < blocks; k++)
        for (int h = 0; h < HALVES; h++) {
            d[k][h] = ((const wide *)delta[k * apart])[h];
            HOLD(d[k][h]);
        }
    for (int i = 0; i < PATCH; i++) {
        wide value = all(x[i]);
        if (blocks > 1) HOLD(value);
        for (int k = 0; k < blocks; k++)
            for (int h = 0; h < HALVES; h++) sums[k][i][h] += d[k][h] * value;
    }
}

/* Gradients of the weights of PATCH inputs in a block or two, for any number of rows. What is due from the
 * patch before is updated meanwhile: an optimiser's root and division keep nothing else waiting then. */
INLINE void patch(wide *restrict gradient, const float *restrict x, const Pair *restrict delta, int64_t rows,
                  Due due, Rule rule, int masked, const int blocks)
{
    wide even[BESIDE][PATCH][HALVES] = {{{{0}}}}, odd[BESIDE][PATCH][HALVES] = {{{{0}}}};
    int64_t wait = 0;
    for (int64_t b = rows; b > 1; b -= 2, x += 2 * LANES, delta += 2) {
        add_row(even, x, delta, rows, blocks);
        add_row(odd, x + LANES, delta + 1, rows, blocks);
        for (wait += 2 * blocks * PATCH; due.blocks && wait > 0; wait -= rows) update_next(&due, rule, masked);
    }
    if (rows % 2) add_row(even, x, delta, rows, blocks);
    while (due.blocks) update_next(&due, rule, masked);
    for (int k = 0; k < blocks; k++)
        for (int i = 0; i < PATCH; i++)
            for (int h = 0; h < HALVES; h++) *gradient++ = even[k][i][h] + odd[k][i][h];
}

INLINE void update(const Net *net, int64_t at, int64_t size, int blocks, const float *x, const Pair *delta,
                   int rows, Rule rule, int masked)
{
    const int64_t inputs = size / LANES;
    wide gradients[2][BESIDE * PATCH * HALVES];
    int now = 0;
    Due due = {.blocks = 0};
    for (int block = 0, beside; block < blocks; block += beside) {
        beside = blocks - block < BESIDE ? 1 : BESIDE;
        for (int64_t i = 0; i < inputs; i += PATCH, now = !now) {
            const float *from = x + spot(rows, 0, i);
            if (beside == 1) patch(gradients[now], from, delta + block * rows, rows, due, rule, masked, 1);
            else patch(gradients[now], from, delta + block * rows, rows, due, rule, masked, BESIDE);
            const int n = inputs - i < PATCH ? (int)(inputs - i) : PATCH;
            due = (Due){net, gradients[now], at + block * size + i * LANES, size, n, 0, beside};
        }
    }
    while (due.blocks) update_next(&due, rule, masked);
}

/* Gradient and update of some blocks of a layer, and what flows back, if something does. */
static void update_blocks(const Net *net, const Layer *l, int64_t block, int blocks, const float *x,
                          const Work *work, int rows, Rule rule, v8 *back)
{
    const Pair *delta = work->delta;
    const int64_t size = (l->in + 1) * LANES, at = l->packed + block * size;
    const Rule adam = {1, rule.rate, rule.correction}, fresh = {0, rule.rate, 0};
#define BY_RULE(UPDATE)                                                                                  \
    if (rule.adam) { if (net->keep) { UPDATE(adam, 1) } else { UPDATE(adam, 0) } }                        \
    else { if (net->keep) { UPDATE(fresh, 1) } else { UPDATE(fresh, 0) } }
#define FEW(r, masked)                                                                                    \
    if (back) {                                                                                           \
        BY_TILE(rows, update_tile(net, at, size, blocks, x, delta, r, masked, back, NULL, NULL, tile))    \
    } else for (int g = 0; g < blocks; g++)                                                               \
        BY_TILE(rows, update_tile(net, at + g * size, size, 1, x, delta + g * rows, r, masked, NULL,      \
                                  work->ahead, (wide *)(work->products + g), tile))
    if (rows <= TILE) {
        BY_RULE(FEW)
        return;
    }
    if (back) flow(net->weights + at, l->in, blocks, delta, rows, work->halves, back, !block);
#define MANY(r, masked) update(net, at, size, blocks, x, delta, rows, r, masked);
    BY_RULE(MANY)
}

INLINE void add_statistics(Net *net, int64_t lane, const Pair *values, int rows)
{
    d8 sum[2] = {{0}}, squares[2] = {{0}}; /* the deviation is a small difference of large sums */
    i8 zeros[2] = {{0}};
    for (int b = 0; b < rows; b++)
        for (int h = 0; h < 2; h++) {
            const d8 a = doubles(values[b][h]);
            sum[h] += a;
            squares[h] += a * a;
            zeros[h] -= values[b][h] == 0.0f;
        }
    for (int h = 0; h < 2; h++, lane += 8) {
        *(d8 *)(net->total + lane) += sum[h];
        *(d8 *)(net->squares + lane) += squares[h];
        *(i8 *)(net->zeros + lane) += zeros[h];
    }
}

static void statistics(Net *net, int64_t lane, const Pair *values, int rows)
{
    if (!net->total) return;
    if (rows > TILE) add_statistics(net, lane, values, rows);
    else BY_TILE(rows, add_statistics(net, lane, values, tile))
}
