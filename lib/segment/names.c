/* Names and the ownership lock. An open-file-description lock is used because pids mean nothing across
 * containers that share /dev/shm, and because it needs no descriptor table of ours to be right. */
#include "segment/names.h"

#include "segment/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int rfi_name_check(const char *name, struct rfi_error *err)
{
    size_t n = name ? strlen(name) : 0;
    size_t ok = name ? strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") : 0;
    if (n < 1 || n > 64 || ok != n)
        return rfi_fail(err, EINVAL, "wrong name '%.80s': a name has 1 to 64 of A-Z a-z 0-9 _ -. Choose another",
                        name ? name : "");
    return 0;
}

void rfi_object_names(const char *name, char control[RFI_OBJECT_NAME], char data[RFI_OBJECT_NAME])
{
    snprintf(control, RFI_OBJECT_NAME, "/ringfeed.%.64s", name);
    snprintf(data, RFI_OBJECT_NAME, "/ringfeed.%.64s.data", name);
}

int rfi_object_open(const char *object, int flags)
{
    struct stat st;
    int fd = shm_open(object, flags | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0) /* glibc says EINVAL of a directory */
        return errno == ENXIO || errno == EISDIR || errno == EINVAL || errno == ELOOP ? -EPROTO : -errno;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return -EPROTO;
}

int rfi_owner_lock(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool rfi_same_object(const char *object, int fd)
{
    struct stat a, b;
    int other = rfi_object_open(object, O_RDONLY);
    if (other < 0)
        return false;
    bool same = fstat(fd, &a) == 0 && fstat(other, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
    close(other);
    return same;
}
