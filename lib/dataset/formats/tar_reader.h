/* The members of a tar archive: v7, ustar, pax (extended and global headers), GNU (long names,
 * base-256 numbers), star. Written for extents: where a member's bytes lie, not the bytes.
 *
 * Everything in the file is hostile: checksums are verified, every claim is held against the file's
 * size, header texts are bounded, and each step moves forward by at least one block. */
#pragma once

#include "dataset/formats/window.h"
#include "dataset/grow.h"

#include <stdbool.h>

enum { RFI_TAR_BLOCK = 512 };

struct rfi_tar_text {
    bool set;
    struct rfi_grow text; /* NUL-terminated */
};

struct rfi_tar {
    struct rfi_window w;
    uint64_t at; /* of the next header */
    struct rfi_tar_text name; /* for the next member, from an extended header or a long name */
    struct rfi_tar_text global_name;
    bool has_size, has_global_size;
    uint64_t size, global_size;
    bool sparse; /* the extended header says so */
    struct rfi_grow text; /* of the header at hand */
    char short_name[262]; /* prefix / name of the header */
};

struct rfi_tar_member {
    const char *name; /* valid until the next call */
    uint64_t offset, bytes; /* of its data in the file */
};

/* Whether the first bytes are a tar header (its checksum is right), or an archive of no members. */
bool rfi_tar_match(const unsigned char *head, size_t n, uint64_t file_bytes);

int rfi_tar_open(struct rfi_tar *t, int fd, const char *path, uint64_t file_bytes, struct rfi_error *err);
void rfi_tar_close(struct rfi_tar *t);

/* Next regular member: 1; 0 at the end; negative: malformed or truncated (-EBADMSG), sparse
 * (-ENOTSUP). Links, folders and devices are passed over. */
int rfi_tar_next(struct rfi_tar *t, struct rfi_tar_member *ret, struct rfi_error *err);
