#!/bin/sh
# Ray starts the binary named by RAY_SERVE_HAPROXY_BINARY_PATH; named there, this script mends the configuration that
# Ray wrote and becomes the real HAProxy. Two things Ray has no setting for:
# - Its template opens the statistics and metrics ports on all interfaces, without a password: bound to loopback here.
# - All context reads of one customer (`/api/v1/customers/ID/...`) prefer one replica, whose L1 cache then has them. A
#   replica that goes away moves only its own customers, and one with 1.5 times the average load sheds the rest.
set -eu
previous=""
for argument in "$@"; do
    if [ "$previous" = "-f" ]; then
        sed -i \
            -e 's/^\( *bind\) \*:/\1 127.0.0.1:/' -e 's/^\( *bind\) :/\1 127.0.0.1:/' \
            -e '/^backend http-context$/a\    balance hash path,word(4,/)\n    hash-type consistent\n    hash-balance-factor 150' \
            "$argument"
    fi
    previous="$argument"
done
# HAProxy would outlive a killed Ray and keep the port: the kernel ends it with the process that started it.
if command -v setpriv >/dev/null; then
    exec setpriv --pdeathsig TERM "$HAPROXY_BINARY" "$@"
fi
exec "$HAPROXY_BINARY" "$@"
