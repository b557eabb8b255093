/* How WebDataset names the members of a sample. */
#pragma once

#include <stddef.h>

/* Bytes of the key of a member's name: the path up to the first dot of the base name. 0: the member
 * belongs to no sample (no dot, a dot-file, or metadata: a name like "__x__" without a folder). The
 * field's name is what follows the dot. */
size_t rfi_webdataset_key_bytes(const char *name);
