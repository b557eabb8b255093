/* First page of each of a run's two shared-memory objects, as it lies in memory. The control object's
 * header carries a table of regions; what is inside a region is the business of the layers above.
 *
 *   /ringfeed.NAME        control: header page | regions, each page-aligned
 *   /ringfeed.NAME.data   payload: header page | arenas
 *
 * State of the control header: zero -> `birth` stored (recognisable as ours, not usable) -> everything
 * filled -> `ready` stored last with release. Nobody writes the header afterwards. If the creator dies in
 * between, `birth` without `ready` and a free owner lock tell gc that it may remove the objects. */
#pragma once

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

#define RFI_BIRTH_MAGIC 0x3148545249424652u /* "RFBIRTH1" */
#define RFI_READY_MAGIC 0x3159444145524652u /* "RFREADY1" */
#define RFI_DATA_MAGIC 0x3141544144464652u /* "RFFDATA1" */

enum { RFI_LAYOUT_VERSION = 1, RFI_HEADER_BYTES = 4096, RFI_MAX_REGIONS = 32 };

struct rfi_region_shared {
    uint32_t id; /* the index in the table; a check */
    uint32_t element_bytes;
    uint64_t count;
    uint64_t offset; /* from the object's start, a multiple of the page size */
    uint64_t bytes; /* element_bytes * count, not rounded */
};

struct rfi_segment_header {
    _Atomic uint64_t birth;
    _Atomic uint64_t ready;
    uint32_t layout_version;
    uint32_t n_regions;
    uint64_t layout_signature; /* over sizes of all structs that live in regions */
    uint64_t nonce[2]; /* of the run; the same in the data object */
    uint64_t control_bytes, data_bytes;
    uint64_t created_ns; /* CLOCK_REALTIME */
    int64_t owner_pid; /* for messages; ownership is the lock */
    char name[72];
    struct rfi_region_shared regions[RFI_MAX_REGIONS];
};
_Static_assert(sizeof(struct rfi_segment_header) <= RFI_HEADER_BYTES, "header page");

struct rfi_data_header {
    _Atomic uint64_t magic;
    uint64_t nonce[2];
    uint64_t data_bytes;
};
