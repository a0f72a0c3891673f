#!/usr/bin/env bash
# Compares the built-in proxy with nginx and Caddy: one upstream, one load generator, alternating in one run.
#
#   bench/proxy.sh [ROUNDS] [SECONDS] [CONNECTIONS]
#
# Needs nginx, caddy and wrk (Debian packages of these names). Uses free ports of loopback and a temporary
# folder; ends what it starts, by process id.
set -euo pipefail

rounds=${1:-3} seconds=${2:-5} connections=${3:-32}
root=$(cd "$(dirname "$0")/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
for tool in nginx caddy wrk; do
    command -v "$tool" >/dev/null || PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || { echo "install $tool" >&2; exit 1; }
done
PATH=$PATH:/usr/sbin

cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p flames-ingress-proxy --example proxy

work=$(mktemp -d)
pids=()
declare -A pid_of
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
upstream=$(free_port) flames=$(free_port) nginx=$(free_port) caddy=$(free_port)

nginx_config() { # name, http block
    mkdir -p "$work/$1"
    cat >"$work/$1/nginx.conf" <<EOF
worker_processes 2;
pid $work/$1/pid;
error_log $work/$1/error.log crit;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path $work/$1/body; proxy_temp_path $work/$1/proxy; fastcgi_temp_path $work/$1/fastcgi;
    uwsgi_temp_path $work/$1/uwsgi; scgi_temp_path $work/$1/scgi;
    $2
}
EOF
    nginx -e "$work/$1/error.log" -p "$work/$1" -c "$work/$1/nginx.conf" -g 'daemon off;' &
    pids+=($!) pid_of[$1]=$!
}

body=$(printf 'x%.0s' {1..256})
nginx_config upstream "server { listen 127.0.0.1:$upstream; location / { return 200 '$body'; } }"
nginx_config nginx "upstream tiny { server 127.0.0.1:$upstream; keepalive 256; keepalive_requests 1000000; }
    server {
        listen 127.0.0.1:$nginx; server_name bench.example.com;
        location / {
            proxy_pass http://tiny; proxy_http_version 1.1; proxy_set_header Connection '';
            proxy_set_header Host \$host; proxy_set_header X-Forwarded-For \$remote_addr;
            proxy_set_header X-Forwarded-Proto \$scheme; proxy_set_header X-Forwarded-Host \$host;
            proxy_set_header Via '1.1 nginx'; proxy_buffering off; proxy_request_buffering off;
        }
    }"

cat >"$work/caddy.json" <<EOF
{"admin": {"disabled": true}, "logging": {"logs": {"default": {"level": "ERROR"}}}, "apps": {"http": {"servers": {"bench": {
  "listen": ["127.0.0.1:$caddy"], "automatic_https": {"disable": true},
  "routes": [{"match": [{"host": ["bench.example.com"]}], "handle": [{"handler": "reverse_proxy",
    "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": 256}},
    "upstreams": [{"dial": "127.0.0.1:$upstream"}]}]}]}}}}}
EOF
HOME=$work XDG_CONFIG_HOME=$work XDG_DATA_HOME=$work caddy run --config "$work/caddy.json" 2>"$work/caddy.log" &
pids+=($!) pid_of[caddy]=$!

mkfifo "$work/open"
"$CARGO_TARGET_DIR/release/examples/proxy" "127.0.0.1:$flames" "bench.example.com=127.0.0.1:$upstream" <"$work/open" >"$work/proxy.log" &
pids+=($!) pid_of[flames]=$!
exec 9>"$work/open" # the proxy lives as long as this is open

until_up() {
    for _ in $(seq 100); do
        curl -so /dev/null -H 'Host: bench.example.com' "http://127.0.0.1:$1/" && return
        sleep 0.1
    done
    echo "nobody answers on port $1" >&2
    return 1
}
for port in "$upstream" "$flames" "$nginx" "$caddy"; do until_up "$port"; done

ticks() { # pid: processor time of it and its children, in 10 ms
    cat "/proc/$1/stat" $(pgrep -P "$1" | sed 's,.*,/proc/&/stat,') | awk '{ sum += $14 + $15 } END { print sum }'
}

measure() { # name, port, pid
    local before after
    before=$(ticks "$3")
    wrk -t 1 -c "$connections" -d "${seconds}s" --latency -H 'Host: bench.example.com' "http://127.0.0.1:$2/" >"$work/wrk"
    after=$(ticks "$3")
    awk -v name="$1" -v ticks=$((after - before)) '
        /^ *50%/ { p50 = $2 } /^ *99%/ { p99 = $2 } /^Requests\/sec/ { rate = $2 } / requests in / { count = $1 } /Non-2xx|Socket errors/ { fault = $0 }
        END { printf "| %s | %.0f | %s | %s | %.1f | %s |\n", name, rate, p50, p99, ticks * 10000 / count, fault }' "$work/wrk"
}

echo "$(nproc) cores, load $(cut -d' ' -f1-3 /proc/loadavg) before; $connections connections, $seconds s a run, 256 byte answers"
echo "| server | requests/s | p50 | p99 | processor µs per request | faults |"
echo "|---|---|---|---|---|---|"
for _ in $(seq "$rounds"); do
    measure flames "$flames" "${pid_of[flames]}"
    measure nginx "$nginx" "${pid_of[nginx]}"
    measure caddy "$caddy" "${pid_of[caddy]}"
done
echo "load $(cut -d' ' -f1-3 /proc/loadavg) after"
