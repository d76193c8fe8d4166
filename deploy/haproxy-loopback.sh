#!/bin/sh
# Ray Serve's HAProxy template opens its statistics and metrics ports on all interfaces, without a password.
# Ray starts the binary named by RAY_SERVE_HAPROXY_BINARY_PATH; named there, this script binds both to loopback
# in the configuration it is given and becomes the real HAProxy.
set -eu
previous=""
for argument in "$@"; do
    if [ "$previous" = "-f" ]; then
        sed -i -e 's/^\( *bind\) \*:/\1 127.0.0.1:/' -e 's/^\( *bind\) :/\1 127.0.0.1:/' "$argument"
    fi
    previous="$argument"
done
# HAProxy would outlive a killed Ray and keep the port: the kernel ends it with the process that started it.
if command -v setpriv >/dev/null; then
    exec setpriv --pdeathsig TERM "$LOOPBACK_HAPROXY_BINARY" "$@"
fi
exec "$LOOPBACK_HAPROXY_BINARY" "$@"
