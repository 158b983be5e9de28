/* replay.h - the inputs of a fuzz corpus through LLVMFuzzerTestOneInput, each as it is and with a few bytes changed. */
#ifndef G4_REPLAY_H
#define G4_REPLAY_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

/* Returns the number of files; the entry itself ends the program when something is wrong. */
static inline int g4_replay(const char *folder, int (*one)(const uint8_t *data, size_t size), int changes)
{
    DIR *d = opendir(folder);
    int n = 0;
    uint32_t random = 1;
    if (d == NULL) return 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[512];
        uint8_t data[4096];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *f = e->d_name[0] != '.' ? fopen(path, "rb") : NULL;
        if (f == NULL) continue;
        size_t size = fread(data, 1, sizeof data, f);
        fclose(f);
        one(data, size);
        for (int i = 0; i < changes && size > 1; i++) {
            random = random * 1664525u + 1013904223u;
            data[1 + (random >> 8) % (size - 1)] = (uint8_t)(random >> 24);
            one(data, size);
        }
        n++;
    }
    closedir(d);
    return n;
}

#endif
