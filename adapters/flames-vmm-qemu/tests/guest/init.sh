#!/bin/busybox sh
# The guest of the driver's tests: speaks the boot channel and behaves as `flames.test=` on the kernel command
# line says. One line "tick N" on the console every 50 ms shows that the virtual CPU runs.
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys

mode=ready
for word in $($busybox cat /proc/cmdline); do
    case $word in flames.test=*) mode=${word#flames.test=} ;; esac
done
# On a busy host QEMU answers for its ports after the kernel has started this program without a console.
until [ -n "$($busybox cat /sys/class/tty/console/active)" ]; do $busybox usleep 2000; done
exec </dev/console >/dev/console 2>&1
device=
until [ -n "$device" ]; do
    for port in /sys/class/virtio-ports/*; do
        [ "$($busybox cat "$port/name" 2>/dev/null)" = flames.boot ] && device=/dev/${port##*/}
    done
done
exec 3<>"$device"

power_off() { $busybox reboot -f; }
panic() { echo c >/proc/sysrq-trigger; }
say_ready() { echo '{"ready":true,"version":"test"}' >&3; }

# Ends the guest when it is asked to. A process of its own: while the host is away a read returns at once, and one
# that begins just when the host comes back waits for its next word.
obey() {
    while :; do
        read -r line <&3 || $busybox usleep 20000
        [ "$line" = '{"shutdown":true}' ] && echo "powering off" && power_off
    done
}

# Ticks for ever.
tick() {
    count=0
    while :; do
        count=$((count + 1))
        echo "tick $count"
        $busybox usleep 50000
    done
}

while ! read -r greeting <&3; do $busybox usleep 2000; done
echo "greeting has ${#greeting} bytes"
case $mode in
ready) say_ready; { obey & tick; } ;;
deaf) say_ready; tick ;;
refuses) echo '{"error":"the test guest refuses"}' >&3; tick ;;
babbles) $busybox yes x | $busybox tr -d '\n' >&3 ;;
panics) say_ready; $busybox usleep 100000; panic ;;
panics-later) say_ready; $busybox sleep 3; panic ;;
powers-off) say_ready; $busybox usleep 100000; power_off ;;
dies) power_off ;;
# Says its last line until somebody listens: what it says while no daemon is there is lost.
chatty) say_ready; $busybox seq 1 40000; { obey & while :; do echo "the last line"; $busybox usleep 50000; done; } ;;
mute) tick ;;
esac
