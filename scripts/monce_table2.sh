#!/usr/bin/env bash
# MoNCE, Table 2: unpaired, self-similarity (F/LSeSim).
source "$(dirname "$0")/table.sh"
table monce_table2 horse2zebra winter2summer
row monce/table2/random_sesim smoke:encoder=effnet_lite0
row monce/table2/fsesim smoke:encoder=effnet_lite0
row monce/table2/lsesim_patchnce smoke:encoder=effnet_lite0
row monce/table2/lsesim_weightnce smoke:encoder=effnet_lite0
row monce/table2/lsesim_monce smoke:encoder=effnet_lite0
run_table "$@"
