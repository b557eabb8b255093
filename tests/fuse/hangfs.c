/* A file system in which chosen reads do not end until they are told to, and all others do: the directory SOURCE,
 * read-only, at MOUNT.
 *
 *     hangfs SOURCE MOUNT NAME OFFSET COUNT GATE
 *
 * Of the reads of file NAME that cover byte OFFSET the first COUNT hang: each makes the file GATE.<n> (n from 0),
 * then opens the FIFO GATE, which lasts until somebody opens it for writing. Stays in the foreground; SIGTERM
 * unmounts. Files are opened with direct_io: every read is a request of its own, as on a device. */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <dirent.h>
#include <unistd.h>

static int source;
static const char *hang_name, *gate;
static off_t hang_offset;
static long hang_count;
static atomic_long hung;

static const char *inside(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static int get_attributes(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    (void)fi;
    return fstatat(source, inside(path), st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int read_directory(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                          enum fuse_readdir_flags flags)
{
    (void)offset;
    (void)fi;
    (void)flags;
    int fd = openat(source, inside(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return -errno;
    for (struct dirent *e; (e = readdir(d));)
        if (fill(buf, e->d_name, NULL, 0, 0))
            break;
    closedir(d);
    return 0;
}

static int open_file(const char *path, struct fuse_file_info *fi)
{
    int fd = openat(source, inside(path), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    fi->fh = (uint64_t)fd;
    fi->direct_io = 1;
    return 0;
}

static void hang(void)
{
    char mark[4096];
    long n = atomic_fetch_add(&hung, 1);
    if (n >= hang_count)
        return;
    snprintf(mark, sizeof mark, "%s.%ld", gate, n);
    int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    fd = open(gate, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
}

static int read_file(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
    if (strcmp(inside(path), hang_name) == 0 && offset <= hang_offset && hang_offset < offset + (off_t)size)
        hang();
    ssize_t n = pread((int)fi->fh, buf, size, offset);
    return n < 0 ? -errno : (int)n;
}

static int release_file(const char *path, struct fuse_file_info *fi)
{
    (void)path;
    close((int)fi->fh);
    return 0;
}

static const struct fuse_operations operations = {
    .getattr = get_attributes,
    .readdir = read_directory,
    .open = open_file,
    .read = read_file,
    .release = release_file,
};

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: hangfs SOURCE MOUNT NAME OFFSET COUNT GATE\n");
        return 2;
    }
    source = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (source < 0) {
        perror(argv[1]);
        return 1;
    }
    hang_name = argv[3];
    hang_offset = (off_t)strtoll(argv[4], NULL, 10);
    hang_count = strtol(argv[5], NULL, 10);
    gate = argv[6];
    char foreground[] = "-f", option[] = "-o", options[] = "max_threads=64,ro";
    char *args[] = {argv[0], foreground, option, options, argv[2], NULL};
    return fuse_main(5, args, &operations, NULL);
}
