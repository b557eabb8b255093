/* The bytes of a dataset image: what a .rfi file holds, what a scan builds in memory and what lies in
 * the segment. One layout for all three, mapped and checked but never parsed.
 *
 *     header            4096 bytes, struct rfi_image_header
 *     root              8192 bytes: where the files lie (the only part that moving a dataset changes)
 *     files names mtimes
 *     runs | entries    fixed-size records by extents, or 16 bytes a sample
 *     fields layouts sample_layouts parts
 *     labels
 *     checksums         CRC32C of each sample's extent, 4 bytes a sample, where asked for
 *     ---- end of the core ----
 *     key_offsets keys
 *
 * Every section has its own XXH3-64; all but the keys' are checked on open. Integers are in the
 * machine's byte order: an image of the other order is refused, not swapped. Offsets count from the
 * image's first byte and are multiples of RFI_IMAGE_ALIGN. */
#pragma once

#include "base/error.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RFI_IMAGE_MAGIC "\x89RFINDX\n"
#define RFI_IMAGE_ENDIAN 0x01020304u

enum {
    RFI_IMAGE_VERSION = 2, /* 2: has a place for checksums */
    RFI_IMAGE_ALIGN = 64,
    RFI_IMAGE_HEADER_BYTES = 4096,
    RFI_MAX_DIMS = 16,
    RFI_MAX_FIELDS = 1024, /* names a dataset may have */
    RFI_MAX_LAYOUTS = 65536,
};

/* An entry packs 48-bit offset and length; the file number fills the two upper corners. */
#define RFI_ENTRY_MAX ((UINT64_C(1) << 48) - 1)

/* Records of zero bytes cost nothing in the file, so a header could claim any number of them. */
#define RFI_EMPTY_RECORDS_MAX (UINT64_C(1) << 24)

/* Extents add up to at most this many bytes, so that sums of two never overflow. */
#define RFI_FILE_MAX ((uint64_t)INT64_MAX)

enum rfi_section {
    RFI_SEC_ROOT,
    RFI_SEC_FILES,
    RFI_SEC_NAMES,
    RFI_SEC_MTIMES,
    RFI_SEC_RUNS,
    RFI_SEC_ENTRIES,
    RFI_SEC_FIELDS,
    RFI_SEC_LAYOUTS,
    RFI_SEC_SAMPLE_LAYOUTS,
    RFI_SEC_PARTS,
    RFI_SEC_LABELS,
    RFI_SEC_CHECKSUMS,
    RFI_SEC_CORE_END, /* the sections from here on are not copied into the segment */
    RFI_SEC_KEY_OFFSETS = RFI_SEC_CORE_END,
    RFI_SEC_KEYS,
    RFI_N_SECTIONS,
};

enum {
    RFI_IMAGE_FIXED = 1, /* runs instead of entries; every sample has record_bytes */
    RFI_IMAGE_KEYS = 2, /* key sections are there */
    RFI_IMAGE_FILE_KEYS = 4, /* the key of a sample is the name of its file; no key sections */
    RFI_IMAGE_CHECKSUMS = 8, /* the checksums are there; the fingerprint does not depend on them */
};

struct rfi_image_section {
    uint64_t offset, bytes, hash;
};

struct rfi_image_header {
    char magic[8];
    uint32_t endian, version;
    uint64_t image_bytes, core_bytes;
    uint64_t samples, record_bytes, n_runs;
    uint64_t payload_bytes; /* all samples' fields joined */
    uint64_t extent_bytes; /* all samples' extents */
    uint64_t min_bytes, max_bytes; /* payload of one sample */
    uint64_t classes, unlabeled;
    int64_t label_base; /* label = base + code; the code of all ones is "none" when unlabeled > 0 */
    uint32_t flags, n_files, n_fields, n_layouts;
    uint32_t max_parts; /* most fields that one sample has, at least 1 */
    uint32_t label_width, layout_width; /* bytes a sample: 0 1 2 4 8; 0 1 2 */
    uint32_t n_dims;
    uint64_t shape[RFI_MAX_DIMS];
    char format[32], dtype[24];
    uint8_t fingerprint[16];
    struct rfi_image_section sections[RFI_N_SECTIONS];
    uint64_t hash; /* of the header with this word zero; last */
};

static_assert(sizeof(struct rfi_image_header) <= RFI_IMAGE_HEADER_BYTES, "the header has its own page");
static_assert(offsetof(struct rfi_image_header, image_bytes) == 16, "fixed layout");
static_assert(offsetof(struct rfi_image_header, hash) == sizeof(struct rfi_image_header) - 8, "the hash comes last");

/* Where the files lie: `absolute` when the image was made; `relative` to the folder of the index
 * file when that is near, else "". Both NUL-terminated. */
struct rfi_image_root {
    char absolute[4096], relative[4096];
};
static_assert(sizeof(struct rfi_image_root) == 8192, "fixed layout");

struct rfi_image_file {
    uint64_t name; /* offset of the NUL-terminated name, relative to the root, in the names */
    uint64_t bytes;
};
static_assert(sizeof(struct rfi_image_file) == 16, "fixed layout");

/* `count` is the next run's `first` (or the number of samples) minus this one's. */
struct rfi_image_run {
    uint64_t first, offset, stride;
    uint32_t file, zero;
};
static_assert(sizeof(struct rfi_image_run) == 32, "fixed layout");

struct rfi_image_entry {
    uint64_t offset_file; /* offset in the low 48 bits, low half of the file number above */
    uint64_t bytes_file; /* length in the low 48 bits, high half of the file number above */
};
static_assert(sizeof(struct rfi_image_entry) == 16, "sixteen bytes a sample");

static inline struct rfi_image_entry rfi_entry_pack(uint32_t file, uint64_t offset, uint64_t bytes)
{
    return (struct rfi_image_entry){offset | (uint64_t)(file & 0xffff) << 48, bytes | (uint64_t)(file >> 16) << 48};
}

static inline uint32_t rfi_entry_file(struct rfi_image_entry e)
{
    return (uint32_t)(e.offset_file >> 48) | (uint32_t)(e.bytes_file >> 48) << 16;
}

/* A layout is which fields a sample has, in file order: count, then that many field numbers, in
 * 1 + max_parts 16-bit words.
 * The parts of a sample with F fields are 2F - 2 of its 2 (max_parts - 1) 32-bit words: the length of
 * the first field; offsets of the others from the start of the extent; lengths of all but the first
 * and the last, which ends where the extent ends. */

/* Checks everything that can be checked without a look at each sample: magic, version, byte order,
 * sizes, every section's place and (`hashes`) its hash, the file, run, field and layout tables.
 * Copies the header to *ret first and uses only the copy. `what` names the image in messages. */
int rfi_image_check(const void *image, size_t bytes, bool hashes, const char *what, struct rfi_image_header *ret,
                    struct rfi_error *err);

uint64_t rfi_image_header_hash(const struct rfi_image_header *h);
uint64_t rfi_image_hash(const void *data, size_t bytes);

/* Exact bytes that section `s` must have; UINT64_MAX: any number; false on overflow. */
bool rfi_image_section_bytes(const struct rfi_image_header *h, enum rfi_section s, uint64_t *ret);
