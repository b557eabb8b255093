/* tfrecord: TensorFlow's record files. A record is its length (64 bits, little-endian), a masked CRC-32C of these eight
 * bytes, the payload, and a masked CRC-32C of the payload (tensorflow/core/lib/io/record_writer.h); the sample is
 * the payload. Lengths are checked against their CRC, payloads are not read by a scan. */
#include "dataset/formats/format.h"
#include "dataset/formats/tfrecord.h"
#include "dataset/formats/window.h"

#include "base/crc32c.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

uint32_t rfi_tfrecord_mask(uint32_t crc)
{
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* Length of the payload behind a head of RFI_TFRECORD_HEAD bytes; false: its checksum is wrong. A build without
 * CRC-32C believes it. */
static bool read_head(const unsigned char *head, uint64_t *ret_bytes)
{
    uint64_t bytes;
    uint32_t crc;
    memcpy(&bytes, head, sizeof bytes);
    memcpy(&crc, head + sizeof bytes, sizeof crc);
    *ret_bytes = le64toh(bytes);
    return !rfi_crc32c_available() || le32toh(crc) == rfi_tfrecord_mask(rfi_crc32c(0, head, sizeof bytes));
}

static bool fits(uint64_t file_bytes, uint64_t offset, uint64_t payload)
{
    uint64_t room = file_bytes - offset; /* offset is in the file */
    return room >= RFI_TFRECORD_FRAME && payload <= room - RFI_TFRECORD_FRAME;
}

/* The checksum tells: without it nothing is known by content. */
static bool match(const struct rfi_probe *p)
{
    uint64_t payload;
    return rfi_crc32c_available() && p->n_head >= RFI_TFRECORD_HEAD && read_head(p->head, &payload) &&
           fits(p->bytes, 0, payload);
}

static int scan_records(struct rfi_scan *s, size_t i, struct rfi_window *w, uint32_t file, struct rfi_error *err)
{
    int rc = 0;
    for (uint64_t at = 0, payload; at < w->file_bytes && rc == 0; at += RFI_TFRECORD_FRAME + payload) {
        const unsigned char *head;
        rc = rfi_window_at(w, at, RFI_TFRECORD_HEAD, &head, err);
        if (rc < 0)
            return rc;
        if (!read_head(head, &payload))
            return rfi_fail(err, EBADMSG,
                            "%s: no TFRecord at offset %llu: the checksum of its length is wrong. Get the file again",
                            w->path, (unsigned long long)at);
        if (!fits(w->file_bytes, at, payload))
            return rfi_fail(err, EBADMSG,
                            "%s: truncated: the record at offset %llu has %llu bytes and they are not all there. Get "
                            "the file again",
                            w->path, (unsigned long long)at, (unsigned long long)payload);
        rc = rfi_build_sample(s->build, file, at + RFI_TFRECORD_HEAD, payload, err);
        if (rc == 0)
            rc = rfi_scan_tick(s, i, err);
    }
    return rc;
}

static int scan(struct rfi_scan *s, struct rfi_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < rfi_sources_n(s->sources) && rc == 0; i++) {
        struct rfi_window w;
        uint32_t file;
        uint64_t bytes;
        int fd;
        rc = rfi_scan_open(s, i, &file, &fd, &bytes, err);
        if (rc < 0)
            break;
        rc = rfi_window_open(&w, fd, s->path, bytes, err);
        if (rc == 0)
            rc = scan_records(s, i, &w, file, err);
        rfi_window_close(&w);
        close(fd);
    }
    return rc;
}

const struct rfi_format rfi_format_tfrecord = {.name = "tfrecord", .match = match, .scan = scan};
