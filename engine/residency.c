/* residency.c - where the weights lie: how the file is read, huge pages, locked memory, what is in memory already, and
 * how much memory is free.
 *
 * Decoding reads every weight once a token, so it runs at the speed of memory; what the system is told here decides
 * whether that speed is reached. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define G4_BIG_TABLE (16u << 20) /* bytes of a looked-up table from which on it is told apart */
#define G4_HUGE_PAGE ((size_t)2 << 20)
#define G4_LOCK_PIECE ((size_t)4 << 20)     /* bytes that are locked before the halt is asked again */
#define G4_RESIDENCE_STEP ((size_t)2 << 20) /* one page of each is looked at */

#if defined(MADV_HUGEPAGE) && defined(MADV_RANDOM) && defined(MAP_ANONYMOUS)
#define G4_HAS_HUGE_PAGES 1
#endif

/* The number in the first line of a file, or behind a name at the beginning of one of its lines; 0: it is not there. */
static uint64_t g4_read_number(const char *folder, const char *file, const char *name)
{
    char path[512], line[128];
    uint64_t number = 0;
    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path) return 0;
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    const size_t len = strlen(name);
    while (number == 0 && fgets(line, sizeof line, f))
        if (strncmp(line, name, len) == 0) number = strtoull(line + len, NULL, 10); /* "max" gives 0 */
    fclose(f);
    return number;
}

/* What a version of control groups calls its files. */
typedef struct {
    const char *limit, *used, *cached[2];
} g4_group_files;
static const g4_group_files g4_groups_v2 = { "memory.max", "memory.current", { "inactive_file ", "active_file " } };
static const g4_group_files g4_groups_v1 = { "memory.limit_in_bytes",
                                             "memory.usage_in_bytes",
                                             { "total_inactive_file ", "total_active_file " } };

/* What the limit of one control group leaves: what its processes hold counts, cached files do not, for the system lets
 * go of them. */
static uint64_t g4_group_leaves(const char *folder, const g4_group_files *files, uint64_t available)
{
    const uint64_t limit = g4_read_number(folder, files->limit, "");
    if (limit == 0) return available;
    const uint64_t all = g4_read_number(folder, files->used, "");
    const uint64_t cached = g4_read_number(folder, "memory.stat", files->cached[0]) +
                            g4_read_number(folder, "memory.stat", files->cached[1]);
    const uint64_t used = all > cached ? all - cached : 0, left = limit > used ? limit - used : 1;
    return left < available ? left : available;
}

uint64_t g4_group_memory(const char *root, const char *group, int version, uint64_t available)
{
    char folder[512];
    if (snprintf(folder, sizeof folder, "%s%s", root, group) >= (int)sizeof folder) return available;
    for (;;) { /* limits of the groups around this one hold too */
        available = g4_group_leaves(folder, version == 1 ? &g4_groups_v1 : &g4_groups_v2, available);
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= strlen(root) || !slash) return available;
        *slash = 0;
    }
}

uint64_t g4_available_memory(void)
{
    uint64_t available = g4_read_number("/proc", "meminfo", "MemAvailable:") * 1024;
    FILE *f = available > 0 ? fopen("/proc/self/cgroup", "re") : NULL;
    char line[512];
    while (f && fgets(line, sizeof line, f)) { /* number:controllers:group, without controllers in version 2 */
        line[strcspn(line, "\n")] = 0;
        const char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        if (group == controllers + 1)
            available = g4_group_memory("/sys/fs/cgroup", group + 1, 2, available);
        else if (strncmp(controllers, ":memory:", 8) == 0)
            available = g4_group_memory("/sys/fs/cgroup/memory", group + 1, 1, available);
    }
    if (f) fclose(f);
    return available;
}

int g4_is_decoder_weight(const g4_tensor_entry *t)
{
    return t->layout != G4_LAYOUT_ROWS && strncmp(t->name, "v.", 2) != 0 && strncmp(t->name, "a.", 2) != 0;
}

/* What is not in memory yet comes in huge pages where the file system has them (ext4 from Linux 6.16), and stays so for
 * every process that maps it. Big tables are looked up a row at a time, anywhere: reading ahead of a row would fetch
 * its neighbours from disk for nothing. */
void g4_file_advise(const g4_file *f)
{
    const long page = sysconf(_SC_PAGESIZE);
    if (!f->mapping || f->is_copy || page <= 0) return;
#if defined(G4_HAS_HUGE_PAGES)
    madvise(f->mapping, f->size, MADV_HUGEPAGE);
    for (int i = 0; i < f->n_tensors; i++) {
        const g4_tensor_entry *t = &f->table[i];
        if (t->layout != G4_LAYOUT_ROWS || t->size < G4_BIG_TABLE) continue;
        const size_t first = g4_round_up((size_t)t->offset, (size_t)page);
        const size_t end = (size_t)(t->offset + t->size) / (size_t)page * (size_t)page;
        if (first >= end) continue;
        madvise(f->mapping + first, end - first, MADV_NOHUGEPAGE);
        madvise(f->mapping + first, end - first, MADV_RANDOM);
    }
#endif
}

g4_status g4_file_lock(g4_file *f, g4_halt *halt, g4_error *err)
{
    f->locked = 1;
    for (int i = 0; i < f->n_tensors; i++) {
        const g4_tensor_entry *t = &f->table[i];
        if (!g4_is_decoder_weight(t)) continue;
        for (size_t done = 0, n; done < (size_t)t->size;
             done += n) { /* what is not in memory is read, which takes time */
            n = (size_t)t->size - done < G4_LOCK_PIECE ? (size_t)t->size - done : G4_LOCK_PIECE;
            const g4_status status = g4_halt_check(halt, err);
            if (status) return status;
            if (mlock(f->data + t->offset + done, n) != 0)
                return g4_fail(err, G4_ERR_MEMORY,
                               "cannot lock %s in memory: %s (ulimit -l says how much may be locked)", t->name,
                               strerror(errno));
        }
    }
    return G4_OK;
}

/* A mapping takes its locks along when it goes; the caller's bytes stay, and would stay locked. */
void g4_file_unlock(const g4_file *f)
{
    if (f->mapping || !f->locked) return;
    for (int i = 0; i < f->n_tensors; i++) {
        const g4_tensor_entry *t = &f->table[i];
        if (g4_is_decoder_weight(t)) munlock(f->data + t->offset, (size_t)t->size);
    }
}

/* The rest of a file that is read and not mapped. */
g4_status g4_file_read_weights(const g4_file *f, int huge_pages, g4_halt *halt, g4_error *err)
{
    const size_t from = g4_file_data_offset(f), size = f->size - from;
    const uint64_t available = g4_available_memory();
    if (!f->is_copy || size == 0) return G4_OK;
    if (available > 0 && size > available)
        return g4_fail(err, G4_ERR_MEMORY, "to read its %.1f MB of weights there are %.1f MB of memory: map it instead",
                       (double)size / 1e6, (double)available / 1e6);
#if defined(G4_HAS_HUGE_PAGES)
    if (huge_pages) madvise(f->mapping, f->size, MADV_HUGEPAGE);
#else
    (void)huge_pages;
#endif
    const g4_status status = g4_file_read(f, f->mapping + from, from, size, halt, err);
    if (!status) mprotect(f->mapping, f->size, PROT_READ);
    return status;
}

#if defined(G4_HAS_HUGE_PAGES)
/* Replace bytes [first, end) of the mapping by a private copy in huge pages, as far as whole ones fit: hardware does
 * not prefetch across the border of a page, and 2 MB have 512 times fewer borders. Addresses stay as they are. */
static g4_status g4_file_copy(const g4_file *f, size_t first, size_t end, g4_halt *halt, g4_error *err)
{
    const uintptr_t base = (uintptr_t)f->mapping;
    const uintptr_t begin = g4_round_up(base + first, G4_HUGE_PAGE), stop = (base + end) / G4_HUGE_PAGE * G4_HUGE_PAGE;
    if (begin >= stop) return G4_OK;
    const size_t from = begin - base, size = stop - begin;
    uint8_t *p = mmap(f->mapping + from, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (p == MAP_FAILED) return g4_fail(err, G4_ERR_MEMORY, "no memory for %zu bytes of weights", size);
    madvise(p, size, MADV_HUGEPAGE);
    const g4_status status = g4_file_read(f, p, from, size, halt, err);
    if (!status) mprotect(p, size, PROT_READ);
    return status;
}

/* All weights, neighbours in one piece. */
static g4_status g4_file_copy_weights(const g4_file *f, g4_halt *halt, g4_error *err)
{
    g4_status status = G4_OK;
    size_t first = 0, end = 0;
    for (int i = 0; !status && i <= f->n_tensors; i++) {
        const g4_tensor_entry *t = i < f->n_tensors ? &f->table[i] : NULL;
        if (t && !g4_is_decoder_weight(t)) continue;
        if (t && t->offset >= end && t->offset - end < G4_ALIGN) {
            end = (size_t)(t->offset + t->size);
            continue;
        }
        if (first < end) status = g4_file_copy(f, first, end, halt, err);
        if (t) first = (size_t)t->offset, end = (size_t)(t->offset + t->size);
    }
    return status;
}
#endif

g4_status g4_file_use_huge_pages(const g4_file *f, g4_halt *halt, g4_error *err)
{
    if (!f->mapping || f->is_copy) return G4_OK; /* the caller's bytes stay where they are, and so do ours */
#if defined(G4_HAS_HUGE_PAGES)
    return g4_file_copy_weights(f, halt, err);
#else
    (void)halt;
    return g4_fail(err, G4_ERR_UNSUPPORTED, "this system has no huge pages");
#endif
}

uint64_t g4_resident_bytes(const g4_file *f, const g4_tensor_entry *t)
{
    uint64_t resident = f->mapping ? 0 : t->size;
#if defined(__linux__)
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; f->mapping && i < t->size; i += G4_RESIDENCE_STEP) {
        unsigned char in = 1;
        const size_t n = t->size - i < G4_RESIDENCE_STEP ? (size_t)t->size - i : G4_RESIDENCE_STEP;
        mincore(f->mapping + (t->offset + i) / page * page, 1, &in);
        if (in & 1) resident += n;
    }
#else
    resident = t->size;
#endif
    return resident;
}
