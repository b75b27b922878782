#!/bin/sh
# Runs in a build, without network: the packages of a `system` add-on, by the base's own dpkg or rpm.
#
#   sh /mnt/install_packages.sh
#
# Beside it are `packages`, the files in the order of their installation, `SHA256SUMS` over them,
# `order` with their names and `removed` with packages of the base that go for them. What a run
# writes beside the packages, and that differs from run to run, is as it was before, or gone.
set -eu
umask 022

export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C
export SOURCE_DATE_EPOCH=315532800

if ! (cd /mnt && sha256sum --check --quiet SHA256SUMS); then
    echo "a package is not the one that is locked" >&2
    exit 1
fi

before=$(mktemp -d)
# Written anew by an installation: logs with dates, caches with inode numbers, copies of before.
volatile="/var/log/alternatives.log /var/cache/ldconfig/aux-cache
/var/lib/dpkg/status-old /var/lib/dpkg/available-old /var/lib/dpkg/diversions-old
/var/lib/dpkg/statoverride-old /var/lib/dpkg/lock /var/lib/dpkg/lock-frontend
/var/cache/debconf/config.dat-old /var/cache/debconf/templates.dat-old
/var/cache/debconf/passwords.dat-old"
for path in $volatile; do
    if [ -e "$path" ]; then
        mkdir -p "$before$(dirname "$path")"
        cp -a "$path" "$before$path"
    fi
done

cd /mnt/packages
if [ -e /var/lib/dpkg/status ]; then
    # Services do not start in a build (Debian's policy-rc.d, "invoke-rc.d(8)").
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
        own_policy=$policy
    fi
    if [ -s /mnt/removed ]; then
        # What needs one of these has it of a new package afterwards, as apt has planned it.
        xargs dpkg --log=/dev/null --force-depends --purge < /mnt/removed
    fi
    xargs dpkg --log=/dev/null --install < /mnt/order
    if [ -n "${own_policy:-}" ]; then
        rm "$own_policy"
    fi
    audit=$(dpkg --audit)
    if [ -n "$audit" ]; then
        echo "$audit" >&2
        exit 1
    fi
else
    # rpm takes away by itself what a new package obsoletes.
    xargs rpm --upgrade < /mnt/order
fi

for path in $volatile; do
    if [ ! -e "$before$path" ]; then
        rm -f "$path"
    elif ! cmp -s "$before$path" "$path"; then
        cp -a "$before$path" "$path"
    fi
done
rm -rf "$before"
