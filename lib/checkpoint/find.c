/* Where to resume from: the files named, or what is there. */
#include "checkpoint/find.h"

#include <errno.h>
#include <string.h>

static int from_files(const char *const *files, size_t n, struct rfi_state *ret, struct rfi_error *err)
{
    int rc = rfi_state_read(files[0], ret, err);
    if (rc < 0)
        return rc;
    for (size_t i = 1; i < n && rc == 0; i++) {
        struct rfi_state more;
        rc = rfi_state_read(files[i], &more, err);
        if (rc == 0) {
            rc = rfi_state_merge(ret, &more, err);
            rfi_state_fini(&more);
        }
    }
    if (rc == 0)
        rc = rfi_state_complete(ret, err);
    if (rc < 0)
        rfi_state_fini(ret);
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
