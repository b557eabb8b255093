/* Notes for people: a callback, silent by default. */
#pragma once

enum { RFI_LOG_ERROR = 3, RFI_LOG_WARNING = 4, RFI_LOG_INFO = 6, RFI_LOG_DEBUG = 7 };

__attribute__((format(printf, 2, 3))) void rfi_log(int level, const char *fmt, ...);

/* As rfi_log, once per `flag` (a static int of the caller, zero at start) and process. */
__attribute__((format(printf, 3, 4))) void rfi_log_once(int *flag, int level, const char *fmt, ...);
