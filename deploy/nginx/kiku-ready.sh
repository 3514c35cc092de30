#!/bin/sh
# Asks /ready of every replica once a second, and takes replicas that are not ready out of nginx.
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
    list='' any=''
    for address in "$@"; do
        if curl --silent --fail --max-time 2 --output /dev/null "http://$address/ready"; then
            any=yes
            list="${list}server $address max_fails=0;
"
        else
            list="${list}server $address max_fails=0 down;
"
        fi
    done
    [ -n "$any" ] || list=$(printf '%s' "$list" | sed 's/ down;/;/')
    list=${list%
}
    if [ "$list" != "$(cat "$file" 2>/dev/null)" ]; then
        printf '%s\n' "$list" >"$file.new"
        mv "$file.new" "$file"
        ${RELOAD:-nginx -s reload} || true
    fi
    sleep 1
done
