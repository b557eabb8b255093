/* The table of verbs: the only place that knows which there are. A verb is one file under verbs/ and
 * one entry here; --help, the man pages and the completion follow from this table and from the
 * option tables that each verb hands to cli_parse. */
#include "cli.h"

#include <string.h>

const struct cli_verb cli_verbs[] = {
    {"index", "DATASET… -o FILE.rfi", "scan a dataset once and write its index",
     "Finds every sample of the dataset and writes where each one lies to an index file, atomically. The index "
     "stands in for the dataset in every other verb and opens without a scan. It is refused when a file of the "
     "dataset has changed its size or its time since.",
     verb_index},
    {"inspect", "DATASET…", "show format, sizes, fields, classes and fingerprint of a dataset",
     "Prints what the dataset is: its format, files, samples, bytes, the distribution of sample sizes, fields, "
     "element type and shape where the format knows them, classes with their counts, and the fingerprint.",
     verb_inspect},
    {"cat", "DATASET… -i N [--field FIELD]", "write the bytes of one sample to stdout",
     "Writes sample N, all of its fields in file order or only the one named, to standard output as it is.", verb_cat},
    {"samples", "DATASET… [--from A] [--count K]", "list samples: index, file, offset, bytes, label, key",
     "Prints one line a sample, tab-separated; an absent label or key is a dash.", verb_samples},
    {"order", "DATASET… [OPTIONS]", "print what each rank will get, without serving",
     "Prints one line a sample, sorted: epoch, rank, batch, slot, index, flag. The flag is a dash, or p for padding. "
     "What serve delivers with the same options is exactly this. With --samples N no dataset is needed.",
     verb_order},
    {"serve", "DATASET… --name NAME [OPTIONS]", "load a dataset into shared memory for the ranks of this server",
     "Creates the shared-memory segment, starts the workers, prints 'ready NAME' and feeds every rank that attaches, "
     "until each rank has released its last batch. SIGINT and SIGTERM end it cleanly; nothing stays in /dev/shm.",
     verb_serve},
    {"attach", "NAME --rank R [OPTIONS]", "take the batches of one rank, in the shell",
     "Attaches to a running serve as a trainer would, takes and releases batches until the end, and prints a summary. "
     "With --check every byte is compared with the dataset's files; with --ids what came is written to a file.",
     verb_attach},
    {"bench", "DATASET… | [datasize|datagen|run] [FOLDER] --workload NAME", "measure how fast data is delivered",
     "Starts servers and a measuring trainer for each rank, and prints samples, bytes and reads a second, CPU time and "
     "memory of all processes, and waits of the trainers, beside a bare io_uring loop over the same reads, and beside "
     "what device, CPUs and memory allow, each measured in the same call. Options as for serve. With --workload: "
     "training as MLPerf Storage emulates it; datasize says how much data the rules ask for, datagen makes it, run "
     "measures how busy accelerators are kept. With --compare: other loaders over the same files, in turns.",
     verb_bench},
    {"stat", "NAME", "one reading of a running serve",
     "Prints the state of the run, of each rank and of each worker. Reads only; disturbs nothing.", verb_stat},
    {"checkpoint", "NAME [-o FILE]", "say, or save, where a run stands",
     "Prints how far each rank of this server has released, now. With -o it is saved as a checkpoint, from which serve "
     "goes on with --resume FILE. The server need not answer: the position of a killed run can be saved too, until "
     "its name is served again.",
     verb_checkpoint},
    {"verify", "[--dataset D | --samples N] [OPTIONS] IDS…", "audit delivered ids: every sample exactly once",
     "Reads files written by attach --ids (or order) and says whether every sample came exactly once an epoch, "
     "padding apart, or which are missing and which came twice. With order options it compares the order as well.",
     verb_verify},
    {"plan", "DATASET… [OPTIONS]", "show placement, memory and batches before anything starts",
     "Prints where workers and rings would go (NUMA node, cores, GPU of each rank), the memory they need, and the "
     "batches of each rank. Starts nothing.",
     verb_plan},
    {"ls", "", "list the segments on this machine and whether their owner lives",
     "Prints one row for each run whose segment is in /dev/shm.", verb_ls},
    {"gc", "", "remove the segments of dead owners",
     "Removes what runs that were killed left in /dev/shm. A segment whose owner lives, and anything that is not "
     "ringfeed's, is never touched.",
     verb_gc},
    {0},
};

const struct cli_verb *cli_verb_find(const char *name)
{
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        if (!strcmp(v->name, name))
            return v;
    return NULL;
}
