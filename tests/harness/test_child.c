/* The harness itself: a harness that loses output or hangs makes every test above it worthless. */
#include "child.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

Test(child, captures_both_streams_and_the_exit_code, .timeout = 20)
{
    struct child c;
    cr_assert_eq(child_run(&c, ARGV("sh", "-c", "echo $WORD; echo there >&2; exit 3"), ARGV("WORD=here"), 10000), 0);
    cr_expect_str_eq(c.out.text, "here\n");
    cr_expect_str_eq(c.err.text, "there\n");
    cr_expect_eq(child_exit_code(&c), 3);
    child_end(&c);
}

Test(child, output_larger_than_a_pipe_is_complete, .timeout = 20)
{
    struct child c;
    cr_assert_eq(child_run(&c, ARGV("head", "-c", "3000000", "/dev/zero"), NULL, 10000), 0);
    cr_expect_eq(c.out.bytes, 3000000);
    child_end(&c);
}

Test(child, a_program_that_is_not_there_is_127, .timeout = 20)
{
    struct child c;
    cr_assert_eq(child_run(&c, ARGV("/no/such/program"), NULL, 10000), 0);
    cr_expect_eq(child_exit_code(&c), 127);
    cr_expect(strstr(c.err.text, "/no/such/program"));
    child_end(&c);
}

Test(child, a_time_out_is_reported_and_the_child_killed, .timeout = 20)
{
    struct child c;
    uint64_t before = rfi_now_ns();
    cr_assert_eq(child_run(&c, ARGV("sleep", "100"), NULL, 100), -ETIMEDOUT);
    cr_expect_lt(rfi_now_ns() - before, UINT64_C(10000000000));
    cr_expect_eq(child_exit_code(&c), 128 + SIGKILL);
}

Test(child, waits_for_text_and_sees_its_absence, .timeout = 20)
{
    struct child c;
    cr_assert_eq(child_start(&c, ARGV("sh", "-c", "echo ready one; read x"), NULL), 0);
    cr_expect_eq(child_wait_text(&c, "ready one", 10000), 0);
    cr_expect_eq(child_signal(&c, SIGTERM), 0);
    cr_expect_eq(child_wait_text(&c, "never", 10000), -EPIPE);
    cr_expect_eq(child_wait(&c, 10000), 0);
    child_end(&c);
}

/* The grandchild keeps the pipes open; the child's end must be seen all the same. */
Test(child, a_grandchild_that_holds_the_pipes_does_not_hang_the_wait, .timeout = 20)
{
    struct child c;
    cr_assert_eq(child_run(&c, ARGV("sh", "-c", "sleep 15 & echo $!"), NULL, 10000), 0);
    int grandchild = 0;
    cr_assert_eq(sscanf(c.out.text, "%d", &grandchild), 1);
    kill(grandchild, SIGKILL);
    child_end(&c);
}

static int body(void *ctx)
{
    return dprintf(STDOUT_FILENO, "%s", (const char *)ctx) == 5 ? 42 : 1;
}

Test(child, a_forked_body_ends_with_its_value, .timeout = 20)
{
    struct child c;
    cr_assert_eq(child_fork(&c, body, (char[]){"words"}), 0);
    cr_assert_eq(child_wait(&c, 10000), 0);
    cr_expect_eq(child_exit_code(&c), 42);
    cr_expect_str_eq(c.out.text, "words");
    child_end(&c);
}

/* A middle process starts a child and is killed; the child must die by PR_SET_PDEATHSIG, which closes the
 * write end of a pipe that only it holds. */
static int middle(void *ctx)
{
    struct child c;
    (void)ctx;
    if (child_start(&c, ARGV("sh", "-c", "echo $$ >&2; exec sleep 100"), NULL) < 0)
        return 1;
    while (!strchr(c.err.text, '\n'))
        if (child_wait(&c, 50) != -ETIMEDOUT)
            return 1;
    dprintf(STDOUT_FILENO, "%s", c.err.text);
    pause();
    return 0;
}

Test(child, dies_with_its_parent, .timeout = 20)
{
    struct child c;
    int orphan = 0;
    cr_assert_eq(child_fork(&c, middle, NULL), 0);
    cr_assert_eq(child_wait_text(&c, "\n", 10000), 0);
    cr_assert_eq(sscanf(c.out.text, "%d", &orphan), 1);
    cr_assert_eq(kill(orphan, 0), 0);
    child_end(&c);
    uint64_t deadline = rfi_now_ns() + UINT64_C(10000000000);
    while (kill(orphan, 0) == 0 && rfi_now_ns() < deadline) {
        char path[64], state = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", orphan);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%*d %*s %c", &state) != 1)
            state = 0;
        if (f)
            fclose(f);
        if (state == 'Z') /* dead; whoever adopted it has not reaped it yet */
            return;
        sched_yield();
    }
    cr_expect_eq(kill(orphan, 0), -1);
}
