/* imagefolder: class folders, as torchvision's ImageFolder reads them. A class is a sub-folder of the
 * dataset's directory; its label is its place among the sorted names. Inside a class, files come
 * sorted by folder and then by name (which is not the order of whole paths: "a/b.jpg" comes before
 * "a/b/c.jpg", and so does "a/b0.jpg").
 *
 * Which files are samples: if any file below the class folders has an image's extension, exactly
 * those that have one (ImageFolder ignores the others, and so captions or thumbnails' databases do not
 * shift the numbering). If none has, the folders hold another kind of data and every file is a
 * sample. Files beside the class folders are never samples. Only folders that hold files count as
 * classes; names that begin with a dot were left out before. */
#include "dataset/formats/format.h"

#include "base/bytes.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int compare_bytes(const char *a, size_t n, const char *b, size_t m)
{
    int c = memcmp(a, b, rfi_min(n, m));
    return c ? c : n < m ? -1 : n > m;
}

static size_t class_bytes(const char *name)
{
    return (size_t)(strchrnul(name, '/') - name);
}

/* By class, then folder, then name: see above. */
static int compare(const void *x, const void *y, void *names)
{
    const char *a = (const char *)names + ((const struct rfi_source *)x)->name;
    const char *b = (const char *)names + ((const struct rfi_source *)y)->name;
    int c = compare_bytes(a, class_bytes(a), b, class_bytes(b));
    size_t da = (size_t)(rfi_base_name(a) - a), db = (size_t)(rfi_base_name(b) - b);
    if (!c) /* without the closing slash, as the names of the folders compare */
        c = compare_bytes(a, da ? da - 1 : 0, b, db ? db - 1 : 0);
    return c ? c : strcmp(a + da, b + db);
}

static bool drop_top(const struct rfi_sources *s, size_t i, void *ctx)
{
    (void)ctx;
    return !strchr(rfi_source_name(s, i), '/');
}

static bool same_class(const char *a, const char *b)
{
    return !compare_bytes(a, class_bytes(a), b, class_bytes(b));
}

static int add(struct rfi_scan *s, size_t i, int64_t label, struct rfi_error *err)
{
    uint32_t file;
    int rc = rfi_scan_file(s, i, &file, err);
    if (rc == 0)
        rc = rfi_build_sample(s->build, file, 0, rfi_source_at(s->sources, i)->bytes, err);
    if (rc == 0)
        rc = rfi_build_label(s->build, true, label, err);
    return rc < 0 ? rc : rfi_scan_tick(s, i, err);
}

static int add_all(struct rfi_scan *s, bool images_only, struct rfi_error *err)
{
    int64_t label = -1;
    int rc = 0;
    size_t n = rfi_sources_n(s->sources), left_out = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        const char *name = rfi_source_name(s->sources, i);
        /* a folder without images keeps its number: the labels are those of the sorted folders */
        if (i == 0 || !same_class(rfi_source_name(s->sources, i - 1), name))
            label++;
        if (images_only && !rfi_is_image_name(name))
            left_out++;
        else
            rc = add(s, i, label, err);
    }
    if (left_out)
        rfi_log(RFI_LOG_INFO, "%s: %zu files in class folders are not images and were left out", s->sources->root,
                left_out);
    return rc;
}

static int scan(struct rfi_scan *s, struct rfi_error *err)
{
    struct rfi_sources *src = s->sources;
    bool images = false;
    if (!src->one_directory)
        return rfi_fail(err, EINVAL,
                        "%s: --format imagefolder needs one directory of class folders. Name that directory",
                        src->root);
    rfi_sources_drop(src, drop_top, NULL);
    if (!rfi_sources_n(src))
        return rfi_fail(err, ENOENT,
                        "%s: no file in any class folder. Put the files into one folder a class, or say --format files",
                        src->root);
    qsort_r(src->list.data, rfi_sources_n(src), sizeof(struct rfi_source), compare, src->names.data);
    for (size_t i = 0; i < rfi_sources_n(src) && !images; i++)
        images = rfi_is_image_name(rfi_source_name(src, i));
    rfi_build_keys_are_files(s->build);
    return add_all(s, images, err);
}

const struct rfi_format rfi_format_imagefolder = {.name = "imagefolder", .opaque = true, .scan = scan};
