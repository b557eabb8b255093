/* Where to resume from: the files named, or what is there. */
#include "checkpoint/find.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t first_rank(const struct rfi_state *s)
{
    const struct rfi_stage_state *st = rfi_state_last(s);
    uint32_t r = 0;
    while (r < st->o.world_size && !st->known[r])
        r++;
    return r;
}

static int by_first_rank(const void *a, const void *b)
{
    uint32_t x = first_rank(a), y = first_rank(b);
    return (x > y) - (x < y);
}

/* Joined in the order of their ranks, whatever the order on the command line: every server of the run must come to
 * the same log. */
static int from_files(const char *const *files, size_t n, struct rfi_state *ret, struct rfi_error *err)
{
    struct rfi_state *all = calloc(n, sizeof *all);
    size_t got = 0;
    int rc = all ? 0 : rfi_fail(err, ENOMEM, "--resume: no memory");
    for (; got < n && rc == 0; got += rc == 0)
        rc = rfi_state_read(files[got], &all[got], err);
    if (rc == 0)
        qsort(all, n, sizeof *all, by_first_rank);
    for (size_t i = 1; i < n && rc == 0; i++)
        rc = rfi_state_merge(&all[0], &all[i], err);
    if (rc == 0)
        rc = rfi_state_complete(&all[0], err);
    if (rc == 0)
        *ret = all[0];
    for (size_t i = rc == 0; i < got; i++)
        rfi_state_fini(&all[i]);
    free(all);
    return rc;
}

/* The dead server's object is newer than any file of the same training, and only of the same: a name may have
 * been used for another one since. */
static int newest(const char *name, const char *checkpoint, struct rfi_state *ret, struct rfi_error *note,
                  struct rfi_error *err)
{
    struct rfi_state dead;
    int file = -ENOENT, object = rfi_state_capture_dead(name, &dead, err);
    if (object < 0 && object != -ENOENT)
        return object;
    if (checkpoint)
        file = rfi_state_read_either(checkpoint, ret, note, err);
    if (object < 0 || (file == 0 && strcmp(dead.run, ret->run) != 0)) {
        if (object == 0) {
            rfi_fail(note, EEXIST,
                     "--resume auto: the dead run '%s' is another training than %s (%s and %s): going on from the file",
                     name, checkpoint, dead.run, ret->run);
            rfi_state_fini(&dead);
        }
        return file;
    }
    if (file == 0)
        rfi_state_fini(ret);
    *ret = dead;
    /* Taking the name removes the object, which alone may know the position: it goes to the file first, or a death
     * before the new run is ready would set the training back to the last checkpoint. */
    int rc = checkpoint ? rfi_state_write(ret, checkpoint, err) : 0;
    if (rc < 0)
        rfi_state_fini(ret);
    return rc;
}

int rfi_resume_find(const char *const *files, size_t n, const char *name, const char *checkpoint, struct rfi_state *ret,
                    struct rfi_error *note, struct rfi_error *err)
{
    *note = (struct rfi_error){0};
    if (n == 0)
        return 0;
    bool automatic = false;
    for (size_t i = 0; i < n; i++)
        automatic |= strcmp(files[i], "auto") == 0;
    if (automatic && n > 1)
        return rfi_fail(err, EINVAL, "--resume: both auto and a file. Give one of them");
    if (!automatic) {
        int rc = from_files(files, n, ret, err);
        return rc < 0 ? rc : 1;
    }
    int rc = newest(name, checkpoint, ret, note, err);
    if (rc == -ENOENT) {
        rfi_fail(note, ENOENT,
                 "--resume auto: neither a dead run '%s' nor a checkpoint %s is there: starting at the "
                 "beginning",
                 name, checkpoint ? checkpoint : "(--checkpoint was not given)");
        return 0;
    }
    ret->partial = true;
    return rc < 0 ? rc : 1;
}
