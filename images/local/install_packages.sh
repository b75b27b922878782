#!/bin/sh
# Runs in the build of Dockerfile.debian: the packages of packages.txt, trimmed by dpkg.cfg.
set -eu

cp /mnt/dpkg.cfg /etc/dpkg/dpkg.cfg.d/99slipway
# APT_CONFIG is read last, so the host's proxy wins over what the image says.
export APT_CONFIG=/run/secrets/apt.conf DEBIAN_FRONTEND=noninteractive

if [ -s /run/secrets/apt/host.list ] || [ -s /run/secrets/apt/host.sources ]; then
  set -- -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/run/secrets/apt
else
  set -- -o Acquire::Retries=2
fi

apt-get "$@" update
# Comments end at the line; the rest is one package a line.
sed 's/#.*//' /mnt/packages.txt | xargs apt-get "$@" install --yes --no-install-recommends
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
