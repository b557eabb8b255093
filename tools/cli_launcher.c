/* Which of the world's ranks this server holds, as the launcher's environment tells it. One table
 * row a launcher; an inner launcher comes before one that it may run under (torchrun or mpirun
 * inside a Slurm job), and the first row whose world size is set decides. */
#include "cli_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct row {
    const char *launcher;
    const char *world; /* ranks in all; its presence means this launcher */
    const char *rank, *local_rank; /* of this process; first rank = rank - local_rank */
    const char *local_size; /* ranks on this node */
    const char *node; /* number of this node, or NULL */
    const char *node_sizes[2]; /* ranks of every node, "4(x2),3": exact, preferred to local_size */
};

static const struct row rows[] = {
    {.launcher = "torchrun",
     .world = "WORLD_SIZE",
     .rank = "RANK",
     .local_rank = "LOCAL_RANK",
     .local_size = "LOCAL_WORLD_SIZE",
     .node = "GROUP_RANK"},
    {.launcher = "Open MPI",
     .world = "OMPI_COMM_WORLD_SIZE",
     .rank = "OMPI_COMM_WORLD_RANK",
     .local_rank = "OMPI_COMM_WORLD_LOCAL_RANK",
     .local_size = "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {.launcher = "MPICH",
     .world = "PMI_SIZE",
     .rank = "PMI_RANK",
     .local_rank = "MPI_LOCALRANKID",
     .local_size = "MPI_LOCALNRANKS"},
    {.launcher = "Slurm",
     .world = "SLURM_NTASKS",
     .rank = "SLURM_PROCID",
     .local_rank = "SLURM_LOCALID",
     .local_size = "SLURM_NTASKS_PER_NODE",
     .node = "SLURM_NODEID",
     .node_sizes = {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"}},
};

static const char *env(const char *name)
{
    const char *text = name ? getenv(name) : NULL;
    return text && *text ? text : NULL;
}

/* 1 and *ret when the variable is set, 0 when it is not, negative for garbage. */
static int number(const struct row *row, const char *name, uint64_t *ret, struct rfi_error *err)
{
    const char *text = env(name), *why;
    if (!text)
        return 0;
    if (cli_value_u64(text, ret, &why) < 0)
        return rfi_fail(err, EINVAL, "%s=%s: %s (set by %s?). Correct or unset it, or give the flag", name, text, why,
                        row->launcher);
    return 1;
}

/* One "COUNT" or "COUNT(xREPEAT)" at *text, which is moved behind it and a comma. */
static bool node_group(const char **text, uint64_t *ret_count, uint64_t *ret_repeat)
{
    char *end;
    if (**text < '0' || **text > '9')
        return false;
    *ret_count = strtoull(*text, &end, 10);
    *ret_repeat = 1;
    if (!strncmp(end, "(x", 2)) {
        if (end[2] < '1' || end[2] > '9')
            return false;
        *ret_repeat = strtoull(end + 2, &end, 10);
        if (*end++ != ')')
            return false;
    }
    if (*end != ',' && *end != 0)
        return false;
    *text = *end ? end + 1 : end;
    return *ret_count < UINT32_MAX && *ret_repeat < UINT32_MAX;
}

/* Ranks on node `node` and before it. */
static bool node_sizes(const char *text, uint64_t node, uint64_t *ret_size, uint64_t *ret_before)
{
    uint64_t count, repeat;
    *ret_before = 0;
    while (*text) {
        if (!node_group(&text, &count, &repeat))
            return false;
        if (node < repeat) {
            *ret_before += count * node;
            *ret_size = count;
            return true;
        }
        *ret_before += count * repeat;
        node -= repeat;
    }
    return false;
}

/* 1 when a list of all nodes' sizes says it. *ret_before: ranks on earlier nodes. */
static int from_list(const struct row *row, struct cli_launch *ret, uint64_t *ret_before, struct rfi_error *err)
{
    uint64_t node = 0;
    int rc = number(row, row->node, &node, err);
    for (int i = 0; rc == 1 && i < 2; i++) {
        const char *text = env(row->node_sizes[i]);
        if (!text)
            continue;
        if (!node_sizes(text, node, &ret->ranks, ret_before))
            return rfi_fail(err, EINVAL,
                            "%s=%s: not a list like 4(x2),3 with an entry for node %llu (%s). Give --ranks "
                            "and --first-rank",
                            row->node_sizes[i], text, (unsigned long long)node, row->node);
        ret->ranks_from = row->node_sizes[i];
        return 1;
    }
    return rc < 0 ? rc : 0;
}

static int read_ranks(const struct row *row, struct cli_launch *ret, uint64_t *ret_before, struct rfi_error *err)
{
    int rc = from_list(row, ret, ret_before, err);
    if (rc != 0)
        return rc;
    rc = number(row, row->local_size, &ret->ranks, err);
    if (rc == 1)
        ret->ranks_from = row->local_size;
    return rc;
}

/* rank - local_rank; 0 when one of them is not set. */
static int first_of_ranks(const struct row *row, struct cli_launch *ret, struct rfi_error *err)
{
    uint64_t rank = 0, local = 0;
    int has_rank = number(row, row->rank, &rank, err);
    int has_local = has_rank < 0 ? has_rank : number(row, row->local_rank, &local, err);
    if (has_local < 0)
        return has_local;
    if (!has_rank || !has_local)
        return 0;
    if (local > rank)
        return rfi_fail(err, EINVAL,
                        "%s=%llu: smaller than %s=%llu, so this server's ranks are not consecutive. Place "
                        "ranks node by node, or give --first-rank",
                        row->rank, (unsigned long long)rank, row->local_rank, (unsigned long long)local);
    ret->first_rank = rank - local;
    ret->first_from = row->rank;
    return 1;
}

/* node * ranks, where every node has the same number. */
static int first_of_node(const struct row *row, struct cli_launch *ret, uint64_t local_size, struct rfi_error *err)
{
    uint64_t node = 0;
    int rc = number(row, row->node, &node, err);
    if (rc != 1)
        return rc;
    if (node && !local_size)
        return rfi_fail(err, EINVAL,
                        "%s=%llu: set, but neither %s nor %s and %s are, so this server's first rank cannot "
                        "be known. Give --first-rank",
                        row->node, (unsigned long long)node, row->local_size, row->rank, row->local_rank);
    if (__builtin_mul_overflow(node, local_size, &ret->first_rank))
        return rfi_fail(err, EINVAL, "%s=%llu: too large. Correct it or give --first-rank", row->node,
                        (unsigned long long)node);
    ret->first_from = row->node;
    return 1;
}

static int read_first(const struct row *row, struct cli_launch *ret, const struct cli_launch *sizes, bool listed,
                      uint64_t before, struct rfi_error *err)
{
    int rc = first_of_ranks(row, ret, err);
    if (rc < 0)
        return rc;
    if (rc == 1 && listed && before != ret->first_rank)
        return rfi_fail(err, EINVAL,
                        "%s and %s say that this server's first rank is %llu, %s says %llu: its ranks are not "
                        "consecutive. Place ranks node by node (block distribution), or give --first-rank",
                        row->rank, row->local_rank, (unsigned long long)ret->first_rank, sizes->ranks_from,
                        (unsigned long long)before);
    if (rc == 0 && listed) {
        ret->first_rank = before;
        ret->first_from = row->node;
        rc = 1;
    }
    if (rc == 0 && row->node)
        rc = first_of_node(row, ret, sizes->ranks_from ? sizes->ranks : 0, err);
    /* A rank without its local rank says nothing about the server's first one. */
    if (rc == 0 && env(row->rank))
        return rfi_fail(err, EINVAL,
                        "%s: set, but %s is not, so this server's first rank cannot be known. Set it, or give "
                        "--first-rank",
                        row->rank, row->local_rank);
    return rc;
}

/* What a flag replaces is not read, so that garbage there does no harm; the sizes serve the first
 * rank as well where the process's own numbers are missing. */
static int read_row(const struct row *row, bool want_world, bool want_ranks, bool want_first, struct cli_launch *ret,
                    struct rfi_error *err)
{
    uint64_t before = 0;
    struct cli_launch sizes = {0};
    int rc = 0;
    ret->launcher = row->launcher;
    if (want_world) {
        rc = number(row, row->world, &ret->world_size, err);
        if (rc < 0)
            return rc;
        ret->world_from = row->world;
    }
    if (want_ranks || !env(row->rank) || !env(row->local_rank)) {
        rc = read_ranks(row, &sizes, &before, err);
        if (rc < 0)
            return rc;
    }
    if (want_ranks && sizes.ranks_from) {
        ret->ranks = sizes.ranks;
        ret->ranks_from = sizes.ranks_from;
    }
    bool listed = sizes.ranks_from && sizes.ranks_from != row->local_size;
    if (want_first)
        rc = read_first(row, ret, &sizes, listed, before, err);
    return rc < 0 ? rc : 0;
}

int cli_launch_read(bool want_world, bool want_ranks, bool want_first, struct cli_launch *ret, struct rfi_error *err)
{
    memset(ret, 0, sizeof *ret);
    if (!want_world && !want_ranks && !want_first)
        return 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (env(rows[i].world))
            return read_row(&rows[i], want_world, want_ranks, want_first, ret, err);
    return 0;
}
