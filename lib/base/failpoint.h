/* Places where a process of a test build kills itself, as if somebody had killed it there. Nothing of this is in a
 * build without -Dfail_points=true.
 *
 * RINGFEED_FAIL_POINTS="claim:40,publish:100": one pass in 40 of the first, one in 100 of the second, at random.
 * RINGFEED_FAIL_LOG=FILE: the name of each point that struck is appended. */
#pragma once

#ifdef RFI_FAIL_POINTS
void rfi_fail_point(const char *name);
#define RFI_FAIL_POINT(name) rfi_fail_point(name)
#else
#define RFI_FAIL_POINT(name) ((void)0)
#endif
