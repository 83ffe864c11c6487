#!/bin/sh
# Installs trio-wsb on a VM, or removes it: `make install` and `make uninstall` call this.
#
#   install.sh install|uninstall [PYTHON]
#
# PACKAGE is what pip installs, if not this source tree: a wheel, say, where nothing can be downloaded to build one.
# DESTDIR puts everything below another root, for packagers and tests; nothing of the running system is touched then.
# Running it again is harmless: the program and the unit are brought up to date, and a configuration that somebody has
# changed is left alone, with the new example beside it as trio-wsb.yaml.new.
set -eu

ACTION=${1:?install or uninstall}
PYTHON=${2:-python3}
SOURCE=$(cd "$(dirname "$0")/.." && pwd)
PACKAGE=${PACKAGE:-$SOURCE}
DESTDIR=${DESTDIR:-}
PREFIX=/opt/trio-wsb
ENVIRONMENT=$DESTDIR$PREFIX
CONFIG=$DESTDIR/etc/trio-wsb
# What the last installation put there, to tell whether somebody has changed it since.
SHIPPED=$ENVIRONMENT/share/trio-wsb.yaml

say() { printf '%s\n' "$*"; }

live() { [ -z "$DESTDIR" ]; }

systemd_runs() { live && [ -d /run/systemd/system ]; }

need_root() {
    if live && [ "$(id -u)" -ne 0 ]; then
        say "make $ACTION writes to $PREFIX and /etc: run it as root, or set DESTDIR" >&2
        exit 1
    fi
}

put() { # MODE FILE TARGET
    install -D -m "$1" "$SOURCE/$2" "$DESTDIR$3"
}

install_program() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        say "trio-wsb needs Python 3.11 or later; say which with: make install PYTHON=python3.12" >&2
        exit 1
    }
    [ -x "$ENVIRONMENT/bin/python" ] || "$PYTHON" -m venv "$ENVIRONMENT"
    # The same version may have other code, when it comes from a checkout: so always anew.
    "$ENVIRONMENT/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$PACKAGE"
    "$ENVIRONMENT/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$PACKAGE"
    if ! live; then
        # Scripts name the interpreter by its path, and it will run at the one without DESTDIR.
        for script in "$ENVIRONMENT"/bin/*; do
            if head -c 2 "$script" | grep -q '#!'; then
                sed -i "1s|^#!$ENVIRONMENT/|#!$PREFIX/|" "$script"
            fi
        done
    fi
    mkdir -p "$DESTDIR/usr/local/bin"
    ln -sfn "$PREFIX/bin/trio-wsb" "$DESTDIR/usr/local/bin/trio-wsb"
}

install_configuration() {
    mkdir -p "$CONFIG" "$ENVIRONMENT/share"
    if [ ! -e "$CONFIG/trio-wsb.yaml" ]; then
        put 0640 etc/trio-wsb.yaml /etc/trio-wsb/trio-wsb.yaml
    elif cmp -s "$SOURCE/etc/trio-wsb.yaml" "$CONFIG/trio-wsb.yaml"; then
        : # the same already
    elif [ -e "$SHIPPED" ] && cmp -s "$SHIPPED" "$CONFIG/trio-wsb.yaml"; then
        put 0640 etc/trio-wsb.yaml /etc/trio-wsb/trio-wsb.yaml
    else
        put 0640 etc/trio-wsb.yaml /etc/trio-wsb/trio-wsb.yaml.new
        say "kept your /etc/trio-wsb/trio-wsb.yaml; the new example is trio-wsb.yaml.new"
    fi
    install -m 0644 "$SOURCE/etc/trio-wsb.yaml" "$SHIPPED"
}

install_service() {
    put 0644 systemd/trio-wsb.service /etc/systemd/system/trio-wsb.service
    put 0644 systemd/trio-wsb.socket /etc/systemd/system/trio-wsb.socket
    put 0644 systemd/sysusers.d/trio-wsb.conf /etc/sysusers.d/trio-wsb.conf
    put 0644 systemd/tmpfiles.d/trio-wsb.conf /etc/tmpfiles.d/trio-wsb.conf
    [ -e "$DESTDIR/etc/logrotate.d/trio-wsb" ] || put 0644 etc/logrotate.d/trio-wsb /etc/logrotate.d/trio-wsb
    if live && command -v systemd-sysusers >/dev/null 2>&1; then
        systemd-sysusers /etc/sysusers.d/trio-wsb.conf
        systemd-tmpfiles --create /etc/tmpfiles.d/trio-wsb.conf || true
        # The daemon reads its configuration and cannot change it.
        chgrp trio-wsb "$CONFIG"/*.yaml*
    fi
    if systemd_runs; then
        systemctl daemon-reload
        if systemctl --quiet is-active trio-wsb.service; then
            say "trio-wsb runs: 'systemctl restart trio-wsb' when its sessions may reconnect"
        fi
    fi
}

uninstall() {
    if systemd_runs; then
        systemctl disable --now trio-wsb.service trio-wsb.socket 2>/dev/null || true
    fi
    if [ -e "$CONFIG/trio-wsb.yaml" ] && [ -e "$SHIPPED" ] && cmp -s "$SHIPPED" "$CONFIG/trio-wsb.yaml"; then
        rm -f "$CONFIG/trio-wsb.yaml"
    fi
    rm -f "$CONFIG/trio-wsb.yaml.new" "$DESTDIR/usr/local/bin/trio-wsb"
    rm -f "$DESTDIR/etc/systemd/system/trio-wsb.service" "$DESTDIR/etc/systemd/system/trio-wsb.socket"
    rm -f "$DESTDIR/etc/sysusers.d/trio-wsb.conf" "$DESTDIR/etc/tmpfiles.d/trio-wsb.conf" "$DESTDIR/etc/logrotate.d/trio-wsb"
    rm -rf "$ENVIRONMENT"
    rmdir "$CONFIG" 2>/dev/null || { [ ! -e "$CONFIG" ] || say "kept $CONFIG: it has files of yours"; }
    if systemd_runs; then
        systemctl daemon-reload
    fi
    say "removed; the user trio-wsb and the logs in /var/log/trio-wsb stay"
}

need_root
case $ACTION in
install)
    install_program
    install_configuration
    install_service
    say "installed. Next:"
    say "  edit /etc/trio-wsb/trio-wsb.yaml, then: trio-wsb check /etc/trio-wsb/trio-wsb.yaml"
    say "  systemctl enable --now trio-wsb"
    say "  trio-wsb status"
    ;;
uninstall) uninstall ;;
*)
    say "install.sh install|uninstall [PYTHON]" >&2
    exit 2
    ;;
esac
