#!/usr/bin/env bash
# CFL, Table 1: six losses on four data sets. Options: scripts/table.sh.
source "$(dirname "$0")/table.sh"
table cfl_table1 cityscapes gta ade20k nyu_depth
row cfl/table1/pixel_l1
row cfl/table1/pixel_patchnce
row cfl/table1/vgg_l1 smoke:encoder=effnet_lite0
row cfl/table1/vgg_patchnce smoke:encoder=effnet_lite0
row cfl/table1/vgg_gan_l1 smoke:encoder=effnet_lite0
row cfl/table1/vgg_gan_patchnce smoke:encoder=effnet_lite0
run_table "$@"
