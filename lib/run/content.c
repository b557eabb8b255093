/* Tickets to content: pure arithmetic on a generation and the lengths of epochs. */
#include "run/run.h"

#include "base/bytes.h"

uint64_t rfi_run_len(const struct rfi_epoch_lens *l, uint64_t epoch)
{
    uint64_t n = rfi_min(l->n, RFI_UNFINISHED_MAX);
    return epoch >= l->first && epoch - l->first < n ? l->unfinished[epoch - l->first] : l->len;
}

/* Whole plain epochs, as many as fit, at most `most` of them. */
static void skip_plain(uint64_t len, uint64_t most, uint64_t *epoch, uint64_t *at)
{
    uint64_t n = len ? rfi_min(*at / len, most) : 0;
    *epoch += n;
    *at -= n * len;
}

/* The same where some epochs are left out or shorter. */
static void skip_unfinished(const struct rfi_epoch_lens *l, uint64_t *epoch, uint64_t *at)
{
    uint64_t n = rfi_min(l->n, RFI_UNFINISHED_MAX);
    if (*epoch < l->first)
        skip_plain(l->len, l->first - *epoch, epoch, at);
    for (; *epoch >= l->first && *epoch - l->first < n && *at >= l->unfinished[*epoch - l->first]; ++*epoch)
        *at -= l->unfinished[*epoch - l->first];
    if (*epoch - l->first >= n)
        skip_plain(l->len, UINT64_MAX, epoch, at);
}

void rfi_run_content(const struct rfi_epoch_lens *l, const struct rfi_generation *g, uint64_t ticket,
                     uint64_t *ret_epoch, uint64_t *ret_batch)
{
    *ret_epoch = g->epoch;
    *ret_batch = g->batch + (ticket - g->first_ticket);
    if (g->stop_ticket)
        return;
    if (l->n)
        skip_unfinished(l, ret_epoch, ret_batch);
    else if (*ret_batch >= l->len)
        skip_plain(l->len, UINT64_MAX, ret_epoch, ret_batch);
}

uint64_t rfi_run_batches(const struct rfi_epoch_lens *l, uint64_t epoch, uint64_t batch, uint64_t end)
{
    uint64_t n = rfi_min(l->n, RFI_UNFINISHED_MAX), total = 0, plain, product;
    if (epoch >= end)
        return 0;
    plain = end - epoch;
    for (uint64_t i = 0; i < n; i++)
        if (l->first + i >= epoch && l->first + i < end) {
            plain--;
            if (rfi_add_over(total, l->unfinished[i], &total))
                return UINT64_MAX;
        }
    if (rfi_mul_over(plain, l->len, &product) || rfi_add_over(total, product, &total))
        return UINT64_MAX;
    return total > batch ? total - batch : 0;
}
