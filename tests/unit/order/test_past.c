/* Orders that go on from earlier ones, and moved batches: against lists of whole batches that are cut, dealt
 * and moved by hand. The plain orders below are tested elsewhere. */
#include "fixture.h"
#include "order/past.h"

#include "base/bytes.h"

enum { MOST_RANKS = 9, MOST_BATCHES = 400, MOST_BATCH = 5, STAGES = 4, EPOCHS = 2 * STAGES };

struct batch {
    uint64_t n, ids[MOST_BATCH];
    uint8_t flags[MOST_BATCH];
};

struct rank_list {
    uint64_t n;
    struct batch batches[MOST_BATCHES];
};

/* One stage by hand: what each rank gets in each epoch. */
struct stage {
    rf_order_options o;
    struct rank_list *lists; /* [EPOCHS][MOST_RANKS] */
    struct rfi_position at[MOST_RANKS];
    struct rfi_move moves[64];
    uint64_t n_moves;
};

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static struct rank_list *list_of(struct stage *s, uint64_t epoch, uint32_t rank)
{
    return &s->lists[epoch * MOST_RANKS + rank];
}

/* The tail rule on one rank's ids: `len` batches under drop and pad. */
static void cut_into_batches(const uint64_t *ids, uint64_t n, const uint64_t *all, uint64_t total, uint64_t len,
                             const rf_order_options *o, struct rank_list *ret)
{
    ret->n = o->tail == RF_TAIL_UNEVEN ? rfi_div_up(n, o->batch) : len;
    for (uint64_t b = 0; b < ret->n; b++) {
        struct batch *batch = &ret->batches[b];
        batch->n = 0;
        for (uint64_t i = b * o->batch; i < (b + 1) * o->batch; i++) {
            if (i >= n && o->tail == RF_TAIL_UNEVEN)
                break;
            batch->flags[batch->n] = i < n ? 0 : RF_FLAG_PADDING;
            batch->ids[batch->n++] = i < n ? ids[i] : n ? ids[i % n] : all[i % total];
        }
    }
}

/* Every W-th of what is left, cut into batches. */
static void deal_rest(struct stage *s, uint64_t epoch, const uint64_t *rest, uint64_t total)
{
    uint32_t world = s->o.world_size;
    uint64_t *own = malloc((total + 1) * sizeof *own), *all = malloc((total + 1) * sizeof *all), n_all = 0;
    uint64_t len =
        s->o.tail == RF_TAIL_PAD ? rfi_div_up(rfi_div_up(total, world), s->o.batch) : total / world / s->o.batch;
    for (uint32_t r = 0; r < world; r++)
        for (uint64_t x = r; x < total; x += world)
            all[n_all++] = rest[x];
    for (uint32_t r = 0; r < world; r++) {
        uint64_t n = 0;
        for (uint64_t x = r; x < total; x += world)
            own[n++] = rest[x];
        cut_into_batches(own, n, all, total, len, &s->o, list_of(s, epoch, r));
    }
    free(own);
    free(all);
}

static void deal_plain(struct stage *s, uint64_t epoch, uint64_t samples)
{
    struct rfi_order_source source = {.samples = samples, .mean_bytes = 1000000};
    struct fixture f = open_fixture(&s->o, &source);
    for (uint32_t r = 0; r < s->o.world_size; r++) {
        struct rank_list *l = list_of(s, epoch, r);
        l->n = rfi_order_len(f.order, r);
        rfi_view_seek(f.view, epoch, r);
        for (uint64_t b = 0; b < l->n; b++)
            l->batches[b].n = rfi_view_batch(f.view, b, l->batches[b].ids, l->batches[b].flags);
    }
    close_fixture(&f);
}

/* What the stage leaves of an epoch; true when somebody has begun it. */
static bool rest_of(struct stage *s, uint64_t epoch, uint64_t *rest, uint64_t *ret_n)
{
    bool begun = false;
    *ret_n = 0;
    for (uint32_t r = 0; r < s->o.world_size; r++) {
        struct rank_list *l = list_of(s, epoch, r);
        uint64_t from = s->at[r].epoch > epoch ? l->n : s->at[r].epoch == epoch ? s->at[r].batch : 0;
        begun |= s->at[r].epoch > epoch || (s->at[r].epoch == epoch && s->at[r].batch);
        for (uint64_t b = from; b < l->n; b++)
            for (uint64_t i = 0; i < l->batches[b].n; i++)
                if (!l->batches[b].flags[i])
                    rest[(*ret_n)++] = l->batches[b].ids[i];
    }
    return begun;
}

/* Random moves in an epoch, by hand. */
static void move_some(struct stage *s, uint64_t epoch, uint64_t *random, const struct rfi_position *floor)
{
    for (int k = (int)(next_random(random) % 6); k > 0 && s->o.world_size > 1; k--) {
        uint32_t donor = (uint32_t)(next_random(random) % s->o.world_size);
        uint32_t recipient = (uint32_t)(next_random(random) % s->o.world_size);
        struct rank_list *from = list_of(s, epoch, donor), *to = list_of(s, epoch, recipient);
        uint64_t least = floor[donor].epoch > epoch ? from->n : floor[donor].epoch == epoch ? floor[donor].batch : 0;
        if (donor == recipient || from->n <= least || floor[recipient].epoch > epoch)
            continue;
        uint64_t count = 1 + next_random(random) % (from->n - least);
        if (to->n + count > MOST_BATCHES)
            continue;
        s->moves[s->n_moves++] = (struct rfi_move){epoch, donor, recipient, from->n - count, count};
        for (uint64_t i = 0; i < count; i++)
            to->batches[to->n++] = from->batches[from->n - count + i];
        from->n -= count;
    }
}

static void compare(struct rfi_order *order, struct stage *s, uint64_t epoch)
{
    struct rfi_view *view;
    struct rfi_error err = {0};
    cr_assert_eq(rfi_view_create(order, &view, &err), 0, "%s", err.text);
    for (uint32_t r = 0; r < s->o.world_size; r++) {
        struct rank_list *l = list_of(s, epoch, r);
        rfi_view_seek(view, epoch, r);
        cr_assert_eq(rfi_view_len(view), l->n, "epoch %lu rank %u: %lu batches, not %lu", epoch, r, rfi_view_len(view),
                     l->n);
        cr_assert_eq(rfi_moves_len(order, epoch, r, s->moves, s->n_moves), l->n);
        for (uint64_t b = 0; b <= l->n; b++) {
            uint64_t ids[MOST_BATCH], n;
            uint8_t flags[MOST_BATCH];
            n = rfi_view_batch(view, b, ids, flags);
            cr_assert_eq(n, b < l->n ? l->batches[b].n : 0);
            cr_assert(n == 0 || memcmp(ids, l->batches[b].ids, n * sizeof *ids) == 0, "epoch %lu rank %u batch %lu",
                      epoch, r, b);
            cr_assert(n == 0 || memcmp(flags, l->batches[b].flags, n) == 0);
            for (uint64_t from = 0; from < n; from++) { /* in parts too */
                uint64_t one;
                cr_assert_eq(rfi_view_batch_part(view, b, from, 1, &one, NULL), 1);
                cr_assert_eq(one, ids[from]);
            }
        }
    }
    rfi_view_destroy(view);
}

static rf_order_options random_options(uint64_t *random, uint32_t world)
{
    static const rf_strategy strategies[] = {RF_ROUND_ROBIN, RF_CONTIGUOUS, RF_HASH, RF_ADAPTIVE};
    rf_order_options o = some_options(world);
    o.batch = 1 + next_random(random) % MOST_BATCH;
    o.strategy = strategies[next_random(random) % 4];
    o.base = o.strategy == RF_ADAPTIVE ? strategies[next_random(random) % 3] : RF_ROUND_ROBIN;
    o.shuffle = (rf_shuffle)(next_random(random) % 3);
    o.tail = (rf_tail)(next_random(random) % 3);
    o.seed = next_random(random);
    o.block_samples = 3;
    o.window_blocks = 4;
    return o;
}

/* Where the ranks stand: within two epochs of each other, never before `floor`. */
static void stop_somewhere(struct stage *s, uint64_t *random, uint64_t first)
{
    for (uint32_t r = 0; r < s->o.world_size; r++) {
        uint64_t epoch = first + next_random(random) % 2, len = list_of(s, epoch, r)->n;
        s->at[r] = (struct rfi_position){epoch, len ? next_random(random) % (len + 1) : 0};
    }
}

/* One chain: up to four stages with other world sizes, each stopped somewhere with moves made. */
static void check_chain(uint64_t seed)
{
    uint64_t random = seed * 977 + 1, samples = next_random(&random) % 130;
    uint64_t *rest = malloc((samples + 1) * sizeof *rest), begun_until = 0;
    struct rfi_order_source source = {.samples = samples, .mean_bytes = 1000000};
    struct stage stages[STAGES] = {0};
    struct rfi_order *order = NULL;
    struct rfi_error err = {0};
    rf_order_options first = random_options(&random, 1);
    for (int i = 0; i < STAGES; i++) {
        struct stage *s = &stages[i];
        struct rfi_order *now;
        s->o = first;
        s->o.world_size = 1 + (uint32_t)(next_random(&random) % MOST_RANKS);
        s->lists = calloc((size_t)EPOCHS * MOST_RANKS, sizeof *s->lists);
        cr_assert_eq(rfi_order_create(&s->o, &source, NULL, &now, &err), 0, "%s", err.text);
        if (i > 0)
            cr_assert_eq(
                rfi_order_continue(now, order, stages[i - 1].at, stages[i - 1].moves, stages[i - 1].n_moves, &err), 0,
                "%s", err.text);
        order = now;
        for (uint64_t e = 0; e < EPOCHS; e++) {
            uint64_t n;
            if (i > 0 && rest_of(&stages[i - 1], e, rest, &n) && begun_until < e + 1)
                begun_until = e + 1;
            if (i > 0 && e < begun_until)
                deal_rest(s, e, rest, n);
            else
                deal_plain(s, e, samples);
        }
        uint64_t low = UINT64_MAX;
        for (uint32_t r = 0; i > 0 && r < stages[i - 1].o.world_size; r++)
            low = rfi_min(low, stages[i - 1].at[r].epoch);
        low = i > 0 ? low : 0;
        stop_somewhere(s, &random, low);
        for (uint64_t e = 0; e < EPOCHS; e++)
            move_some(s, e, &random, s->at);
        rfi_order_set_moves(order, s->moves, s->n_moves);
        cr_assert_eq(rfi_moves_check(order, s->moves, s->n_moves, &err), 0, "%s", err.text);
        for (uint64_t e = low; e < EPOCHS; e++)
            compare(order, s, e);
        for (uint32_t r = 0; r < s->o.world_size; r++) /* a move may have shortened what the rank stands in */
            s->at[r].batch = rfi_min(s->at[r].batch, list_of(s, s->at[r].epoch, r)->n);
    }
    rfi_order_destroy(order);
    for (int i = 0; i < STAGES; i++)
        free(stages[i].lists);
    free(rest);
}

Test(past, chains_of_stages_deal_what_is_left, .timeout = 120)
{
    int chains = getenv("RF_EXHAUSTIVE") ? 20000 : 400;
    for (int i = 0; i < chains; i++)
        check_chain((uint64_t)i);
}

/* Released before and dealt after: every sample exactly once, for any change of the world. */
Test(past, every_sample_exactly_once_over_a_change_of_the_world, .timeout = 60)
{
    for (uint32_t from = 1; from <= 8; from++)
        for (uint32_t to = 1; to <= 8; to++)
            for (uint64_t released = 0; released < 6; released++) {
                rf_order_options a = some_options(from), b = some_options(to);
                struct rfi_order_source source = {.samples = 101, .mean_bytes = 1};
                struct rfi_position at[8];
                struct rfi_error err = {0};
                struct fixture before;
                struct rfi_order *after;
                unsigned seen[101] = {0}, located = 0, left = 0;
                uint64_t ids[4];
                a.batch = b.batch = 4;
                a.shuffle = b.shuffle = RF_SHUFFLE_FULL;
                before = open_fixture(&a, &source);
                for (uint32_t r = 0; r < from; r++) {
                    at[r] = (struct rfi_position){0, rfi_min(released + r % 2, rfi_order_len(before.order, r))};
                    rfi_view_seek(before.view, 0, r);
                    for (uint64_t k = 0; k < at[r].batch; k++)
                        for (uint64_t i = 0, n = rfi_view_batch(before.view, k, ids, NULL); i < n; i++)
                            seen[ids[i]]++;
                }
                rfi_view_destroy(before.view);
                cr_assert_eq(rfi_order_create(&b, &source, NULL, &after, &err), 0);
                cr_assert_eq(rfi_order_continue(after, before.order, at, NULL, 0, &err), 0, "%s", err.text);
                struct rfi_view *v;
                cr_assert_eq(rfi_view_create(after, &v, &err), 0);
                for (uint32_t r = 0; r < to; r++) {
                    rfi_view_seek(v, 0, r);
                    for (uint64_t k = 0, n; (n = rfi_view_batch(v, k, ids, NULL)) > 0; k++)
                        for (uint64_t i = 0; i < n; i++, left++)
                            seen[ids[i]]++;
                }
                for (uint64_t i = 0; i < 101; i++) { /* and back: position to index to position */
                    uint32_t rank;
                    uint64_t position, id;
                    if (rfi_view_locate(v, 0, i, &rank, &position) < 0)
                        continue;
                    rfi_view_seek(v, 0, rank);
                    cr_assert_eq(rfi_view_fill(v, position, 1, &id), 1);
                    cr_assert_eq(id, i);
                    located++;
                }
                cr_assert_eq(located, left);
                for (int i = 0; i < 101; i++)
                    cr_assert_eq(seen[i], 1, "sample %d came %u times (W %u to %u)", i, seen[i], from, to);
                rfi_view_destroy(v);
                rfi_order_destroy(after);
            }
}

Test(past, what_cannot_be_is_refused, .timeout = 10)
{
    rf_order_options o = some_options(2);
    struct rfi_order_source source = {.samples = 10, .mean_bytes = 1};
    struct rfi_position beyond[2] = {{0, 6}, {0, 0}}, apart[2] = {{0, 0}, {RFI_UNFINISHED_MAX + 1, 1}};
    struct rfi_order *order, *before;
    struct rfi_error err = {0};
    cr_assert_eq(rfi_order_create(&o, &source, NULL, &order, &err), 0);
    cr_assert_eq(rfi_order_create(&o, &source, NULL, &before, &err), 0);
    cr_assert_eq(rfi_order_continue(order, before, beyond, NULL, 0, &err), -EINVAL);
    cr_assert(strstr(err.text, "rank 0 cannot stand at batch 6"), "%s", err.text);
    cr_assert_eq(rfi_order_create(&o, &source, NULL, &before, &err), 0);
    cr_assert_eq(rfi_order_continue(order, before, apart, NULL, 0, &err), -EINVAL);
    cr_assert(strstr(err.text, "epochs apart"), "%s", err.text);
    struct rfi_move wrong[] = {{0, 0, 2, 1, 1}, {0, 0, 0, 1, 1}, {0, 0, 1, 1, 1}, {0, 0, 1, 0, 9}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(rfi_moves_check(order, &wrong[i], 1, &err), -EINVAL);
        cr_assert(strstr(err.text, "rebalance log: entry 0"), "%s", err.text);
    }
    rfi_order_destroy(order);
}
