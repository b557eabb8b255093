/* The frame alone: no verb. */
#include "cli_internal.h"

const struct cli_verb cli_verbs[] = {{0}};
