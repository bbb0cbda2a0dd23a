#!/bin/sh
# Ranks on hosts of your own: HOSTS as node1:4,node2:4, where node1 is this one or any that it can ssh to.
ranks=$(echo "$HOSTS" | tr ',' '\n' | awk -F: '{ sum += $2 } END { print sum }')
exec mpiexec -hosts "$HOSTS" -n "$ranks" python train.py "$@"
