/* Names of a run's objects, and opening them. Internal to the segment layer. */
#pragma once

#include "base/error.h"

#include <stdbool.h>

enum { RFI_OBJECT_NAME = 96 };

void rfi_object_names(const char *name, char control[RFI_OBJECT_NAME], char data[RFI_OBJECT_NAME]);

/* Opens an existing object. Something else under its name (a FIFO, a directory, a device) cannot hang us:
 * -EPROTO. Other failures: negative errno. */
int rfi_object_open(const char *object, int flags);

/* Tries the owner's write lock on an open control object: 1 taken (owner dead), 0 held by another. */
int rfi_owner_lock(int fd);

/* Whether `object` still names the file behind fd. */
bool rfi_same_object(const char *object, int fd);
