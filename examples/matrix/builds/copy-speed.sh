#!/bin/sh
# A C program, compiled by the base's own compiler.
set -eu
cat > copy-speed.c <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int main(int argc, char **argv)
{
    size_t size = (argc > 1 ? strtoul(argv[1], 0, 10) : 256) << 20;
    char *from = malloc(size), *to = malloc(size);
    struct timespec start, end;
    if (!from || !to || !size)
        return 1;
    memset(from, 1, size);
    memset(to, 2, size);
    clock_gettime(CLOCK_MONOTONIC, &start);
    memcpy(to, from, size);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9;
    printf("%.1f GB/s\n", size / seconds / 1e9);
    return to[size - 1] != 1;
}
END
mkdir -p "$SLIPWAY_FOLDER/bin"
cc -O2 copy-speed.c -o "$SLIPWAY_FOLDER/bin/copy-speed"
