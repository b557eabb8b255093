/* Open files of a worker: an LRU of descriptors, O_DIRECT where wanted and possible. Copy 0 of a file is the
 * dataset's own, copy 1 + m the one below the m-th mirror's folder. */
#pragma once

#include "dataset/dataset.h"

#include <stdbool.h>
#include <stdint.h>

struct rfi_open_file {
    uint32_t file, copy;
    int fd;
    bool direct;
    bool never_direct; /* was refused */
    uint32_t users; /* reads in flight and jobs; not evicted while > 0 */
    uint32_t newer, older; /* LRU links; slot numbers */
    uint32_t next; /* hash chain */
};

struct rfi_files {
    const struct rfi_dataset *dataset;
    uint64_t align; /* A: a file that needs more is read buffered */
    bool direct; /* wanted: may change, and open files follow when nobody reads them */
    bool whole; /* a file shorter than the index says is not opened at all */
    const char *const *mirrors;
    uint32_t n_mirrors;
    uint32_t cap, used, buckets;
    struct rfi_open_file *slots;
    uint32_t *heads;
    uint32_t newest, oldest;
    struct rfi_reader *reader; /* is told before a descriptor is closed; NULL: nobody is */
    uint32_t spare; /* an emptied slot, or none */
};

/* `mirrors` is borrowed. */
int rfi_files_init(struct rfi_files *f, const struct rfi_dataset *d, bool direct, uint64_t align,
                   const char *const *mirrors, uint32_t n_mirrors);
void rfi_files_fini(struct rfi_files *f);

/* Opens (or finds) a file and counts a user. NULL and *ret_errno: the open failed, or -ESTALE as positive
 * errno when the file no longer has its size. */
struct rfi_open_file *rfi_files_get(struct rfi_files *f, uint32_t file, uint32_t copy, int *ret_errno);
void rfi_files_put(struct rfi_files *f, struct rfi_open_file *o);

/* Reopens without O_DIRECT after the file system refused a direct read. 0 or positive errno. */
int rfi_files_buffered(struct rfi_files *f, struct rfi_open_file *o);
