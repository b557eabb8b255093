/* ringfeed: one shared-memory data loader for a whole multi-GPU server.
 *
 * A server process (`ringfeed serve`, or rf_server_start) fills one ring of batches per rank; each
 * trainer process attaches to its rank by name and takes batches without a copy:
 *
 *     rf_trainer *t;
 *     rf_batch b;
 *     int rc = rf_attach("NAME", 0, NULL, &t);
 *     if (rc < 0) { fprintf(stderr, "%s\n", rf_last_error()); exit(1); }
 *     while ((rc = rf_next(t, -1, &b)) == RF_OK) {
 *             for (uint32_t i = 0; i < b.n_samples; i++)
 *                     train(rf_batch_sample(&b, i), rf_batch_sample_bytes(&b, i));
 *             rf_release(t, &b);
 *     }
 *     if (rc < 0)                          // RF_END (1) is the regular end
 *             fprintf(stderr, "%s\n", rf_trainer_error(t));
 *     rf_detach(t);
 *
 * Conventions: functions return RF_OK (0), a positive condition (RF_END) or a negative errno; the
 * text of the last error of a handle says what, where and what to do. The library never prints and
 * never exits. Sizes are bytes, times are nanoseconds or milliseconds as named, indices are 64 bits.
 * Options structs are filled by their init function first; a zero in `size` is refused. */
#ifndef RINGFEED_RINGFEED_H
#define RINGFEED_RINGFEED_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RF_VERSION_MAJOR 0
#define RF_VERSION_MINOR 1
#define RF_VERSION_PATCH 0

#define RF_OK 0
#define RF_END 1

/* Longest name of a run: [A-Za-z0-9_-]{1,64}. */
#define RF_NAME_MAX 64

#if defined(__GNUC__)
#define RF_PUBLIC __attribute__((visibility("default")))
#else
#define RF_PUBLIC
#endif

/* "0.1.0"; static storage. */
RF_PUBLIC const char *rf_version(void);

/* Text of the last error of a call in this thread that had no handle to keep it (open, start,
 * attach, validate). Never NULL; valid until the next failing call in this thread. */
RF_PUBLIC const char *rf_last_error(void);

/* Where the library's notes go (a fallback taken, say); default: nowhere. `level` is a syslog level
 * (3 error, 4 warning, 6 info, 7 debug). Process-wide; set it before other threads use the library. */
typedef void (*rf_log_fn)(void *ctx, int level, const char *text);
RF_PUBLIC void rf_set_log(rf_log_fn fn, void *ctx);

/* ------------------------------------------------------------------------------------------------
 * Dataset: N samples, each one contiguous extent of one file, with named fields inside it, an
 * optional integer label and an optional key. */

typedef struct rf_dataset rf_dataset;

typedef struct rf_dataset_options {
    size_t size; /* sizeof this struct, set by init */
    const char *const *paths; /* files, directories, globs or one .rfi; borrowed during the call */
    size_t n_paths;
    const char *format; /* NULL: detected by content */
    uint64_t record_bytes; /* raw: bytes of one record; 0: not raw */
    uint64_t header_bytes; /* raw: bytes to skip at the start of each file */
    const char *labels; /* a label file (IDX, integer .npy, or one integer a line), or NULL */
    const char *label_field; /* webdataset: the field that holds the label; NULL: "cls" */
    /* Called now and then during a scan with files and samples so far; may be NULL. A non-zero
     * result stops the scan with -ECANCELED. */
    int (*progress)(void *ctx, uint64_t files_done, uint64_t files, uint64_t samples);
    void *progress_ctx;
    uint64_t reserved[8];
} rf_dataset_options;

RF_PUBLIC void rf_dataset_options_init(rf_dataset_options *o);

typedef struct rf_dataset_info {
    char format[32];
    uint64_t files, samples;
    uint64_t bytes; /* payload: all samples' fields joined */
    uint64_t min_bytes, max_bytes; /* of one sample; 0 when there is none */
    double mean_bytes;
    uint64_t fixed_bytes; /* size of every sample when all are equal by format, else 0 */
    uint64_t classes; /* distinct labels; 0: no labels */
    uint64_t unlabeled; /* samples without a label while others have one */
    uint64_t index_bytes; /* size of the index (as a .rfi file) */
    uint32_t n_fields; /* at least 1 when there are samples; see rf_dataset_field_name */
    char dtype[24]; /* NumPy type string of the elements ("<f4"), or "" */
    uint32_t n_dims; /* dimensions of one sample (the leading one removed) */
    uint64_t shape[16];
    char fingerprint[40]; /* 128 bits, 32 hex digits: depends on relative names, sizes and table, not on
                             where the files lie nor on their times, nor on checksums */
    uint64_t checksums; /* nonzero: the index holds a CRC32C of every sample */
    uint64_t reserved[7];
} rf_dataset_info;

typedef struct rf_sample {
    uint64_t index;
    const char *file; /* path; valid until the dataset is closed */
    uint64_t offset, bytes; /* the extent in the file: first field's first to last field's last byte */
    uint64_t payload_bytes; /* bytes of the fields joined */
    int has_label;
    int64_t label;
    const char *key; /* NUL-terminated, or NULL */
    uint32_t n_fields; /* fields this sample has */
    uint64_t reserved[4];
} rf_sample;

typedef struct rf_field {
    const char *name; /* "data", or the extension in a webdataset */
    uint64_t offset; /* from the start of the sample's extent */
    uint64_t bytes;
} rf_field;

/* Opens or scans a dataset. Blocks on file I/O. Errors: -ENOENT nothing there, -EINVAL wrong options
 * or malformed content, -ENOTSUP a refused kind (compressed, sparse, Fortran order, objects),
 * -ESTALE a file changed after it was indexed. */
RF_PUBLIC int rf_dataset_open(const rf_dataset_options *o, rf_dataset **ret);
RF_PUBLIC void rf_dataset_close(rf_dataset *d);
RF_PUBLIC void rf_dataset_get_info(rf_dataset *d, rf_dataset_info *ret);
RF_PUBLIC const char *rf_dataset_field_name(rf_dataset *d, uint32_t field);
/* Facts of sample i; -ERANGE when i >= samples. */
RF_PUBLIC int rf_dataset_sample(rf_dataset *d, uint64_t i, rf_sample *ret);
/* Fields of sample i in file order into `fields` (at most `cap`); returns how many it has. */
RF_PUBLIC int rf_dataset_sample_fields(rf_dataset *d, uint64_t i, rf_field *fields, uint32_t cap);
/* Reads sample i, one field or all joined (`field` NULL), with plain pread into `buf` of `cap`
 * bytes; `*ret_bytes` is the size needed. -ENOSPC when cap is too small (nothing read). */
RF_PUBLIC int rf_dataset_read(rf_dataset *d, uint64_t i, const char *field, void *buf, size_t cap, size_t *ret_bytes);
/* Writes the index file atomically (temporary file, fsync, rename). */
RF_PUBLIC int rf_dataset_write_index(rf_dataset *d, const char *path);
/* Reads every sample once and adds its CRC32C to the table, for the index that is written next: a server
 * then compares every sample that it reads. `progress` (may be NULL) is called now and then; a non-zero
 * result stops with -ECANCELED. -ENOTSUP: built without it; -EIO, -ESTALE as rf_dataset_read. Pointers into
 * the dataset (rf_sample) end here. */
RF_PUBLIC int rf_dataset_add_checksums(rf_dataset *d, int (*progress)(void *ctx, uint64_t done, uint64_t samples),
                                       void *ctx);
RF_PUBLIC const char *rf_dataset_error(const rf_dataset *d);

/* ------------------------------------------------------------------------------------------------
 * Order: what each rank gets, as pure functions of (dataset, options, epoch, rank, batch). */

typedef enum rf_shuffle { RF_SHUFFLE_NONE, RF_SHUFFLE_FULL, RF_SHUFFLE_BLOCK } rf_shuffle;
typedef enum rf_strategy { RF_ROUND_ROBIN, RF_CONTIGUOUS, RF_HASH, RF_RANGE, RF_STRATIFIED, RF_ADAPTIVE } rf_strategy;
typedef enum rf_tail { RF_TAIL_UNEVEN, RF_TAIL_DROP, RF_TAIL_PAD } rf_tail;
typedef enum rf_hash_key { RF_HASH_INDEX, RF_HASH_KEY, RF_HASH_LABEL } rf_hash_key;

#define RF_FLAG_PADDING 1u /* the sample fills a padded batch */
#define RF_FLAG_SUBSTITUTED 2u /* the sample stands in for one that could not be read */

typedef struct rf_order_options {
    size_t size;
    uint64_t samples; /* virtual dataset of this many samples when no dataset is given */
    uint32_t world_size; /* W, 1 .. 1,000,000 */
    uint64_t batch; /* B, samples a batch, at least 1 */
    rf_strategy strategy;
    rf_strategy base; /* adaptive only */
    rf_shuffle shuffle;
    rf_tail tail;
    uint64_t seed;
    uint64_t block_samples; /* K of block shuffle; 0: 4 MiB worth of samples */
    uint64_t window_blocks; /* M of block shuffle; 0: 16 */
    uint64_t hash_partitions; /* 0: max(1024, 16 W) */
    uint64_t hash_seed;
    rf_hash_key hash_key;
    const char *ranges; /* "0:250,250:500": one a rank, in global rank order */
    int allow_gaps, allow_overlap; /* of ranges */
    const char *subset; /* "A:B", or a file with one index a line; NULL: all */
    const char *split; /* "train:0.9,val:0.1", with `use`; NULL: none */
    const char *use;
    uint64_t classes; /* expected number of classes; 0: not checked */
    uint64_t repeat_order; /* nonzero: every epoch in the order of epoch 0, instead of one of its own */
    /* Nonzero: the file of `subset` is a sequence, not a set: samples come in its order, and may repeat. For strategies
     * round-robin and contiguous. */
    uint64_t subset_sequence;
    uint64_t reserved[6];
} rf_order_options;

RF_PUBLIC void rf_order_options_init(rf_order_options *o);
/* Checks the options by themselves (no dataset): -EINVAL with the text in rf_last_error(). */
RF_PUBLIC int rf_order_validate(const rf_order_options *o);

typedef struct rf_order rf_order;

/* `d` may be NULL with o->samples set (virtual). `d` is borrowed and must outlive the order. */
RF_PUBLIC int rf_order_open(const rf_order_options *o, rf_dataset *d, rf_order **ret);
RF_PUBLIC void rf_order_close(rf_order *o);
/* Samples in the order: the dataset's, or the subset's. */
RF_PUBLIC uint64_t rf_order_samples(const rf_order *o);
/* Samples of global rank `rank` an epoch, before the tail rule. */
RF_PUBLIC uint64_t rf_order_rank_samples(const rf_order *o, uint32_t rank);
/* Batches of `rank` an epoch: the exact len(), the same in every epoch. */
RF_PUBLIC uint64_t rf_order_len(const rf_order *o, uint32_t rank);
/* Ids and flags (RF_FLAG_*) of one batch into arrays of `batch` entries each (`flags` may be NULL);
 * returns the number of samples, 0 past the last batch, or a negative errno. */
RF_PUBLIC int64_t rf_order_batch(rf_order *o, uint64_t epoch, uint32_t rank, uint64_t batch, uint64_t *ids,
                                 uint8_t *flags);
/* Ids of positions [from, from+count) of the rank's sequence (no tail rule); returns how many. */
RF_PUBLIC int64_t rf_order_fill(rf_order *o, uint64_t epoch, uint32_t rank, uint64_t from, uint64_t count,
                                uint64_t *ids);
/* Inverse: which rank has sample `index` in `epoch`, and at which position of its sequence.
 * -ENOENT when it is in no rank's sequence. */
RF_PUBLIC int rf_order_locate(rf_order *o, uint64_t epoch, uint64_t index, uint32_t *ret_rank, uint64_t *ret_position);
RF_PUBLIC const char *rf_order_error(const rf_order *o);

/* ------------------------------------------------------------------------------------------------
 * Server: starts and holds a `ringfeed serve` process. The caller is never forked: the command is
 * posix_spawned, and it ends with its caller unless detached. */

typedef enum rf_engine {
    RF_ENGINE_AUTO,
    RF_ENGINE_URING,
    RF_ENGINE_PREAD,
    RF_ENGINE_NULL,
    RF_ENGINE_MAPPED /* copies what is in the page cache, io_uring (else pread) for the rest */
} rf_engine;
/* What becomes of a sample that no copy gives: the batch is an error of its trainer (raise), it is left
 * out of its batch (skip), or the next sample of the rank's epoch that fits stands in for it (replace). */
typedef enum rf_on_error { RF_ON_ERROR_RAISE, RF_ON_ERROR_SKIP, RF_ON_ERROR_REPLACE } rf_on_error;
typedef enum rf_switch { RF_AUTO, RF_ON, RF_OFF } rf_switch;

typedef struct rf_server_options {
    size_t size;
    const char *name; /* required */
    const rf_dataset_options *dataset; /* required, borrowed during the call */
    const rf_order_options *order; /* required, borrowed during the call */
    uint32_t ranks, first_rank; /* ranks held here; 0 ranks: world_size - first_rank */
    uint32_t workers; /* 0: chosen */
    uint64_t epochs; /* 0: for ever */
    uint64_t start_epoch;
    uint64_t prefetch; /* batches a ring; 0: 4 (at most 64 MiB a rank, at least 2), more once that is found to help */
    uint64_t ring_bytes; /* arena of each rank; 0: from prefetch */
    uint32_t queue_depth; /* reads in flight a worker; 0: chosen */
    rf_engine engine;
    rf_switch direct; /* O_DIRECT */
    rf_switch pin, numa; /* RF_ON is not meaningful: auto or off */
    uint32_t heartbeat_ms, max_restarts;
    const char *command; /* path of the ringfeed command; NULL: $RINGFEED, beside the library, PATH */
    int detached; /* nonzero: the server outlives this process */
    const char *checkpoint; /* file to write positions to; NULL: none */
    uint64_t checkpoint_every; /* samples released; 0: only at the end */
    const char *const *resume; /* files to go on from, one a server, or "auto" alone */
    size_t n_resume;
    double rebalance_threshold; /* strategy adaptive; 0: 0.2 */
    int rebalance_off; /* strategy adaptive without moves */
    int redistribute; /* the batches of a rank whose trainer died go to the living ones */
    const char *const *mirrors; /* folders with copies of the dataset's files; borrowed during the call */
    size_t n_mirrors;
    uint32_t hedge_ms; /* a read later than this is asked for a second time; 0: never */
    rf_on_error on_error;
    int spares; /* io_urings, and arenas for all ranks each, kept for a device that hangs; -1: chosen (1) */
    uint32_t replication; /* workers that read for a rank, a primary and standbys; 0, 1: any may */
    double slow_ratio; /* slow is who has less than this part of its peers' median throughput; 0: 0.5 */
    uint64_t cache_bytes; /* of the dataset kept in shared memory over the epochs; 0: none */
    uint32_t cpu_budget; /* CPU time for the server, in percent of the cores it may use; 0 and 100: no limit */
    uint32_t reserved32;
    /* Called while rf_server_start waits, every 100 ms and after each signal; a non-zero result ends the wait and the
     * server, with -EINTR. NULL: none. */
    int (*on_wait)(void *ctx);
    void *on_wait_ctx;
    uint64_t reserved[1];
} rf_server_options;

typedef struct rf_server rf_server;

RF_PUBLIC void rf_server_options_init(rf_server_options *o);
/* Checks everything that can be checked without starting. */
RF_PUBLIC int rf_server_validate(const rf_server_options *o);
/* Spawns the server and waits until it is ready (at most timeout_ms; -1: 30 s). On failure the text
 * is the server's own message. */
RF_PUBLIC int rf_server_start(const rf_server_options *o, int timeout_ms, rf_server **ret);
/* Waits for its end; 0 and `*ret_status` (exit status), or -ETIMEDOUT. */
RF_PUBLIC int rf_server_wait(rf_server *s, int timeout_ms, int *ret_status);
/* Asks it to end (SIGTERM), waits, frees the handle. Returns its exit status or a negative errno. */
RF_PUBLIC int rf_server_stop(rf_server *s);
/* Removes what a killed server of this name left in /dev/shm, as `ringfeed gc` does for all; a `resume` "auto" cannot go on
 * from it then. 0 also when there is nothing; -EBUSY: its server lives. */
RF_PUBLIC int rf_remove_dead(const char *name);
RF_PUBLIC int rf_server_pid(const rf_server *s);
RF_PUBLIC const char *rf_server_error(const rf_server *s);

/* ------------------------------------------------------------------------------------------------
 * Trainer: one handle is for one thread; handles are independent. Not usable in a forked child
 * (-EPERM there). */

typedef struct rf_trainer rf_trainer;

typedef struct rf_attach_options {
    size_t size;
    int timeout_ms; /* to wait for the name to be ready; -1: 30 s; 0: do not wait */
    int writable; /* map this rank's arena writable */
    uint64_t reserved[8];
} rf_attach_options;

RF_PUBLIC void rf_attach_options_init(rf_attach_options *o);

/* A batch. All pointers lead into the shared segment (read-only unless attached writable) and are
 * valid until the batch is released. Sample i's bytes are data + offsets[i], lengths[i] long: for
 * datasets of fixed-size samples (`fixed_bytes` > 0) one dense tensor [n_samples, fixed_bytes]. */
typedef struct rf_batch {
    uint64_t ticket; /* identity of the batch in the ring's life */
    uint64_t epoch, batch; /* batch counts from 0 in each epoch */
    uint32_t n_samples; /* may be 0 when the error policy left everything out */
    uint32_t n_fields; /* fields of the dataset; 1 and NULL field arrays: the sample is the field */
    uint64_t fixed_bytes;
    const unsigned char *data; /* base address for offsets */
    uint64_t data_bytes; /* that offsets reach from data: the batch's region, or, if resident, more */
    const uint64_t *offsets; /* [n_samples], from data */
    const uint64_t *lengths; /* [n_samples], bytes of the extent */
    const uint64_t *ids; /* [n_samples], dataset indices */
    const int64_t *labels; /* [n_samples], or NULL when the dataset has none */
    const uint8_t *flags; /* [n_samples], RF_FLAG_* */
    /* [n_samples][n_fields]: offset from data, bytes; an absent field has offset UINT64_MAX. NULL
     * when the dataset has one field. */
    const uint64_t *field_offsets, *field_lengths;
    int last; /* nonzero: the last batch of its epoch */
    uint64_t skipped; /* samples that could not be read and were left out (on_error skip) */
    /* Nonzero: the samples lie in the server's resident cache, which other batches and ranks use too: read-only for who
     * attached writable as well. */
    uint64_t resident;
    uint64_t reserved[2];
} rf_batch;

static inline const unsigned char *rf_batch_sample(const rf_batch *b, uint32_t i)
{
    return b->data + b->offsets[i];
}

static inline uint64_t rf_batch_sample_bytes(const rf_batch *b, uint32_t i)
{
    return b->lengths[i];
}

/* Attaches to global rank `rank` of run `name`. -ENOENT: no such run in time; -EBUSY: the rank has a
 * living trainer (named in the text); -ERANGE: not a rank held here; -EACCES; -EPROTO: the segment is
 * not one of ours or another version. */
RF_PUBLIC int rf_attach(const char *name, uint32_t rank, const rf_attach_options *o, rf_trainer **ret);
/* Takes the next batch. timeout_ms -1: the run's time-out (30 s). No syscall and no copy when it is
 * ready. RF_END after the last batch of the last epoch; -ETIMEDOUT names who was waited for;
 * -ENODEV: a device hangs and no spare is left to go on with, call again when it answers;
 * -EPIPE: the server died or stopped, or this handle has lost its rank; -EIO: this batch could not be read (file, offset, sample in
 * the text), the next call goes on behind it; -EDEADLK: only releasing a held batch (named) can
 * make room. */
RF_PUBLIC int rf_next(rf_trainer *t, int timeout_ms, rf_batch *ret);
/* Gives a batch back; any order, but space comes back in order. -EINVAL: not held. */
RF_PUBLIC int rf_release(rf_trainer *t, const rf_batch *b);
/* The memory of the ring that the batch's samples lie in, for who registers it with a device. There is one a ring, and
 * another one after a device has hung; each stays mapped until the handle is detached, and from the first call on the ring
 * does not grow. -EINVAL: the samples lie in the resident cache, or the batch is not of this handle; and the errors of
 * asking the server. */
RF_PUBLIC int rf_batch_arena(rf_trainer *t, const rf_batch *b, const void **ret_base, uint64_t *ret_bytes);
/* Batches of this rank an epoch. */
RF_PUBLIC uint64_t rf_len(const rf_trainer *t);
/* Nonzero when this rank has no batch at all. */
RF_PUBLIC int rf_is_empty(const rf_trainer *t);
/* Asks the workers to have `batches` (at most the depth) ready, without waiting; returns how many
 * are ready now. */
RF_PUBLIC int rf_prefetch(rf_trainer *t, uint32_t batches);
/* Starts the current epoch over at batch 0; what was prefetched is dropped, held batches stay valid
 * until released. Blocks for one exchange with the server. While a batch is held and the ring is full,
 * the new content lies behind it: rf_next is -EDEADLK until that batch is released. */
RF_PUBLIC int rf_reset(rf_trainer *t);
/* Goes to batch 0 of `epoch`; nothing happens when the ring already stands there. */
RF_PUBLIC int rf_set_epoch(rf_trainer *t, uint64_t epoch);
/* Goes to `batch` of `epoch`, as rf_restore does; a batch at or behind the epoch's last is the beginning of the next one.
 * -ENOTSUP: the ranks of this run exchange batches. */
RF_PUBLIC int rf_seek(rf_trainer *t, uint64_t epoch, uint64_t batch);
RF_PUBLIC int rf_detach(rf_trainer *t);
/* Gives the rank up and keeps the memory: batches that are held can be read until rf_detach, provided that nobody attaches
 * to the rank again, since a successor gets what was not released. Every other call is -EPIPE from then on. */
RF_PUBLIC int rf_leave(rf_trainer *t);
/* `check` is called between the slices of rf_next's wait, each at most 20 ms long and ended early by a signal; a non-zero
 * result ends it with -EINTR. For languages with signal handlers of their own. It may release batches of this
 * handle. NULL: none. */
RF_PUBLIC void rf_on_wait(rf_trainer *t, int (*check)(void *ctx), void *ctx);
RF_PUBLIC const char *rf_trainer_error(const rf_trainer *t);

typedef struct rf_trainer_info {
    char name[RF_NAME_MAX + 1];
    uint32_t rank, world_size, first_rank, ranks, depth;
    uint64_t batch, epochs, start_epoch; /* epochs 0: for ever */
    uint64_t len;
    uint64_t samples, fixed_bytes; /* of the dataset */
    uint32_t n_fields;
    uint64_t arena_bytes; /* address space of a ring; what it grows to at most */
    int server_pid;
    int exchanges; /* nonzero: the ranks exchange batches, so none can be taken to another place by itself */
    uint64_t reserved[8];
} rf_trainer_info;

RF_PUBLIC void rf_trainer_get_info(const rf_trainer *t, rf_trainer_info *ret);
RF_PUBLIC const char *rf_trainer_field_name(const rf_trainer *t, uint32_t field);
/* Facts of the dataset that the run serves, from the segment: no file is opened. */
RF_PUBLIC void rf_trainer_get_dataset(const rf_trainer *t, rf_dataset_info *ret);

/* ------------------------------------------------------------------------------------------------
 * Checkpoints: where a run stands, as batches released. A file is small JSON with a checksum; the server
 * writes one by itself with `serve --checkpoint FILE --checkpoint-every SAMPLES`, and goes on from it with
 * `--resume FILE`, also with another world size. */

typedef struct rf_checkpoint rf_checkpoint;

/* Every batch of this rank before `batch` of `epoch` was released. */
typedef struct rf_checkpoint_position {
    uint32_t rank;
    uint64_t epoch, batch;
    uint64_t seed; /* of the shuffle */
    int64_t time_s; /* when it was taken, seconds since 1970 */
    uint64_t reserved[4];
} rf_checkpoint_position;

/* Where the run `name` stands now; its server need not answer, it may even be dead. Errors as rf_attach. */
RF_PUBLIC int rf_checkpoint_take(const char *name, rf_checkpoint **ret);
/* -EBADMSG: damaged, or no checkpoint. */
RF_PUBLIC int rf_checkpoint_open(const char *path, rf_checkpoint **ret);
/* Atomic and durable; the file before becomes PATH.prev. Blocks for the disk. */
RF_PUBLIC int rf_checkpoint_save(const rf_checkpoint *c, const char *path);
RF_PUBLIC void rf_checkpoint_close(rf_checkpoint *c);
RF_PUBLIC uint32_t rf_checkpoint_world_size(const rf_checkpoint *c);
/* -ERANGE: no such rank; -ENOENT: a rank of another server, which this checkpoint does not know. */
RF_PUBLIC int rf_checkpoint_rank(rf_checkpoint *c, uint32_t rank, rf_checkpoint_position *ret);
/* Indices that `rank` has processed in its epoch, in order and without padding: entries [from, from + count) of
 * them into `ids`; returns how many there are. They are computed, not stored. `d` is the run's dataset, borrowed
 * during the call; -EINVAL when it is another. */
RF_PUBLIC int64_t rf_checkpoint_processed(rf_checkpoint *c, rf_dataset *d, uint32_t rank, uint64_t from, uint64_t count,
                                          uint64_t *ids);
/* The checkpoint of a run with order `o` over `d` in which every rank has done `batch` batches of `epoch`, or all that it
 * has there. `from`: what that run went on from, as `rf_server_options.resume`; NULL: it began by itself. For
 * programs that keep their own record of where they stand. -EINVAL: `from` is of another dataset or order (both values
 * in the text); -ENOTSUP: strategy adaptive, whose ranks exchange batches. `d` is borrowed during the call. */
RF_PUBLIC int rf_checkpoint_make(rf_dataset *d, const rf_order_options *o, const rf_checkpoint *from, uint64_t epoch,
                                 uint64_t batch, rf_checkpoint **ret);
/* How often the world size changed in the middle of an epoch that still counts, plus one. */
RF_PUBLIC uint32_t rf_checkpoint_stages(const rf_checkpoint *c);
/* Options of the order now. Texts are valid until the checkpoint is closed. */
RF_PUBLIC void rf_checkpoint_order(const rf_checkpoint *c, rf_order_options *ret);
RF_PUBLIC const char *rf_checkpoint_error(const rf_checkpoint *c);

/* Takes this trainer's rank to where the checkpoint has it. What was prefetched is dropped: the next batch is the
 * checkpoint's. Held batches stay valid until released. Nothing happens when the rank stands there already.
 * -EINVAL: a checkpoint of another dataset, order or world size (both values in the text; only a server can be
 * resumed with another world size); -ENOTSUP: the ranks of this run exchange batches. */
RF_PUBLIC int rf_restore(rf_trainer *t, const rf_checkpoint *c);

/* Strategy adaptive: looks at the balance now, and moves batches between ranks if needed. Returns 1 when batches
 * were moved, else 0; why stands in rf_rebalance_reason. */
RF_PUBLIC int rf_rebalance(rf_trainer *t);
/* What the last look at the balance found, in words; valid until the next call. */
RF_PUBLIC const char *rf_rebalance_reason(const rf_trainer *t);

/* ------------------------------------------------------------------------------------------------
 * Statistics: one consistent-enough reading of a running segment, by anyone who may open it. */

typedef enum rf_status {
    RF_STATUS_UNKNOWN,
    RF_STATUS_ACTIVE,
    RF_STATUS_IDLE,
    RF_STATUS_SLOW,
    RF_STATUS_FAILED
} rf_status;

typedef struct rf_rank_stat {
    uint32_t rank;
    rf_status status;
    int pid; /* 0: nobody attached */
    uint64_t epoch, batch; /* the first batch not released */
    uint64_t samples, bytes; /* released */
    double samples_per_s, bytes_per_s;
    uint64_t prefetch_hits, prefetch_misses; /* samples */
    double wait_us_p50, wait_us_p99, wait_us_max;
    uint32_t depth, ready; /* batches: read ahead at most, now; there to be taken */
    uint64_t local_samples, remote_samples; /* filled by a worker that ran on `node`, or elsewhere */
    uint64_t checkpoints;
    int node; /* of the ring's memory */
    int primary; /* the worker that reads for it; -1: any (no replication) */
    uint32_t n_standbys;
    uint8_t standbys[15]; /* workers that take over at once */
    uint8_t reserved8;
    /* Pages of the ring whose place was asked of the kernel, and those of them that are on `node`: when the run
     * started, and when the ring moved. 0 checked: the kernel does not say. */
    uint32_t pages_checked, pages_on_node;
    uint64_t ring_bytes, huge_bytes; /* its memory, and how much of that is in huge pages; ring_bytes 0: not known */
    uint64_t attached; /* how often a trainer has attached; 0: never */
    uint64_t reserved[1];
} rf_rank_stat;

typedef struct rf_worker_stat {
    uint32_t worker;
    int pid;
    rf_status status;
    uint64_t incarnation;
    int node, cpu;
    double heartbeat_ms; /* age of the last beat */
    uint64_t samples, bytes;
    double samples_per_s;
    uint64_t reads;
    double utilization; /* busy time / time, 0..1 */
    double avg_load_time_us; /* claim to publish, per sample */
    uint64_t hedges, hedges_won; /* late reads asked for again; those whose second one came first */
    uint64_t cache_hits; /* samples that came from the resident cache */
    uint32_t queue_depth; /* reads in flight at most, now */
    int resting; /* nonzero: it claims nothing now: others suffice, or the CPU budget is used up */
    double latency_us; /* of its reads: the median of late; 0: none was measured */
    uint64_t reserved[3];
} rf_worker_stat;

/* A sample that could not be read, and what was decided about it. */
typedef struct rf_fault {
    uint64_t epoch;
    uint32_t rank;
    uint32_t error; /* errno; EILSEQ: its bytes did not match their checksum */
    uint64_t batch, slot; /* slot of the undisturbed batch */
    uint64_t sample;
    uint64_t substitute; /* UINT64_MAX: left out */
    uint64_t file, offset; /* number of the file in the dataset, and where in it */
    char path[256]; /* the end of the file's path */
    uint64_t reserved[4];
} rf_fault;

typedef struct rf_stat {
    char name[RF_NAME_MAX + 1];
    char state[16]; /* starting, ready, stopping, done, dead */
    char format[32];
    char fingerprint[33];
    uint64_t files, samples, bytes; /* of the dataset */
    uint32_t world_size, first_rank, n_ranks, n_workers;
    uint64_t epoch; /* the lowest among the ranks held here */
    uint64_t restarts, rebalances, errors, substituted;
    int server_pid;
    double uptime_s;
    uint64_t segment_bytes;
    char engine[16];
    double imbalance; /* strategy adaptive: 1 - slowest / median throughput of the ranks */
    char balance[32]; /* what the last look at the balance ended with, in words */
    rf_rank_stat *ranks; /* [n_ranks], freed by rf_stat_free */
    rf_worker_stat *workers; /* [n_workers] */
    uint64_t fenced; /* workers killed because they hung */
    uint64_t moved; /* rings that went to a fresh arena, because reads into the old one did not end */
    uint32_t spare_queues, spare_arenas; /* free now */
    uint32_t retired_queues; /* io_urings with reads that do not end */
    uint32_t reserved32;
    uint64_t skipped; /* samples left out; `substituted` those replaced */
    uint64_t wrong_copies; /* reads that came back with a wrong checksum */
    uint64_t repaired; /* samples that came from another copy than the first */
    rf_fault *faults; /* [n_faults]: decisions, the last 1024 by epoch, rank and batch */
    uint64_t n_faults;
    uint64_t cache_bytes; /* room of the resident cache */
    uint64_t cached_samples, cached_bytes; /* kept there now */
    double cpu_cores; /* that the server used of late */
    uint32_t active_workers; /* that read now, but for pauses by the CPU budget */
    uint32_t cpu_budget; /* percent; 0: no limit */
    char engine_why[64]; /* what decided between O_DIRECT and the page cache */
    double direct_us, buffered_us; /* latency of a read, compared while reading; 0: was not */
    uint64_t reserved[4];
} rf_stat;

RF_PUBLIC const char *rf_status_name(rf_status s);
RF_PUBLIC int rf_stat_read(const char *name, rf_stat *ret);
RF_PUBLIC void rf_stat_free(rf_stat *s);

/* ------------------------------------------------------------------------------------------------
 * Coordinator: what a trainer can tell it and ask it. A rank here is what other loaders call a worker;
 * RF_PARTY_WORKER is one of the server's own reading processes. */

/* Registers the trainer's rank (which attaching has done) and checks `n` sample indices (may be 0, then
 * `indices` may be NULL) against the partition: each must be in this rank's sequence of the trainer's
 * current epoch. -EINVAL names the first that is not and whose it is. Asks the server, 32 indices a
 * message; blocks for its answers. */
RF_PUBLIC int rf_register_worker(rf_trainer *t, const uint64_t *indices, size_t n);

/* The trainer's own throughput: `samples` trained in `seconds` (of one step, or of several). For 10 seconds it
 * counts for the rank's status in place of what the rank releases. A store, never blocks. -EINVAL: no
 * number. */
RF_PUBLIC int rf_report_health(rf_trainer *t, uint64_t samples, double seconds);

typedef enum rf_party { RF_PARTY_RANK, RF_PARTY_WORKER } rf_party;

typedef struct rf_health_point {
    double seconds_ago;
    rf_status status;
    double samples_per_s;
} rf_health_point;

typedef struct rf_health {
    rf_party party;
    uint32_t number; /* global rank, or worker */
    rf_status status;
    double samples_per_s; /* measured, smoothed */
    double heartbeat_seconds_ago; /* last next or release, or last beat; negative: none yet */
    double reported_samples_per_s, reported_seconds_ago; /* by rf_report_health; 0: nothing reported */
    uint64_t reserved[8];
    uint32_t n_history;
    rf_health_point history[64]; /* oldest first: a point a second, and one at each change of status */
} rf_health;

/* Health of one rank or worker of a running server, by anyone who may open it. -ERANGE: there is no such
 * one. */
RF_PUBLIC int rf_read_health(const char *name, rf_party party, uint32_t number, rf_health *ret);

#ifdef __cplusplus
}
#endif

#endif
