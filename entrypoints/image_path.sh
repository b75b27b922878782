# shellcheck shell=sh
# Sourced by login shells (/etc/profile.d) and by `launch`. A login shell sets PATH anew, so that the
# image's own programs are not found, and enroot starts every command through one. What PATH and the
# interpreter are was recorded when the image was built, in its ENV.

# What distributions' own /etc/profile put on PATH.
slipway_system=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/games:/usr/games

# NAME: its value in a file of NUL-separated variables.
slipway_value() {
    tr '\0' '\n' | sed -n "s/^$1=//p" | head -n 1
}

# NAME: what was recorded. Where the environment has been emptied (sshd, env -i) it is still in
# enroot's /etc/environment, in that of the container's first process, or (the interpreter, and the
# PATH that it needs) in a file of the image.
slipway_recorded() {
    eval "slipway_found=\${$1-}"
    for slipway_copy in /etc/environment /proc/1/environ /opt/entrypoints/image.env; do
        [ -z "$slipway_found" ] || break
        slipway_found=$({ slipway_value "$1" <"$slipway_copy"; } 2>/dev/null) || slipway_found=
    done
    printf '%s' "$slipway_found"
    unset slipway_found slipway_copy
}

# GIVEN RECORDED: a PATH with all of RECORDED. What else is in GIVEN was put there by somebody, and
# stays in front; a GIVEN that lacks nothing stays as it is. launcher/platforms/image_record.py does
# the same.
slipway_merged() (
    set -f
    IFS=:
    missing='' front='' back=''
    for entry in $2; do
        case ":$1:" in
        *":$entry:"*) ;;
        *) missing=1 ;;
        esac
    done
    if [ -z "$missing" ]; then
        printf '%s' "$1"
        exit
    fi
    for entry in $1; do
        case ":$2:" in *":$entry:"*) continue ;; esac
        case ":$slipway_system:" in
        *":$entry:"*) back=$back:$entry ;;
        *) front=$front$entry: ;;
        esac
    done
    printf '%s' "$front$2$back"
)

# The PATH of a login shell: the shell's own now, and what it was started with (enroot start -e
# PATH=...), which /etc/profile has replaced.
slipway_login_path() {
    slipway_first=$({ slipway_value PATH <"/proc/$$/environ"; } 2>/dev/null) || slipway_first=
    slipway_path=$(slipway_recorded SLIPWAY_PATH)
    if [ -n "$slipway_path" ] && [ -n "$slipway_first" ]; then
        slipway_path=$(slipway_merged "$slipway_first" "$slipway_path")
    fi
    slipway_merged "$PATH" "$slipway_path"
    unset slipway_first slipway_path
}
