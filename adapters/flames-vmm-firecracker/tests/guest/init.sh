#!/bin/busybox sh
# The guest of the driver's tests: speaks the boot channel over the serial console and behaves as the greeting
# says ("test":"MODE"). One line "tick N" on the console shows that the virtual CPU runs.
# It says hello until it is greeted, so that a clone of a guest that waits for its greeting behaves as one that
# was booted. Built-in commands only where it can be: on a host that emulates guest kernels a fork costs seconds.
/bin/busybox mount -t proc proc /proc
/bin/busybox stty -F /dev/ttyS0 -icanon -echo -isig -icrnl min 1
exec 3<>/dev/ttyS0

record=$(/bin/busybox printf '\036flames ')
say() { echo "$record$1" >&3; }

# A line from the host, if its first byte is there within $1 seconds. The rest has its time: it may come slowly.
hear() {
    line=
    read -r -t "$1" -n 1 first <&3 && read -r rest <&3 && line=$first$rest
}

# Ticks for ever; obeys a request to power off if told to.
tick() {
    count=0
    while :; do
        count=$((count + 1))
        echo "tick $count"
        hear 0.05
        [ "$1" = obey ] && [ "$line" = '{"shutdown":true}' ] && echo "powering off" && power_off
    done
}
power_off() { exec /bin/busybox reboot -f; }
pause() { read -r -t 0.1 ignored <&3; }

# Says hello until it is greeted.
greet() {
    greeting=
    while [ -z "$greeting" ]; do
        say '{"hello":true}'
        hear 1
        greeting=$line
    done
}

# One request to the metadata service: the answer's first line, then its last.
ask() {
    /bin/busybox printf "$1 HTTP/1.1\r\n$2\r\n\r\n" | /bin/busybox nc 169.254.169.254 80 | {
        read -r first
        while read -r next; do last=$next; done
        echo "$first $last$next"
    }
}
metadata() {
    /bin/busybox ifconfig eth0 169.254.1.1 netmask 255.255.0.0 up
    echo "without a token: $(ask 'GET /region' 'Accept: text/plain')."
    token=$(ask 'PUT /latest/api/token' 'X-metadata-token-ttl-seconds: 60')
    echo "with a token: $(ask 'GET /region' "X-metadata-token: ${token##* }")."
}

greet
# From here the tests take their snapshot.
case $greeting in *'"template"'*) say '{"ready":true,"version":"test"}'; greet ;; esac
echo "greeting has ${#greeting} bytes"
case $greeting in
*'"ready"'*) say '{"ready":true,"version":"test"}'; tick obey ;;
*'"deaf"'*) say '{"ready":true,"version":"test"}'; tick ignore ;;
*'"refuses"'*) say '{"error":"the test guest refuses"}'; tick ignore ;;
*'"panics"'*) say '{"ready":true,"version":"test"}'; pause; exit 1 ;;
*'"powers-off"'*) say '{"ready":true,"version":"test"}'; pause; power_off ;;
*'"dies"'*) power_off ;;
*'"chatty"'*)
    say '{"ready":true,"version":"test"}'
    # 18 KB, more than the console's limit: each byte is an exit of the virtual CPU.
    number=0
    while [ $number -lt 150 ]; do
        number=$((number + 1))
        echo "$number .................................................................................................................."
    done
    echo "the last line"
    tick obey ;;
*'"metadata"'*) say '{"ready":true,"version":"test"}'; metadata; tick obey ;;
*'"mute"'*) tick ignore ;;
esac
