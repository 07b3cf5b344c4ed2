#!/usr/bin/env bash
# MoNCE, Table 1: unpaired, on CUT's networks.
source "$(dirname "$0")/table.sh"
table monce_table1 cityscapes_unpaired horse2zebra winter2summer
row monce/table1/gan
row monce/table1/cycle
row monce/table1/patchnce
row monce/table1/weightnce
row monce/table1/monce
run_table "$@"
