# What makes a machine a node of a cloudlet: a program for sh. The lines before this say which.
set -eu
PATH="$PATH:/usr/sbin:/sbin:/snap/bin"
missing=0

fail() {
    echo "packetcloud: $*" >&2
    exit 2
}

# want TEXT: whether to do it now. With checks only, it is noted as missing.
want() {
    if [ "$only_check" = yes ]; then
        echo "missing: $*" >&2
        missing=1
        return 1
    fi
    echo "making: $*" >&2
}

setting() { # file value
    [ -e "$1" ] || return 0
    [ "$(cat "$1")" = "$2" ] || ! want "$1 = $2" || echo "$2" >"$1"
}

tunnel() { # device number local remote port mtu
    found=$(ip -d -o link show dev "$1" 2>/dev/null || true)
    case "$found" in
    *" mtu $6 "*"vxlan id $2 remote $4 local $3 "*"dstport $5 "*) ;;
    *)
        want "tunnel $1 from $3 to $4" || return 0
        [ -z "$found" ] || ip link delete dev "$1"
        ip link add "$1" mtu "$6" type vxlan id "$2" remote "$4" local "$3" dstport "$5"
        ;;
    esac
}

bridge() { # name mtu uplink
    if [ ! -e "/sys/class/net/$1" ]; then
        want "bridge $1" || return 0
        # An address of its own: otherwise it has that of a port, and another when a VI goes.
        bytes=$(od -An -N5 -tx1 /dev/urandom | tr -s ' ' ':')
        ip link add "$1" address "02$bytes" type bridge mcast_snooping 0
        # Once it was changed, the kernel leaves it alone; otherwise it follows the smallest port.
        ip link set dev "$1" alias packetcloud mtu $(($2 - 1))
    fi
    for name in accept_ra accept_redirects forwarding; do
        setting "/proc/sys/net/ipv6/conf/$1/$name" 0
    done
    setting "/proc/sys/net/ipv4/conf/$1/accept_redirects" 0
    setting "/proc/sys/net/ipv4/conf/$1/forwarding" 0
    setting "/proc/sys/net/ipv4/conf/$1/arp_ignore" 1
    setting "/proc/sys/net/ipv4/conf/$1/rp_filter" 1
    [ "$(cat "/sys/class/net/$1/mtu")" = "$2" ] || ! want "MTU $2 of $1" ||
        ip link set dev "$1" mtu "$2"
    [ -n "$(ip -o link show dev "$1" up)" ] || ! want "$1 up" || ip link set dev "$1" up
    if [ ! -e "/sys/class/net/$3" ]; then
        [ "$only_check" = yes ] || fail "no device $3: [[node]] data_device, control_device"
        want "device $3" || return 0
    fi
    [ "$(readlink "/sys/class/net/$3/master" | sed 's|.*/||')" = "$1" ] ||
        ! want "$3 as a port of $1" || ip link set dev "$3" master "$1"
    [ -n "$(ip -o link show dev "$3" up)" ] || ! want "$3 up" || ip link set dev "$3" up
}

filters() { # table, its script on standard input
    kept="/run/packetcloud-$1"
    wanted=$(cat)
    if [ "$(cat "$kept.wanted" 2>/dev/null)" = "$wanted" ] &&
        [ "$(filters_now "$1")" = "$(cat "$kept.made" 2>/dev/null)" ]; then
        return 0
    fi
    want "tables $1 of nftables" || return 0
    echo "$wanted" | nft -f -
    echo "$wanted" >"$kept.wanted"
    filters_now "$1" >"$kept.made"
}

filters_now() {
    nft -s list table inet "$1" 2>/dev/null || true
    nft -s list table bridge "$1" 2>/dev/null || true
}

project() { # name, its settings on standard input
    if ! lxc project show "$1" >/dev/null 2>&1; then
        want "LXD's project $1" || return 0
        lxc project create "$1" -c features.images=true -c features.profiles=true >/dev/null
    fi
    while read -r key value; do
        [ "$(lxc project get "$1" "$key" </dev/null)" = "$value" ] ||
            ! want "$key = $value of LXD's project $1" ||
            lxc project set "$1" "$key" "$value" </dev/null
    done
}

pool() { # name
    lxc storage show "$1" >/dev/null 2>&1 || ! want "LXD's storage pool $1, btrfs in a file" ||
        lxc storage create "$1" btrfs >/dev/null
}

listen() { # port
    [ -n "$(lxc config get core.https_address)" ] || ! want "LXD listening on port $1" ||
        lxc config set core.https_address "[::]:$1"
}

trust() { # SHA-256 of the certificate, the certificate on standard input
    case "$(lxc config trust list --format csv)" in
    *"$(echo "$1" | cut -c 1-12)"*) ;;
    *)
        want "trust in the controller's certificate" || return 0
        file=$(mktemp)
        cat >"$file"
        lxc config trust add "$file" --name "$2" >/dev/null
        rm -f "$file"
        ;;
    esac
}

certificate() {
    [ "$only_check" = yes ] ||
        lxc info | sed -n '/^  certificate: |/,/END CERTIFICATE/p' | sed -e 1d -e 's/^ *//'
}

[ "$(id -u)" = 0 ] || fail "this needs root: ... | ssh root@MACHINE sh, or ... | sudo sh"
for command in ip nft $needs_lxc; do
    command -v "$command" >/dev/null ||
        fail "this needs the command $command: apt-get install iproute2 nftables lxd"
done
