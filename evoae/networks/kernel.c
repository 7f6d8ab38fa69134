/* Steps, scoring, the networks in use, and what kernel.py calls. */

/* ---- whole layers ---- */

/* A hidden or code layer: from the inputs of layer c to outputs y, and the 1 behind them. */
static void forward(Net *net, const Layer *l, const Work *work, int64_t c, float *y, int rows, int relu)
{
    const Thin *thin = thin_of(net, l);
    Pair *h = (Pair *)y;
    if (thin) thin_forward(net, l, thin, work, c, rows);
    else if (c || !work->ready) multiply(net->weights + l->packed, l->blocks, work->input[c], l->in, h, rows);
    for (int64_t block = 0; block < l->blocks; block++, h += rows) {
        if (thin) rows_of_block(work->thin, block, h, rows);
        for (int k = 0; relu && k < rows * HALVES; k++) ((wide *)h)[k] = at_least(0.0f, ((wide *)h)[k]);
        statistics(net, l->lane + block * LANES, h, rows);
    }
    for (int b = 0; b < rows; b++) y[spot(rows, b, l->out)] = 1.0f;
}

/* Which of the lanes, the first of them output `lane`, are outputs and not padding. */
INLINE iwide present(const Layer *l, int64_t lane)
{
    iwide number;
    for (int i = 0; i < WIDTH; i++) number[i] = i;
    return number < (int32_t)(l->out - lane);
}

/* From outputs before the sigmoid the gradient of the loss, in place, for a tile of rows. */
INLINE void output_tile(Pair *z, const Layer *l, int64_t lane, const float *target, int bce,
                        float scale, const int tile)
{
    wide e[MOST][HALVES];
    for (int b = 0; b < tile; b++)
        for (int h = 0; h < HALVES; h++) e[b][h] = exponential(-((wide *)z[b])[h]);
    for (int b = 0; b < tile; b++)
        for (int h = 0; h < HALVES; h++) {
            const wide y = *(const wide *)(target + b * LANES + h * WIDTH);
            const wide s = 1.0f / (1.0f + e[b][h]), d = s - y;
            const iwide slope = (iwide)(s * (1.0f - s) * scale) ^ ((iwide)d & INT32_MIN);
            const wide found = bce ? d * scale : (wide)(slope & (d != 0.0f)) + d * 0.0f;
            ((wide *)z[b])[h] = (wide)((iwide)found & present(l, lane + h * WIDTH));
        }
}

/* The gradients of a layer's inputs, of which `back` holds 8 lanes each, to `delta`. Behind the last input
 * they are garbage. */
static void collect(const Work *work, const Layer *l, int rows)
{
    const int lines = lines_of(rows);
    for (int64_t i = 0; i < l->in; i += 8)
        for (int b = 0; b < rows; b++) {
            v8 s[8];
            const v4u *lanes[8];
            for (int k = 0; k < 8; k++) lanes[k] = (const v4u *)(work->back + (i + k) * lines + b);
            turn(lanes, s);
            *(v8 *)((float *)work->delta + spot(rows, b, i)) =
                ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
        }
}

/* The output layer, forwards and backwards a few blocks at a time while their weights are in L1. */
static void output_layer(Net *net, const Layer *l, const Work *work, int64_t c, int rows, int bce,
                         float scale, Rule rule)
{
    const float *x = work->input[c];
    const Thin *thin = thin_of(net, l);
    if (thin) thin_forward(net, l, thin, work, c, rows);
    for (int64_t from = 0; from < l->blocks; from += work->group) {
        const int blocks = (int)(l->blocks - from < work->group ? l->blocks - from : work->group);
        if (!thin)
            multiply(net->weights + l->packed + from * LANES * (l->in + 1), blocks, x, l->in, work->delta, rows);
        for (int g = 0; g < blocks; g++) {
            const int64_t lane = (from + g) * LANES;
            const float *target = work->target + lane * rows;
            Pair *z = work->delta + g * rows;
            if (thin) rows_of_block(work->thin, from + g, z, rows);
            statistics(net, l->lane + lane, z, rows);
            for (int b = 0, n; b < rows; b += n) {
                n = next_tile(rows - b, TILE);
                BY_TILE(n, output_tile(z + b, l, lane, target + b * LANES, bce, scale, tile))
                for (int r = b; r < b + n && r < work->coming; r++)
                    __builtin_prefetch(work->next + work->order[r] * l->out + lane, 0, 2);
            }
        }
        if (thin)
            for (int g = 0; g < blocks; g++) block_of_rows(work->delta + g * rows, from + g, work->thin, rows);
        else update_blocks(net, l, from, blocks, x, work, rows, rule, work->back);
    }
    if (thin) thin_backward(net, l, thin, work, c, rows, rule);
    else collect(work, l, rows);
}

/* Adds the losses of the rows over the outputs to `to`. */
static void add_loss(const Net *net, const Layer *l, const Work *work, const float *x, int rows, int bce,
                     double *to)
{
    d8 sums[SCORED / SUMMED][2] = {{{0}}};
    Pair z[SCORED];
    for (int64_t block = 0; block < l->blocks; block++) {
        multiply(net->weights + l->packed + block * (l->in + 1) * LANES, 1, x, l->in, z, rows);
        for (int b = 0; b < rows; b += SUMMED) {
            Pair sum = {{0}};
            for (int r = b; r < rows && r < b + SUMMED; r++)
                for (int k = 0; k < HALVES; k++) {
                    const wide y = ((const wide *)(work->target + (block * rows + r) * LANES))[k];
                    const wide a = ((wide *)z[r])[k], positive = at_least(0.0f, a);
                    ((wide *)sum)[k] += bce ? positive - a * y + log_one_plus(exponential(-absolute(a)))
                                            : absolute(sigmoid(a) - y);
                }
            for (int k = 0; k < HALVES; k++)
                ((iwide *)sum)[k] &= present(l, block * LANES + k * WIDTH);
            for (int h = 0; h < 2; h++) sums[b / SUMMED][h] += doubles(sum[h]);
        }
        for (int r = 0; r < work->coming; r++)
            __builtin_prefetch(work->next + work->order[r] * l->out + block * LANES, 0, 2);
    }
    for (int b = 0; b < rows; b += SUMMED) {
        double sum = 0;
        for (int i = 0; i < LANES; i++) sum += sums[b / SUMMED][i / 8][i % 8];
        *to += sum;
    }
}

/* From the gradient of a layer's outputs y that before its ReLU, in place. */
static void through_relu(const Work *work, const Layer *l, const float *y, int rows)
{
    for (int64_t o = 0; o < l->blocks * LANES; o += WIDTH)
        for (int b = 0; b < rows; b++) {
            const int64_t at = spot(rows, b, o);
            wide *d = (wide *)((float *)work->delta + at);
            *d = (wide)((iwide)*d & ~(*(const wide *)(y + at) <= 0.0f) & present(l, o));
        }
}

/* The decoder's inputs drawn around the code's means, with the deviations that it says. */
static void draw_codes(const Work *work, const Layer *code, float *x, const float *noise, int rows)
{
    const int64_t n = code->out / 2;
    for (int b = 0; b < rows; b++) {
        for (int64_t i = 0; i < n; i++) {
            const float half = 0.5f * work->code[spot(rows, b, n + i)];
            x[spot(rows, b, i)] = work->code[spot(rows, b, i)] + noise[b * n + i] * exponential(all(half))[0];
        }
        x[spot(rows, b, n)] = 1.0f;
    }
}

/* From the gradient of the codes that were drawn, that of means and log-variances, in place; the divergence
 * from the normal distribution, -1/2 sum (1 + log_variance - mean^2 - variance), adds its own. */
static void through_draw(const Work *work, const Layer *code, const float *noise, int rows)
{
    const int64_t n = code->out / 2;
    float *delta = (float *)work->delta;
    for (int b = 0; b < rows; b++) {
        for (int64_t i = 0; i < n; i++) {
            const float mean = work->code[spot(rows, b, i)], half = 0.5f * work->code[spot(rows, b, n + i)];
            const float deviation = exponential(all(half))[0], found = delta[spot(rows, b, i)];
            delta[spot(rows, b, i)] = found + mean;
            delta[spot(rows, b, n + i)] =
                0.5f * (found * noise[b * n + i] * deviation + deviation * deviation - 1.0f);
        }
        for (int64_t o = code->out; o < code->blocks * LANES; o++) delta[spot(rows, b, o)] = 0.0f;
    }
}

/* The rows of one batch in panels; padding is 1, so that the bias is one more input. */
static void load(float *to, const Layer *l, const float *data, const int64_t *order, int rows)
{
    for (int b = 0; b < rows; b++)
        for (int64_t i = 0; i < l->stride; i += LANES) {
            const float *from = data + order[b] * l->in + i;
            float *panel = to + spot(rows, b, i);
            if (i + LANES <= l->in) memcpy(panel, from, LANES * sizeof *to);
            else for (int64_t j = 0; j < LANES; j++) panel[j] = i + j < l->in ? from[j] : 1.0f;
        }
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
        forward(nets[SIDE(c)], LAYER(c), work, c, y, rows, !latent || c + 1 != split);
        if (latent && c + 1 == split) draw_codes(work, LAYER(c), work->input[split], latent, rows);
    }
    const Layer *output = LAYER(last);
    const float scale = latent ? 1.0f : 1.0f / ((float)rows * (float)output->out);
    if (rows <= TILE) memset(work->back, 0, (size_t)((output->in + 1) * rows) * sizeof *work->back);
    output_layer(decoder, output, work, last, rows, bce, scale, rules[1]);
    for (int64_t c = last - 1; c >= 0; c--) {
        const Layer *l = LAYER(c);
        if (latent && c + 1 == split) through_draw(work, l, latent, rows);
        else through_relu(work, l, work->input[c + 1], rows);
        const Net *net = nets[SIDE(c)];
        const Thin *thin = thin_of(net, l);
        if (thin) {
            for (int64_t block = 0; block < l->blocks; block++)
                block_of_rows(work->delta + block * rows, block, work->thin, rows);
            thin_backward(net, l, thin, work, c, rows, rules[SIDE(c)]);
            continue;
        }
        if (c && rows <= TILE) memset(work->back, 0, (size_t)((l->in + 1) * rows) * sizeof *work->back);
        if (!c && work->follows) load(work->ahead, l, work->next, work->order, 1);
        update_blocks(net, l, 0, (int)l->blocks, work->input[c], work, rows, rules[SIDE(c)],
                      c ? work->back : NULL);
        if (c) collect(work, l, rows);
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

/* A layer is packed thinly if at most one in so many of its weights is left. A kept Adam has more to do
 * for each weight, so fewer need to be gone until a list is faster. */
enum { THIN_ADAM = 7, THIN_NEW = 9 };

/* Pack a layer thinly, if little is left of it and what is masked is zero in all respects. */
static void thin_out(const Cast *cast, Net *net, const Layer *l)
{
    const Side *side = cast->side;
    const int64_t at = net->index * net->shape->flat + l->flat, size = l->out * (l->in + 1);
    Thin *t = &net->thin[l - net->shape->layer];
    t->by_output = l->out <= l->in;
    int64_t left = 0, k = 0, ok = 1;
    for (int64_t j = at; j < at + size; j++) {
        left += side->keep[j];
        ok &= side->keep[j] || (side->weights[j] == 0 &&
                                (!side->first || (side->first[j] == 0 && side->second[j] == 0)));
    }
    const int64_t room = l->blocks * LANES * (l->in + 1), longest = bounds_of(l);
    t->on = ok && left * (side->first ? THIN_ADAM : THIN_NEW) <= size && left + 7 * longest <= room;
    if (!t->on) return;
    memset(net->keep + l->packed, 0, (size_t)room * sizeof(float));
    for (int64_t m = 0; m < longest; m++) {
        t->from[m] = (int32_t)k;
        /* an input's outputs 8 apart, as their sum runs when the gradient flows back */
        for (int64_t lane = 0, apart = t->by_output ? 1 : 8; lane < apart; lane++)
            for (int64_t n = lane; n < (t->by_output ? l->in + 1 : l->out); n += apart)
                if (side->keep[at + (t->by_output ? place(l, m, n) : place(l, n, m))]) t->other[k++] = (int32_t)n;
        t->to[m] = (int32_t)k;
        while (k % 8) t->other[k++] = 0;
    }
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
        float *memory = take(cast->arena, (parts * n + FLOWS * LANES) * (int64_t)sizeof(float));
        if (!memory) return NULL;
        net->shape = s;
        net->weights = memory;
        if (cast->trains && side->keep) net->keep = memory += n;
        if (cast->trains && side->first) net->first = memory + n, net->second = memory + 2 * n;
        if (net->keep) {
            int32_t *lists = take(cast->arena, (n + 2 * s->bounds) * (int64_t)sizeof *lists);
            if (!lists) return NULL;
            for (int64_t l = 0, bound = 0; l < s->layers; l++) {
                net->thin[l].other = lists + s->layer[l].packed;
                net->thin[l].from = lists + n + bound;
                net->thin[l].to = net->thin[l].from + s->bounds;
                bound += bounds_of(&s->layer[l]);
            }
        }
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
    for (int64_t l = 0; net->keep && l < s->layers; l++) thin_out(cast, net, &s->layer[l]);
    repack(s, net->thin, side->weights + index * s->flat, net->weights, 1);
    if (net->first) {
        repack(s, net->thin, side->first + index * s->flat, net->first, 1);
        repack(s, net->thin, side->second + index * s->flat, net->second, 1);
    }
    if (net->keep) {
        for (int64_t i = 0; i < s->flat; i++) cast->scratch[i] = side->keep[index * s->flat + i];
        repack(s, net->thin, cast->scratch, net->keep, 1);
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
        repack(s, net->thin, side->weights + row * s->flat, net->weights, 0);
        if (net->first) {
            repack(s, net->thin, side->first + row * s->flat, net->first, 0);
            repack(s, net->thin, side->second + row * s->flat, net->second, 0);
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
static int work_open(Work *work, const Shape *encoder, const Shape *decoder, int rows, int masked, Arena *arena)
{
    const int64_t groups = groups_of(rows), group = rows <= TILE ? GROUP : rows < 1024 ? 4096 / rows : GROUP;
    *work = (Work){.group = group < 16 ? group : 16};
    int64_t widest = 0, blocks = work->group, outputs = 0, c = 0;
    for (int side = 0; side < 2; side++) {
        const Shape *s = side ? decoder : encoder;
        for (const Layer *l = s->layer; l < s->layer + s->layers; l++, c++) {
            work->input[c] = take(arena, groups * 8 * l->stride * (int64_t)sizeof(float));
            work->turned[c] = take(arena, masked * groups * 8 * l->stride * (int64_t)sizeof(float));
            if (!work->input[c] || !work->turned[c]) return 0;
            if (l->blocks > outputs) outputs = l->blocks;
            if (c && l->in > widest) widest = l->in; /* nothing flows back into the data */
            const int output = side && l == s->layer + s->layers - 1;
            if (!output && l->blocks > blocks) blocks = l->blocks;
        }
    }
    const Layer *code = &encoder->layer[encoder->layers - 1];
    work->code = work->input[encoder->layers];
    if (code->out != decoder->layer[0].in)
        work->code = take(arena, groups * 8 * (code->out / LANES + 1) * LANES * (int64_t)sizeof(float));
    work->ahead = take(arena, encoder->layer->stride * (int64_t)sizeof(float));
    work->products = (Pair *)(encoder->layers > 1 ? work->input[1] : work->code);
    work->delta = take(arena, (blocks * rows + 8) * (int64_t)sizeof *work->delta);
    work->back = take(arena, (widest + 8) * lines_of(rows) * (int64_t)sizeof *work->back);
    work->halves = take(arena, 2 * blocks * TILE * (int64_t)sizeof(v8));
    work->thin = take(arena, masked * outputs * LANES * groups * (int64_t)sizeof *work->thin);
    work->lanes = take(arena, masked * (widest + 1) * 8 * (int64_t)sizeof *work->lanes);
    return work->code && work->ahead && work->delta && work->back && work->halves && work->thin && work->lanes;
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
#ifdef __SSE__
#define MODE() __builtin_ia32_stmxcsr()
#define SET_MODE(mode) __builtin_ia32_ldmxcsr(mode)
#else
#define MODE() 0u
#define SET_MODE(mode) (void)(mode)
#endif
enum { FLUSH_TO_ZERO = 0x8040 };

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
             work_open(&work, &encoders.shape, &decoders.shape, most, encoder->keep || decoder->keep, &arena);
    const Layer *first = encoders.shape.layer;
    float *target = ok ? take(&arena, most * first->stride * (int64_t)sizeof *target) : NULL;
    ok = ok && target;
    const unsigned before = MODE();
    SET_MODE(before | FLUSH_TO_ZERO);
    for (int64_t v = 0; ok && v < visits; v++) {
        for (int64_t i = 0; ok && i < batches * k; i++) { /* pack them all before any moves */
            const int64_t *pair = pairs + (v * batches * k + i) * 2;
            ok = enter(&encoders, pair[0]) && enter(&decoders, pair[1]);
        }
        for (int64_t b = 0; ok && b < batches; b++) {
            const int64_t at = v * n + b * batch_size;
            const int rows = (int)(n - b * batch_size < most ? n - b * batch_size : most);
            float *const row = work.input[0];
            if ((work.ready = work.follows)) work.input[0] = work.ahead, work.ahead = row;
            else load(row, first, inputs[v], order + at, rows);
            work.target = work.input[0];
            if (targets[v] != inputs[v]) {
                load(target, first, targets[v], order + at, rows);
                work.target = target;
            }
            const int64_t left = n - b * batch_size - rows;
            work.next = inputs[v], work.order = order + at + rows, work.coming = left < most ? (int)left : most;
            const int64_t *own = pairs + (v * batches + b) * k * 2;
            work.follows = k == 1 && rows == 1 && left && own[2] == own[0] &&
                           !thin_of(enter(&encoders, own[0]), first);
            const float *noise = latent ? latent + at * decoders.shape.layer[0].in : NULL;
            for (int64_t j = 0; j < k; j++) {
                step(enter(&encoders, own[2 * j]), enter(&decoders, own[2 * j + 1]), &work, rows, noise, bce,
                     rates[v], adam);
            }
        }
        if (ok) leave(&encoders), leave(&decoders);
    }
    SET_MODE(before);
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
             work_open(&work, &encoders.shape, &decoders.shape, SCORED, 0, &arena);
    const Layer *first = encoders.shape.layer, *code = ok ? decoders.shape.layer : NULL;
    const int64_t split = encoder->layers, last = decoder->layers - 1;
    const int variational = ok && encoders.shape.layer[split - 1].out != code->in;
    work.target = work.input[0]; /* they are the targets too */
    const int64_t size = ok ? SCORED * code->stride : 0;
    float *codes = ok ? take(&arena, encoder->networks * size * (int64_t)sizeof(float)) : NULL;
    ok = ok && codes;
    for (int64_t m = 0; ok && m < items; m++) {
        const int64_t *pair = pairs + m * k * 2;
        for (int64_t j = 0; ok && j < k; j++)
            ok = enter(&encoders, pair[2 * j]) && enter(&decoders, pair[2 * j + 1]);
        for (int64_t row = 0; ok && row < n; row += SCORED) {
            const int rows_now = (int)(n - row < SCORED ? n - row : SCORED);
            load(work.input[0], first, inputs[m], rows + m * n + row, rows_now);
            const int64_t left = n - row - rows_now;
            work.next = inputs[m], work.order = rows + m * n + row + rows_now;
            work.coming = left < SCORED ? (int)left : SCORED;
            for (int64_t e = 0; e < encoders.used; e++) {
                float *own = codes + e * size;
                for (int64_t c = 0; c < split; c++) {
                    float *y = c + 1 < split ? work.input[c + 1] : variational ? work.code : own;
                    forward(&encoders.nets[e], &encoders.shape.layer[c], &work, c, y, rows_now,
                            !variational || c + 1 < split);
                }
                for (int64_t b = 0; variational && b < rows_now; b++) {
                    for (int64_t i = 0; i < code->in; i++)
                        own[spot(rows_now, b, i)] = work.code[spot(rows_now, b, i)];
                    own[spot(rows_now, b, code->in)] = 1.0f;
                }
            }
            for (int64_t j = 0; j < k; j++) {
                Net *net = enter(&decoders, pair[2 * j + 1]);
                work.input[split] = codes + encoders.slot[pair[2 * j]] * size;
                for (int64_t c = 0; c < last; c++)
                    forward(net, &decoders.shape.layer[c], &work, split + c, work.input[split + c + 1], rows_now,
                            1);
                add_loss(net, &decoders.shape.layer[last], &work, work.input[split + last], rows_now, bce,
                         &losses[m * k + j]);
            }
        }
        for (int64_t j = 0; ok && j < k; j++)
            losses[m * k + j] /= (double)n * (double)decoders.shape.layer[last].out;
        leave(&encoders), leave(&decoders);
    }
    release(&arena);
    return ok ? 0 : OUT_OF_MEMORY;
}
