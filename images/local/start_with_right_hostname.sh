#!/bin/bash
# What the Deep Learning Containers' script of this name does where no hostname needs mending
# (aws/deep-learning-containers:scripts/docker/pytorch/start_with_right_hostname.sh): SageMaker runs
# `docker run IMAGE train`, and every other command is run as it stands. Theirs goes through
# `eval "$@"`, which splits arguments with spaces again; this one does not.
set -euo pipefail

if [[ $# -eq 0 ]]; then
  exec /bin/bash
fi
exec "$@"
