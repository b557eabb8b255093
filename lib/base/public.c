/* The public functions that belong to no layer: version, and the text of the thread's last error. */
#include "base/error.h"

#include <ringfeed/ringfeed.h>

#define TEXT(x) #x
#define VERSION(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

const char *rf_version(void)
{
    return VERSION(RF_VERSION_MAJOR, RF_VERSION_MINOR, RF_VERSION_PATCH);
}

const char *rf_last_error(void)
{
    return rfi_thread_error()->text;
}
