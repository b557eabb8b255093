#include "bench/trainer.h"

#include "attach/view.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

static const uint64_t LOOK_NS = 50000000; /* how often a waiting thread looks for an interruption */
static const uint64_t STEP_LIMIT_NS = 60000000000;

struct trainer {
    struct bench_field *field;
    struct bench_rank *rank;
    rf_trainer *handle;
    uint64_t limit; /* batches to take; UINT64_MAX: until told to stop */
    uint64_t ramp;
    double cpu_from_s;
    bool counting;
    const struct rfi_ring *ring; /* read only */
    uint64_t end_ns; /* of the step, by the accelerator's clock; 0: there was none yet */
    uint64_t turn; /* steps ended with the others */
};

struct start {
    struct bench_field *field;
    struct bench_rank *rank;
};

/* ---- waiting for each other ---- */

static struct timespec at(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/* One wait for any change; at most LOOK_NS, and not beyond `until`. The mutex is held. */
static void wait_changed(struct bench_field *f, uint64_t until)
{
    uint64_t by = rfi_now_ns() + LOOK_NS;
    struct timespec ts = at(until && until < by ? until : by);
    pthread_cond_clockwait(&f->changed, &f->mutex, CLOCK_MONOTONIC, &ts);
}

static void count(struct bench_field *f, uint32_t *counter)
{
    pthread_mutex_lock(&f->mutex);
    ++*counter;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->mutex);
}

static bool wants_stop(const struct bench_field *f)
{
    return *f->interrupted || atomic_load_explicit(&f->phase, memory_order_relaxed) == BENCH_STOP;
}

/* ---- steps ---- */

static void sleep_until(uint64_t ns, const volatile sig_atomic_t *interrupted)
{
    struct timespec until = at(ns);
    while (rfi_now_ns() < ns && !*interrupted && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

static int fail(struct trainer *t, const char *text)
{
    snprintf(t->rank->error, sizeof t->rank->error, "%s", text);
    pthread_mutex_lock(&t->field->mutex);
    t->field->failed = true;
    pthread_cond_broadcast(&t->field->changed);
    pthread_mutex_unlock(&t->field->mutex);
    return -1;
}

/* This rank's step is under way, and its end by the accelerator's clock known. Whether it wants to stop then is said now. */
static void post_step(struct trainer *t, bool stop)
{
    struct bench_field *f = t->field;
    pthread_mutex_lock(&f->mutex);
    f->stops += stop;
    f->latest_end_ns = rfi_max(f->latest_end_ns, t->end_ns);
    if (++f->arrived == f->n) {
        f->turn_stops = f->stops > 0;
        f->turn_end_ns = f->latest_end_ns;
        f->arrived = 0;
        f->stops = 0;
        f->latest_end_ns = 0;
        f->turn++;
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->mutex);
}

/* The end of a step: returns when that of the slowest has come. All get the same answer: whether any of them wants to stop,
 * so that none waits for one that has left. A rank waits for its batch only as long as the run's own time-out. */
static bool end_step(struct trainer *t)
{
    struct bench_field *f = t->field;
    uint64_t until = rfi_now_ns() + STEP_LIMIT_NS + f->step.compute_ns;
    pthread_mutex_lock(&f->mutex);
    uint64_t turn = ++t->turn;
    while (f->turn < turn && !f->failed && !*f->interrupted && rfi_now_ns() < until)
        wait_changed(f, until);
    t->end_ns = f->turn_end_ns;
    bool late = f->turn < turn && !f->failed && !*f->interrupted, ends = f->turn < turn || f->turn_stops;
    pthread_mutex_unlock(&f->mutex);
    if (late)
        fail(t, "the other ranks did not begin their step within a minute");
    else
        sleep_until(t->end_ns, f->interrupted);
    return ends;
}

/* ---- one batch ---- */

/* Reads every byte, in words where it can: as much as a copy would load, without the stores. */
static void touch_all(const rf_batch *b)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < b->n_samples; i++) {
        const unsigned char *p = rf_batch_sample(b, i);
        uint64_t n = rf_batch_sample_bytes(b, i), k = 0, word;
        for (; k + sizeof word <= n; k += sizeof word) {
            memcpy(&word, p + k, sizeof word);
            sum += word;
        }
        for (; k < n; k++)
            sum += p[k];
    }
    *(volatile uint64_t *)&sum = sum; /* keeps the loop */
}

/* Begins one step of the accelerator, on a batch that was published at `ready` and came at `came` (or was touched until
 * then). See trainer.h. */
static void begin_step(struct trainer *t, uint64_t ready, uint64_t came)
{
    const struct bench_step *s = &t->field->step;
    bool in_time = s->together && t->end_ns && ready <= t->end_ns && came - t->end_ns < s->compute_ns;
    t->end_ns = (in_time ? t->end_ns : came) + s->compute_ns;
}

static double thread_cpu_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void begin_counting(struct trainer *t, uint64_t now)
{
    t->counting = true;
    t->rank->from_ns = t->rank->to_ns = now;
    t->cpu_from_s = thread_cpu_s();
}

static void add(struct bench_counts *c, const rf_batch *b, uint64_t bytes)
{
    c->batches++;
    c->samples += b->n_samples;
    c->bytes += bytes;
}

/* What becomes of the batch between `came` and its release. */
static void use(struct trainer *t, const rf_batch *b, uint64_t came, bool last)
{
    const struct bench_step *s = &t->field->step;
    uint64_t ready = t->ring->slots[b->ticket % t->ring->depth].published_ns; /* ours until it is given back */
    if (s->touch)
        touch_all(b);
    if (s->drop)
        rf_release(t->handle, b);
    /* Touching is work of the host: the accelerator begins after it. */
    begin_step(t, ready, s->touch ? rfi_now_ns() : came);
    if (s->together)
        post_step(t, last);
    if (s->compute_ns)
        sleep_until(t->end_ns, t->field->interrupted);
    if (!s->drop)
        rf_release(t->handle, b);
}

static void end_of_batch(struct trainer *t, const rf_batch *b, uint64_t bytes, uint64_t wait)
{
    struct bench_rank *r = t->rank;
    uint64_t now = rfi_now_ns();
    bool in_window = t->counting && atomic_load_explicit(&t->field->phase, memory_order_relaxed) == BENCH_MEASURE;
    add(&r->all, b, bytes);
    r->last_end_ns = now;
    if (r->all.batches == 1)
        r->first_end_ns = now;
    if (r->all.batches == t->ramp)
        count(t->field, &t->field->ramped);
    if (!in_window)
        return;
    add(&r->window, b, bytes);
    bench_histogram_add(&r->waits, wait);
    r->wait_ns += wait;
    r->to_ns = now;
}

/* ---- a trainer's life ---- */

/* One batch. False: this was the last. */
static bool take(struct trainer *t)
{
    struct bench_field *f = t->field;
    rf_batch b;
    uint64_t asked = rfi_now_ns();
    if (!t->counting && atomic_load_explicit(&f->phase, memory_order_relaxed) == BENCH_MEASURE)
        begin_counting(t, asked);
    int rc = rf_next(t->handle, -1, &b);
    uint64_t came = rfi_now_ns();
    if (rc == RF_END || rc == -EINTR)
        return false;
    if (rc < 0) {
        fail(t, rf_trainer_error(t->handle));
        return false;
    }
    if (f->moves && f->epochs && b.epoch - f->start_epoch >= f->epochs) {
        rf_release(t->handle, &b);
        return false;
    }
    uint64_t bytes = cli_batch_bytes(&b);
    bool last = t->rank->all.batches + 1 >= t->limit || (f->step.together && wants_stop(f));
    use(t, &b, came, last);
    /* Together: what all agree on, whatever has come since. Nobody may go on alone. */
    last = f->step.together ? end_step(t) : last || wants_stop(f);
    end_of_batch(t, &b, bytes, came - asked);
    return !last;
}

static int attach(struct trainer *t)
{
    struct bench_field *f = t->field;
    rf_trainer_info info;
    int rc = rf_attach(f->name, t->rank->rank, NULL, &t->handle);
    if (rc < 0)
        return fail(t, rf_last_error());
    rfi_trainer_interrupt_by(t->handle, f->interrupted);
    rf_trainer_get_info(t->handle, &info);
    t->ring = &rfi_trainer_run(t->handle)->rings[info.rank - info.first_rank];
    t->limit = f->epochs && !f->moves ? f->epochs * info.len : UINT64_MAX;
    t->ramp = f->ramp_batches ? f->ramp_batches : info.depth;
    t->rank->has_batches = !rf_is_empty(t->handle);
    return 0;
}

static bool wait_go(struct bench_field *f)
{
    pthread_mutex_lock(&f->mutex);
    while (!f->go && !f->failed && !wants_stop(f))
        wait_changed(f, 0);
    bool go = f->go && !f->failed;
    pthread_mutex_unlock(&f->mutex);
    return go;
}

static void *live(void *arg)
{
    struct start *s = arg;
    struct trainer t = {.field = s->field, .rank = s->rank};
    free(s);
    prctl(PR_SET_TIMERSLACK, 1); /* ns: the end of a step is meant as it is said */
    bool ready = attach(&t) == 0;
    if (ready && t.field->step.together && !t.rank->has_batches)
        fail(&t, "a rank has no batch, and steps are taken together. Use fewer ranks or smaller batches");
    count(t.field, &t.field->attached);
    if (ready && wait_go(t.field) && t.rank->has_batches)
        while (take(&t))
            ;
    if (t.counting)
        t.rank->cpu_s = thread_cpu_s() - t.cpu_from_s;
    if (t.rank->all.batches < t.ramp) /* it never will: nobody may wait for that */
        count(t.field, &t.field->ramped);
    count(t.field, &t.field->ended);
    rf_detach(t.handle);
    return NULL;
}

/* ---- all of them ---- */

int bench_trainers_start(struct bench_trainers *t, const struct bench_field *field, uint32_t first_rank, uint32_t n,
                         struct rfi_error *err)
{
    *t = (struct bench_trainers){.field = *field};
    t->field.n = n;
    atomic_init(&t->field.phase, BENCH_RAMP);
    pthread_mutex_init(&t->field.mutex, NULL);
    pthread_cond_init(&t->field.changed, NULL);
    t->threads = calloc(n, sizeof *t->threads);
    t->ranks = calloc(n, sizeof *t->ranks);
    if (!t->threads || !t->ranks)
        return rfi_fail(err, ENOMEM, "out of memory for %u trainers", n);
    for (uint32_t i = 0; i < n; i++) {
        struct start *s = malloc(sizeof *s);
        if (!s)
            return rfi_fail(err, ENOMEM, "out of memory for %u trainers", n);
        t->ranks[i].rank = first_rank + i;
        *s = (struct start){&t->field, &t->ranks[i]};
        int rc = pthread_create(&t->threads[i], NULL, live, s);
        if (rc != 0) {
            free(s);
            return rfi_fail(err, rc, "cannot start trainer %u of %u: %s", i + 1, n, strerror(rc));
        }
        t->started++;
    }
    return 0;
}

bool bench_trainers_wait(struct bench_trainers *t, const uint32_t *counter, uint64_t until)
{
    struct bench_field *f = &t->field;
    pthread_mutex_lock(&f->mutex);
    while (*counter < f->n && f->ended < f->n && !f->failed && !*f->interrupted && !(until && rfi_now_ns() >= until))
        wait_changed(f, until);
    bool reached = *counter >= f->n && !f->failed;
    pthread_mutex_unlock(&f->mutex);
    return reached;
}

void bench_trainers_go(struct bench_trainers *t)
{
    pthread_mutex_lock(&t->field.mutex);
    t->field.go = true;
    pthread_cond_broadcast(&t->field.changed);
    pthread_mutex_unlock(&t->field.mutex);
}

void bench_trainers_stop(struct bench_trainers *t)
{
    atomic_store_explicit(&t->field.phase, BENCH_STOP, memory_order_relaxed);
    if (t->started < t->field.n) { /* some never came: nobody may wait for them */
        pthread_mutex_lock(&t->field.mutex);
        t->field.failed = true;
        pthread_cond_broadcast(&t->field.changed);
        pthread_mutex_unlock(&t->field.mutex);
    }
    for (uint32_t i = 0; i < t->started; i++)
        pthread_join(t->threads[i], NULL);
    t->started = 0;
}

void bench_trainers_free(struct bench_trainers *t)
{
    pthread_mutex_destroy(&t->field.mutex);
    pthread_cond_destroy(&t->field.changed);
    free(t->threads);
    free(t->ranks);
}
