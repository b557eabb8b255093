/* Choice of the engine. `auto` takes io_uring where the kernel lets us and says once when it does not. */
#include "reader/reader.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct rfi_reader_ops *const engines[] = {
    [RF_ENGINE_URING] = &rfi_reader_uring,
    [RF_ENGINE_PREAD] = &rfi_reader_pread,
    [RF_ENGINE_NULL] = &rfi_reader_null,
    [RF_ENGINE_MAPPED] = &rfi_reader_mapped,
};

static int open_with(struct rfi_reader *r, const struct rfi_reader_ops *ops, uint32_t depth, struct rfi_error *err)
{
    memset(r, 0, sizeof *r);
    r->depth = depth;
    int rc = ops->open(r, depth, err);
    if (rc == 0)
        r->ops = ops;
    return rc;
}

static int open_uring(struct rfi_reader *r, uint32_t depth, struct rfi_error *err)
{
    int rc = rfi_reader_uring_probe(err);
    return rc < 0 ? rc : open_with(r, &rfi_reader_uring, depth, err);
}

/* Reasons of the machine, not of the caller: there pread can take over. */
static bool forbidden(int rc)
{
    return rc == -EPERM || rc == -EACCES || rc == -ENOSYS || rc == -ENOMEM;
}

static int open_auto(struct rfi_reader *r, uint32_t depth, struct rfi_error *err)
{
    static int noted;
    struct rfi_error why = {0};
    int rc = open_uring(r, depth, &why);
    if (rc == 0)
        return 0;
    if (!forbidden(rc))
        return rfi_fail(err, -rc, "%s", why.text);
    rfi_log_once(&noted, RFI_LOG_WARNING, "%s; reading with pread instead", why.text);
    return open_with(r, &rfi_reader_pread, depth, err);
}

int rfi_reader_open(struct rfi_reader *r, rf_engine engine, uint32_t depth, struct rfi_error *err)
{
    memset(r, 0, sizeof *r);
    if (depth == 0)
        return rfi_fail(err, EINVAL, "reader: a queue depth of 0 reads nothing. Use at least 1");
    switch (engine) {
    case RF_ENGINE_AUTO:
        return open_auto(r, depth, err);
    case RF_ENGINE_URING:
        return open_uring(r, depth, err);
    case RF_ENGINE_PREAD:
    case RF_ENGINE_NULL:
    case RF_ENGINE_MAPPED:
        return open_with(r, engines[engine], depth, err);
    }
    return rfi_fail(err, EINVAL, "reader: there is no engine %d. Use auto, uring, mapped, pread or null", (int)engine);
}
