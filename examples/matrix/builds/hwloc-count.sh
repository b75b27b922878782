#!/bin/sh
# Counts cores by hwloc, whose header and library come as packages of the distribution.
set -eu
cat > hwloc-count.c <<'C'
#include <hwloc.h>
#include <stdio.h>
int main(void) {
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) || hwloc_topology_load(topology)) return 1;
    printf("%d\n", hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE));
    hwloc_topology_destroy(topology);
    return 0;
}
C
mkdir -p "$SLIPWAY_FOLDER/bin"
cc -O2 -o "$SLIPWAY_FOLDER/bin/hwloc-count" hwloc-count.c -lhwloc
