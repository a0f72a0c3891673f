#!/bin/bash
# Packs a tree into an erofs image, the same bytes for the same tree.
#
# usage: pack.sh TREE IMAGE INPUTS [MKFS_OPTION]...
#
# The UUID is made of INPUTS (the 32 hex digits that name the build), so an image tells where it comes from. One fixed
# time for all files keeps clocks out and allows erofs' compact inodes; nothing in an image may depend on file times.
set -euo pipefail

tree=$1
image=$2
inputs=$3
shift 3

uuid=${inputs:0:8}-${inputs:8:4}-${inputs:12:4}-${inputs:16:4}-${inputs:20:12}
rm -f "$image.part"
# -x-1 drops extended attributes: the build machine's security labels must not reach the image.
mkfs.erofs --quiet -T 1735689600 -U "$uuid" -x-1 -Eforce-inode-compact "$@" "$image.part" "$tree"
mv "$image.part" "$image"
