#!/bin/bash
# The login user's home is on the shared disk, with a key that opens every node. May run again, and
# on all nodes at once: only one of them makes the key.
set -euo pipefail
root=${SLIPWAY_ROOT:-}
user=${SLIPWAY_USER:-ubuntu}
home=/fsx/$user

for attempt in $(seq 60); do
    mountpoint -q "$root/fsx" && break
    if [ "$attempt" = 60 ]; then
        echo "/fsx is not mounted after 5 minutes: $user keeps its home on this node" >&2
        exit 1
    fi
    sleep "${SLIPWAY_WAIT:-5}"
done

mkdir -p "$root$home"
chown "$user:" "$root$home"
if [ "$(getent passwd "$user" | cut -d: -f6)" != "$home" ]; then
    usermod -d "$home" "$user"
fi

ssh=$root$home/.ssh
install -d -m 0700 -o "$user" "$ssh"
(
    flock 9
    if [ ! -s "$ssh/id_ed25519" ]; then
        rm -f "$ssh/id_ed25519.new" "$ssh/id_ed25519.new.pub"
        ssh-keygen -q -t ed25519 -N '' -C "$user@cluster" -f "$ssh/id_ed25519.new"
        mv "$ssh/id_ed25519.new.pub" "$ssh/id_ed25519.pub"
        mv "$ssh/id_ed25519.new" "$ssh/id_ed25519"
    fi
    touch "$ssh/authorized_keys"
    grep -qxF -f "$ssh/id_ed25519.pub" "$ssh/authorized_keys" \
        || cat "$ssh/id_ed25519.pub" >> "$ssh/authorized_keys"
    chmod 600 "$ssh/id_ed25519" "$ssh/authorized_keys"
    chown "$user:" "$ssh/id_ed25519" "$ssh/id_ed25519.pub" "$ssh/authorized_keys"
) 9> "$root$home/.slipway-key.lock"
