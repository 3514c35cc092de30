#!/bin/sh
# Asks /ready of all replicas at once, a second after the last answer (after 2 s none comes any
# more), and takes replicas that are not ready out of nginx.
# nginx (unlike nginx Plus) does not ask by itself.
#
#     kiku-ready.sh /etc/nginx/kiku-replicas.conf 10.0.0.11:8080 10.0.0.12:8080
#
# Open sockets go on: nginx keeps the processes that have them. If no replica is ready, all stay in,
# so that clients get their 503 and not nginx's 502. RELOAD is the command that reloads nginx.

set -eu
file=$1
shift

while :; do
    ready=$(
        for address in "$@"; do
            curl --silent --fail --max-time 2 --output /dev/null "http://$address/ready" &&
                printf ' %s ' "$address" &
        done
        wait
    )
    [ -n "$ready" ] || ready=" $* "
    list=$(
        for address in "$@"; do
            case " $ready " in
                *" $address "*) echo "server $address max_fails=0;" ;;
                *) echo "server $address max_fails=0 down;" ;;
            esac
        done
    )
    if [ "$list" != "$(grep -v '^#' "$file" 2>/dev/null)" ]; then
        printf '%s\n' "$list" >"$file.new"
        mv "$file.new" "$file"
        ${RELOAD:-nginx -s reload} || true
    fi
    sleep 1
done
