#!/bin/sh
# Runs in a stage of a build, without network: the script of a `source` add-on.
#
#   sh /mnt/build_source.sh FOLDER [PATH]...
#
# Beside it are `script` and `inputs/`. The script starts in an empty folder of its own and puts what
# it makes into SLIPWAY_FOLDER, where each PATH has to be afterwards. All times there become the same,
# so that the same inputs give the same layer.
set -eu

folder=$1
shift
SLIPWAY_FOLDER=$folder
SLIPWAY_INPUTS=/mnt/inputs
SLIPWAY_JOBS=$(nproc)
SOURCE_DATE_EPOCH=315532800
export SLIPWAY_FOLDER SLIPWAY_INPUTS SLIPWAY_JOBS SOURCE_DATE_EPOCH

mkdir -p "$folder"
work=$(mktemp -d)
cd "$work"
/mnt/script

if [ -z "$(ls -A "$folder")" ]; then
    echo "the script left nothing in $folder" >&2
    exit 1
fi
for path in "$@"; do
    if [ ! -e "$folder/$path" ]; then
        echo "the script left no $path in $folder, which has: $(ls -A "$folder")" >&2
        exit 1
    fi
done
find "$folder" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
