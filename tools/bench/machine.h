/* What machine the figures are of. */
#pragma once

#include "bench/devices.h"
#include "cli.h"

unsigned bench_cores(void); /* that this process may use */
void bench_emit_machine(struct cli_emit *e, const struct bench_devices *devices);
