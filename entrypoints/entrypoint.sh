#!/bin/bash
# The image's ENTRYPOINT: the CUDA compatibility step, then the command, with its arguments intact.
#
#   train        what SageMaker appends: the launcher decides who runs the job (launch help)
#   anything     runs as it is: docker run, CI, pyxis --container-entrypoint

compat=${CUDA_COMPAT_DIR:-/usr/local/cuda/compat}
driver_file=${NVIDIA_DRIVER_FILE:-/proc/driver/nvidia/version}

# The forward-compatibility libraries are for drivers older than themselves; a newer driver does not
# work with them (NVIDIA "CUDA Compatibility"). This must happen in this shell: the base images do
# it in a child, whose LD_LIBRARY_PATH is lost.
if [[ -e $compat/libcuda.so.1 && -r $driver_file ]]; then
    newest=$(readlink -f "$compat/libcuda.so.1")
    newest=${newest##*.so.}
    driver=$(sed -n 's/^NVRM version:.* \([0-9][0-9]*\(\.[0-9][0-9]*\)\{1,2\}\) .*/\1/p' "$driver_file")
    if [[ -n $driver && $driver != "$newest" &&
        $(printf '%s\n' "$driver" "$newest" | sort -V | head -n 1) == "$driver" ]]; then
        export LD_LIBRARY_PATH=$compat${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    fi
fi

if [[ ${1-} == train ]]; then
    exec "$(dirname "$(readlink -f "$0")")/launch" "$@"
fi
exec "$@"
