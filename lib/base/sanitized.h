/* RFI_SANITIZED: 1 in a build with a sanitizer that watches memory or threads, else 0. */
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RFI_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RFI_SANITIZED 1
#endif
#endif
#ifndef RFI_SANITIZED
#define RFI_SANITIZED 0
#endif
