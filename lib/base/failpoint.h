/* Named places where a process may kill itself with SIGKILL, for the kill storm (tests/multi). Only in builds with
 * -Dfail_points=true; in all others a fail point is nothing at all, and none of failpoint.c is compiled.
 *
 *   RINGFEED_FAIL_POINTS=publish-before:0.01,claim:1/50,attach:3,*:0.001
 *                           a probability, one pass in N, or the Nth pass of this process; `*`: every other point
 *   RINGFEED_FAIL_POINTS=list    the command prints the names of all points and ends
 *   RINGFEED_FAIL_LOG=FILE       a line `POINT PID` is appended just before dying */
#pragma once

#ifdef RFI_FAIL_POINTS

#include <stdbool.h>
#include <stdio.h>

#define RFI_FAIL_POINT(name) rfi_fail_point(name)

/* Dies here, or returns. The name must be in the table of failpoint.c. */
void rfi_fail_point(const char *name);

/* The environment asks for the list: prints it, true. */
bool rfi_fail_points_list(FILE *to);

/* A switch of the tests: environment variable `name` is 1. */
bool rfi_test_switch(const char *name);

#else

#define RFI_FAIL_POINT(name) ((void)0)
#define rfi_fail_points_list(to) false
#define rfi_test_switch(name) false

#endif
