/* Thin layers: 8 rows lie side by side, a group, and each weight that is left meets them at once. */

INLINE void thin_products(const Net *net, const Layer *l, const Thin *t, const v8 *x, v8 *z,
                          const int64_t groups)
{
    const float *w = net->weights + l->packed;
    memset(z, 0, (size_t)(l->blocks * LANES * groups) * sizeof *z);
    for (int64_t m = 0; m < (t->by_output ? l->out : l->in + 1); m++)
        for (int64_t g = 0; g < groups; g++)
            if (t->by_output) {
                v8 sum = {0};
                for (int64_t k = t->from[m]; k < t->to[m]; k++) {
                    sum += w[k] * x[t->other[k] * groups + g];
                    HOLD(sum); /* else some compilers multiply and add, to shorten the chain: other bits */
                }
                z[m * groups + g] = sum;
            } else {
                const v8 value = x[m * groups + g];
                for (int64_t k = t->from[m]; k < t->to[m]; k++) z[t->other[k] * groups + g] += w[k] * value;
            }
}

/* The gradient of a layer's inputs, summed in the order of a full layer: outputs 8 apart, then these. */
INLINE void thin_flow(const Net *net, const Layer *l, const Thin *t, const v8 *restrict delta, const Work *work,
                      int rows, const int64_t groups)
{
    const float *restrict w = net->weights + l->packed;
    v8 *restrict lanes = work->lanes;
    for (int64_t g = 0; g < groups; g++) {
        memset(lanes, 0, (size_t)(l->in + 1) * 8 * sizeof *lanes);
        for (int64_t m = 0; m < (t->by_output ? l->out : l->in + 1); m++)
            if (t->by_output) {
                const v8 d = delta[m * groups + g];
                for (int64_t k = t->from[m]; k < t->to[m]; k++) lanes[t->other[k] * 8 + m % 8] += w[k] * d;
            } else
                for (int64_t k = t->from[m], lane = 0; lane < 8; lane++) {
                    v8 sum = {0};
                    for (; k < t->to[m] && (t->other[k] & 7) == lane; k++) {
                        sum += w[k] * delta[t->other[k] * groups + g];
                        HOLD(sum);
                    }
                    lanes[m * 8 + lane] = sum;
                }
        for (int64_t i = 0; i < l->in; i++) {
            const v8 *s = lanes + i * 8;
            const v8 sum = ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
            for (int64_t b = g * 8; b < rows && b < g * 8 + 8; b++)
                ((float *)work->delta)[spot(rows, b, i)] = sum[b % 8];
        }
    }
}

INLINE void thin_update(const Net *net, const Layer *l, const Thin *t, const v8 *restrict x,
                        const v8 *restrict delta, int rows, const int64_t groups, Rule rule)
{
    const int32_t *restrict other = t->other;
    const v8 *near = t->by_output ? delta : x, *far = t->by_output ? x : delta;
    float *weights = net->weights + l->packed, *keep = net->keep + l->packed;
    float *first = net->first + l->packed, *second = net->second + l->packed;
    for (int64_t m = 0; m < (t->by_output ? l->out : l->in + 1); m++)
        for (int64_t k = t->from[m]; k < t->to[m]; k += 8) {
            v8 even = {0}, odd = {0};
            for (int64_t g = 0; g < groups; g++) {
                const float *one = (const float *)(near + m * groups + g);
                v8 many[8]; /* for each of 8 rows what belongs to the 8 weights */
                const v4u *of[8];
                for (int j = 0; j < 8; j++) of[j] = (const v4u *)(far + other[k + j] * groups + g);
                turn(of, many);
                const int left = (int)(rows - g * 8);
                BY_TILE(left, for (int b = 0; b < tile; b += 2) {
                    even += many[b] * one[b];
                    if (b + 1 < tile) odd += many[b + 1] * one[b + 1];
                })
            }
            *(v8 *)(weights + k) -=
                change(even + odd, rule, 1, 0, (v8 *)(keep + k), (v8 *)(first + k), (v8 *)(second + k));
        }
}

static const Thin *thin_of(const Net *net, const Layer *l)
{
    const Thin *t = &net->thin[l - net->shape->layer];
    return t->on ? t : NULL;
}

INLINE int64_t groups_of(int rows) { return (rows + 7) / 8; }

/* 8 x 8 numbers turned, from rows `apart` floats apart to rows `off` apart. */
INLINE void turn_block(const float *from, int64_t apart, float *to, int64_t off)
{
    v8 m[8];
    const v4u *rows[8];
    for (int i = 0; i < 8; i++) rows[i] = (const v4u *)(from + i * apart);
    turn(rows, m);
    for (int i = 0; i < 8; i++) *(v8u *)(to + i * off) = m[i];
}

static void thin_forward(const Net *net, const Layer *l, const Thin *t, const Work *work, int64_t c, int rows)
{
    const int64_t groups = groups_of(rows);
    float *to = (float *)work->turned[c];
    for (int64_t g = 0; g < groups; g++)
        for (int64_t i = 0; i < l->stride; i += 8)
            turn_block(work->input[c] + spot(rows, g * 8, i), LANES, to + (i * groups + g) * 8, groups * 8);
    if (groups == 1) thin_products(net, l, t, work->turned[c], work->thin, 1);
    else thin_products(net, l, t, work->turned[c], work->thin, groups);
}

/* One block of what lies 8 rows side by side, as rows, and back. */
static void rows_of_block(const v8 *turned, int64_t block, Pair *h, int rows)
{
    const int64_t groups = groups_of(rows);
    for (int64_t half = 0; half < LANES; half += 8)
        for (int64_t g = 0; g < groups; g++)
            turn_block((const float *)(turned + (block * LANES + half) * groups + g), groups * 8,
                       (float *)(h + g * 8) + half, LANES);
}

static void block_of_rows(const Pair *h, int64_t block, v8 *turned, int rows)
{
    const int64_t groups = groups_of(rows);
    for (int64_t half = 0; half < LANES; half += 8)
        for (int64_t g = 0; g < groups; g++)
            turn_block((const float *)(h + g * 8) + half, LANES,
                       (float *)(turned + (block * LANES + half) * groups + g), groups * 8);
}

/* From the gradient of the outputs, in `work->thin`. */
static void thin_backward(const Net *net, const Layer *l, const Thin *t, const Work *work, int64_t c, int rows,
                          Rule rule)
{
    const int64_t groups = groups_of(rows);
    if (c && groups == 1) thin_flow(net, l, t, work->thin, work, rows, 1);
    else if (c) thin_flow(net, l, t, work->thin, work, rows, groups);
    if (groups == 1) thin_update(net, l, t, work->turned[c], work->thin, rows, 1, rule);
    else thin_update(net, l, t, work->turned[c], work->thin, rows, groups, rule);
}
