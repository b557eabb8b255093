/* The progress line: only on a terminal, only for work that has lasted a second, at most ten times a
 * second. */
#include "cli_internal.h"

#include "base/clock.h"

#include <unistd.h>

enum { BAR_CELLS = 24 };
static const uint64_t SECOND_NS = 1000000000u;

static bool on_screen; /* a progress line stands where the next message would begin */

void cli_progress_clear(void)
{
    if (on_screen)
        fputs("\r\033[K", stderr);
    on_screen = false;
}

void cli_progress_begin(struct cli_progress *p, const char *what, uint64_t total)
{
    *p = (struct cli_progress){
        .what = what, .total = total, .started_ns = rfi_now_ns(), .terminal = isatty(STDERR_FILENO)};
}

static void draw_bar(double part)
{
    char bar[BAR_CELLS + 1];
    int full = (int)(part * BAR_CELLS);
    for (int i = 0; i < BAR_CELLS; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR_CELLS] = 0;
    fprintf(stderr, " [%s] %3d%%", bar, (int)(part * 100));
}

void cli_progress_at(struct cli_progress *p, uint64_t done, const char *unit)
{
    uint64_t now = rfi_now_ns();
    if (!p->terminal || now - p->started_ns < SECOND_NS || now - p->shown_ns < SECOND_NS / 10)
        return;
    p->shown_ns = now;
    double seconds = (double)(now - p->started_ns) / 1e9;
    double rate = (double)done / seconds;
    fprintf(stderr, "\r%s", p->what);
    if (p->total)
        draw_bar(done < p->total ? (double)done / (double)p->total : 1);
    fprintf(stderr, "  %llu %s  %.0f/s", (unsigned long long)done, unit, rate);
    if (p->total && done && done < p->total) {
        unsigned long long left = (unsigned long long)((double)(p->total - done) / rate);
        fprintf(stderr, "  %llu:%02llu left", left / 60, left % 60);
    }
    fputs("\033[K", stderr);
    fflush(stderr);
    on_screen = true;
}

void cli_progress_end(struct cli_progress *p)
{
    cli_progress_clear();
    p->shown_ns = 0;
}
