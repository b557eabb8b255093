/* World size, ranks and first rank out of each launcher's environment, as its documentation lists it,
 * and every way in which it can be wrong. */
#include "cli_internal.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

struct launch_case {
    char environment[8][48];
    int status; /* 0, or -1: refused */
    char launcher[16];
    unsigned long long world, ranks, first; /* 0 and absent look alike: `has` tells */
    char has[4]; /* "WRF" */
    char says[48]; /* in the error */
};

static const char *const variables[] = {"WORLD_SIZE",
                                        "RANK",
                                        "LOCAL_RANK",
                                        "LOCAL_WORLD_SIZE",
                                        "GROUP_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_LOCAL_RANK",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE",
                                        "PMI_SIZE",
                                        "PMI_RANK",
                                        "MPI_LOCALNRANKS",
                                        "MPI_LOCALRANKID",
                                        "SLURM_NTASKS",
                                        "SLURM_NTASKS_PER_NODE",
                                        "SLURM_TASKS_PER_NODE",
                                        "SLURM_STEP_TASKS_PER_NODE",
                                        "SLURM_NODEID",
                                        "SLURM_PROCID",
                                        "SLURM_LOCALID"};

static void set_environment(const struct launch_case *c)
{
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    for (size_t i = 0; i < 8 && c->environment[i][0]; i++) {
        char name[48];
        size_t n = strcspn(c->environment[i], "=");
        memcpy(name, c->environment[i], n);
        name[n] = 0;
        setenv(name, c->environment[i] + n + 1, 1);
    }
}

static struct launch_case cases[] = {
    {{""}, 0, "", 0, 0, 0, "", ""},
    /* torchrun --nnodes 2 --nproc-per-node 4, a process on the second node */
    {{"WORLD_SIZE=8", "RANK=6", "LOCAL_RANK=2", "LOCAL_WORLD_SIZE=4", "GROUP_RANK=1"},
     0,
     "torchrun",
     8,
     4,
     4,
     "WRF",
     ""},
    {{"WORLD_SIZE=8", "LOCAL_WORLD_SIZE=4", "GROUP_RANK=1"}, 0, "torchrun", 8, 4, 4, "WRF", ""},
    {{"WORLD_SIZE=8"}, 0, "torchrun", 8, 0, 0, "W", ""},
    {{"WORLD_SIZE=8", "RANK=3"}, -1, "", 0, 0, 0, "", "LOCAL_RANK"},
    {{"WORLD_SIZE=8", "GROUP_RANK=1"}, -1, "", 0, 0, 0, "", "LOCAL_WORLD_SIZE"},
    {{"WORLD_SIZE=8", "RANK=1", "LOCAL_RANK=2"}, -1, "", 0, 0, 0, "", "LOCAL_RANK=2"},
    {{"WORLD_SIZE=eight"}, -1, "", 0, 0, 0, "", "WORLD_SIZE=eight"},
    {{"WORLD_SIZE=-8"}, -1, "", 0, 0, 0, "", "WORLD_SIZE=-8"},
    {{"WORLD_SIZE=8 "}, -1, "", 0, 0, 0, "", "WORLD_SIZE"},
    {{"WORLD_SIZE=99999999999999999999"}, -1, "", 0, 0, 0, "", "too large"},
    {{"WORLD_SIZE=8", "LOCAL_WORLD_SIZE=x"}, -1, "", 0, 0, 0, "", "LOCAL_WORLD_SIZE=x"},
    {{"WORLD_SIZE=8", "LOCAL_WORLD_SIZE=18446744073709551615", "GROUP_RANK=2"}, -1, "", 0, 0, 0, "", "GROUP_RANK"},
    {{"WORLD_SIZE=", "RANK="}, 0, "", 0, 0, 0, "", ""},
    {{"OMPI_COMM_WORLD_SIZE=6", "OMPI_COMM_WORLD_RANK=5", "OMPI_COMM_WORLD_LOCAL_RANK=1",
      "OMPI_COMM_WORLD_LOCAL_SIZE=2"},
     0,
     "Open MPI",
     6,
     2,
     4,
     "WRF",
     ""},
    {{"PMI_SIZE=6", "PMI_RANK=3", "MPI_LOCALNRANKS=3", "MPI_LOCALRANKID=0"}, 0, "MPICH", 6, 3, 3, "WRF", ""},
    /* srun -N 3 --ntasks 7: uneven, the last node */
    {{"SLURM_NTASKS=7", "SLURM_TASKS_PER_NODE=3,2(x2)", "SLURM_NODEID=2", "SLURM_PROCID=6", "SLURM_LOCALID=1"},
     0,
     "Slurm",
     7,
     2,
     5,
     "WRF",
     ""},
    {{"SLURM_NTASKS=8", "SLURM_NTASKS_PER_NODE=2", "SLURM_NODEID=3", "SLURM_PROCID=7", "SLURM_LOCALID=1"},
     0,
     "Slurm",
     8,
     2,
     6,
     "WRF",
     ""},
    {{"SLURM_NTASKS=8", "SLURM_NTASKS_PER_NODE=2", "SLURM_NODEID=3"}, 0, "Slurm", 8, 2, 6, "WRF", ""},
    {{"SLURM_NTASKS=8", "SLURM_TASKS_PER_NODE=4(x2)", "SLURM_NODEID=1"}, 0, "Slurm", 8, 4, 4, "WRF", ""},
    /* the step's list counts, not the allocation's */
    {{"SLURM_NTASKS=2", "SLURM_STEP_TASKS_PER_NODE=1(x2)", "SLURM_TASKS_PER_NODE=4(x2)", "SLURM_NODEID=1"},
     0,
     "Slurm",
     2,
     1,
     1,
     "WRF",
     ""},
    {{"SLURM_NTASKS=8", "SLURM_TASKS_PER_NODE=4(x2)", "SLURM_NODEID=2"}, -1, "", 0, 0, 0, "", "SLURM_TASKS_PER_NODE"},
    {{"SLURM_NTASKS=8", "SLURM_TASKS_PER_NODE=4(y2)", "SLURM_NODEID=1"}, -1, "", 0, 0, 0, "", "SLURM_TASKS_PER_NODE"},
    {{"SLURM_NTASKS=8", "SLURM_TASKS_PER_NODE=4(x0)", "SLURM_NODEID=0"}, -1, "", 0, 0, 0, "", "SLURM_TASKS_PER_NODE"},
    {{"SLURM_NTASKS=8", "SLURM_TASKS_PER_NODE=4(x99999999999999999999),1", "SLURM_NODEID=5"},
     -1,
     "",
     0,
     0,
     0,
     "",
     "SLURM_TASKS_PER_NODE"},
    /* cyclic distribution: task 1 is the first of node 1 */
    {{"SLURM_NTASKS=4", "SLURM_TASKS_PER_NODE=2(x2)", "SLURM_NODEID=1", "SLURM_PROCID=1", "SLURM_LOCALID=0"},
     -1,
     "",
     0,
     0,
     0,
     "",
     "not consecutive"},
    /* an inner launcher beats the one it runs under */
    {{"WORLD_SIZE=2", "RANK=1", "LOCAL_RANK=1", "LOCAL_WORLD_SIZE=2", "SLURM_NTASKS=1", "SLURM_PROCID=0"},
     0,
     "torchrun",
     2,
     2,
     0,
     "WRF",
     ""},
    {{"OMPI_COMM_WORLD_SIZE=2", "SLURM_NTASKS=9"}, 0, "Open MPI", 2, 0, 0, "W", ""},
};

ParameterizedTestParameters(launcher, each)
{
    return cr_make_param_array(struct launch_case, cases, sizeof cases / sizeof *cases);
}

ParameterizedTest(struct launch_case *c, launcher, each, .timeout = 10)
{
    struct cli_launch got;
    struct rfi_error err = {0};
    set_environment(c);
    int rc = cli_launch_read(true, true, true, &got, &err);
    if (c->status < 0) {
        cr_assert_lt(rc, 0, "%s was accepted", c->environment[0]);
        cr_expect(strstr(err.text, c->says), "%s: %s", c->environment[0], err.text);
        return;
    }
    cr_assert_eq(rc, 0, "%s: %s", c->environment[0], err.text);
    cr_expect_str_eq(got.launcher ? got.launcher : "", c->launcher);
    cr_expect_eq(!!got.world_from, !!strchr(c->has, 'W'), "%s", c->environment[0]);
    cr_expect_eq(!!got.ranks_from, !!strchr(c->has, 'R'), "%s", c->environment[0]);
    cr_expect_eq(!!got.first_from, !!strchr(c->has, 'F'), "%s", c->environment[0]);
    cr_expect_eq(got.world_size, c->world);
    cr_expect_eq(got.ranks, c->ranks, "%s: ranks %llu", c->environment[0], (unsigned long long)got.ranks);
    cr_expect_eq(got.first_rank, c->first, "%s: first %llu", c->environment[0], (unsigned long long)got.first_rank);
}

Test(launcher, what_a_flag_replaces_is_not_read, .timeout = 10)
{
    struct cli_launch got;
    struct rfi_error err = {0};
    struct launch_case c = {.environment = {"WORLD_SIZE=x", "RANK=3", "LOCAL_RANK=1", "LOCAL_WORLD_SIZE=y"}};
    set_environment(&c);
    cr_assert_eq(cli_launch_read(false, false, true, &got, &err), 0, "%s", err.text);
    cr_expect_eq(got.first_rank, 2);
    cr_expect_null(got.world_from);
    cr_expect_null(got.ranks_from);
    cr_expect_lt(cli_launch_read(true, false, true, &got, &err), 0);
    cr_expect_lt(cli_launch_read(false, true, true, &got, &err), 0);
    cr_expect_eq(cli_launch_read(false, false, false, &got, &err), 0);
}
