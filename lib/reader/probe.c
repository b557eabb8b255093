/* Whether io_uring can be had here, and if not, why: containers, sysctls and limits refuse it in ways
 * that look alike from inside, so the reason is looked up where there is one. */
#include "reader/reader.h"

#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static int sysctl_disabled(void)
{
    int value = 0;
    FILE *f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%d", &value) != 1)
        value = 0;
    fclose(f);
    return value;
}

static unsigned long long memlock_limit(void)
{
    struct rlimit l;
    return getrlimit(RLIMIT_MEMLOCK, &l) == 0 ? (unsigned long long)l.rlim_cur : 0;
}

static int explain(int rc, struct rfi_error *err)
{
    int disabled = sysctl_disabled();
    switch (-rc) {
    case EPERM:
    case EACCES:
        if (disabled)
            return rfi_fail(err, -rc,
                            "io_uring: the sysctl kernel.io_uring_disabled is %d. Set it to 0, or use --engine pread",
                            disabled);
        return rfi_fail(err, -rc,
                        "io_uring: not permitted here, probably by the container's seccomp profile. Allow "
                        "io_uring_setup and io_uring_enter, or use --engine pread");
    case ENOSYS:
        return rfi_fail(err, ENOSYS,
                        "io_uring: the kernel has none, an old one, or a seccomp profile hides it. Use Linux 5.11 or "
                        "later, or --engine pread");
    case ENOMEM:
        return rfi_fail(err, ENOMEM,
                        "io_uring: no memory for its queues (the memlock limit is %llu bytes). Raise ulimit -l or the "
                        "container's memory limit, or use --engine pread",
                        memlock_limit());
    default:
        return rfi_fail(err, -rc, "io_uring: %s. Use --engine pread", strerror(-rc));
    }
}

/* Setup may be allowed where enter is not: one no-op goes all the way. */
static int round_trip(struct io_uring *ring)
{
    struct __kernel_timespec limit = {.tv_sec = 5};
    struct io_uring_cqe *cqe;
    io_uring_prep_nop(io_uring_get_sqe(ring));
    int rc = io_uring_submit(ring);
    if (rc < 0)
        return rc;
    do
        rc = io_uring_wait_cqe_timeout(ring, &cqe, &limit);
    while (rc == -EINTR);
    return rc < 0 ? rc : cqe->res;
}

int rfi_reader_uring_probe(struct rfi_error *err)
{
    struct io_uring ring;
    int rc = io_uring_queue_init(2, &ring, 0);
    if (rc < 0)
        return explain(rc, err);
    const unsigned needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP;
    rc = (ring.features & needed) == needed ? round_trip(&ring) : -ENOSYS;
    io_uring_queue_exit(&ring);
    return rc < 0 ? explain(rc, err) : 0;
}
