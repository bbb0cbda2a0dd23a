#!/bin/sh
# Run "$@" under MPICH's launcher on two hosts that are network namespaces, with RANKS (2) on the first and 1 on the second; what
# either sends is limited to RATE (such as 100mbit), if given.
# Usage, in a network and mount namespace of its own: namespaces.sh MPIEXEC FOLDER COMMAND...; with "-" for MPIEXEC the command is run as
# it is, on the first host, with what Open MPI's launcher needs to find the other one, 10.77.0.2.
set -e
mpiexec=$1 folder=$2
shift 2
ip link add first type veth peer name second
unshare --net sleep 600 &
other=$!
# Until that process has a network of its own.
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
# A launcher that could not reach the other host has left its processes there.
space=$(readlink /proc/$other/ns/net)
trap 'for of in /proc/[0-9]*; do if [ "$(readlink $of/ns/net)" = "$space" ]; then kill -9 ${of#/proc/}; fi; done 2>/dev/null' EXIT
ip link set second netns $other
ip addr add 10.77.0.1/24 dev first
ip link set lo up
ip link set first up
limit() { if [ -n "$RATE" ]; then "$@" tc qdisc add dev "$link" root tbf rate "$RATE" burst 128kb latency 500ms; fi; }
link=first limit
link=second limit nsenter --net=/proc/$other/ns/net
nsenter --net=/proc/$other/ns/net sh -c 'ip addr add 10.77.0.2/24 dev second; ip link set second up; ip link set lo up'
# The launcher calls it as a remote shell: options, host, command.
cat > "$folder/shell" <<END
#!/bin/sh
while [ "\${1#10.}" = "\$1" ]; do shift; done
host=\$1
shift
if [ "\$host" = 10.77.0.2 ]; then exec nsenter --net=/proc/$other/ns/net unshare --uts --ipc sh -c "hostname second; \$*"; fi
exec sh -c "\$*"
END
chmod +x "$folder/shell"
if [ "$mpiexec" = - ]; then
  export PRTE_MCA_plm_ssh_agent="$folder/shell" PRTE_MCA_prte_if_include=10.77.0.0/24 OMPI_MCA_btl_tcp_if_include=10.77.0.0/24
  "$@"
  exit
fi
"$mpiexec" -launcher ssh -launcher-exec "$folder/shell" -iface first -hosts "10.77.0.1:${RANKS:-2},10.77.0.2:1" -n $((${RANKS:-2} + 1)) "$@"
# So that it can be seen that messages went this way.
sed -n "s/^ *first: *\([0-9]*\) .*/\1/p" /proc/net/dev > "$folder/received"
