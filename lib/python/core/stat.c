/* One reading of a running loader, as dicts with the names that `ringfeed stat --json` has. */
#include "core.h"

static PyObject *rank_dict(const rf_rank_stat *r)
{
    return Py_BuildValue(
        "{s:I,s:s,s:i,s:K,s:K,s:K,s:K,s:d,s:d,s:K,s:K,s:d,s:d,s:d,s:I,s:I,s:K,s:K,s:i,s:K,s:K,s:K}", "rank", r->rank,
        "status", rf_status_name(r->status), "pid", r->pid, "epoch", (unsigned long long)r->epoch, "batch",
        (unsigned long long)r->batch, "samples", (unsigned long long)r->samples, "bytes", (unsigned long long)r->bytes,
        "samples_per_s", r->samples_per_s, "bytes_per_s", r->bytes_per_s, "prefetch_hits",
        (unsigned long long)r->prefetch_hits, "prefetch_misses", (unsigned long long)r->prefetch_misses, "wait_us_p50",
        r->wait_us_p50, "wait_us_p99", r->wait_us_p99, "wait_us_max", r->wait_us_max, "depth", r->depth, "ready",
        r->ready, "local_samples", (unsigned long long)r->local_samples, "remote_samples",
        (unsigned long long)r->remote_samples, "node", r->node, "attached", (unsigned long long)r->attached,
        "ring_bytes", (unsigned long long)r->ring_bytes, "huge_bytes", (unsigned long long)r->huge_bytes);
}

static PyObject *worker_dict(const rf_worker_stat *w)
{
    return Py_BuildValue("{s:I,s:s,s:i,s:K,s:i,s:i,s:d,s:K,s:K,s:d,s:K,s:d,s:d,s:K}", "worker", w->worker, "status",
                         rf_status_name(w->status), "pid", w->pid, "incarnation", (unsigned long long)w->incarnation,
                         "node", w->node, "cpu", w->cpu, "heartbeat_ms", w->heartbeat_ms, "samples",
                         (unsigned long long)w->samples, "bytes", (unsigned long long)w->bytes, "samples_per_s",
                         w->samples_per_s, "reads", (unsigned long long)w->reads, "utilization", w->utilization,
                         "avg_load_time_us", w->avg_load_time_us, "cache_hits", (unsigned long long)w->cache_hits);
}

static int append(PyObject *list, PyObject *item)
{
    int rc = item ? PyList_Append(list, item) : -1;
    Py_XDECREF(item);
    return rc;
}

static PyObject *dict_of(const rf_stat *s)
{
    PyObject *ranks = PyList_New(0), *workers = PyList_New(0);
    int rc = ranks && workers ? 0 : -1;
    for (uint32_t i = 0; rc == 0 && i < s->n_ranks; i++)
        rc = append(ranks, rank_dict(&s->ranks[i]));
    for (uint32_t i = 0; rc == 0 && i < s->n_workers; i++)
        rc = append(workers, worker_dict(&s->workers[i]));
    if (rc < 0) {
        Py_XDECREF(ranks);
        Py_XDECREF(workers);
        return NULL;
    }
    return Py_BuildValue(
        "{s:s,s:s,s:{s:s,s:K,s:K,s:K,s:s},s:I,s:I,s:K,s:K,s:K,s:K,s:K,s:i,s:d,s:K,s:s,s:K,s:K,s:K,s:N,s:N}", "name",
        s->name, "state", s->state, "dataset", "format", s->format, "files", (unsigned long long)s->files, "samples",
        (unsigned long long)s->samples, "bytes", (unsigned long long)s->bytes, "fingerprint", s->fingerprint,
        "world_size", s->world_size, "first_rank", s->first_rank, "epoch", (unsigned long long)s->epoch, "restarts",
        (unsigned long long)s->restarts, "rebalances", (unsigned long long)s->rebalances, "errors",
        (unsigned long long)s->errors, "substituted", (unsigned long long)s->substituted, "server_pid", s->server_pid,
        "uptime_s", s->uptime_s, "segment_bytes", (unsigned long long)s->segment_bytes, "engine", s->engine, "skipped",
        (unsigned long long)s->skipped, "cache_bytes", (unsigned long long)s->cache_bytes, "cached_bytes",
        (unsigned long long)s->cached_bytes, "ranks", ranks, "workers", workers);
}

PyObject *rfp_stat(PyObject *module, PyObject *name)
{
    rf_stat s;
    PyObject *text = PyUnicode_AsUTF8String(name);
    int rc;
    (void)module;
    if (!text)
        return NULL;
    PyThreadState *saved = PyEval_SaveThread();
    rc = rf_stat_read(PyBytes_AsString(text), &s);
    PyEval_RestoreThread(saved);
    Py_DECREF(text);
    if (rc < 0)
        return rfp_raise(rc, rf_last_error());
    PyObject *dict = dict_of(&s);
    rf_stat_free(&s);
    return dict;
}
